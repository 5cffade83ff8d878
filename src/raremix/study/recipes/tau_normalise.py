"""Tau-normalisation, with tau from validation images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from raremix.core.errors import ConfigError
from raremix.core.features import head_of
from raremix.core.types import Task
from raremix.models import tau_normalise
from raremix.study.recipes.kinds import Trained
from raremix.study.recipes.merit import merit_of

STEPS = 21
"""Values of tau that are tried: 0, 0.05 ... 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TauNormalise:
    """Divide the last layer's weights by their length to the power tau, after training [1].

    tau is that of 0, 0.05 ... 1 with the best validation metric; of equally good ones the smallest.

    [1] Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020,
    https://arxiv.org/abs/1910.09217.

    Args:
        tau: in [0, 1]; None: chosen on validation images.

    Raises:
        ConfigError: if tau is out of range.
    """

    tau: float | None = None

    def __post_init__(self) -> None:
        if self.tau is not None and not 0 <= self.tau <= 1:
            raise ConfigError(f"tau_normalise: tau must lie in [0, 1], got {self.tau}; leave it out to choose it")

    def check(self, *, task: Task, where: str) -> None:
        """Accept every task."""

    def finish(self, trained: Trained) -> tuple[nn.Module, dict[str, Any]]:
        """Return the classifier with its last layer normalised, and tau."""
        if self.tau is not None:
            return tau_normalise(trained.model, tau=self.tau), {"tau": self.tau}
        layer = nn.Sequential(head_of(trained.model))
        best, value = 0.0, -np.inf
        for tau in np.linspace(0.0, 1.0, STEPS).round(2).tolist():
            with torch.inference_mode():
                logits = tau_normalise(layer, tau=tau)(trained.features).double().cpu().numpy()
            found = merit_of(logits, trained)
            if found > value:
                best, value = tau, found
        return tau_normalise(trained.model, tau=best), {"tau": best}
