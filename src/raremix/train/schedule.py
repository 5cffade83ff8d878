"""Schedules as pure functions of the step, so that a checkpoint needs no scheduler state."""

import math
from typing import Literal

Schedule = Literal["cosine", "constant"]


def rate_factor(step: int, *, steps: int, warmup: int, schedule: Schedule = "cosine", final: float = 0.0) -> float:
    """Return the factor on the learning rate at a step.

    Linear warm-up to 1, then half a cosine down to `final` (Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983).

    Args:
        step: number of the step, from 0.
        steps: length of the run.
        warmup: steps of linear warm-up.
        schedule: "cosine", or "constant" after the warm-up.
        final: factor at the last step, in [0, 1].

    Example:
        >>> rate_factor(0, steps=100, warmup=0), round(rate_factor(100, steps=100, warmup=0), 6)
        (1.0, 0.0)
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    progress = (step - warmup) / max(1, steps - warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def average_decay(step: int, *, decay: float) -> float:
    """Return the decay of the weight average after a step: small at first, so that short runs forget their start.

    The rule min(decay, (1 + t) / (10 + t)) is that of TensorFlow's ExponentialMovingAverage.

    Example:
        >>> average_decay(0, decay=0.999)
        0.1
    """
    return min(decay, (1 + step) / (10 + step))
