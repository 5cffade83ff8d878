"""What all adapters do: mix images, labels and masks of a sample whose layout is the caller's."""

import copy
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Num, Shaped
from torch import Tensor

from raremix.core.errors import ConfigError, DataError
from raremix.core.protocols import Mixer, dense_targets
from raremix.core.types import Batch, MixPlan, check_pool

Key = int | str

PoolBatch = Batch | Sequence[Tensor]
"""What partners are drawn from: a batch, or its (images, targets), or (images, targets, is_synthetic)."""


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
    has_pool: bool = False

    def check_rides(self, what: str) -> None:
        """Refuse to mix what partners of a pool do not bring.

        Raises:
            ConfigError: if partners came from a pool.
        """
        if self.has_pool:
            raise ConfigError(
                f"{what} cannot ride along with partners from a pool, which brings none: leave the pool out, or "
                "plan by hand, with plan.apply_masks(masks, pool_masks)"
            )


def mix(
    mixer: Mixer,
    images: Num[Tensor, "B C H W"],
    targets: Shaped[Tensor, " B"] | Shaped[Tensor, "B K"],
    *,
    rng: np.random.Generator,
    pool: PoolBatch | None = None,
    importance: Num[Tensor, "B m h w"] | None = None,
    is_synthetic: Any = None,
) -> Mixed:
    """Mix a batch, 8-bit or float, with itself or with a pool.

    Args:
        mixer: what mixes.
        images, targets: the batch.
        rng: the stream to draw from.
        pool: where partners come from; the batch itself by default. Its images are synthetic, and those of the batch
            are not, unless either says so.
        importance: maps of what matters in each image of the batch, in [0, 1] or 8-bit; None: the mixer draws its own.
        is_synthetic: which images of the batch were generated, (B); None: none of them.

    Raises:
        ConfigError: if the mixer mixes inside the network, where no adapter comes.
        DataError: if the images are integers of more than 8 bits, or the pool does not fit the batch.
    """
    batch = others = Batch(
        images=as_floats(images),
        targets=dense_targets(targets, num_classes=mixer.num_classes),
        importance=None if importance is None else as_floats(importance),
        is_synthetic=None if is_synthetic is None else torch.as_tensor(is_synthetic).bool(),
    )
    if pool is not None:
        others = _as_pool(pool, like=images, num_classes=mixer.num_classes)
        check_pool(batch, others)
        if batch.is_synthetic is None:
            batch = replace(batch, is_synthetic=torch.zeros(len(images), dtype=torch.bool))
    plan = mixer.plan(batch, others, rng=rng)
    if plan.at is not None:
        raise ConfigError(
            f"{type(mixer).__name__} mixes inside the network, after its module {plan.at!r}: call "
            "raremix.core.features.forward_mixed in your training step instead of an adapter"
        )
    mixed = plan.apply(batch, others)
    return Mixed(images=as_given(mixed.images, images), targets=mixed.targets, plan=plan, has_pool=pool is not None)


def _as_pool(pool: PoolBatch, *, like: Tensor, num_classes: int | None) -> Batch:
    """Return a pool's batch as floats, on the device of the images that it is mixed with."""
    if isinstance(pool, Batch):
        pool = pool.to(like.device)
        generated = torch.ones(len(pool.images), dtype=torch.bool)
        return pool if pool.is_synthetic is not None else replace(pool, is_synthetic=generated)
    if not isinstance(pool, (list, tuple)) or len(pool) not in {2, 3}:
        raise DataError(
            f"a pool yields (images, targets), (images, targets, is_synthetic) or a Batch, got {type(pool).__name__}: "
            "give it a collate_fn that makes one of these"
        )
    images, targets, *rest = pool
    if images.is_floating_point() != like.is_floating_point():
        raise DataError(
            f"images of the pool are {images.dtype}, those of the batch {like.dtype}: bring both to the same scale"
        )
    is_synthetic = torch.as_tensor(rest[0]).bool() if rest else torch.ones(len(images), dtype=torch.bool)
    return Batch(
        images=as_floats(images),
        targets=dense_targets(targets, num_classes=num_classes),
        is_synthetic=is_synthetic,
    ).to(like.device)


