"""The types that every layer speaks: a batch of images, and a plan to mix it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from raremix.core.errors import DataError
from raremix.core.pixels import blend, inside_boxes, lerp, paste, take_rows

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
        edges: top, left, bottom and right in pixels, on the CPU; rows top .. bottom - 1 and columns left .. right - 1
            lie inside. 0 <= top <= bottom <= height and 0 <= left <= right <= width.
        height, width: size of the image in pixels.
    """

    edges: Int[Tensor, "4 R"]
    height: int
    width: int

    def share(self) -> Float[Tensor, " R"]:
        """Return the share of its own pixels that each row keeps: pixels outside the box / pixels of the image."""
        heights, widths = self.edges[2:].numpy() - self.edges[:2].numpy()
        pixels = self.height * self.width
        return torch.from_numpy(((pixels - heights * widths) / pixels).astype(np.float32))

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
            A new batch of R rows in the memory format of the batch's images; `ids` are those of the own rows.

        Raises:
            DataError: if pool, boxes or warped partners do not have the shape of the batch.
        """
        pool = batch if pool is None else pool
        self._check(batch, pool)
        targets = mix_targets(
            take_rows(batch.targets, self.own),
            take_rows(pool.targets, self.partner),
            self.weight.to(batch.targets.device, non_blocking=True),
        )
        ids = None if batch.ids is None else batch.ids.index_select(0, self.own.to(batch.ids.device))
        return Batch(images=self._mix(batch.images, pool.images), targets=targets, ids=ids)

    def apply_features(self, features: Float[Tensor, "B ..."], pool_features: Tensor | None = None) -> Tensor:
        """Mix features by the same plan, for mixing at a layer other than the input.

        Args:
            features: (B, C, h, w) maps, or (B, D) vectors, which are blended by each mask's mean.
            pool_features: where partners come from; `features` by default.

        Returns:
            Mixed features of R rows; the mask is averaged down, or repeated up, to the map's size.
        """
        pool_features = features if pool_features is None else pool_features
        own, partner = take_rows(features, self.own), take_rows(pool_features, self.partner)
        mask = self.mask.to_mask(device=features.device) if isinstance(self.mask, Boxes) else self.mask
        if features.ndim == 4:
            return lerp(partner, own, resize_mask(mask, features.shape[-2], features.shape[-1]))
        return lerp(partner, own, mask.mean(dim=(1, 2, 3)).reshape(-1, *([1] * (features.ndim - 1))))

    def _mix(self, images: Tensor, pool: Tensor) -> Tensor:
        own, partner, mask = self.own, self.partner, self.mask
        if self.partner_images is not None:
            pool, partner = self.partner_images.to(images), torch.arange(len(own))
        if isinstance(mask, Boxes):
            return paste(images, pool, own=own, partner=partner, boxes=mask.edges)
        if mask.shape[-2:] == (1, 1):
            return blend(images, pool, own=own, partner=partner, share=mask.reshape(-1))
        full = resize_mask(mask.to(images.device, non_blocking=True), images.shape[-2], images.shape[-1])
        return lerp(take_rows(pool, partner), take_rows(images, own), full)

    def _check(self, batch: Batch, pool: Batch) -> None:
        shape, others = batch.images.shape[1:], {"pool": pool.images.shape[1:]}
        if isinstance(self.mask, Boxes):
            others["boxes"] = torch.Size([shape[0], self.mask.height, self.mask.width])
        if self.partner_images is not None:
            others["partner_images"] = self.partner_images.shape[1:]
        for name, other in others.items():
            if other != shape:
                raise DataError(
                    f"{name} are for images of shape {tuple(other)}, the batch has {tuple(shape)}: resize first"
                )
        classes, pool_classes = batch.targets.shape[1], pool.targets.shape[1]
        if pool_classes != classes:
            raise DataError(f"pool has {pool_classes} classes, the batch {classes}: take both from one manifest")


def mix_targets(
    own: Float[Tensor, "R K"], partner: Float[Tensor, "R K"], weight: Float[Tensor, " R"]
) -> Float[Tensor, "R K"]:
    """Blend targets; NaN only where a contributor with a weight above zero is NaN."""
    share = weight[:, None]
    mixed = lerp(partner, own, share)
    if mixed.device.type == "cpu" and not np.isnan(mixed.detach().numpy()).any():
        return mixed  # as nearly always, and elsewhere asking would wait for the device
    return torch.where(share == 1, own, torch.where(share == 0, partner, mixed))


def resize_mask(mask: Float[Tensor, "R 1 h w"], height: int, width: int) -> Tensor:
    """Bring a mask to a map's size: patches repeated up, pixels averaged down; 1 x 1 is left to broadcast."""
    h, w = mask.shape[-2:]
    if (h, w) in {(1, 1), (height, width)}:
        return mask
    if height % h == 0 and width % w == 0:
        return mask.repeat_interleave(height // h, dim=2).repeat_interleave(width // w, dim=3)
    return functional.interpolate(mask, size=(height, width), mode="area")
