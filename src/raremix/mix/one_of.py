"""OneOf: another method for every batch, by given probabilities."""

from dataclasses import dataclass

import numpy as np

from raremix.core.errors import ConfigError
from raremix.core.protocols import Mixer
from raremix.core.types import Batch, MixPlan, Streams
from raremix.mix.none import NoMix


@dataclass(frozen=True, kw_only=True)
class OneOf(Mixer):
    """Mix every batch by one of several methods, drawn anew each time.

    What RandAugment is to augmentations, OpenMixup's and timm's switching is to mixers: MixUp and CutMix alternating is
    the usual recipe of timm and torchvision.

    Args:
        mixers: the methods.
        probabilities: of each; all the same by default. They are scaled to a sum of one.
        num_classes: number of classes; needed only where targets are class numbers.

    Raises:
        ConfigError: if there are no mixers, the probabilities do not fit, or the mixers need different streams.

    Example:
        >>> import torch
        >>> from raremix.mix import CutMix, MixUp
        >>> mixer = OneOf(mixers=(MixUp(), CutMix()), probabilities=(0.3, 0.7), num_classes=2)
        >>> mixer(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))[1].shape
        torch.Size([4, 2])
    """

    mixers: tuple[Mixer, ...]
    probabilities: tuple[float, ...] | None = None
    num_classes: int | None = None

    def __post_init__(self) -> None:
        if not self.mixers:
            raise ConfigError("one_of needs at least one mixer: mixers = [{ name = ... }, ...]")
        weights = self.probabilities
        if weights is not None and (len(weights) != len(self.mixers) or min(weights) < 0 or sum(weights) <= 0):
            raise ConfigError(
                f"one_of has {len(self.mixers)} mixers and probabilities {list(weights)}: give each one a number >= 0"
            )
        if len({mixer.streams for mixer in self._mixing()}) > 1:
            raise ConfigError(
                "the mixers of one_of draw their images from different streams: put them in arms of their own"
            )

        if self.num_classes is None:
            known = next((m.num_classes for m in self.mixers if m.num_classes is not None), None)
            object.__setattr__(self, "num_classes", known)

    @property
    def streams(self) -> Streams:
        """The streams of its mixers, which are all the same."""
        mixing = self._mixing()
        return mixing[0].streams if mixing else Streams()

    def _mixing(self) -> list[Mixer]:
        """Return all but those that leave batches whole, such as one at rest: they take any stream."""
        return [mixer for mixer in self.mixers if not isinstance(mixer, NoMix)]

    def at_step(self, step: int, *, steps: int) -> Mixer:
        """Return the same choice among the mixers that are in force at a step; `NoMix` if all of them rest."""
        mixers = tuple(mixer.at_step(step, steps=steps) for mixer in self.mixers)
        if all(isinstance(mixer, NoMix) for mixer in mixers):
            return NoMix(num_classes=self.num_classes)
        return OneOf(mixers=mixers, probabilities=self.probabilities, num_classes=self.num_classes)

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        """Draw a mixer, and let it plan."""
        weights = np.ones(len(self.mixers)) if self.probabilities is None else np.asarray(self.probabilities)
        chosen = int(np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(), side="right"))
        return self.mixers[min(chosen, len(self.mixers) - 1)].plan(batch, pool, rng=rng)
