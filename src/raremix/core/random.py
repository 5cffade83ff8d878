"""Random streams as addresses: every draw is a function of (seed, purpose, index), never of what was drawn before.

A stream is a Philox generator whose key is a hash of seed and purpose and whose two high counter words are the index,
so two addresses never overlap: drawing advances the low words, of which there are 2^128. A run that is killed and
resumed, or spread over other workers and ranks, therefore draws the same numbers without any state being kept.

Philox: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, https://doi.org/10.1145/2063384.2063405.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import count
from typing import Any, Literal, get_args

import numpy as np
import torch

from raremix.core.errors import UnknownNameError

Purpose = Literal[
    "init",
    "shuffle",
    "sample",
    "augment",
    "pair",
    "mix",
    "mask",
    "dropout",
    "bootstrap",
    "split",
    "phantom",
    "show",
    "latent",
]
PURPOSES: frozenset[str] = frozenset(get_args(Purpose))

_calls = count()


def rng(seed: int, purpose: Purpose, *index: int) -> np.random.Generator:
    """Open the random stream at an address.

    Args:
        seed: the run's seed, any integer.
        purpose: what the numbers are for; a closed set, so that no two parts of the code share a stream by accident.
        *index: where in the run, for example (step,) or (epoch, row); integers >= 0.

    Returns:
        A generator that nobody else holds.

    Raises:
        UnknownNameError: if the purpose is not one of `PURPOSES`.

    Example:
        >>> bool(rng(0, "mix", 7).random() == rng(0, "mix", 7).random())
        True
    """
    if purpose not in PURPOSES:
        raise UnknownNameError("random purpose", purpose, PURPOSES)
    key = _key(seed, purpose, len(index))
    if len(index) > 2:
        digest = blake2b(b"".join(int(i).to_bytes(8, "little") for i in index), digest_size=16).digest()
        high = [int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")]
    else:
        high = [*(int(i) for i in index), 0, 0][:2]
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, *high], dtype=np.uint64)))


def torch_seed(seed: int, purpose: Purpose, *index: int) -> int:
    """Return a 63-bit seed for a `torch.Generator` at an address.

    Example:
        >>> torch_seed(0, "init") == torch_seed(0, "init")
        True
    """
    return int(rng(seed, purpose, *index).integers(0, 2**63 - 1))


def ambient_rng(purpose: Purpose) -> np.random.Generator:
    """Open a fresh stream for a caller who gave none, from torch's initial seed and a count of such calls."""
    return rng(torch.initial_seed(), purpose, next(_calls))


class RowStreams(np.random.Generator):
    """Draws for rows of which each has a stream of its own, so that they do not depend on the rows beside it.

    By row are `standard_normal` and `random` of a size that begins with the number of rows. All else comes from the
    first row's stream.

    Args:
        streams: one per row, at least one; nobody else holds them.

    Example:
        >>> both = RowStreams([rng(0, "latent", 0), rng(0, "latent", 1)]).standard_normal((2, 3))
        >>> bool((both[1] == rng(0, "latent", 1).standard_normal(3)).all())
        True
    """

    def __init__(self, streams: Sequence[np.random.Generator]) -> None:
        super().__init__(streams[0].bit_generator)
        self._streams = streams

    def standard_normal(self, size: Any = None, dtype: Any = np.float64) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Draw standard normal numbers; `size` begins with the number of rows."""
        if not self._is_by_row(size):
            return self._streams[0].standard_normal(size, dtype)
        return np.stack([stream.standard_normal(_rest(size), dtype) for stream in self._streams])

    def random(self, size: Any = None, dtype: Any = np.float64) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Draw from [0, 1); `size` is, or begins with, the number of rows."""
        if not self._is_by_row(size):
            return self._streams[0].random(size, dtype)
        return np.stack([stream.random(_rest(size), dtype) for stream in self._streams])

    def _is_by_row(self, size: Any) -> bool:
        return size is not None and int(np.atleast_1d(size)[0]) == len(self._streams)


def _rest(size: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in np.atleast_1d(size)[1:])


@lru_cache(maxsize=1024)
def _key(seed: int, purpose: str, length: int) -> np.ndarray:
    digest = blake2b(f"raremix:{int(seed)}:{purpose}:{length}".encode(), digest_size=16).digest()
    return np.frombuffer(digest, dtype="<u8")
