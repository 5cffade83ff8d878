"""From a step number to a batch: no iterator, no state, any number of threads and ranks."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.core.types import Batch


@runtime_checkable
class Images(Protocol):
    """Decoded images by manifest id."""

    def take(self, ids: Int[np.ndarray, " B"]) -> np.ndarray:
        """Return uint8 or uint16 images of shape (B, C, H, W)."""
        ...


@runtime_checkable
class Sampler(Protocol):
    """Which row stands at which position of an endless stream."""

    def row(self, positions: Int[np.ndarray, " B"]) -> Int[np.ndarray, " B"]:
        """Return the row at each position; a pure function."""
        ...


@runtime_checkable
class Augmentation(Protocol):
    """Random changes that keep the label."""

    def plan(self, count: int, *, rng: np.random.Generator) -> Any:
        """Draw the changes of `count` images; the plan can be sliced by rows."""
        ...

    def apply(self, images: Float[torch.Tensor, "B C H W"], plan: Any) -> Float[torch.Tensor, "B C H W"]:
        """Make the changes."""
        ...

    def warp(self, plan: Any) -> Float[torch.Tensor, "B 2 3"] | None:
        """Return how a plan moves pixels, from output to input coordinates; None where it does not."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Make the batch of any step.

    Positions, and every draw of the augmentation, belong to the *global* batch; ranks only slice it. So the order and
    the draws are the same for any number of workers and ranks, and a resumed run needs to know its step only.

    Attributes:
        images: decoded images.
        ids: manifest ids of the training rows.
        targets: labels of the training rows, NaN where not labelled.
        sampler: from position to training row.
        augmentation: random changes, or None.
        batch_size: images in the global batch.
        seed: the run's seed.
        rank, ranks: which slice this process takes of how many.
        is_synthetic: which training rows were generated, or None where all are real.
        repeat: number of steps after which the same batches come again, or None.
        stream: number of the stream that augmentation is drawn from; a pool has one of its own.
        pool: makes the batches that partners are drawn from, or None for the batch itself.

    Raises:
        ConfigError: if the batch cannot be shared out evenly.
    """

    images: Images
    ids: Int[np.ndarray, " n"]
    targets: Float[np.ndarray, "n K"]
    sampler: Sampler
    augmentation: Augmentation | None = None
    batch_size: int
    seed: int
    rank: int = 0
    ranks: int = 1
    is_synthetic: Bool[np.ndarray, " n"] | None = None
    repeat: int | None = None
    stream: int = 0
    pool: "Feed | None" = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.ranks:
            raise ConfigError(f"batch_size = {self.batch_size} must be a multiple of the {self.ranks} devices")

    def batch(self, step: int) -> Batch:
        """Return this rank's slice of the batch of a step, on the CPU."""
        step = step if self.repeat is None else step % self.repeat
        size = self.batch_size // self.ranks
        mine = slice(self.rank * size, (self.rank + 1) * size)
        rows = self.sampler.row(np.arange(step * self.batch_size, (step + 1) * self.batch_size)[mine])
        ids = self.ids[rows]
        images, warp = to_float(self.images.take(ids)), None
        if self.augmentation is not None:
            address = (step, self.stream) if self.stream else (step,)
            plan = self.augmentation.plan(self.batch_size, rng=rng(self.seed, "augment", *address))[mine]
            images, warp = self.augmentation.apply(images, plan), self.augmentation.warp(plan)
        return Batch(
            images=images,
            targets=torch.from_numpy(self.targets[rows]).float(),
            ids=torch.from_numpy(ids),
            warp=warp,
            is_synthetic=None if self.is_synthetic is None else torch.from_numpy(self.is_synthetic[rows]),
            pool=None if self.pool is None else self.pool.batch(step),
        )

    def batches(self, first: int, last: int, *, workers: int = 0, prefetch: int = 2) -> Iterator[Batch]:
        """Yield the batches of steps first .. last - 1, made ahead by threads.

        Args:
            first, last: range of steps.
            workers: threads; 0 makes each batch when it is asked for.
            prefetch: batches made ahead per thread.
        """
        if workers == 0:
            for step in range(first, last):
                yield self.batch(step)
            return
        pool = ThreadPoolExecutor(workers, thread_name_prefix="raremix-feed")
        try:
            ahead: deque[Future[Batch]] = deque()
            coming = iter(range(first, last))
            for step in coming:
                ahead.append(pool.submit(self.batch, step))
                if len(ahead) > workers * prefetch:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def to_float(images: np.ndarray) -> Float[torch.Tensor, "B C H W"]:
    """Turn uint8 or uint16 images into floats in [0, 1]."""
    if images.dtype == np.uint16:
        return torch.from_numpy(images.astype(np.int32)).float().div_(65535)
    return torch.from_numpy(images).float().div_(255)
