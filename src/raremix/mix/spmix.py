"""SPMix: a new image of the tail from one of the tail and one of the head, patch by patch as salient."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.core.pixels import take_rows
from raremix.core.protocols import ImportanceMap
from raremix.core.types import Batch, MixPlan, Stream, Streams
from raremix.mix.guidance import SALIENCY, fit, maps_of, partner_maps
from raremix.mix.label import LabelName
from raremix.mix.method import Method, Placement
from raremix.mix.pairing import Pairs

LARGE = 224
"""Side from which a patch has the 16 pixels of the paper."""
MOST = 0.8
"""Largest share that a patch keeps of its own image (the authors' code)."""


@dataclass(frozen=True, kw_only=True)
class SPMix(Method):
    """Blend patches of two images by their saliency, and keep the label of one [1].

    s = 1/2 + 1/2 minmax(saliency, averaged over each patch); r = min(0.8, max(s_own, s_partner)), in [0.5, 0.8];
    z = r z_own + (1 - r) z_partner, y = y_own. z are the tokens after the network's stem (`at = "stem"`), or pixels.

    Two readings of who is who: in the paper the own image comes class-balanced and its partner as frequent as they are;
    in the released code it is the other way round. A study's loader feeds both streams; a mixer that is called alone
    mixes what it is given.

    [1] Wei et al., "Saliency-guided and Patch-based Mixup for Long-tailed Skin Cancer Image Classification", ISBI 2024,
    https://arxiv.org/abs/2406.10801. Departures: at the level of pixels, for networks without tokens, r is repeated
    over each patch; on images below 224 pixels patches are smaller, so that there are 14 along the shorter side; the
    saliency is not padded with the mean colour at the border (the code's is).

    Args:
        reading: "paper": own balanced, pool natural. "code": own natural, pool balanced.
        patch: side of a patch in pixels; None: 16, and a fourteenth of the shorter side below 224 pixels.
        at: where it is mixed: "stem" or another module's name, for networks with tokens; None: the pixels.
        label: what the label becomes; "keep" is the method's.
        importance: what is salient; the paper's is `FineGrained`.

    The other settings are those of every method: `raremix.mix.method.Method`.

    Raises:
        ConfigError: if reading, patch or probability is out of range.

    Example:
        >>> images, targets = SPMix(num_classes=2)(torch.rand(4, 3, 28, 28), torch.tensor([0, 1, 1, 0]))
        >>> images.shape, targets[:, 1]
        (torch.Size([4, 3, 28, 28]), tensor([0., 1., 1., 0.]))
    """

    reading: Literal["paper", "code"] = "paper"
    patch: int | None = None
    at: str | None = None
    label: LabelName | Literal["own"] = "keep"
    importance: ImportanceMap | None = SALIENCY

    is_guided = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reading not in {"paper", "code"}:
            raise ConfigError(f'reading must be "paper" or "code", got {self.reading!r}')
        if self.patch is not None and self.patch < 1:
            raise ConfigError(f"patch must be at least 1 pixel, got {self.patch}; leave it out to follow the image")

    @property
    def streams(self) -> Streams:
        """Own images and partners by the chosen reading."""
        balanced, natural = Stream(sampling="balanced"), Stream(sampling="natural")
        if self.reading == "paper":
            return Streams(own=balanced, pool=natural)
        return Streams(own=natural, pool=balanced)

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        """Plan as every method does, for the tokens if asked."""
        plan = super().plan(batch, pool, rng=rng)
        return plan if self.at is None else replace(plan, at=self.at)

    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Let each patch keep what the more salient of both images says."""
        height, width = batch.images.shape[-2:]
        side = min(height, width)
        patch = self.patch or (16 if side >= LARGE else max(1.0, side / 14))
        cells = (max(1, round(height / patch)), max(1, round(width / patch)))
        maps = maps_of(batch)
        own = strength(maps, cells=cells)
        if pool is batch:
            partner = take_rows(own, torch.from_numpy(pairs.partner))
        else:
            partner = strength(partner_maps(pool, pairs, like=maps), cells=cells)
        mask = torch.maximum(own, partner).clamp(max=MOST)
        return Placement(mask=mask if self.at is not None else fit(mask, height=height, width=width))


def strength(maps: Float[Tensor, "R 1 h w"], *, cells: tuple[int, int]) -> Float[Tensor, "R 1 a b"]:
    """Average maps over patches and bring each image's lowest to a half and its highest to one; flat maps are a half.

    Args:
        maps: any values.
        cells: patches down and across.

    Example:
        >>> strength(torch.tensor([[[[0.0, 0.2, 0.4, 0.4]]]]), cells=(1, 2)).flatten()
        tensor([0.5000, 1.0000])
    """
    pooled = functional.adaptive_avg_pool2d(maps, cells)
    low, high = pooled.amin(dim=(2, 3), keepdim=True), pooled.amax(dim=(2, 3), keepdim=True)
    return 0.5 + 0.5 * torch.where(high > low, (pooled - low) / (high - low).clamp(min=1e-30), 0.0)
