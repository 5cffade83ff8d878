"""Importance maps that are kept for every image and guide a mixer: small, in 8 bits, and warped as the image is.

A map belongs to the image as it is in the cache. Where augmentation warps the image, its map is warped likewise, and
what is learnt about the warped image is warped back. So a map can be computed once (`KeptMaps`), by the classifier as
it was some epochs ago (`RefreshedMaps`), or by the gradient of the image's last visit (`GradientMaps`), at next to no
cost per step. The maps are part of a checkpoint: a resumed run goes on with the same ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional

from raremix.core.masks import resize_mask
from raremix.core.protocols import ImportanceMap
from raremix.core.types import Batch, Boxes, MixPlan
from raremix.train.feed import Images, to_float

# From this share of a cell on, what was seen of it says something about it.
SEEN = 0.5


@runtime_checkable
class Guide(Protocol):
    """Bring importance maps to batches, and keep them up to date."""

    @property
    def memory(self) -> dict[str, Tensor]:
        """Tensors that a resumed run needs, changed in place."""
        ...

    def attach(self, batch: Batch) -> Batch:
        """Return the batch with its maps."""
        ...

    def watch(self, batch: Batch, plan: MixPlan) -> None:
        """Look at a batch that `attach` returned, before the network sees it mixed."""
        ...

    def after_step(self, step: int, averaged: Mapping[str, nn.Module]) -> None:
        """Bring the maps up to date after an optimiser step."""
        ...


@dataclass(slots=True, kw_only=True, eq=False)
class KeptMaps:
    """Maps that do not change.

    Attributes:
        maps: one per manifest row, or one per class and row.
    """

    maps: UInt8[Tensor, "N m g g"]

    @property
    def memory(self) -> dict[str, Tensor]:
        """Nothing: the maps are computed again, or read from the cache."""
        return {}

    def attach(self, batch: Batch) -> Batch:
        """Return the batch with its maps, and its pool with those of the pool."""
        return attach_maps(self, batch)

    def watch(self, batch: Batch, plan: MixPlan) -> None:
        """Do nothing."""

    def after_step(self, step: int, averaged: Mapping[str, nn.Module]) -> None:
        """Do nothing."""


@dataclass(slots=True, kw_only=True, eq=False)
class RefreshedMaps:
    """Maps that the averaged classifier draws anew every so many steps; all ones before the first time.

    Attributes:
        maps: one per manifest row.
        draw: from a classifier to its importance map.
        images, ids, targets: the training images.
        every: steps between two refreshes.
        batch_size: images at a time.
    """

    maps: UInt8[Tensor, "N 1 g g"]
    draw: Callable[[nn.Module], ImportanceMap]
    images: Images
    ids: Int[np.ndarray, " n"]
    targets: Float[np.ndarray, "n K"]
    every: int
    batch_size: int = 128

    @property
    def memory(self) -> dict[str, Tensor]:
        """The maps."""
        return {"importance": self.maps}

    def attach(self, batch: Batch) -> Batch:
        """Return the batch with its maps, and its pool with those of the pool."""
        return attach_maps(self, batch)

    def watch(self, batch: Batch, plan: MixPlan) -> None:
        """Do nothing."""

    def after_step(self, step: int, averaged: Mapping[str, nn.Module]) -> None:
        """Draw all maps anew, if it is time."""
        if (step + 1) % self.every:
            return
        model = averaged["classifier"]
        draw = self.draw(model)
        device = next(model.parameters()).device
        for start in range(0, len(self.ids), self.batch_size):
            chosen = slice(start, start + self.batch_size)
            images = to_float(self.images.take(self.ids[chosen])).to(device)
            targets = torch.from_numpy(self.targets[chosen]).float().to(device)
            store(self.maps, torch.from_numpy(self.ids[chosen].copy()), draw(images, targets))
        from_first_rank(self.maps)


@dataclass(slots=True, kw_only=True, eq=False)
class GradientMaps:
    """Maps made of the loss's gradient when an image was last shown; all ones before its first visit.

    The backward pass of the step goes on to the pixels, which costs the first layer's input gradient and nothing else.
    Where mixing hid a part of an image, that part keeps what was known of it.

    Attributes:
        maps: one per manifest row.
    """

    maps: UInt8[Tensor, "N 1 g g"]
    _seen: list[tuple[Tensor, Tensor, Tensor]]

    def __init__(self, *, maps: UInt8[Tensor, "N 1 g g"]) -> None:
        self.maps, self._seen = maps, []

    @property
    def memory(self) -> dict[str, Tensor]:
        """The maps."""
        return {"importance": self.maps}

    def attach(self, batch: Batch) -> Batch:
        """Return the batch with its maps, and images that ask for their gradient."""
        batch = attach_maps(self, batch)
        pool = None if batch.pool is None else _asking(batch.pool)
        return replace(_asking(batch), pool=pool)

    def watch(self, batch: Batch, plan: MixPlan) -> None:
        """Keep the gradient that reaches the images, once it is known.

        Where a method moves an image's pixels, the cells that any gradient reached are taken for those that were seen.
        """
        side = self.maps.shape[-1]
        if plan.own_images is not None or plan.partner_images is not None:
            for part in (batch, batch.pool):
                if part is not None:
                    self._listen(part, None)
            return
        mask = plan.mask.to_mask() if isinstance(plan.mask, Boxes) else plan.mask
        # In float32, whatever the precision of the step; a 1 x 1 mask shows the same of every cell.
        mask = resize_mask(mask.detach().float().cpu(), side, side).expand(-1, 1, side, side)
        own = torch.zeros(len(batch.images), 1, side, side).index_add_(0, plan.own, mask)
        pool = own if batch.pool is None else torch.zeros(len(batch.pool.images), 1, side, side)
        rest = 1 - mask
        if plan.others is not None:
            for rows, share, _ in plan.others.each(torch.device("cpu")):
                cells = resize_mask(share.detach().float(), side, side).expand(-1, 1, side, side)
                pool.index_add_(0, rows, cells)
                rest = rest - cells
        pool.index_add_(0, plan.partner, rest)
        self._listen(batch, own)
        if batch.pool is not None:
            self._listen(batch.pool, pool)

    def after_step(self, step: int, averaged: Mapping[str, nn.Module]) -> None:
        """Write down what was seen, on every rank what all ranks saw."""
        for ids, maps, is_known in self._seen:
            parts = [(ids, maps, is_known)]
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                gathered: list[list[Tensor]] = [
                    [torch.empty_like(value) for _ in range(torch.distributed.get_world_size())]
                    for value in (ids, maps, is_known)
                ]
                for into, value in zip(gathered, (ids, maps, is_known), strict=True):
                    torch.distributed.all_gather(into, value.contiguous())
                parts = list(zip(*gathered, strict=True))
            for part in parts:
                self._write(*part)
        self._seen.clear()

    def _listen(self, batch: Batch, shown: Float[Tensor, "B 1 g g"] | None) -> None:
        assert batch.ids is not None
        ids, warp, side = batch.ids, batch.warp, self.maps.shape[-1]

        def keep(gradient: Tensor) -> None:
            strength = gradient.detach().float().abs().sum(dim=1, keepdim=True)
            # Half precision scales the loss until a gradient overflows, and then leaves the step out.
            is_finite = strength.isfinite().all(dim=3, keepdim=True).all(dim=2, keepdim=True)
            cells = functional.adaptive_avg_pool2d(torch.where(is_finite, strength, 0.0), side)
            visible = (cells > 0).to(cells) if shown is None else shown.to(cells)
            cells = cells / visible.clamp(min=SEEN)
            known = ((visible >= SEEN) & is_finite).to(cells)
            if warp is not None:
                both = warp_maps(torch.cat([cells * known, known], dim=1), invert(warp), padding="zeros")
                known = (both[:, 1:] >= SEEN).to(cells)
                cells = both[:, :1] / both[:, 1:].clamp(min=SEEN)
            cells = cells / (cells * known).amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-20)
            self._seen.append((ids, (cells * known).clamp(0, 1), known))

        if batch.images.requires_grad:
            batch.images.register_hook(keep)

    def _write(self, ids: Tensor, maps: Tensor, is_known: Tensor) -> None:
        # An image that stands in the batch twice keeps what its last row says.
        rows = ids.cpu().numpy()
        last = torch.from_numpy(np.sort(len(rows) - 1 - np.unique(rows[::-1], return_index=True)[1]))
        chosen, ids = last.to(maps.device), ids.cpu()[last]
        kept = self.maps.index_select(0, ids.to(self.maps.device)).to(maps.device)
        fresh = (maps[chosen] * 255).round().to(torch.uint8)
        self.maps[ids.to(self.maps.device)] = torch.where(is_known[chosen] > 0, fresh, kept).to(self.maps.device)


def from_first_rank(*values: Tensor) -> None:
    """Give every rank the first one's values, in place: batch statistics differ by rank, and so what they lead to."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for value in values:
            torch.distributed.broadcast(value, src=0)


