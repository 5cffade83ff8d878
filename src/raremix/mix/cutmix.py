"""CutMix: paste a box of another image, and mix the labels by the counted pixels."""

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
class CutMix(Mixer):
    """Replace a box of each image by the same box of a partner; a box, and its label weight, per image [1].

    Box of sides sqrt(1 - w) H and sqrt(1 - w) W around a uniform centre, w ~ Beta(alpha, alpha), clipped at the border;
    y = v y_own + (1 - v) y_partner, v = share of pixels outside the clipped box.

    [1] Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019,
    https://arxiv.org/abs/1905.04899. Departure: the authors' code draws one box per batch; here every row draws its
    own.

    Args:
        alpha: shape of the Beta distribution, > 0; 1, uniform, is what the paper uses.
        probability: probability that a row is mixed at all, in [0, 1].
        pairing: how partners are chosen; "any": a random permutation, whatever the classes.
        num_classes: number of classes; needed only where targets are class numbers.

    Raises:
        ConfigError: if alpha or probability is out of range.

    Example:
        >>> images, targets = CutMix(num_classes=2)(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))
        >>> images.shape, targets.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 2]))
    """

    alpha: float = 1.0
    probability: float = 1.0
    pairing: Literal["any"] = "any"
    num_classes: int | None = None

    def __post_init__(self) -> None:
        check_strength(alpha=self.alpha, probability=self.probability)

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        """Draw partners from the pool, and a box for each row of the batch."""
        rows, _, height, width = batch.images.shape
        partner = any_partner(rows, pool.images.shape[0], rng=rng)
        share = kept_share(rows, alpha=self.alpha, probability=self.probability, rng=rng)
        boxes = mask.random_boxes(share, height=height, width=width, rng=rng)
        return MixPlan(own=all_rows(rows), partner=torch.from_numpy(partner), mask=boxes, weight=label.area(boxes))
