"""Train a classifier and the network that mixes its images, each by what the other does."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from raremix.core.features import output_of
from raremix.core.protocols import Loss, Mixer
from raremix.core.random import rng
from raremix.core.types import Batch, Boxes
from raremix.train.average import update_averages
from raremix.train.guide import from_first_rank


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AutoMixing:
    """A classifier and a mask network as something to train, in two phases per step (`raremix.mix.automix`).

    "classifier"    criterion(classifier(mixed), mixed targets) + clean * criterion(classifier(images), targets)
    "mask"          criterion(teacher(mixed), targets by w) + area * max(|mean of the mask - w| - margin, 0)

    The teacher is a moving average of the classifier, in evaluation mode; it also gives the features that masks are
    drawn from. It is kept with the checkpoints, so that a resumed run goes on with the same one.

    Attributes:
        modules: {"classifier": images -> logits, "mask": the mask network}.
        optimizers: {"classifier": its optimiser, "mask": the other's}, in this order.
        criterion: loss on soft targets.
        mixer: `raremix.mix.AutoMix`; its network and features are filled in.
        seed: the run's seed.
        at: where features are taken: a module's name, or "stage3" as timm counts.
        steps: optimiser steps of the whole training, for mixers and losses that follow a schedule.
        rank: this process's number; pairs are drawn within its slice of the batch.
        decay: of the teacher's moving average.
        clean: weight of the loss of images that are not mixed; 0 saves their forward pass.
        area: weight of the penalty on the masks' area.
        margin: how far the area may be from w at no cost.
    """

    modules: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    criterion: Loss
    mixer: Mixer
    seed: int
    at: str = "stage3"
    steps: int = 1
    rank: int = 0
    decay: float = 0.999
    clean: float = 1.0
    area: float = 0.1
    margin: float = 0.1
    averaged: tuple[str, ...] = ("classifier", "mask")
    teacher: nn.Module | None = None

    def __post_init__(self) -> None:
        if self.teacher is None:
            teacher = copy.deepcopy(self.modules["classifier"]).requires_grad_(False).eval()
            object.__setattr__(self, "teacher", teacher)

    @property
    def memory(self) -> dict[str, Tensor]:
        """The teacher's weights."""
        assert self.teacher is not None
        return {f"teacher/{name}": value for name, value in self.teacher.state_dict().items()}

    def loss(self, phase: str, batch: Batch, *, step: int) -> Mapping[str, Float[Tensor, ""]]:
        """Return the losses of the classifier on mixed images, or those of the mask network."""
        assert self.teacher is not None
        teacher = self.teacher.to(batch.images.device)
        pool = batch if batch.pool is None else batch.pool
        is_mask = phase == "mask"
        criterion = self.criterion.at_step(step, steps=self.steps)
        settings: Any = self.mixer.at_step(step, steps=self.steps)
        mixer = replace(
            settings,
            network=self.modules["mask"],
            features=partial(output_of, teacher, self.at),
            is_learning=is_mask,
        )
        if not is_mask:
            mixed = mixer.plan(batch, pool, rng=rng(self.seed, "mix", step, self.rank)).apply(batch, pool)
            logits = self.modules["classifier"](mixed.images)
            loss = criterion(logits, mixed.targets)
            if self.clean > 0:
                loss = loss + self.clean * criterion(self.modules["classifier"](batch.images), batch.targets)
            return {"loss": loss}
        # By the share that was drawn: labels that follow the mask would let it choose what is easy.
        plan = replace(mixer, label="own").plan(batch, pool, rng=rng(self.seed, "mask", step, self.rank))
        assert not isinstance(plan.mask, Boxes)
        mixed = plan.apply(batch, pool)
        seen = criterion(teacher(mixed.images), mixed.targets)
        gap = (plan.mask.mean(dim=(1, 2, 3)) - plan.weight.to(plan.mask.device)).abs()
        return {"loss": seen + self.area * functional.relu(gap - self.margin).mean(), "seen": seen, "gap": gap.mean()}

    def after_step(self, step: int, averaged: Mapping[str, nn.Module]) -> None:
        """Move the teacher towards the classifier."""
        assert self.teacher is not None
        with torch.no_grad():
            update_averages(self, {"classifier": self.teacher}, decay=self.decay, step=step)
            from_first_rank(*self.teacher.buffers())
