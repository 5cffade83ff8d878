"""Mixing pixels: blends, boxes and masks, out of place and in the memory format of the images that keep their pixels.

On the CPU, where no gradient is asked for, each output pixel is computed in one pass into memory that is not new to the
process; everywhere else plain tensor algebra does the same.
"""

import weakref
from collections import deque
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

# torch splits a loop between threads in pieces of 32768 elements (at::internal::GRAIN_SIZE): below two pieces per row,
# a pass over all rows is faster than a call per row.
LONG_ROW = 2 * 32768
# Up to this length all spans of a side are kept in a table, of 1 MiB at most.
SHORT_SIDE = 64
# Up to so many values per row, mixing all rows by one map is faster than copying a box per row.
SHORT_ROW = 4096
# glibc returns large blocks to the system when they are freed, from 32 MiB (DEFAULT_MMAP_THRESHOLD_MAX) always.
# Touching new ones then costs more than mixing does: a page fault every 4 KiB.
LARGE_BLOCK = 4 * 2**20
ALIGNMENT = 64  # bytes, as torch aligns its own memory

_spare: dict[int, deque[np.ndarray]] = {}


def blend(
    images: Float[Tensor, "B C H W"],
    pool: Float[Tensor, "P C H W"],
    *,
    own: Int[Tensor, " R"],
    partner: Int[Tensor, " R"],
    share: Float[Tensor, " R"],
) -> Float[Tensor, "R C H W"]:
    """Blend rows: share * images[own] + (1 - share) * pool[partner].

    Args:
        images: where `own` points.
        pool: where `partner` points.
        own, partner: rows.
        share: share that each row keeps of its own image, in [0, 1].

    Example:
        >>> x = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)
        >>> blend(x, x, own=torch.tensor([0]), partner=torch.tensor([1]), share=torch.tensor([0.25])).item()
        0.75
    """
    if not _is_plain(images, pool, share):
        return lerp(take_rows(pool, partner), take_rows(images, own), share.reshape(-1, 1, 1, 1))
    mixed = empty_rows(own.shape[0], like=images)
    if mixed.stride(0) >= LONG_ROW:
        rows = images.unbind()
        pool_rows = rows if pool is images else pool.unbind()
        for out, i, j, kept in zip(mixed.unbind(), own.tolist(), partner.tolist(), share.tolist(), strict=True):
            torch.lerp(pool_rows[j], rows[i], kept, out=out)
        return mixed
    images = take_rows(images, own)
    torch.index_select(pool, 0, partner.cpu(), out=mixed)
    share = share.cpu().reshape(-1, 1, 1, 1)
    if images.element_size() < 4:
        return mixed.copy_(torch.lerp(mixed.float(), images.float(), share))
    return torch.lerp(mixed, images, share.to(images.dtype), out=mixed)


def paste(
    images: Float[Tensor, "B C H W"],
    pool: Float[Tensor, "P C H W"],
    *,
    own: Int[Tensor, " R"],
    partner: Int[Tensor, " R"],
    boxes: Int[Tensor, "4 R"],
) -> Float[Tensor, "R C H W"]:
    """Copy rows of images, with a box of each filled from the pool.

    Args:
        images: where `own` points.
        pool: where `partner` points.
        own, partner: rows.
        boxes: top, left, bottom and right of each row's box in pixels, on the CPU.

    Example:
        >>> x = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 1, 1, 2)
        >>> left = torch.tensor([[0], [0], [1], [1]])
        >>> paste(x, x, own=torch.tensor([0]), partner=torch.tensor([1]), boxes=left).flatten()
        tensor([1., 0.])
    """
    if not _is_plain(images, pool):
        inside = inside_boxes(boxes, height=images.shape[-2], width=images.shape[-1], device=images.device)
        return _shaped(torch.where(inside > 0, take_rows(pool, partner), take_rows(images, own)), images)
    mixed = empty_rows(own.shape[0], like=images)
    if mixed.stride(0) <= SHORT_ROW and images.element_size() >= 4:
        inside = inside_boxes(boxes, height=images.shape[-2], width=images.shape[-1], device=images.device)
        torch.index_select(pool, 0, partner.cpu(), out=mixed)
        return torch.lerp(take_rows(images, own), mixed, inside.to(images.dtype), out=mixed)
    if _is_all_rows(own, images):
        mixed.copy_(images)
    else:
        torch.index_select(images, 0, own.cpu(), out=mixed)
    # A box is a copy of a few kilobytes: numpy starts one in a fifth of the time that torch does.
    target, source = _bits(mixed), _bits(pool)
    for out, j, top, left, bottom, right in zip(target, partner.tolist(), *boxes.tolist(), strict=True):
        out[:, top:bottom, left:right] = source[j, :, top:bottom, left:right]
    return mixed


