"""Insertion and deletion: does the classifier hang on the pixels that a map calls important? Needs no mask."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from raremix.core.errors import ConfigError, DataError
from raremix.core.random import rng
from raremix.explain.network import images_for, logits_of, undisturbed

BLUR = 5 / 224
"""Standard deviation of the blur that insertion starts from, as a share of the side, as in the paper."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InsertionDeletion:
    """How the probability of the asked classes moves as pixels come or go, the most important first.

    Attributes:
        insertion: probability with the first 0, 1/steps ... 1 of the pixels of the image, the rest blurred.
        deletion: probability with the same pixels replaced by the image's mean colour.
    """

    insertion: Float[Tensor, "B T"]
    deletion: Float[Tensor, "B T"]

    @property
    def inserted(self) -> Float[Tensor, " B"]:
        """Area under the insertion curve, in [0, 1]; higher is better."""
        return torch.trapezoid(self.insertion, dx=1 / (self.insertion.shape[1] - 1), dim=1)

    @property
    def deleted(self) -> Float[Tensor, " B"]:
        """Area under the deletion curve, in [0, 1]; lower is better."""
        return torch.trapezoid(self.deletion, dx=1 / (self.deletion.shape[1] - 1), dim=1)


def insertion_deletion(
    model: nn.Module,
    images: Float[Tensor, "B C H W"],
    targets: Float[Tensor, "B K"],
    maps: Float[Tensor, "B 1 h w"],
    *,
    steps: int = 20,
    seed: int = 0,
    probabilities: Callable[[Tensor], Tensor] | None = None,
) -> InsertionDeletion:
    """Insert and delete the pixels of images in the order of their maps [1].

    [1] Petsiuk, Das, Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018,
    https://arxiv.org/abs/1806.07421. Departures: pixels are deleted to the image's own mean colour, not to that of a
    data set; several classes are asked about at once, weighted by the targets. Pixels of equal importance come in one
    random order, the same for every map and image: a flat map is that order.

    Both figures are of images that no camera takes, where a classifier may say anything; a map that beats a flat one in
    one of the two only has shown little.

    Args:
        model: images in [0, 1] -> logits.
        images: values in [0, 1].
        targets: the classes whose probability is watched; NaN and 0 are not. A row without any has NaN.
        maps: importance, as large as the images.
        steps: of the curves; 2 steps + 2 forward passes per image.
        seed: of the order of equal pixels.
        probabilities: from logits; softmax by default, `torch.sigmoid` for multi-label classifiers.

    Raises:
        ConfigError: if steps is below 1.
        DataError: if the maps have another size than the images.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2))
        >>> images, targets = torch.rand(5, 3, 8, 8), torch.eye(2)[[0, 1, 1, 0, 1]]
        >>> insertion_deletion(net, images, targets, torch.rand(5, 1, 8, 8), steps=4).inserted.shape
        torch.Size([5])
    """
    if steps < 1:
        raise ConfigError(f"expected at least one step, got {steps}")
    B, _, H, W = images.shape
    if maps.shape != (B, 1, H, W):
        raise DataError(f"expected maps of shape {(B, 1, H, W)}, got {tuple(maps.shape)}: resize them to the images")
    link = _softmax if probabilities is None else probabilities
    rank = _ranks(maps.detach().flatten(1), seed=seed).reshape(B, 1, H, W)
    with undisturbed(model):
        inputs = images_for(model, images)
        wanted = targets.nan_to_num(0).to(inputs)
        flat, blurred = inputs.mean(dim=(2, 3), keepdim=True), blur(inputs)
        curves: list[list[Tensor]] = [[], []]
        for step in range(steps + 1):
            is_taken = rank < round(step * H * W / steps)
            for curve, shown in zip(
                curves,
                (torch.where(is_taken, inputs, blurred), torch.where(is_taken, flat, inputs)),
                strict=True,
            ):
                found = link(logits_of(model, shown, wanted).float())
                curve.append((found * wanted).sum(dim=1) / wanted.sum(dim=1))
        insertion, deletion = (torch.stack(curve, dim=1) for curve in curves)
    return InsertionDeletion(insertion=insertion, deletion=deletion)


def blur(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Blur images by a Gaussian of 5/224 of their longer side; they are mirrored at the border, as far as they reach.

    Example:
        >>> blur(torch.full((1, 1, 4, 4), 0.5)).unique()
        tensor([0.5000])
    """
    sigma = BLUR * max(images.shape[-2:])
    for axis in (2, 3):
        reach = min(max(1, round(3 * sigma)), images.shape[axis] - 1)
        if reach == 0:
            continue
        offsets = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
        kernel = torch.exp(-(offsets.square()) / (2 * sigma**2))
        kernel = (kernel / kernel.sum()).reshape(1, 1, -1)
        lines = images.movedim(axis, -1)
        padded = functional.pad(lines.flatten(0, 2)[:, None], (reach, reach), mode="reflect")
        images = functional.conv1d(padded, kernel).reshape(lines.shape).movedim(-1, axis)
    return images


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(dim=1)


def _ranks(maps: Float[Tensor, "B P"], *, seed: int) -> Int[Tensor, "B P"]:
    """Return the place of each pixel in the order of importance, equals in one random order."""
    P = maps.shape[1]
    shuffled = torch.from_numpy(rng(seed, "show", P).permutation(P).astype(np.int64)).to(maps.device)
    order = shuffled[maps[:, shuffled].argsort(dim=1, descending=True, stable=True)]
    places = torch.arange(P, device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)
