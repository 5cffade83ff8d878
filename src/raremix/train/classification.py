"""Train a classifier: mix the batch, forward, loss on soft targets."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from raremix.core.features import forward_mixed, head_of
from raremix.core.protocols import FeatureLoss, HeadLoss, Loss, Mixer, Prototypes
from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.train.checkpoint import unwrap
from raremix.train.contrast import Contrast
from raremix.train.guide import Guide


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """A classifier as something to train.

    Attributes:
        modules: {"classifier": the model}, images in [0, 1] -> logits; with a contrast also {"projection": ...}.
        optimizers: {"classifier": the optimiser of all modules}.
        criterion: loss on soft targets; asked at every step for the one that is in force.
        mixer: mixes every training batch with itself, or with its pool.
        seed: the run's seed.
        steps: optimiser steps of the whole training, for mixers and losses that follow a schedule.
        rank: this process's number; pairs are drawn within its slice of the batch.
        guide: keeps importance maps for the mixer, or None.
        contrast: keeps features for a loss that compares them, or None.
        repeat: steps after which the same draws come again (a fixed mixed set; the feed repeats likewise), or None.
    """

    modules: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    criterion: Loss
    mixer: Mixer
    seed: int
    steps: int = 1
    rank: int = 0
    averaged: tuple[str, ...] = ("classifier",)
    guide: Guide | None = None
    repeat: int | None = None
    contrast: Contrast | None = None

    @property
    def memory(self) -> dict[str, Tensor]:
        """The kept importance maps, where they change, and kept features."""
        kept = {} if self.guide is None else dict(self.guide.memory)
        return kept if self.contrast is None else kept | self.contrast.memory

    def loss(self, phase: str, batch: Batch, *, step: int) -> Mapping[str, Float[Tensor, ""]]:
        """Return the loss of a mixed batch."""
        mixer = self.mixer.at_step(step, steps=self.steps)
        if self.guide is not None:
            batch = self.guide.attach(batch)
        pool = batch if batch.pool is None else batch.pool
        address = step if self.repeat is None else step % self.repeat
        plan = mixer.plan(batch, pool, rng=rng(self.seed, "mix", address, self.rank))
        if self.guide is not None:
            self.guide.watch(batch, plan)
        criterion = self.criterion.at_step(step, steps=self.steps)
        if self.contrast is not None and isinstance(criterion, FeatureLoss):
            return {"loss": self.contrast.loss(criterion, self.modules, batch, plan, pool)}
        model = self.modules[phase]
        network = unwrap(model)
        logits, targets = forward_mixed(model, batch, plan, pool, network=network)
        if isinstance(criterion, HeadLoss):
            head = head_of(network)
            assert isinstance(head, Prototypes)  # the study checked it
            return {"loss": criterion.with_head(logits, targets, head=head)}
        return {"loss": criterion(logits, targets)}

    def after_step(self, step: int, averaged: Mapping[str, nn.Module]) -> None:
        """Bring the kept importance maps and features up to date."""
        if self.guide is not None:
            self.guide.after_step(step, averaged)
        if self.contrast is not None:
            self.contrast.after_step(self, step)
