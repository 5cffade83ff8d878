"""Post-hoc logit adjustment: take the training images' class frequencies off the logits."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from raremix.core.errors import ConfigError
from raremix.core.types import Task
from raremix.models.last_layer import shift_logits
from raremix.study.recipes.kinds import Trained


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitAdjustment:
    """Subtract tau log(class frequency) from the logits of a trained classifier [1].

    Several labels: tau logit(frequency). It becomes part of the last layer's bias, so that the classifier needs
    nothing beside it. Scores are then those of classes that are equally frequent.

    [1] Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, https://arxiv.org/abs/2007.07314.

    Args:
        tau: strength, > 0.

    Raises:
        ConfigError: if tau is not positive.
    """

    tau: float = 1.0

    def __post_init__(self) -> None:
        if not self.tau > 0:
            raise ConfigError(f"logit_adjustment: tau must be more than 0, got {self.tau}; 1 takes the prior off")

    def check(self, *, task: Task, where: str) -> None:
        """Accept every task."""

    def finish(self, trained: Trained) -> tuple[nn.Module, dict[str, Any]]:
        """Return the classifier with its bias shifted, and the shift."""
        # An image more of each kind keeps a class that fills the training split, or is not in it, off infinity.
        counts = np.asarray(trained.class_counts) + 1.0
        if trained.task == "multilabel":
            rows = np.asarray(trained.labelled_counts) + 2.0
            prior = np.log(counts) - np.log(rows - counts)
        else:
            prior = np.log(counts / counts.sum())
        offsets = -self.tau * prior
        return shift_logits(trained.model, offsets), {"offsets": offsets.round(6).tolist()}