def empty_maps(rows: int, *, grid: int, maps: int = 1) -> UInt8[Tensor, "N m g g"]:
    """Return maps that say of every place that it matters."""
    return torch.full((rows, maps, grid, grid), 255, dtype=torch.uint8)


def store(maps: UInt8[Tensor, "N m g g"], ids: Int[Tensor, " B"], drawn: Float[Tensor, "B m h w"]) -> None:
    """Write maps of images as they are in the cache, averaged down (or repeated up) to the grid, in place.

    Args:
        maps: where to write.
        ids: manifest rows.
        drawn: values in [0, 1].
    """
    cells = functional.adaptive_avg_pool2d(drawn.detach().float(), maps.shape[-1]).clamp(0, 1)
    maps[ids.to(maps.device)] = (cells * 255).round().to(device=maps.device, dtype=torch.uint8)


def attach_maps(guide: Guide, batch: Batch) -> Batch:
    """Return a batch, and its pool, with their kept maps, warped as the images are."""
    maps: Tensor = guide.maps  # type: ignore[attr-defined]
    found = _look_up(maps, batch)
    pool = None if batch.pool is None else replace(batch.pool, importance=_look_up(maps, batch.pool))
    return replace(batch, importance=found, pool=pool)


def warp_maps(
    maps: Float[Tensor, "B C g g"], warp: Float[Tensor, "B 2 3"], *, padding: str = "reflection"
) -> Float[Tensor, "B C g g"]:
    """Warp maps as images were warped.

    Args:
        maps: any values.
        warp: from output to input coordinates in [-1, 1], as `torch.nn.functional.affine_grid` takes them.
        padding: what lies outside, as `torch.nn.functional.grid_sample` takes it.
    """
    grid = functional.affine_grid(warp.to(maps), list(maps.shape), align_corners=False)
    return functional.grid_sample(maps, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def invert(warp: Float[Tensor, "B 2 3"]) -> Float[Tensor, "B 2 3"]:
    """Return the warps that undo warps."""
    exact = warp.cpu().double()  # not every device has double precision
    turned = torch.linalg.inv(exact[:, :, :2])
    return torch.cat([turned, -turned @ exact[:, :, 2:]], dim=2).to(warp)


def _asking(batch: Batch) -> Batch:
    return replace(batch, images=batch.images.detach().requires_grad_())


def _look_up(maps: UInt8[Tensor, "N m g g"], batch: Batch) -> Float[Tensor, "B m g g"]:
    assert batch.ids is not None
    found = maps.index_select(0, batch.ids.to(maps.device)).to(batch.images.device).float().div_(255)
    return found if batch.warp is None else warp_maps(found, batch.warp).clamp(0, 1)
