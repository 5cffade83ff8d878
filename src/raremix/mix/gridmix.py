"""GridMix: every cell of a grid comes from one of two images."""

from dataclasses import dataclass

import numpy as np
import torch

from raremix.core.errors import ConfigError
from raremix.core.types import Batch
from raremix.mix.method import Method, Placement
from raremix.mix.pairing import Pairs
from raremix.mix.strength import check_alpha, kept_share


@dataclass(frozen=True, kw_only=True)
class GridMix(Method):
    """Divide each image into grid x grid cells, and fill some of them from a partner; cells and label per image [1].

    A cell keeps its own pixels with probability w ~ Beta(alpha, alpha), drawn per image; y = v y_own + (1 - v)
    y_partner, v = share of pixels in the cells that were kept. A side that the grid does not divide has cells that
    differ by a pixel.

    [1] Baek, Bang, Shim, "GridMix: Strong regularization through local context mapping", Pattern Recognition 109, 2021,
    https://doi.org/10.1016/j.patcog.2020.107594. Departures: the paper also predicts a label for every cell, from a
    second head; here images and labels are mixed, and any classifier is trained on them. Every row draws its own
    cells.

    Args:
        alpha: shape of the Beta distribution, > 0; 1, uniform.
        grid: cells per side, at least 1. In an image of fewer pixels each pixel is a cell.

    The other settings are those of every method: `raremix.mix.method.Method`.

    Raises:
        ConfigError: if alpha, probability or grid is out of range.

    Example:
        >>> import torch
        >>> images, targets = GridMix(num_classes=2)(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))
        >>> images.shape, targets.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 2]))
    """

    alpha: float = 1.0
    grid: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)
        if self.grid < 1:
            raise ConfigError(f"grid is a number of cells per side, at least 1, got {self.grid}")

    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Draw the cells that each row keeps."""
        rows, _, height, width = batch.images.shape
        share = kept_share(rows, alpha=self.alpha, rng=rng)
        kept = (rng.random((rows, self.grid, self.grid)) < share[:, None, None]).astype(np.float32)
        if height % self.grid or width % self.grid:
            # Cells of unequal size: only pixels can be counted.
            kept = kept.take(_cells(height, self.grid), axis=1).take(_cells(width, self.grid), axis=2)
        return Placement(mask=torch.from_numpy(kept)[:, None])


def _cells(length: int, grid: int) -> np.ndarray:
    """Return the cell that each pixel of a side lies in."""
    return np.arange(length) * grid // length
