"""MixUp: blend two images and their labels."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from raremix.core.pixels import all_rows
from raremix.core.protocols import Mixer
from raremix.core.types import Batch, MixPlan
from raremix.mix import label, mask
from raremix.mix.pairing import any_partner
from raremix.mix.strength import check_strength, kept_share


@dataclass(frozen=True, kw_only=True)
class MixUp(Mixer):
    """Blend each image and its label with a partner's by a weight drawn per image [1].

    x = w x_own + (1 - w) x_partner, y = w y_own + (1 - w) y_partner, w ~ Beta(alpha, alpha).

    [1] Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, https://arxiv.org/abs/1710.09412.
    Departure: the authors' code draws one weight per batch; here every row draws its own, which has the same mean and
    less variance between batches.

    Args:
        alpha: shape of the Beta distribution, > 0. Small values leave most images nearly whole; 1 is uniform. 0.2 is
            what the paper and torchvision's reference recipes use on ImageNet.
        probability: probability that a row is mixed at all, in [0, 1].
        pairing: how partners are chosen; "any": a random permutation, whatever the classes.
        num_classes: number of classes; needed only where targets are class numbers.

    Raises:
        ConfigError: if alpha or probability is out of range.

    Example:
        >>> images, targets = MixUp(num_classes=2)(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))
        >>> images.shape, targets.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 2]))
    """

    alpha: float = 0.2
    probability: float = 1.0
    pairing: Literal["any"] = "any"
    num_classes: int | None = None

    def __post_init__(self) -> None:
        check_strength(alpha=self.alpha, probability=self.probability)

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        """Draw partners from the pool, and a weight for each row of the batch."""
        rows = batch.images.shape[0]
        partner = any_partner(rows, pool.images.shape[0], rng=rng)
        share = mask.blend(kept_share(rows, alpha=self.alpha, probability=self.probability, rng=rng))
        return MixPlan(own=all_rows(rows), partner=torch.from_numpy(partner), mask=share, weight=label.area(share))
