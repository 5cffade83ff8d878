"""Bounding boxes that ride along: those of all images that a row shows, with the share of each that is visible."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from raremix.core.errors import DataError
from raremix.core.masks import resize_mask
from raremix.core.types import Boxes, MixPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibleBoxes:
    """The boxes of one mixed image.

    Attributes:
        edges: left, top, right and bottom in pixels, where they lay in the image that they came from.
        visible: share of each box's pixels that the mixed image shows, in (0, 1]; in a blend, its weight.
        image: row of the batch, or of the pool, that each came from.
        number: which of that image's boxes it is, to look up what belongs to it.
        is_from_pool: whether `image` is a row of the pool; never where the pool is the batch.
    """

    edges: Float[Tensor, "N 4"]
    visible: Float[Tensor, " N"]
    image: Int[Tensor, " N"]
    number: Int[Tensor, " N"]
    is_from_pool: Bool[Tensor, " N"]


def mix_boxes(
    plan: MixPlan, boxes: Sequence[Tensor], *, height: int, width: int, pool_boxes: Sequence[Tensor] | None = None
) -> list[VisibleBoxes]:
    """Return the boxes that belong to each row of a plan.

    Boxes keep their places. One of which nothing is visible is left out: all of it was pasted over, it has no area, or
    it lies outside the image. An image that meets itself has each box once.

    Args:
        plan: what is mixed.
        boxes: (N, 4) left, top, right and bottom in pixels, for each image of the batch.
        height, width: size of the images in pixels.
        pool_boxes: the same for the pool; the batch itself by default.

    Raises:
        DataError: if the method warps its partners, so that their boxes no longer lie where they were.

    Example:
        >>> left = Boxes(edges=torch.tensor([[0], [0], [8], [4]]), height=8, width=8)
        >>> plan = MixPlan(own=torch.tensor([0]), partner=torch.tensor([1]), mask=left, weight=left.share())
        >>> (row,) = mix_boxes(plan, [torch.tensor([[0, 0, 8, 8]]), torch.tensor([[0, 0, 6, 8]])], height=8, width=8)
        >>> row.visible
        tensor([0.5000, 0.6667])
    """
    if plan.partner_images is not None:
        raise DataError("this method warps the partner's pixels: its boxes cannot ride along; mix by another")
    has_pool = pool_boxes is not None
    sources = (boxes, pool_boxes if pool_boxes is not None else boxes)
    images, shares = _contributors(plan, height, width)
    mixed = []
    for row in range(len(plan.own)):
        # An image that gives to a row in two roles (as its own partner) gives the sum of both.
        given: dict[tuple[bool, int], Tensor] = {}
        for role, (image, share) in enumerate(zip(images[row].tolist(), shares[row], strict=True)):
            key = (has_pool and role > 0, image)
            given[key] = given[key] + share if key in given else share
        mixed.append(
            _joined(
                [_seen(sources[key[0]][key[1]], share, key=key, size=(height, width)) for key, share in given.items()]
            )
        )
    return mixed


def _contributors(plan: MixPlan, height: int, width: int) -> tuple[Int[Tensor, "R T"], Float[Tensor, "R T h w"]]:
    """Return whose pixels each row holds, its own first, and the share of every pixel that comes from each."""
    own = plan.mask.to_mask() if isinstance(plan.mask, Boxes) else plan.mask.cpu()
    images, shares = [plan.own.cpu()], [resize_mask(own, height, width)]
    if plan.others is not None:
        for rows, mask, _ in plan.others.each(torch.device("cpu")):
            images.append(rows.cpu())
            shares.append(resize_mask(mask, height, width))
    images.append(plan.partner.cpu())
    shares.append(1 - sum(shares[1:], shares[0]))
    return torch.stack(images, dim=1), torch.cat(torch.broadcast_tensors(*shares), dim=1).clamp(0, 1)


def _seen(
    boxes: Tensor, share: Float[Tensor, "h w"], *, key: tuple[bool, int], size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return edges, visible share, image, number and origin of an image's boxes of which something is visible."""
    edges = boxes.detach().cpu().double().reshape(-1, 4)
    h, w = share.shape
    scale = torch.tensor([w / size[1], h / size[0]] * 2, dtype=torch.float64)
    x1, y1, x2, y2 = (edges * scale).clamp(min=0).minimum(torch.tensor([w, h, w, h])).unbind(dim=1)
    below = torch.zeros(h + 1, w + 1, dtype=torch.float64)
    below[1:, 1:] = share.double().cumsum(0).cumsum(1)
    inside = _at(below, y2, x2) - _at(below, y1, x2) - _at(below, y2, x1) + _at(below, y1, x1)
    whole = (edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1]) * scale[0] * scale[1]
    visible = torch.where(whole > 0, inside / whole.clamp(min=1e-12), 0.0).clamp(0, 1).float()
    is_seen = visible > 1e-6  # less than a pixel in any image: rounding of the sums
    (number,) = torch.nonzero(is_seen, as_tuple=True)
    image, from_pool = torch.full_like(number, key[1]), torch.full_like(is_seen[is_seen], key[0])
    return edges[is_seen].float(), visible[is_seen], image, number, from_pool


def _at(below: Float[Tensor, "h w"], y: Float[Tensor, " N"], x: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Read a summed table between its entries: exact, as every pixel is even in itself."""
    top, left = (place.floor().long().clamp(max=size - 2) for place, size in zip((y, x), below.shape, strict=True))
    down, right = y - top, x - left
    upper = below[top, left] * (1 - right) + below[top, left + 1] * right
    lower = below[top + 1, left] * (1 - right) + below[top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


def _joined(parts: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]) -> VisibleBoxes:
    edges, visible, image, number, is_from_pool = (torch.cat(values) for values in zip(*parts, strict=True))
    return VisibleBoxes(edges=edges, visible=visible, image=image, number=number, is_from_pool=is_from_pool)
