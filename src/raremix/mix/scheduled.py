"""Scheduled: a mixer that starts late, stops early, or fades out."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from raremix.core.errors import ConfigError
from raremix.core.protocols import Mixer
from raremix.core.types import Batch, MixPlan, Streams
from raremix.mix.method import check_name, check_probability
from raremix.mix.none import NoMix


@dataclass(frozen=True, kw_only=True)
class Scheduled(Mixer):
    """Mix between two moments of the training only, and by option ever less often.

    A training loop asks `at_step` for the mixer in force. Called without a step it mixes as it does at its start.

    Args:
        mixer: what mixes.
        start, stop: first moment, and first moment after the last, as shares of the training in [0, 1].
        decay: "linear": the probability that a batch is mixed falls from 1 at `start` to 0 at `stop`; None: it is 1.
        num_classes: number of classes; needed only where targets are class numbers.

    Raises:
        ConfigError: if start and stop are not 0 <= start < stop <= 1.
        UnknownNameError: if there is no such decay.

    Example:
        >>> from raremix.mix import CutMix
        >>> mixer = Scheduled(mixer=CutMix(), start=0.1, stop=0.9)
        >>> type(mixer.at_step(0, steps=100)).__name__, type(mixer.at_step(50, steps=100)).__name__
        ('NoMix', 'CutMix')
    """

    mixer: Mixer
    start: float = 0.0
    stop: float = 1.0
    decay: Literal["linear"] | None = None
    num_classes: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop <= 1:
            raise ConfigError(f"a schedule needs 0 <= start < stop <= 1, got {self.start} and {self.stop}")
        if self.decay is not None:
            check_name(self.decay, ("linear",), kind="decay")
        if self.num_classes is None:
            object.__setattr__(self, "num_classes", self.mixer.num_classes)

    @property
    def streams(self) -> Streams:
        """The streams of its mixer."""
        return self.mixer.streams

    def at_step(self, step: int, *, steps: int) -> Mixer:
        """Return the mixer in force; `NoMix` outside the schedule."""
        moment = step / max(steps, 1)
        if not self.start <= moment < self.stop:
            return NoMix(num_classes=self.num_classes)
        inner = with_classes(self.mixer.at_step(step, steps=steps), self.num_classes)
        if self.decay is None or isinstance(inner, NoMix):
            return inner
        probability = (self.stop - moment) / (self.stop - self.start)
        return Sometimes(mixer=inner, probability=probability, num_classes=self.num_classes)

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        """Plan as the mixer does, whatever the moment."""
        return self.mixer.plan(batch, pool, rng=rng)


@dataclass(frozen=True, kw_only=True)
class Sometimes(Mixer):
    """Mix a batch with some probability, and else leave it whole.

    Args:
        mixer: what mixes.
        probability: that a batch is mixed, in [0, 1].
        num_classes: number of classes; needed only where targets are class numbers.

    Raises:
        ConfigError: if probability is out of range.

    Example:
        >>> import torch
        >>> from raremix.mix import CutMix
        >>> images = torch.rand(2, 1, 4, 4)
        >>> mixed, _ = Sometimes(mixer=CutMix(), probability=0.0)(images, torch.eye(2))
        >>> bool(torch.equal(mixed, images))
        True
    """

    mixer: Mixer
    probability: float
    num_classes: int | None = None

    def __post_init__(self) -> None:
        check_probability(self.probability)
        if self.num_classes is None:
            object.__setattr__(self, "num_classes", self.mixer.num_classes)

    @property
    def streams(self) -> Streams:
        """The streams of its mixer."""
        return self.mixer.streams

    def at_step(self, step: int, *, steps: int) -> Mixer:
        """Return the same for the mixer in force."""
        inner = with_classes(self.mixer.at_step(step, steps=steps), self.num_classes)
        return inner if isinstance(inner, NoMix) else replace(self, mixer=inner)

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        """Draw whether, and plan."""
        chosen = self.mixer if rng.random() < self.probability else NoMix()
        return chosen.plan(batch, pool, rng=rng)


def with_classes(mixer: Mixer, num_classes: int | None) -> Mixer:
    """Return a mixer that takes class numbers, if it does not know how many classes there are and somebody does."""
    if num_classes is None or mixer.num_classes is not None:
        return mixer
    return replace(mixer, num_classes=num_classes)  # type: ignore[type-var]
