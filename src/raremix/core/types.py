"""The types that every layer speaks: a batch of images, and a plan to mix it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from raremix.core.errors import DataError
from raremix.core.masks import mask_for, resize_mask
from raremix.core.pixels import all_rows, blend, blend_by_mask, inside_boxes, lerp, paste, take_rows

Task = Literal["binary", "multiclass", "multilabel"]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, how many are done, how many there are)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Images with their targets.

    Attributes:
        images: values in [0, 1]; normalisation belongs to the model.
        targets: values in [0, 1]; NaN means not labelled.
        ids: manifest rows, the keys of cached importance maps and of provenance.
        importance: maps in [0, 1] of what matters in each image, where they are known beforehand; of any size. One per
            image, or one per class: what would change in the image if it showed that class. Of these, VariMix takes
            the partner's class; other methods take the mean over all classes that the image does not show.
        warp: how each image was warped by augmentation, from output to input coordinates in [-1, 1], so that a map that
            is kept for the image as it was can be warped likewise; None where it was not.
        is_synthetic: which images were generated; None where all are real.
        pool: where partners come from, if they are drawn by a stream of their own; None: the batch itself.
    """

    images: Float[Tensor, "B C H W"]
    targets: Float[Tensor, "B K"]
    ids: Int[Tensor, " B"] | None = None
    importance: Float[Tensor, "B m h w"] | None = None
    warp: Float[Tensor, "B 2 3"] | None = None
    is_synthetic: Bool[Tensor, " B"] | None = None
    pool: "Batch | None" = None

    def to(self, device: torch.device, *, memory_format: torch.memory_format = torch.preserve_format) -> "Batch":
        """Return the batch on a device."""

        def moved(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(device, non_blocking=True)

        return Batch(
            images=self.images.to(device, memory_format=memory_format, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            ids=moved(self.ids),
            importance=moved(self.importance),
            warp=moved(self.warp),
            is_synthetic=moved(self.is_synthetic),
            pool=None if self.pool is None else self.pool.to(device, memory_format=memory_format),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """How one of a mixer's two streams of images is sampled.

    Attributes:
        sampling: a sampler by name ("natural", "balanced", ...); None: as the study samples.
        origin: which images it holds: "real", "synthetic", or "any".
    """

    sampling: str | None = None
    origin: Literal["any", "real", "synthetic"] = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Where a mixer's own images and their partners come from.

    Attributes:
        own: the stream whose rows are mixed.
        pool: the stream that partners are drawn from; None: the batch itself.
        repeat: number of mixed images after which the same ones come again, for a fixed mixed set; None: never.
    """

    own: Stream = Stream()
    pool: Stream | None = None
    repeat: int | None = None


Policy = Literal["interpolate", "union", "threshold"]
"""How the labels of mixed rows combine: their weighted mean; every label that either has; every label whose image keeps
at least a quarter of the pixels."""

VISIBLE = 0.25
"""Weight from which the policy "threshold" counts an image's labels whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Others:
    """What S further images give to each row of a plan, where a method mixes more than two.

    Attributes:
        rows: rows of the pool.
        masks: share of each pixel that comes from each, of the size of the plan's mask.
        weights: share of the label that comes from each.
    """

    rows: Int[Tensor, "R S"]
    masks: Float[Tensor, "R S h w"]
    weights: Float[Tensor, "R S"]

    def each(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the rows (R), masks (R 1 h w) and weights (R) of each further image, the latter two on a device."""
        for s in range(self.rows.shape[1]):
            yield self.rows[:, s], self.masks[:, s : s + 1].to(device), self.weights[:, s].to(device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """One rectangle per row that is filled by the partner; a mask where slicing is cheaper than a map.

    Attributes:
        edges: top, left, bottom and right in pixels, on the CPU; rows top .. bottom - 1 and columns left .. right - 1
            lie inside. 0 <= top <= bottom <= height and 0 <= left <= right <= width.
        height, width: size of the image in pixels.
    """

    edges: Int[Tensor, "4 R"]
    height: int
    width: int

    def share(self) -> Float[Tensor, " R"]:
        """Return the share of its own pixels that each row keeps: pixels outside the box / pixels of the image."""
        edges, pixels = self.edges.numpy(), self.height * self.width
        height, width = edges[2:] - edges[:2]
        return torch.from_numpy(np.divide(pixels - height * width, pixels, dtype=np.float32))

    def to_mask(self, *, device: torch.device | None = None) -> Float[Tensor, "R 1 H W"]:
        """Return the share that each pixel keeps of its own image: 0 inside the box, 1 outside."""
        device = self.edges.device if device is None else device
        return 1.0 - inside_boxes(self.edges, height=self.height, width=self.width, device=device)


@dataclass(frozen=True, slots=True, kw_only=True)
class MixPlan:
    """What to mix: one row of output per row of the plan. The number of rows R need not equal B.

    Attributes:
        own: row of the batch whose pixels the mask keeps.
        partner: row of the pool that fills the rest.
        mask: share each pixel keeps of its own image; 1 x 1 for a blend, a patch grid, or full size.
        weight: share each row keeps of its own label.
        own_images: the own pixels where a method warps them, row by row.
        partner_images: the partner's pixels where a method warps them.
        partner_weight: share of the partner's label; None: what `weight` and `others` leave.
        others: what further images give; the partner fills what `mask` and these leave.
        policy: how the labels combine.
        at: name of the module after which features are mixed instead of images (see `core.features`); None: the images.
    """

    own: Int[Tensor, " R"]
    partner: Int[Tensor, " R"]
    mask: Float[Tensor, "R 1 h w"] | Boxes
    weight: Float[Tensor, " R"]
    own_images: Float[Tensor, "R C H W"] | None = None
    partner_images: Float[Tensor, "R C H W"] | None = None
    partner_weight: Float[Tensor, " R"] | None = None
    others: Others | None = None
    policy: Policy = "interpolate"
    at: str | None = None

    def apply(self, batch: Batch, pool: Batch | None = None) -> Batch:
        """Mix images and targets; the only code that does so, and never in place.

        Args:
            batch: where `own` points.
            pool: where `partner` points; the batch itself by default.

        Returns:
            A new batch of R rows in the memory format of the batch's images; `ids` are those of the own rows.

        Raises:
            DataError: if pool, boxes or warped images do not have the shape of the batch, or images and targets are not
                as many.
        """
        pool = batch if pool is None else pool
        self._check(batch, pool)
        ids = None if batch.ids is None else batch.ids.index_select(0, self.own.to(batch.ids.device))
        images = self._mix(batch.images, pool.images)
        return Batch(images=images, targets=self.apply_targets(batch.targets, pool.targets), ids=ids)

    def apply_targets(
        self, targets: Float[Tensor, "B K"], pool_targets: Float[Tensor, "P K"] | None = None
    ) -> Float[Tensor, "R K"]:
        """Mix targets alone, for where the images are mixed elsewhere.

        Args:
            targets: where `own` points.
            pool_targets: where `partner` points; `targets` by default.
        """
        pool_targets = targets if pool_targets is None else pool_targets
        if self._is_plain(targets, pool_targets):
            mixed = _mix_tables(targets, pool_targets, self)
            if mixed is not None:
                return mixed
        own, partner = take_rows(targets, self.own), take_rows(pool_targets, self.partner)
        weight = self.weight.to(targets.device, non_blocking=True)
        if self.partner_weight is None and self.others is None and self.policy == "interpolate":
            return mix_targets(own, partner, weight)
        parts = [(own, weight)]
        parts += [(take_rows(pool_targets, rows), share) for rows, _, share in self._each(targets.device)]
        rest = 1 - sum((part for _, part in parts), torch.zeros_like(weight))
        # Weights that add up to one but for rounding leave nothing.
        rest = torch.where(rest.abs() < 1e-6, 0.0, rest) if self.partner_weight is None else self.partner_weight
        return combine_targets(*parts, (partner, rest.to(targets.device)), policy=self.policy)

    def apply_features(self, features: Float[Tensor, "B ..."], pool_features: Tensor | None = None) -> Tensor:
        """Mix features by the same plan, for mixing at a layer other than the input.

        Args:
            features: (B, C, h, w) maps; (B, N, D) tokens, of which the last ones fill a grid (see `token_grid`), and
                those before them (class tokens) are blended by each mask's mean; or (B, D) vectors, blended likewise.
            pool_features: where partners come from; `features` by default.

        Returns:
            Mixed features of R rows; the mask is averaged down, or repeated up, to the map's size.
        """
        pool_features = features if pool_features is None else pool_features
        own, partner = take_rows(features, self.own), take_rows(pool_features, self.partner)
        mixed = lerp(partner, own, mask_for(self._whole_mask(features.device), features))
        for rows, mask, _ in self._each(features.device):
            mixed = mixed + mask_for(mask, features).to(mixed.dtype) * (take_rows(pool_features, rows) - partner)
        return mixed

    def apply_masks(self, masks: Shaped[Tensor, "B M H W"], pool_masks: Tensor | None = None) -> Tensor:
        """Mix segmentation masks that belong to the images.

        Args:
            masks: floats (one plane per structure) are mixed as pixels are; integers (class numbers) come from
                whichever image gives most to the pixel.
            pool_masks: where partners come from; `masks` by default.

        Raises:
            DataError: if the method warps images, so that their masks no longer lie where they were.
        """
        if self.own_images is not None or self.partner_images is not None:
            raise DataError("this method warps the pixels: masks cannot ride along; mix by another")
        pool_masks = masks if pool_masks is None else pool_masks
        own, partner = take_rows(masks, self.own), take_rows(pool_masks, self.partner)
        height, width = masks.shape[-2:]
        shares, values = [resize_mask(self._whole_mask(masks.device), height, width)], [own]
        for rows, mask, _ in self._each(masks.device):
            shares.append(resize_mask(mask, height, width))
            values.append(take_rows(pool_masks, rows))
        values.append(partner)
        shares.append(1 - sum(shares[1:], shares[0]))
        if masks.is_floating_point():
            return sum((a * b for a, b in zip(shares[1:], values[1:], strict=True)), shares[0] * values[0])
        mixed, most = values[0], shares[0]
        for share, value in zip(shares[1:], values[1:], strict=True):
            mixed, most = torch.where(share > most, value, mixed), torch.maximum(share, most)
        return mixed

    def _is_plain(self, targets: Tensor, pool_targets: Tensor) -> bool:
        if self.partner_weight is not None or self.others is not None or self.policy != "interpolate":
            return False
        for value in (targets, pool_targets, self.weight):
            if value.dtype != torch.float32 or value.requires_grad or value.device.type != "cpu":
                return False
        return True

    def _each(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return iter(()) if self.others is None else self.others.each(device)

    def _whole_mask(self, device: torch.device) -> Float[Tensor, "R 1 h w"]:
        if isinstance(self.mask, Boxes):
            return self.mask.to_mask(device=device)
        return self.mask.to(device, non_blocking=True)

    def _mix(self, images: Tensor, pool: Tensor) -> Tensor:
        own, partner, mask = self.own, self.partner, self.mask
        if self.own_images is not None:
            images, own = self.own_images.to(images), all_rows(len(own))
        if self.partner_images is not None:
            others = take_rows(self.partner_images.to(images), all_rows(len(own)))
            return self._mix_pair(images, others, mask, own=own, partner=all_rows(len(own)))
        mixed = self._mix_pair(images, pool, mask, own=own, partner=partner)
        for rows, mask, _ in self._each(images.device):
            full = resize_mask(mask, images.shape[-2], images.shape[-1]).to(images.dtype)
            mixed = mixed + full * (take_rows(pool, rows) - take_rows(pool, partner))
        return mixed

    def _mix_pair(self, images: Tensor, pool: Tensor, mask: Tensor | Boxes, *, own: Tensor, partner: Tensor) -> Tensor:
        if isinstance(mask, Boxes):
            return paste(images, pool, own=own, partner=partner, boxes=mask.edges)
        if mask.shape[-2:] == (1, 1):
            return blend(images, pool, own=own, partner=partner, share=mask.reshape(-1))
        full = resize_mask(mask.to(images.device, non_blocking=True), images.shape[-2], images.shape[-1])
        return blend_by_mask(images, pool, own=own, partner=partner, mask=full)

    def _check(self, batch: Batch, pool: Batch) -> None:
        check_pool(batch, pool)
        shape, others = batch.images.shape[1:], {}
        if isinstance(self.mask, Boxes):
            others["boxes"] = torch.Size([shape[0], self.mask.height, self.mask.width])
        for name in ("own_images", "partner_images"):
            warped = getattr(self, name)
            if warped is not None:
                others[name] = warped.shape[1:]
        for name, other in others.items():
            if other != shape:
                raise _other_shape(name, other, shape)


def check_pool(batch: Batch, pool: Batch) -> None:
    """Refuse a batch and a pool that cannot be mixed.

    Raises:
        DataError: if images and targets of either are not as many, or the two differ in the images' shape or in the
            number of classes.
    """
    for name, one in (("the batch", batch), ("the pool", pool)):
        if len(one.targets) != len(one.images):
            raise DataError(
                f"{name} has {len(one.images)} images and {len(one.targets)} rows of targets: give one row per image"
            )
    shape, other = batch.images.shape[1:], pool.images.shape[1:]
    if other != shape:
        raise _other_shape("pool", other, shape)
    classes, pool_classes = batch.targets.shape[1], pool.targets.shape[1]
    if pool_classes != classes:
        raise DataError(f"pool has {pool_classes} classes, the batch {classes}: take both from one manifest")


def _other_shape(name: str, other: torch.Size, shape: torch.Size) -> DataError:
    return DataError(f"{name} are for images of shape {tuple(other)}, the batch has {tuple(shape)}: resize first")


def _mix_tables(targets: Tensor, pool_targets: Tensor, plan: MixPlan) -> Tensor | None:
    """Blend targets on the CPU with numpy, whose calls are what so small a table costs; None if any is NaN."""
    own, kept = take_rows(targets, plan.own).numpy(), plan.weight.numpy()[:, None]
    partner = pool_targets.numpy().take(plan.partner.numpy(), axis=0)
    partner *= 1 - kept
    mixed = own * kept  # exact where a row is whole
    mixed += partner
    return None if math.isnan(mixed.sum()) else torch.from_numpy(mixed)  # the sum is NaN if any value is


def mix_targets(
    own: Float[Tensor, "R K"], partner: Float[Tensor, "R K"], weight: Float[Tensor, " R"]
) -> Float[Tensor, "R K"]:
    """Blend targets; NaN only where a contributor with a weight above zero is NaN."""
    share = weight[:, None]
    mixed = lerp(partner, own, share)
    return torch.where(share == 1, own, torch.where(share == 0, partner, mixed))


def combine_targets(*parts: tuple[Float[Tensor, "R K"], Float[Tensor, " R"]], policy: Policy) -> Float[Tensor, "R K"]:
    """Combine the targets of any number of contributors by a policy; NaN only where one that counts is NaN.

    Args:
        *parts: targets and weights of each contributor.
        policy: "interpolate": sum of weight times target. "union": the largest target of all with a weight above
            zero. "threshold": the largest of all with a weight of at least `VISIBLE`, or of the heaviest if none has.
            Where all weights are zero, targets are zero by any policy.

    Example:
        >>> own, partner = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> combine_targets((own, torch.tensor([0.9])), (partner, torch.tensor([0.1])), policy="union")
        tensor([[1., 1.]])
        >>> combine_targets((own, torch.tensor([0.9])), (partner, torch.tensor([0.1])), policy="threshold")
        tensor([[1., 0.]])
    """
    targets, weights = (torch.stack(values) for values in zip(*parts, strict=True))
    weights = weights[:, :, None]
    if policy == "interpolate":
        return torch.where(weights == 0, 0.0, weights * targets).sum(dim=0)
    counted = weights > 0
    if policy == "threshold":
        counted = counted & (weights >= weights.amax(dim=0).clamp(max=VISIBLE))
    largest = torch.where(counted, targets, -torch.inf).amax(dim=0)
    return torch.where(counted.any(dim=0), largest, 0.0)
