"""Train a classifier: mix the batch, forward, loss on soft targets."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raremix.core.protocols import Loss, Mixer
from raremix.core.random import rng
from raremix.core.types import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """A classifier as something to train.

    Attributes:
        modules: {"classifier": the model}, images in [0, 1] -> logits.
        optimizers: {"classifier": its optimiser}.
        criterion: loss on soft targets.
        mixer: mixes every training batch with itself.
        seed: the run's seed.
        rank: this process's number; pairs are drawn within its slice of the batch.
    """

    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    criterion: Loss
    mixer: Mixer
    seed: int
    rank: int = 0
    averaged: tuple[str, ...] = ("classifier",)

    def loss(self, phase: str, batch: Batch, *, step: int) -> Mapping[str, Float[Tensor, ""]]:
        """Return the loss of a mixed batch."""
        plan = self.mixer.plan(batch, batch, rng=rng(self.seed, "mix", step, self.rank))
        mixed = plan.apply(batch)
        return {"loss": self.criterion(self.modules[phase](mixed.images), mixed.targets)}