def blend_by_mask(
    images: Float[Tensor, "B C H W"],
    pool: Float[Tensor, "P C H W"],
    *,
    own: Int[Tensor, " R"],
    partner: Int[Tensor, " R"],
    mask: Float[Tensor, "R 1 H W"],
) -> Float[Tensor, "R C H W"]:
    """Blend rows pixel by pixel: mask * images[own] + (1 - mask) * pool[partner].

    Args:
        images: where `own` points.
        pool: where `partner` points.
        own, partner: rows.
        mask: share that each pixel keeps of its own image, in [0, 1].

    Example:
        >>> x = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 1, 1, 2)
        >>> mask = torch.tensor([[[[0.25, 1.0]]]])
        >>> blend_by_mask(x, x, own=torch.tensor([0]), partner=torch.tensor([1]), mask=mask).flatten()
        tensor([0.7500, 0.0000])
    """
    if not _is_plain(images, pool, mask) or images.element_size() < 4:
        return lerp(take_rows(pool, partner), take_rows(images, own), mask)
    mixed, mask = empty_rows(own.shape[0], like=images), mask.to(images.dtype)
    if mixed.stride(0) >= LONG_ROW:
        rows = images.unbind()
        pool_rows = rows if pool is images else pool.unbind()
        for out, i, j, kept in zip(mixed.unbind(), own.tolist(), partner.tolist(), mask.unbind(), strict=True):
            torch.lerp(pool_rows[j], rows[i], kept, out=out)
        return mixed
    torch.index_select(pool, 0, partner.cpu(), out=mixed)
    return torch.lerp(mixed, take_rows(images, own), mask, out=mixed)


def lerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Compute share * end + (1 - share) * start; half precision in float32, so that the share is not rounded first."""
    share = share.to(device=end.device, dtype=torch.promote_types(end.dtype, torch.float32), non_blocking=True)
    if end.dtype == share.dtype == start.dtype:
        mixed = torch.lerp(start, end, share)
    else:
        mixed = torch.lerp(start.to(share.dtype), end.to(share.dtype), share).to(end.dtype)
    return _shaped(mixed, end) if end.ndim == 4 else mixed


def take_rows(values: Tensor, rows: Int[Tensor, " R"]) -> Tensor:
    """Return rows of a tensor, itself where they are `all_rows`; the rows may lie on another device.

    Images keep their memory format.
    """
    if _is_all_rows(rows, values):
        return values
    rows = rows.to(values.device, non_blocking=True)
    if values.ndim == 4 and _memory_format(values) == torch.channels_last:
        return values.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)
    return values.index_select(0, rows)


def inside_boxes(
    boxes: Int[Tensor, "4 R"], *, height: int, width: int, device: torch.device
) -> Float[Tensor, "R 1 {height} {width}"]:
    """Return a map on a device that is 1 where pixels lie in each row's box, and 0 elsewhere.

    Args:
        boxes: top, left, bottom and right of each row's box in pixels, on the CPU.
        height, width: size of the image in pixels.
        device: where the map is made.
    """
    first, last = boxes.numpy().reshape(2, 2, -1)
    if height == width:  # both sides in one look-up
        down, across = _spans(first, last, height)
    else:
        down, across = (_spans(first[i], last[i], side) for i, side in enumerate((height, width)))
    rows, columns = torch.from_numpy(down[:, None, :, None]), torch.from_numpy(across[:, None, None, :])
    if device.type == "cpu":
        return rows * columns
    return rows.to(device, non_blocking=True) * columns.to(device, non_blocking=True)


def _spans(first: Int[np.ndarray, "*R"], last: Int[np.ndarray, "*R"], length: int) -> Float[np.ndarray, "*R {length}"]:
    """Return rows that are 1 from `first` to before `last`, and 0 elsewhere."""
    if length <= SHORT_SIDE:
        return _all_spans(length).take(first * (length + 1) + last, axis=0)
    places = np.arange(length, dtype=np.int32)
    return ((places >= first[..., None]) & (places < last[..., None])).astype(np.float32)


@lru_cache(maxsize=8)
def _all_spans(length: int) -> Float[np.ndarray, "S {length}"]:
    """Return every span there is in `length` places; looking one up takes a third of the time of making it."""
    first, last = np.divmod(np.arange((length + 1) ** 2)[:, None], length + 1)
    places = np.arange(length)
    return ((places >= first) & (places < last)).astype(np.float32)


@lru_cache(maxsize=64)
def all_rows(rows: int) -> Int[Tensor, " rows"]:
    """Return 0 .. rows - 1, on the CPU, in one shared tensor: who is given it knows that all rows come in order."""
    with torch.inference_mode(False):  # it is kept, and may be needed for a gradient later
        return torch.arange(rows)


def empty_rows(rows: int, *, like: Float[Tensor, "B C H W"]) -> Float[Tensor, "R C H W"]:
    """Allocate rows of the shape, type, device and memory format of images, without filling them.

    Large blocks on the CPU are taken again once nothing refers to them, neither a tensor, nor a view, nor autograd; at
    most two of a size are kept.
    """
    B, C, H, W = like.shape
    nbytes = rows * C * H * W * like.element_size()
    if like.device.type != "cpu" or nbytes < LARGE_BLOCK:
        if rows == B and like.is_contiguous():
            return torch.empty_like(like)
        return torch.empty((rows, C, H, W), dtype=like.dtype, device=like.device, memory_format=_memory_format(like))
    flat = torch.from_numpy(_lease(nbytes)).view(like.dtype)
    if _memory_format(like) == torch.channels_last:
        return flat.view(rows, H, W, C).permute(0, 3, 1, 2)
    return flat.view(rows, C, H, W)


def _lease(nbytes: int) -> np.ndarray:
    """Return bytes that go back among the spare ones when the last tensor on them dies."""
    try:
        block = _spare[nbytes].pop()
    except (KeyError, IndexError):
        if len(_spare) >= 4:  # batches of many sizes: keep no memory for those of the past
            _spare.clear()
        block = np.empty(nbytes + ALIGNMENT, dtype=np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    lease = block[start : start + nbytes]
    weakref.finalize(lease, _take_back, nbytes, block).atexit = False
    return lease


def _take_back(nbytes: int, block: np.ndarray) -> None:
    _spare.setdefault(nbytes, deque(maxlen=2)).append(block)


def _is_plain(images: Tensor, pool: Tensor, *others: Tensor) -> bool:
    needs_grad = torch.is_grad_enabled() and any(value.requires_grad for value in (images, pool, *others))
    return images.device.type == "cpu" and pool.dtype == images.dtype and not needs_grad


def _is_all_rows(rows: Tensor, images: Tensor) -> bool:
    return rows is all_rows(images.shape[0])


def _bits(images: Tensor) -> np.ndarray:
    """View images as a numpy array of integers of the same width: numpy knows no bfloat16."""
    words = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return images.detach().view(words[images.element_size()]).numpy()


def _memory_format(images: Tensor) -> torch.memory_format:
    is_last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    return torch.channels_last if is_last else torch.contiguous_format


def _shaped(mixed: Tensor, like: Tensor) -> Tensor:
    return mixed.contiguous(memory_format=_memory_format(like))
