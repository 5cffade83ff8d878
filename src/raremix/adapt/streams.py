"""Random streams for loops that hand none over: another one for every call, in every worker of a DataLoader."""

import numpy as np
import torch
from torch.utils.data import get_worker_info

from raremix.core.errors import ConfigError
from raremix.core.random import rng


class Streams:
    """Open a new stream at each call, without moving any global random state.

    Streams are addressed by the worker's seed (in the main process: by torch's initial seed), by `seed` and by the
    number of calls. After `torch.manual_seed` a new object therefore opens the same streams again, and no two workers
    ever open the same.

    Args:
        seed: an integer >= 0. Two objects of one process, or of two ranks that were seeded alike, need different ones.

    Raises:
        ConfigError: if the seed is negative.

    Example:
        >>> first, again = Streams(), Streams()
        >>> bool(first.next().random() == again.next().random())
        True
    """

    def __init__(self, *, seed: int = 0) -> None:
        if seed < 0:
            raise ConfigError(f"seed must be an integer >= 0, got {seed}")
        self._seed = seed
        self._calls = 0

    def next(self) -> np.random.Generator:
        """Open the next stream."""
        worker = get_worker_info()
        call, self._calls = self._calls, self._calls + 1
        return rng(torch.initial_seed() if worker is None else worker.seed, "mix", self._seed, call)