def mix_sample(
    mixer: Mixer,
    sample: Any,
    *,
    images: Key = 0,
    targets: Key = 1,
    masks: Key | None = None,
    importance: Key | None = None,
    is_synthetic: Key | None = None,
    rng: np.random.Generator,
    pool: PoolBatch | None = None,
) -> Any:
    """Mix the images, targets and masks of a batch in a tuple, list or mapping; the rest stays with the own images.

    Args:
        mixer: what mixes.
        sample: what a DataLoader yields.
        images, targets, masks: positions, from the end if they are negative, or keys; segmentation masks are (B, H, W)
            or (B, M, H, W).
        importance, is_synthetic: likewise, where maps of what matters in each image are, and which images were
            generated; None: nowhere.
        rng: the stream to draw from.
        pool: where partners come from; the batch itself by default.

    Returns:
        A container of the same type.

    Raises:
        ConfigError: if two of them are said to be in the same place, or masks cannot be mixed.
        DataError: if the sample is no tuple, list or mapping, or has nothing in one of the places.
    """
    given = {"images": images, "targets": targets, "masks": masks}
    given |= {"importance": importance, "is_synthetic": is_synthetic}
    places = {name: place_of(sample, key) for name, key in given.items() if key is not None}
    if len(set(places.values())) < len(places):
        raise ConfigError(f"two parts of a batch in one place: {places}; say where each of them is")
    part = {name: sample[place] for name, place in places.items()}
    mixed = mix(
        mixer,
        part["images"],
        part["targets"],
        rng=rng,
        pool=pool,
        importance=part.get("importance"),
        is_synthetic=part.get("is_synthetic"),
    )
    rows = len(part["images"])
    new = {places["images"]: mixed.images, places["targets"]: mixed.targets}
    if "masks" in part:
        mixed.check_rides("masks")
        new[places["masks"]] = mix_masks(mixed.plan, part["masks"])
    keys = list(sample) if isinstance(sample, Mapping) else range(len(sample))
    values = {key: new[key] if key in new else follow_own(sample[key], mixed.plan, rows=rows) for key in keys}
    return rebuilt_mapping(sample, values) if isinstance(sample, Mapping) else rebuilt(sample, list(values.values()))


def mix_masks(plan: MixPlan, masks: Shaped[Tensor, "B H W"] | Shaped[Tensor, "B M H W"]) -> Tensor:
    """Mix segmentation masks by a plan; see `MixPlan.apply_masks`."""
    return plan.apply_masks(masks[:, None])[:, 0] if masks.ndim == 3 else plan.apply_masks(masks)


def place_of(sample: Any, key: Key) -> Key:
    """Return where a part of a sample is: a key that it has, or a position from its start.

    Raises:
        DataError: if it has none such.
    """
    if isinstance(sample, Mapping):
        if key in sample:
            return key
        what = f"keys {list(sample)}"
    elif isinstance(sample, (list, tuple)):
        if isinstance(key, int) and -len(sample) <= key < len(sample):
            return key % len(sample)
        what = f"positions 0 to {len(sample) - 1} (a {type(sample).__name__})"
    else:
        raise DataError(f"a batch must be a tuple, a list or a mapping, got {type(sample).__name__}: collate it so")
    raise DataError(
        f"no {key!r} in the batch, which has {what}: say where images and targets are, as in "
        'images="image", targets="label"'
    )


def follow_own(value: Any, plan: MixPlan, *, rows: int) -> Any:
    """Return what belongs to the own images of a plan's rows, where a value has one entry for each of a batch's images.

    Values are passed on as they are where every image keeps its place, as with most mixers. Containers of something
    else than one entry per image are looked into.
    """
    own = plan.own.cpu()
    if torch.equal(own, torch.arange(rows)):
        return value
    return _followed(value, own, rows=rows)


def _followed(value: Any, own: Tensor, *, rows: int) -> Any:
    if isinstance(value, (Tensor, np.ndarray)):
        if not value.ndim or len(value) != rows:
            return value
        return value.index_select(0, own.to(value.device)) if isinstance(value, Tensor) else value[own.numpy()]
    if isinstance(value, Mapping):
        return rebuilt_mapping(value, {key: _followed(entry, own, rows=rows) for key, entry in value.items()})
    if isinstance(value, (list, tuple)):
        if len(value) == rows:
            return rebuilt(value, [value[i] for i in own.tolist()])
        return rebuilt(value, [_followed(entry, own, rows=rows) for entry in value])
    return value


def rebuilt_mapping(mapping: Mapping[Any, Any], values: dict[Any, Any]) -> Any:
    """Return values under the keys of a mapping, in one of the same type."""
    if isinstance(mapping, MutableMapping):
        new = copy.copy(mapping)  # keeps what else belongs to it, such as the factory of a defaultdict
        new.update(values)
        return new
    kind: Any = type(mapping)
    return kind(values)


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
