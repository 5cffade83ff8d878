"""The types that every layer speaks: a batch of images, and a plan to mix it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

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
    """

    images: Float[Tensor, "B C H W"]
    targets: Float[Tensor, "B K"]
    ids: Int[Tensor, " B"] | None = None

    def to(self, device: torch.device, *, memory_format: torch.memory_format = torch.preserve_format) -> "Batch":
        """Return the batch on a device."""
        return Batch(
            images=self.images.to(device, memory_format=memory_format, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            ids=None if self.ids is None else self.ids.to(device, non_blocking=True),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """One rectangle per row that is filled by the partner; a mask where slicing is cheaper than a map.

    Attributes:
        top, left, bottom, right: pixel bounds, 0 <= top <= bottom <= height and 0 <= left <= right <= width.
        height, width: size of the image in pixels.
    """

    top: Int[Tensor, " R"]
    left: Int[Tensor, " R"]
    bottom: Int[Tensor, " R"]
    right: Int[Tensor, " R"]
    height: int
    width: int

    def share(self) -> Float[Tensor, " R"]:
        """Return the share of its own pixels that each row keeps: 1 - area of the box / area of the image."""
        area = (self.bottom - self.top) * (self.right - self.left)
        return 1.0 - area.double() / (self.height * self.width)

    def inside(self) -> Tensor:
        """Return which pixels the partner fills, as a boolean map of shape (R, 1, H, W)."""
        y = torch.arange(self.height, device=self.top.device)
        x = torch.arange(self.width, device=self.top.device)
        rows = (y >= self.top[:, None]) & (y < self.bottom[:, None])
        columns = (x >= self.left[:, None]) & (x < self.right[:, None])
        return (rows[:, :, None] & columns[:, None, :])[:, None]

    def to_mask(self) -> Float[Tensor, "R 1 H W"]:
        """Return the share that each pixel keeps of its own image: 0 inside the box, 1 outside."""
        return (~self.inside()).float()


@dataclass(frozen=True, slots=True, kw_only=True)
class MixPlan:
    """What to mix: one row of output per row of the plan. The number of rows R need not equal B.

    Attributes:
        own: row of the batch whose pixels the mask keeps.
        partner: row of the pool that fills the rest.
        mask: share each pixel keeps of its own image; 1 x 1 for a blend, a patch grid, or full size.
        weight: share each row keeps of its own label.
        partner_images: the partner's pixels where a method warps them.
    """

    own: Int[Tensor, " R"]
    partner: Int[Tensor, " R"]
    mask: Float[Tensor, "R 1 h w"] | Boxes
    weight: Float[Tensor, " R"]
    partner_images: Float[Tensor, "R C H W"] | None = None

    def apply(self, batch: Batch, pool: Batch | None = None) -> Batch:
        """Mix images and targets; the only code that does so, and never in place.

        Args:
            batch: where `own` points.
            pool: where `partner` points; the batch itself by default.

        Returns:
            A new batch of R rows; `ids` are those of the own rows.
        """
        pool = batch if pool is None else pool
        images = self._mix(batch.images, pool.images, self.partner_images)
        own = self.own.to(batch.targets.device)
        partner = self.partner.to(batch.targets.device)
        targets = mix_targets(
            batch.targets.index_select(0, own),
            pool.targets.index_select(0, partner),
            self.weight.to(device=batch.targets.device, dtype=batch.targets.dtype),
        )
        ids = None if batch.ids is None else batch.ids.index_select(0, self.own.to(batch.ids.device))
        return Batch(images=images, targets=targets, ids=ids)

    def apply_features(self, features: Tensor, pool_features: Tensor | None = None) -> Tensor:
        """Mix features by the same plan, for mixing at a layer other than the input.

        Args:
            features: (B, C, h, w) maps, or (B, D) vectors, which are blended by each mask's mean.
            pool_features: where partners come from; `features` by default.

        Returns:
            Mixed features of R rows; the mask is averaged down, or repeated up, to the map's size.
        """
        pool_features = features if pool_features is None else pool_features
        mask = self.mask.to_mask() if isinstance(self.mask, Boxes) else self.mask
        mask = mask.to(device=features.device, dtype=features.dtype)
        own = features.index_select(0, self.own.to(features.device))
        partner = pool_features.index_select(0, self.partner.to(features.device))
        if features.ndim == 4:
            return torch.lerp(partner, own, resize_mask(mask, features.shape[-2], features.shape[-1]))
        share = mask.mean(dim=(1, 2, 3)).reshape(-1, *([1] * (features.ndim - 1)))
        return torch.lerp(partner, own, share)

    def _mix(self, images: Tensor, pool: Tensor, warped: Tensor | None) -> Tensor:
        own = images.index_select(0, self.own.to(images.device))
        partner = pool.index_select(0, self.partner.to(pool.device)) if warped is None else warped
        if isinstance(self.mask, Boxes):
            return torch.where(self.mask.inside().to(images.device), partner, own)
        mask = self.mask.to(device=images.device, dtype=images.dtype)
        return torch.lerp(partner, own, resize_mask(mask, images.shape[-2], images.shape[-1]))


def mix_targets(
    own: Float[Tensor, "R K"], partner: Float[Tensor, "R K"], weight: Float[Tensor, " R"]
) -> Float[Tensor, "R K"]:
    """Blend targets; NaN only where a contributor with a weight above zero is NaN."""
    share = weight[:, None]
    mixed = torch.where(share > 0, share * own, 0.0) + torch.where(share < 1, (1 - share) * partner, 0.0)
    return mixed.clamp(0.0, 1.0)


def resize_mask(mask: Float[Tensor, "R 1 h w"], height: int, width: int) -> Tensor:
    """Bring a mask to a map's size: patches repeated up, pixels averaged down; 1 x 1 is left to broadcast."""
    h, w = mask.shape[-2:]
    if (h, w) in {(1, 1), (height, width)}:
        return mask
    if height % h == 0 and width % w == 0:
        return mask.repeat_interleave(height // h, dim=2).repeat_interleave(width // w, dim=3)
    return functional.interpolate(mask, size=(height, width), mode="area")
