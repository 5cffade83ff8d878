"""Remix: blend two images as MixUp does, and let the rarer class have the label."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from raremix.core.errors import ConfigError
from raremix.core.types import Batch
from raremix.mix import label as rules
from raremix.mix import mask
from raremix.mix.method import Method, Placement
from raremix.mix.pairing import Pairs, row_frequencies
from raremix.mix.strength import check_alpha, kept_share


@dataclass(frozen=True, kw_only=True)
class Remix(Method):
    """Blend images as MixUp does; a much rarer class with a large enough share of the pixels takes the whole label [1].

    x = w x_own + (1 - w) x_partner, w ~ Beta(alpha, alpha); y = v y_own + (1 - v) y_partner with, for the class counts
    n, v = 0 if n_own / n_partner >= kappa and w < tau; 1 if n_own / n_partner <= 1 / kappa and 1 - w < tau; w else.

    [1] Chou et al., "Remix: Rebalanced Mixup", ECCV Workshops 2020, https://arxiv.org/abs/2007.03943. Departures: every
    row draws its own weight; a row of several labels is as frequent as the rarest of them, since the paper knows one
    label per image; a row without any label is more frequent than all, and two such rows are mixed as by MixUp.

    Args:
        alpha: shape of the Beta distribution, > 0; 1, uniform, is what the paper uses.
        kappa: ratio of class counts from which the rarer class is favoured, >= 1; the paper has 3.
        tau: the label is given away whole only where its share is below this, in [0, 1]; the paper has 0.5.
        label: "own": the rule above. Any other rule, as in every method.
        class_counts: training images per class; left out, the labels of the pool are counted.

    The other settings are those of every method: `raremix.mix.method.Method`.

    Raises:
        ConfigError: if alpha, probability, kappa or tau is out of range.

    Example:
        >>> import torch
        >>> mixer = Remix(num_classes=2, class_counts=(90.0, 10.0))
        >>> images, targets = mixer(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 0]))
        >>> images.shape, targets.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 2]))
    """

    alpha: float = 1.0
    kappa: float = 3.0
    tau: float = 0.5
    label: rules.LabelName | Literal["own"] = "own"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)
        if not self.kappa >= 1:
            raise ConfigError(f"kappa is a ratio of class counts >= 1, got {self.kappa}")
        if not 0 <= self.tau <= 1:
            raise ConfigError(f"tau is a share in [0, 1], got {self.tau}")

    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Draw a weight for each row of the batch, and weigh the labels by class counts."""
        blended = mask.blend(kept_share(len(batch.images), alpha=self.alpha, rng=rng))
        if self.label not in ("own", "remix"):
            return Placement(mask=blended)
        own, others = row_frequencies(batch, pool, class_counts=self._counts())
        weight = rules.remix(rules.area(blended), own, others[pairs.partner], kappa=self.kappa, tau=self.tau)
        return Placement(mask=blended, weight=weight)
