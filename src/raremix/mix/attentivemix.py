"""AttentiveMix: paste the cells of an image that matter most on its partner."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.core.protocols import ImportanceMap
from raremix.core.types import Batch
from raremix.mix.guidance import SALIENCY, fit, maps_of
from raremix.mix.method import Method, Placement
from raremix.mix.pairing import Pairs
from raremix.mix.strength import check_alpha, kept_share


@dataclass(frozen=True, kw_only=True)
class AttentiveMix(Method):
    """Paste the N most important cells of a grid of each image, where they are, on the partner [1].

    mask = 1 in the N cells of largest mean importance of the own image, 0 elsewhere; y = v y_own + (1 - v) y_partner,
    v = N / number of cells, counted in pixels. As in the paper it is the row's own cells that are pasted: of each image
    that is only what matters, and with N = 6 of 49 its label weighs 0.12.

    [1] Walawalkar et al., "Attentive CutMix: An Enhanced Data Augmentation Approach for Deep Learning Based Image
    Classification", ICASSP 2020, https://arxiv.org/abs/2003.13048. Departures: the importance is any map, not only the
    last layer of a pretrained ResNet-50; cells that tie are drawn; by option the number of cells is drawn per image.

    Args:
        grid: cells along each side of the image; fewer where map or image are smaller.
        cells: how many cells each image keeps. None: drawn per image, a share Beta(alpha, alpha) of all, at least one
            and not all (OpenMixup's variant, which draws one number per batch).
        alpha: shape of the Beta distribution, > 0, where the number is drawn.
        importance: what matters; the paper's is the attention of a pretrained network.

    The other settings are those of every method: `raremix.mix.method.Method`.

    Raises:
        ConfigError: if grid, cells, alpha or probability is out of range.

    Example:
        >>> images, targets = AttentiveMix(num_classes=2)(torch.rand(4, 3, 14, 14), torch.tensor([0, 1, 1, 0]))
        >>> images.shape, targets.shape
        (torch.Size([4, 3, 14, 14]), torch.Size([4, 2]))
    """

    grid: int = 7
    cells: int | None = 6
    alpha: float = 1.0
    importance: ImportanceMap | None = SALIENCY

    is_guided = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)
        if self.grid < 1:
            raise ConfigError(f"grid must be at least 1 cell a side, got {self.grid}")
        if self.cells is not None and not 1 <= self.cells <= self.grid**2:
            raise ConfigError(f"cells must be 1 to {self.grid**2} (grid x grid), got {self.cells}; None draws a number")

    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Keep the cells of each image that matter most."""
        rows, _, height, width = batch.images.shape
        maps = maps_of(batch)
        down, across = min(self.grid, maps.shape[-2], height), min(self.grid, maps.shape[-1], width)
        n = down * across
        if self.cells is None:
            share = kept_share(rows, alpha=self.alpha, rng=rng)
        else:
            share = np.full(rows, self.cells / self.grid**2)
        most = n if self.cells == self.grid**2 else max(n - 1, 1)
        count = torch.from_numpy(np.clip(np.rint(share * n), 1, most)).to(maps.device)
        score = functional.adaptive_avg_pool2d(maps, (down, across)).flatten(1).cpu().double()
        # Far below what tells two cells apart, so that it only decides between those that tie.
        ties = torch.from_numpy(rng.random((rows, n))).to(maps.device)
        score = score + 1e-9 * score.abs().amax(dim=1, keepdim=True).clamp(min=1e-300) * ties
        rank = score.argsort(dim=1, descending=True).argsort(dim=1)
        mask = (rank < count[:, None]).float().reshape(rows, 1, down, across)
        return Placement(mask=fit(mask, height=height, width=width))
