"""No mixing: the control that every mixer is compared with."""

from dataclasses import dataclass

import numpy as np
import torch

from raremix.core.pixels import all_rows
from raremix.core.protocols import Mixer
from raremix.core.types import Batch, MixPlan


@dataclass(frozen=True, kw_only=True)
class NoMix(Mixer):
    """Return every image and label as it came, in new tensors.

    Args:
        num_classes: number of classes; needed only where targets are class numbers.

    Example:
        >>> images, targets = NoMix(num_classes=2)(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))
        >>> targets[0]
        tensor([1., 0.])
    """

    num_classes: int | None = None

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        """Plan that every row keeps all of itself; nothing is drawn, and the pool is not used."""
        rows = batch.images.shape[0]
        return MixPlan(
            own=all_rows(rows),
            partner=torch.zeros(rows, dtype=torch.long),
            mask=torch.ones(rows, 1, 1, 1),
            weight=torch.ones(rows),
        )
