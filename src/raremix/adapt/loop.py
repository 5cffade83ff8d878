"""A mixer in a loop: at each call another stream, the mixer that is in force, and a batch to draw partners from."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import get_worker_info

from raremix.adapt.sample import PoolBatch
from raremix.adapt.streams import Streams
from raremix.core.errors import ConfigError, DataError
from raremix.core.protocols import Mixer
from raremix.mix import OneOf, Sometimes

SLOTS = 256
"""Counters that workers share; those of more workers than this share one, and may lose a count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one call mixes by.

    Attributes:
        mixer: the one in force.
        rng: the stream to draw from.
        pool: what partners come from; None: the batch itself.
    """

    mixer: Mixer
    rng: np.random.Generator
    pool: PoolBatch | None


class Partners:
    """Batches that partners are drawn from, one per call; a pool that ends is gone through again.

    Args:
        mixer: what mixes.
        pool: yields (images, targets), (images, targets, is_synthetic) or `raremix.core.types.Batch`, as a DataLoader
            does; None: the batch itself.

    Raises:
        ConfigError: if the mixer draws its partners from a stream of their own and there is no pool, or if it repeats
            its mixed images, which only a study's loader does.
    """

    def __init__(self, mixer: Mixer, pool: Iterable[PoolBatch] | None) -> None:
        streams = mixer.streams
        if streams.pool is not None and pool is None:
            asked = {"any": "images", "real": "real images", "synthetic": "synthetic images"}[streams.pool.origin]
            sampling = f", sampled {streams.pool.sampling}" if streams.pool.sampling else ""
            raise ConfigError(
                f"{type(mixer).__name__} draws its partners from {asked}{sampling}, and the batch itself is not that: "
                "pass pool=, a DataLoader of (images, targets); to mix a batch with itself all the same, call "
                "mixer(images, targets) in the loop"
            )
        if streams.repeat is not None:
            raise ConfigError(
                f"{type(mixer).__name__} repeats {streams.repeat} mixed images (offline_images), which only a study's "
                "loader does: leave offline_images out"
            )
        self._pool = pool
        self._batches: Iterator[PoolBatch] | None = None

    def next(self) -> PoolBatch | None:
        """Return the next batch of the pool, or None where there is no pool.

        Raises:
            DataError: if the pool is empty, or has ended and cannot be gone through again.
        """
        if self._pool is None:
            return None
        if self._batches is not None:
            for batch in self._batches:
                return batch
        self._batches = iter(self._pool)
        for batch in self._batches:
            return batch
        raise DataError(
            "the pool yields no batch, at first or again: pass something that can be gone through more than once, such "
            "as a DataLoader"
        )


class Loop:
    """Say at each call what to mix by.

    Args:
        mixer: what mixes.
        seed: an integer >= 0; see `raremix.adapt.streams`.
        steps: calls of the whole training, over all workers, which a mixer that follows a schedule needs.
        first_step: calls before the first one here, of a training that is resumed.
        pool: what partners are drawn from; see `Partners`.

    Raises:
        ConfigError: if a number is out of range, the mixer follows a schedule and steps is missing, or it needs a pool.
    """

    def __init__(
        self,
        mixer: Mixer,
        *,
        seed: int = 0,
        steps: int | None = None,
        first_step: int = 0,
        pool: Iterable[PoolBatch] | None = None,
    ) -> None:
        if (steps is not None and steps < 1) or first_step < 0:
            raise ConfigError(f"steps must be at least 1 and first_step at least 0, got {steps} and {first_step}")
        follows = follows_schedule(mixer)
        if follows and steps is None:
            raise ConfigError(
                f"{type(mixer).__name__} follows a schedule: pass steps=, the number of batches of the whole training, "
                "for example steps=epochs * len(loader)"
            )
        self._mixer, self._steps, self._first = mixer, steps, first_step
        self._partners, self._streams = Partners(mixer, pool), Streams(seed=seed)
        # A worker's copy of this object ends with the epoch, and sees a part of the batches: all write into one table.
        self._counts = torch.zeros(SLOTS, dtype=torch.int64).share_memory_() if follows else None

    def next(self) -> Turn:
        """Count the call, and return what it mixes by."""
        return Turn(mixer=self._in_force(), rng=self._streams.next(), pool=self._partners.next())

    def skip(self) -> None:
        """Count a call that mixes nothing."""
        self._in_force()

    def _in_force(self) -> Mixer:
        if self._counts is None or self._steps is None:
            return self._mixer
        worker = get_worker_info()
        step = self._first + int(self._counts.sum())
        self._counts[0 if worker is None else 1 + worker.id % (SLOTS - 1)] += 1
        return self._mixer.at_step(step, steps=self._steps)


def follows_schedule(mixer: Mixer) -> bool:
    """Whether a mixer, or one that it chooses from, is another one at another step."""
    if isinstance(mixer, OneOf):
        return any(follows_schedule(one) for one in mixer.mixers)
    if isinstance(mixer, Sometimes):
        return follows_schedule(mixer.mixer)
    return type(mixer).at_step is not Mixer.at_step
