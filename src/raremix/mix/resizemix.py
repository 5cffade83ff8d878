"""ResizeMix: the whole of another image, made smaller and pasted."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.core.pixels import empty_rows
from raremix.core.types import Batch, Boxes
from raremix.mix.method import Method, Placement, refuse_mass
from raremix.mix.pairing import Pairs

SHORT_SIDE = 64
"""Up to so many pixels per side, two matrix products for all rows are faster than a call per row."""


@dataclass(frozen=True, kw_only=True)
class ResizeMix(Method):
    """Paste the whole partner, made smaller, into each image; scale, place and label weight per image [1].

    The partner is scaled by t ~ U(smallest, largest) and pasted at a uniform place; y = v y_own + (1 - v) y_partner, v
    = share of pixels outside the patch. Unlike a cut, the patch always holds what the partner's label stands for.

    [1] Qin et al., "ResizeMix: Mixing Data with Preserved Object Information and True Labels", 2020,
    https://arxiv.org/abs/2012.11101. Departures: implementations draw one scale and place per batch; here every row has
    its own. The patch lies inside the image and keeps the partner's proportions (OpenMixup clips the box at the border
    and squeezes the partner into the rest). The partner is averaged down (bilinear with antialiasing), so that a
    lesion of a few pixels fades instead of falling between the samples. A row whose partner is itself stays whole.

    Args:
        scale: smallest and largest t, in (0, 1]; the paper has 0.1 and 0.8.

    The other settings are those of every method: `raremix.mix.method.Method`.

    Raises:
        ConfigError: if probability or scale is out of range, or the label goes by mass: pixels are moved.

    Example:
        >>> import torch
        >>> images, targets = ResizeMix(num_classes=2)(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))
        >>> images.shape, targets.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 2]))
    """

    scale: tuple[float, float] = (0.1, 0.8)

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_mass(self)
        smallest, largest = self.scale
        if not 0 < smallest <= largest <= 1:
            raise ConfigError(f"scale needs 0 < smallest <= largest <= 1, got {self.scale}")

    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Draw a scale and a place for each row of the batch, and shrink its partner into it."""
        rows, _, height, width = batch.images.shape
        sides = np.array([[height], [width]])
        sizes = np.maximum(np.rint(rng.uniform(*self.scale, size=rows) * sides), 1).astype(np.int64)
        starts = np.floor(rng.random((2, rows)) * (sides - sizes + 1)).astype(np.int64)
        edges = np.concatenate([starts, starts + sizes]).astype(np.int32)
        if pool is batch:
            edges[:, pairs.partner == np.arange(rows)] = 0
        boxes = Boxes(edges=torch.from_numpy(edges), height=height, width=width)
        return Placement(mask=boxes, partner_images=shrink(pool.images, torch.from_numpy(pairs.partner), boxes))


def shrink(images: Float[Tensor, "P C H W"], rows: Tensor, boxes: Boxes) -> Float[Tensor, "R C H W"]:
    """Scale whole images into boxes, by bilinear interpolation with antialiasing; zero outside.

    Args:
        images: where `rows` points.
        rows: which image each box holds.
        boxes: where it goes.

    Example:
        >>> box = Boxes(edges=torch.tensor([[0], [1], [1], [2]]), height=1, width=2)
        >>> shrink(torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([0]), box)
        tensor([[[[0.0000, 0.5000]]]])
    """
    if max(boxes.height, boxes.width) <= SHORT_SIDE:
        return _shrink_all(images, rows, boxes)
    patches = empty_rows(len(rows), like=images).zero_()
    precise = torch.promote_types(images.dtype, torch.float32)
    for row, (source, box) in enumerate(zip(rows.tolist(), boxes.edges.T.tolist(), strict=True)):
        top, left, bottom, right = box
        if bottom > top:
            image = images[source : source + 1].to(precise).contiguous()
            patch = functional.interpolate(image, size=(bottom - top, right - left), mode="bilinear", antialias=True)
            patches[row, :, top:bottom, left:right] = patch[0]
    return patches


def _shrink_all(images: Float[Tensor, "P C H W"], rows: Tensor, boxes: Boxes) -> Float[Tensor, "R C H W"]:
    edges = boxes.edges.numpy()
    _, channels, height, width = images.shape
    precise = torch.promote_types(images.dtype, torch.float32)
    down = _weights(edges[0], edges[2] - edges[0], length=height).to(images.device, precise)
    across = _weights(edges[1], edges[3] - edges[1], length=width).to(images.device, precise)
    # Channels beside columns, so that one product per image serves all of them.
    beside = images.permute(0, 2, 1, 3).index_select(0, rows.to(images.device)).to(precise)
    with torch.autocast(images.device.type, enabled=False):
        patches = torch.bmm(down, beside.reshape(len(rows), height, channels * width)).reshape(len(rows), -1, width)
        patches = torch.bmm(patches, across.transpose(1, 2)).reshape(len(rows), height, channels, width)
    return patches.permute(0, 2, 1, 3).to(images.dtype)


def _weights(start: np.ndarray, size: np.ndarray, *, length: int) -> Float[Tensor, "R {length} {length}"]:
    """Return the matrices that scale a side into `size` pixels from `start` on, for each row."""
    places = (size * 2 * length + length - start)[:, None] + np.arange(length)
    return torch.from_numpy(_table(length).take(places, axis=0))


@lru_cache(maxsize=8)
def _table(length: int) -> Float[np.ndarray, "rows {length}"]:
    """Return, for every size from 0 to `length`, `length` rows of zeros, then the weights of its pixels, then zeros."""
    table = np.zeros((length + 1, 2 * length, length), dtype=np.float32)
    for size in range(1, length + 1):
        step = length / size
        centres = (np.arange(size) + 0.5)[:, None] * step
        weights = np.maximum(1 - np.abs(np.arange(length) + 0.5 - centres) / step, 0.0)
        table[size, length : length + size] = weights / weights.sum(axis=1, keepdims=True)
    return table.reshape(-1, length)
