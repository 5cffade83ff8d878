"""Hyperplane difference maps: what has to change until a classifier can no longer tell two classes apart."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from raremix.core.errors import ConfigError
from raremix.core.features import head_of
from raremix.explain.network import images_for, undisturbed
from raremix.explain.scale import working_type

STEPS = 20
"""Bisections: the boundary is known to a millionth of the way."""


@runtime_checkable
class ClassPath(Protocol):
    """A way from each image, as it is drawn unchanged, to the same image of another class."""

    def along(
        self,
        images: Float[Tensor, "B C H W"],
        own: Int[Tensor, " B"],
        other: Int[Tensor, " B"],
        place: Float[Tensor, " B"],
    ) -> Float[Tensor, "B C H W"]:
        """Return the images at a place of the way.

        Args:
            images: values in [0, 1].
            own, other: classes.
            place: 0 is the image's own style, 1 that of the other class.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HyperplaneMaps:
    """Where the way from each image to another class crosses the classifier's boundary between the two.

    Attributes:
        maps: |start - boundary|, mean over channels; NaN where the boundary was not reached.
        start: the images as they are drawn unchanged.
        boundary: the images on the boundary; where it was not reached, at the end of the way.
        place: where on the way, in [0, 1].
        residual: |h| there, in units of features: 0 on the boundary.
        is_reached: whether the way crosses the boundary.
    """

    maps: Float[Tensor, "B 1 H W"]
    start: Float[Tensor, "B C H W"]
    boundary: Float[Tensor, "B C H W"]
    place: Float[Tensor, " B"]
    residual: Float[Tensor, " B"]
    is_reached: Bool[Tensor, " B"]


def signed_distance(
    model: nn.Module, images: Float[Tensor, "B C H W"], *, own: Int[Tensor, " B"], other: Int[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """Return how far features lie from the boundary between two classes; positive on the own class's side.

    h = ((w_own - w_other) phi(x) + b_own - b_other) / |w_own - w_other| of a linear last layer.

    Args:
        model: images in [0, 1] -> logits.
        images: values in [0, 1].
        own, other: classes, which differ.

    Raises:
        ConfigError: if the last layer is not linear, or the two classes are the same or look the same to it.
    """
    head = head_of(model)
    if not isinstance(head, nn.Linear):
        raise ConfigError(
            f"the boundary of two classes is a plane only behind a linear last layer, and this one is a "
            f"{type(head).__name__}: train the classifier without [model] head"
        )
    apart = (head.weight[own] - head.weight[other]).detach().norm(dim=1)
    if (own == other).any() or (apart == 0).any():
        raise ConfigError("own and other class must differ, for the classifier as well")
    with undisturbed(model):
        logits = model(images_for(model, images))
        rows = torch.arange(len(images), device=logits.device)
        return (logits[rows, own] - logits[rows, other]).to(working_type(images)) / apart


def hyperplane_maps(
    model: nn.Module,
    path: ClassPath,
    images: Float[Tensor, "B C H W"],
    *,
    own: Int[Tensor, " B"],
    other: Int[Tensor, " B"],
    steps: int = STEPS,
) -> HyperplaneMaps:
    """Follow each image towards another class, up to where the classifier cannot tell the two apart.

    x(a) is the image at place a of the way; a* is found by bisection so that h(x(a*)) = 0, and the map is
    |x(0) - x(a*)|: the change that the classifier needs, not all the change that the translation makes. Both ends are
    drawn by the translator, so what it cannot draw does not count.

    The idea is VariMix's (https://github.com/yXiangXiong/VariMix), for which there is no code; this is our reading.

    Args:
        model: images in [0, 1] -> logits, with a linear last layer.
        path: the way; a StarGAN translator has one.
        images: values in [0, 1].
        own, other: classes, which differ.
        steps: bisections.

    Raises:
        ConfigError: if the last layer is not linear.
    """
    first, last = torch.zeros(len(images), device=images.device), torch.ones(len(images), device=images.device)
    start = path.along(images, own, other, first)
    end = path.along(images, own, other, last)
    before = signed_distance(model, start, own=own, other=other)
    after = signed_distance(model, end, own=own, other=other)
    is_reached = (before > 0) & (after <= 0)
    for _ in range(steps):
        middle = (first + last) / 2
        is_before = signed_distance(model, path.along(images, own, other, middle), own=own, other=other) > 0
        first, last = torch.where(is_before, middle, first), torch.where(is_before, last, middle)
    place = torch.where(is_reached, last, torch.ones_like(last))
    boundary = path.along(images, own, other, place)
    residual = signed_distance(model, boundary, own=own, other=other).abs()
    maps = (start - boundary).abs().mean(dim=1, keepdim=True)
    return HyperplaneMaps(
        maps=torch.where(is_reached[:, None, None, None], maps, torch.nan),
        start=start,
        boundary=boundary,
        place=place,
        residual=residual,
        is_reached=is_reached,
    )
