"""GuidedMixup: every pixel is mixed by how salient it is in either image."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from raremix.core.errors import ConfigError
from raremix.core.pixels import take_rows
from raremix.core.protocols import ImportanceMap
from raremix.core.types import Batch
from raremix.mix.guidance import SALIENCY, fit, maps_of, partner_maps
from raremix.mix.method import Method, Placement
from raremix.mix.pairing import PairingName, Pairs


@dataclass(frozen=True, kw_only=True)
class GuidedMixup(Method):
    """Mix each pixel by its own saliency over the sum of both, with partners that are salient elsewhere [1].

    s = blurred saliency, scaled to a sum of one over the image; mask = s_own / (s_own + s_partner);
    y = v y_own + (1 - v) y_partner, v = mean of the mask.

    [1] Kang, Kim, "GuidedMixup: An Efficient Mixup Strategy Guided by Saliency Maps", AAAI 2023,
    https://arxiv.org/abs/2306.16612. Departures: partners are chosen on maps of 16 x 16, in random order
    (`raremix.mix.pairing.pair_most_dissimilar`; the authors start at the most distant pair and follow one cycle), and
    the mask is computed at the resolution of the maps. The blur is a whole Gaussian; the authors' has 7 taps of
    sigma 3. Where neither image has any saliency the mask is a half (there: NaN).

    Args:
        sigma: standard deviation of the blur in pixels of the image; 0: none. Coarse maps are blurred less.
        pairing: who is mixed with whom.
        importance: what is salient; in the paper a spectral residual or the input gradient.

    The other settings are those of every method: `raremix.mix.method.Method`.

    Raises:
        ConfigError: if sigma or probability is out of range.

    Example:
        >>> images, targets = GuidedMixup(num_classes=2)(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))
        >>> images.shape, targets.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 2]))
    """

    sigma: float = 3.0
    pairing: PairingName = "most_dissimilar"
    importance: ImportanceMap | None = SALIENCY

    is_guided = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (np.isfinite(self.sigma) and self.sigma >= 0):
            raise ConfigError(f"sigma must be a finite number of pixels >= 0, got {self.sigma}; 0 is no blur")

    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Compare both maps, cell by cell."""
        height, width = batch.images.shape[-2:]
        maps = maps_of(batch)
        blur = {"down": self.sigma * maps.shape[-2] / height, "across": self.sigma * maps.shape[-1] / width}
        own = spread(maps, **blur)
        if pool is batch:
            partner = take_rows(own, torch.from_numpy(pairs.partner))
        else:
            partner = spread(partner_maps(pool, pairs, like=maps), **blur)
        total = own + partner
        mask = torch.where(total > 0, own / total.clamp(min=1e-30), 0.5)
        return Placement(mask=fit(mask, height=height, width=width))


def spread(maps: Float[Tensor, "R 1 h w"], *, down: float, across: float) -> Float[Tensor, "R 1 h w"]:
    """Blur maps and scale each to a sum of one; a map without any importance counts as the same everywhere.

    Args:
        maps: values >= 0.
        down, across: standard deviations of the Gaussian, in cells of the map; weights are scaled to one at the border.

    Example:
        >>> spread(torch.tensor([[[[0.0, 3.0, 1.0]]]]), down=0.0, across=0.0)
        tensor([[[[0.0000, 0.7500, 0.2500]]]])
    """
    height, width = maps.shape[-2:]
    maps = maps.clamp(min=0)
    with torch.autocast(maps.device.type, enabled=False):
        if down > 0:
            maps = _gaussian(height, sigma=down, like=maps) @ maps
        if across > 0:
            maps = maps @ _gaussian(width, sigma=across, like=maps).T
    total = maps.sum(dim=(2, 3), keepdim=True)
    return torch.where(total > 0, maps / total.clamp(min=1e-30), 1.0 / (height * width))


def _gaussian(length: int, *, sigma: float, like: Tensor) -> Float[Tensor, "{length} {length}"]:
    places = torch.arange(length, device=like.device, dtype=like.dtype)
    weights = torch.exp(-0.5 * ((places[:, None] - places[None, :]) / sigma) ** 2)
    return weights / weights.sum(dim=1, keepdim=True)
