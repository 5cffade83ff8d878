"""Per-class thresholds where one class is the answer: what each class must be ahead by, from validation images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from raremix.core.errors import ConfigError
from raremix.core.types import Task
from raremix.models.last_layer import shift_logits
from raremix.study.recipes.kinds import Trained
from raremix.study.recipes.merit import merit_of

STRENGTHS = 21
"""Strengths of the adjustment to class frequencies that are tried first: 0, 0.1 ... 2."""

STEPS = tuple(sorted((np.log(10) / 10 * k for k in range(-20, 21) if k), key=abs))
"""A class's threshold moves by tenths of a decade, up to two decades either way; of equally good moves the least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassThresholds:
    """Call the class whose score is the largest multiple of its threshold: argmax_c s_c / t_c.

    Thresholds are chosen on validation images for the metric that chooses there: first a power of the training
    frequencies, t_c = n_c^tau, and from there each class in turn, by up to two decades, if that is better. They become
    part of the last layer's bias. For binary and multilabel tasks every study chooses thresholds: see [study]
    threshold.

    Args:
        rounds: how often each class is moved; 0 keeps the power of the frequencies, which is safer where a class has
            few validation images.

    Raises:
        ConfigError: if rounds is negative.
    """

    rounds: int = 2

    def __post_init__(self) -> None:
        if self.rounds < 0:
            raise ConfigError(f"class_thresholds: rounds must be at least 0, got {self.rounds}")

    def check(self, *, task: Task, where: str) -> None:
        """Refuse tasks whose thresholds are chosen anyway."""
        if task != "multiclass":
            raise ConfigError(
                f"{where} is for multiclass tasks, and this one is {task}: its thresholds are chosen on validation "
                "images already, by [study] threshold"
            )

    def finish(self, trained: Trained) -> tuple[nn.Module, dict[str, Any]]:
        """Return the classifier with its bias shifted, and the thresholds."""
        logits = trained.rows.outputs
        counts = np.maximum(np.asarray(trained.class_counts), 1.0)
        best, value = np.zeros(len(counts)), -np.inf
        for tau in np.linspace(0.0, 2.0, STRENGTHS):
            offsets = -tau * (np.log(counts) - np.log(counts).mean())
            found = merit_of(logits + offsets, trained)
            if found > value:
                best, value = offsets, found
        for _ in range(self.rounds):
            for k in range(len(counts)):
                current = best
                for step in STEPS:
                    moved = current.copy()
                    moved[k] += step
                    found = merit_of(logits + moved, trained)
                    if found > value:
                        best, value = moved, found
        return shift_logits(trained.model, best), {"thresholds": np.exp(-best).round(6).tolist()}
