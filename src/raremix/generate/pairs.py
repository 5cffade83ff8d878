"""References for a translator: two images of one class, the classes all alike."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from raremix.core.errors import ConfigError
from raremix.core.random import rng

BLOCK = 256
"""Pairs that are drawn at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassPairs:
    """A sampler whose positions 2i and 2i + 1 hold images of one class, every class equally often.

    Where a class has one image, it is paired with itself.

    Args:
        targets: one row per image; the largest is its class.
        seed: of the draws.

    Raises:
        ConfigError: if a class has no image.

    Example:
        >>> rows = ClassPairs(targets=np.eye(2)[[0, 1, 1]], seed=0).row(np.arange(8))
        >>> [int(a > 0) == int(b > 0) for a, b in rows.reshape(-1, 2)]
        [True, True, True, True]
    """

    targets: Float[np.ndarray, "n K"]
    seed: int
    _members: tuple[np.ndarray, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        classes = np.nan_to_num(self.targets).argmax(axis=1)
        members = tuple(np.flatnonzero(classes == k) for k in range(self.targets.shape[1]))
        empty = [k for k, rows in enumerate(members) if not len(rows)]
        if empty:
            raise ConfigError(f"no training image of class number {empty[0]}: a translator needs some of every class")
        object.__setattr__(self, "_members", members)

    def row(self, positions: Int[np.ndarray, " B"]) -> Int[np.ndarray, " B"]:
        """Return the row at each position; a pure function."""
        pairs, side = np.divmod(positions, 2)
        found = np.empty(len(positions), dtype=np.int64)
        for block in np.unique(pairs // BLOCK):
            draws = rng(self.seed, "sample", int(block), len(self._members)).random((BLOCK, 2))
            # Classes go round, each turn in an order of its own.
            order = self._order(int(block))
            for i in np.flatnonzero(pairs // BLOCK == block):
                inside = int(pairs[i]) % BLOCK
                members = self._members[order[inside]]
                first = int(draws[inside, 0] * len(members))
                step = 1 + int(draws[inside, 1] * (len(members) - 1)) if len(members) > 1 else 0
                found[i] = members[(first + side[i] * step) % len(members)]
        return found

    def _order(self, block: int) -> Int[np.ndarray, " pairs"]:
        classes = len(self._members)
        turns = -(-BLOCK // classes)
        draws = rng(self.seed, "shuffle", block, classes).random((turns, classes))
        return draws.argsort(axis=1).reshape(-1)[:BLOCK]
