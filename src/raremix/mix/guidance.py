"""What guided methods share: importance maps brought together, masks that fit the image, mass counted in boxes.

Maps keep their own, usually low, resolution as long as they are compared; only a mask is brought to the image's size.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.core.masks import resize_mask
from raremix.core.pixels import take_rows
from raremix.core.protocols import ImportanceMap
from raremix.core.types import Batch, Boxes
from raremix.explain import FineGrained
from raremix.mix.class_maps import away_from_own
from raremix.mix.pairing import Pairs

SALIENCY: ImportanceMap = FineGrained()
"""What guides a method that is told nothing else."""


def maps_of(batch: Batch) -> Float[Tensor, "B 1 h w"]:
    """Return the maps that came with a batch: float32, without gradient, zero where a map says NaN.

    Of maps per class, their mean over all classes that the image does not show (`away_from_own`).

    Raises:
        ConfigError: if there are none.
        DataError: if there are neither as many maps as classes, nor one.
    """
    if batch.importance is None:
        raise ConfigError("no importance maps: pass importance=, or batches (and pools) that bring their maps")
    return away_from_own(batch).detach().float().nan_to_num(nan=0.0)


def partner_maps(pool: Batch, pairs: Pairs, *, like: Float[Tensor, "R 1 h w"]) -> Float[Tensor, "R 1 h w"]:
    """Return the map of each row's partner, at the resolution and on the device of the rows' own maps."""
    maps = take_rows(maps_of(pool), torch.from_numpy(pairs.partner)).to(like.device)
    return maps if maps.shape == like.shape else functional.interpolate(maps, size=like.shape[-2:], mode="area")


def fit(mask: Float[Tensor, "R 1 h w"], *, height: int, width: int) -> Float[Tensor, "R 1 _ _"]:
    """Bring a mask to the image's size, unless every cell covers the same whole number of pixels.

    Then, and only then, the mean of the coarse mask is the counted share of pixels.

    Args:
        mask: share each cell keeps of its own image.
        height, width: size of the image in pixels.

    Example:
        >>> mask = torch.tensor([[[[1.0, 0.0]]]])
        >>> fit(mask, height=2, width=4).shape, fit(mask, height=2, width=5).shape
        (torch.Size([1, 1, 1, 2]), torch.Size([1, 1, 2, 5]))
    """
    h, w = mask.shape[-2:]
    if height % h == 0 and width % w == 0:
        return mask
    if height < h or width < w:
        return resize_mask(mask, height, width)
    return functional.interpolate(mask, size=(height, width), mode="nearest-exact")


def mass_in_boxes(maps: Float[Tensor, "R 1 h w"], boxes: Boxes) -> Float[Tensor, " R"]:
    """Sum each map inside its row's box; cells that the box covers in part count in part.

    Args:
        maps: of any resolution; the boxes are in pixels of the image.
        boxes: one per row.

    Example:
        >>> left = Boxes(edges=torch.tensor([[0], [0], [4], [3]]), height=4, width=4)
        >>> mass_in_boxes(torch.tensor([[[[1.0, 4.0]]]]), left)
        tensor([3.])
    """
    edges = boxes.edges.numpy()
    rows = _covered(edges[0], edges[2], length=boxes.height, cells=maps.shape[-2])
    columns = _covered(edges[1], edges[3], length=boxes.width, cells=maps.shape[-1])
    inside = (maps[:, 0] * rows.to(maps.device)[:, :, None]).sum(dim=1)
    return (inside * columns.to(maps.device)).sum(dim=1)


def _covered(
    start: Int[np.ndarray, " R"], stop: Int[np.ndarray, " R"], *, length: int, cells: int
) -> Float[Tensor, "R cells"]:
    """Return which share of each cell along one side lies in each row's span of pixels."""
    places, scale = np.arange(cells), cells / length
    low, high = (np.asarray(edge, dtype=np.float64)[:, None] * scale for edge in (start, stop))
    shares = np.clip(np.minimum(high, places + 1) - np.maximum(low, places), 0.0, 1.0)
    return torch.from_numpy(shares.astype(np.float32))
