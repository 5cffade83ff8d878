"""What all adapters do: mix images, labels and masks of a sample whose layout is the caller's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Num, Shaped
from torch import Tensor

from raremix.core.errors import ConfigError, DataError
from raremix.core.protocols import Mixer, dense_targets
from raremix.core.types import Batch, MixPlan

Key = int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """Images and targets after mixing, and the plan, by which more can be mixed.

    Attributes:
        images: of the type that was given: 8-bit images come back as such, rounded.
        targets: floats.
        plan: who was mixed with whom, and where.
    """

    images: Num[Tensor, "R C H W"]
    targets: Float[Tensor, "R K"]
    plan: MixPlan


def mix(
    mixer: Mixer,
    images: Num[Tensor, "B C H W"],
    targets: Shaped[Tensor, " B"] | Shaped[Tensor, "B K"],
    *,
    rng: np.random.Generator,
) -> Mixed:
    """Mix a batch, 8-bit or float, with itself.

    Raises:
        ConfigError: if the mixer mixes inside the network, where no adapter comes.
        DataError: if the images are integers of more than 8 bits.
    """
    batch = Batch(images=as_floats(images), targets=dense_targets(targets, num_classes=mixer.num_classes))
    plan = mixer.plan(batch, batch, rng=rng)
    if plan.at is not None:
        raise ConfigError(
            f"{type(mixer).__name__} mixes inside the network, after its module {plan.at!r}: call "
            "raremix.core.features.forward_mixed in your training step instead of an adapter"
        )
    mixed = plan.apply(batch)
    return Mixed(images=as_given(mixed.images, images), targets=mixed.targets, plan=plan)


def mix_sample(
    mixer: Mixer,
    sample: Any,
    *,
    images: Key = 0,
    targets: Key = 1,
    masks: Key | None = None,
    rng: np.random.Generator,
) -> Any:
    """Mix the images, targets and masks of a batch in a tuple, list or mapping; the rest stays with the own images.

    Args:
        sample: what a DataLoader yields.
        images, targets, masks: positions or keys; segmentation masks are (B, H, W) or (B, M, H, W).
        rng: the stream to draw from.

    Returns:
        A container of the same type.
    """
    mixed = mix(mixer, take(sample, images), take(sample, targets), rng=rng)
    rows = len(take(sample, images))
    new = {images: mixed.images, targets: mixed.targets}
    if masks is not None:
        new[masks] = mix_masks(mixed.plan, take(sample, masks))
    keys = list(sample) if isinstance(sample, Mapping) else range(len(sample))
    values = {key: new[key] if key in new else follow_own(take(sample, key), mixed.plan, rows=rows) for key in keys}
    if isinstance(sample, Mapping):
        return values
    return rebuilt(sample, list(values.values()))


def mix_masks(plan: MixPlan, masks: Shaped[Tensor, "B H W"] | Shaped[Tensor, "B M H W"]) -> Tensor:
    """Mix segmentation masks by a plan; see `MixPlan.apply_masks`."""
    return plan.apply_masks(masks[:, None])[:, 0] if masks.ndim == 3 else plan.apply_masks(masks)


def take(sample: Any, key: Key) -> Any:
    """Return a part of a sample by position or key.

    Raises:
        DataError: if it has none such.
    """
    try:
        return sample[key]
    except (KeyError, IndexError, TypeError) as error:
        what = f"keys {list(sample)}" if isinstance(sample, Mapping) else f"a {type(sample).__name__}"
        raise DataError(
            f"no {key!r} in the batch, which has {what}: say where images and targets are, as in "
            'images="image", targets="label"'
        ) from error


def follow_own(value: Any, plan: MixPlan, *, rows: int) -> Any:
    """Return what belongs to the own images of a plan's rows, where a value has one entry for each of a batch's images.

    Values are passed on as they are where every image keeps its place, as with most mixers.
    """
    own = plan.own.cpu()
    if torch.equal(own, torch.arange(rows)):
        return value
    if isinstance(value, Tensor) and value.ndim and len(value) == rows:
        return value.index_select(0, own.to(value.device))
    if isinstance(value, (list, tuple)) and len(value) == rows:
        return rebuilt(value, [value[i] for i in own.tolist()])
    return value


def rebuilt(sequence: Sequence[Any], values: list[Any]) -> Any:
    """Return values in a sequence of the same type, also a named tuple."""
    kind: Any = type(sequence)
    return kind(*values) if hasattr(sequence, "_fields") else kind(values)


def as_floats(images: Num[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Return images as floats: 8-bit ones in [0, 1], others as they are.

    Raises:
        DataError: if they are integers of another width.
    """
    if images.is_floating_point():
        return images
    if images.dtype != torch.uint8:
        raise DataError(f"images must be floats or 8-bit, got {images.dtype}: divide by the largest value first")
    return images.float() / 255


def as_given(mixed: Float[Tensor, "R C H W"], images: Num[Tensor, "B C H W"]) -> Num[Tensor, "R C H W"]:
    """Return mixed images in the type of those that were given."""
    return (mixed * 255).round().to(torch.uint8) if images.dtype == torch.uint8 else mixed
