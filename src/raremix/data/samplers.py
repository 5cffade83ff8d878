"""Samplers: pure functions from (seed, position) to a row.

A sampler holds no iterator. The row at a position is computed from the seed and the position alone, so any slicing of
the positions into ranks, workers and resumed runs gives the same rows, and a checkpoint needs to know nothing but its
step.

`Natural` shows every row once an epoch. The others choose a class first: class c has probability proportional to

    balanced    1
    sqrt        n_c ^ 1/2
    effective   n_c / E_c,  E_c = (1 - beta^n_c) / (1 - beta)     (Cui et al. 2019, https://arxiv.org/abs/1901.05555)

where n_c counts the rows of the class, and then walk through that class's own shuffled rows, so that at every moment
any two rows of a class have been visited equally often, give or take one. With several labels per row, a row belongs
to each of its positive classes; rows without any positive label form one more class, "no finding". `LabelBalanced` is
for several labels: it draws rows with all that they show, and keeps how labels go together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.data.label_balanced import LabelBalanced
from raremix.data.shuffled import is_stretch, pieces, runs, walk

# Classes are dealt in cycles of about this many positions; the probabilities are exact to half a position in a cycle.
CYCLE = 1 << 16
# Small classes draw several passes at once, which keeps the cost per position flat.
PASSES = 1 << 12


class Sampler(Protocol):
    """Say which row comes at which position."""

    def row(self, positions: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Return the row (an index into the targets that the sampler was built with) of every position."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Natural:
    """Show every row once an epoch, in a new order each time.

    Args:
        targets: labels, of which only the number of rows matters here.
        seed: the run's seed.

    Raises:
        ConfigError: if there are no rows.

    Example:
        >>> sorted(Natural(targets=np.ones((4, 2)), seed=0).row(np.arange(4)).tolist())
        [0, 1, 2, 3]
    """

    targets: Float[np.ndarray, "n K"] = field(repr=False)
    seed: int
    _memo: dict[Any, np.ndarray] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        _require_rows(self.targets)

    @property
    def epoch(self) -> int:
        """Number of positions after which every row has been shown once."""
        return len(self.targets)

    def row(self, positions: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Return the row of every position."""
        return walk(positions, count=len(self.targets), passes=1, memo=self._memo, slot=0, draw=self._order)

    def _order(self, epoch: int) -> Int[np.ndarray, " n"]:
        return rng(self.seed, "shuffle", epoch).permutation(len(self.targets))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Balanced:
    """Show every class equally often.

    Args:
        targets: labels of the rows; above 0.5 is positive, NaN and below is not.
        seed: the run's seed.

    Raises:
        ConfigError: if there are no rows.

    Example:
        >>> sampler = Balanced(targets=np.array([[1.0, 0], [1, 0], [1, 0], [0, 1]]), seed=0)
        >>> sampler.probabilities.tolist()
        [0.5, 0.5]
    """

    targets: Float[np.ndarray, "n K"] = field(repr=False)
    seed: int
    _deal: "_Deal" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_deal", _Deal.make(self.targets, seed=self.seed, share=np.ones_like))

    @property
    def probabilities(self) -> Float[np.ndarray, " C"]:
        """Probability of each class; one more than K, for "no finding", where there are rows without a label."""
        return self._deal.probabilities

    @property
    def epoch(self) -> int:
        """Number of positions as long as one pass over the rows."""
        return len(self.targets)

    def row(self, positions: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Return the row of every position."""
        return self._deal.row(positions)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sqrt:
    """Show classes by the square root of their size, between natural and balanced (Mahajan et al. 2018 [1]).

    [1] https://arxiv.org/abs/1805.00932

    Args:
        targets: labels of the rows; above 0.5 is positive, NaN and below is not.
        seed: the run's seed.

    Raises:
        ConfigError: if there are no rows.

    Example:
        >>> sampler = Sqrt(targets=np.repeat([[1.0, 0], [0, 1]], [9, 1], axis=0), seed=0)
        >>> sampler.probabilities.tolist()
        [0.75, 0.25]
    """

    targets: Float[np.ndarray, "n K"] = field(repr=False)
    seed: int
    _deal: "_Deal" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_deal", _Deal.make(self.targets, seed=self.seed, share=np.sqrt))

    @property
    def probabilities(self) -> Float[np.ndarray, " C"]:
        """Probability of each class; one more than K, for "no finding", where there are rows without a label."""
        return self._deal.probabilities

    @property
    def epoch(self) -> int:
        """Number of positions as long as one pass over the rows."""
        return len(self.targets)

    def row(self, positions: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Return the row of every position."""
        return self._deal.row(positions)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Effective:
    """Weigh every row by the inverse of its class's effective number of samples (Cui et al. 2019 [1]).

    Beta of 0 is the natural distribution, beta towards 1 the balanced one.

    [1] https://arxiv.org/abs/1901.05555

    Args:
        targets: labels of the rows; above 0.5 is positive, NaN and below is not.
        seed: the run's seed.
        beta: in [0, 1).

    Raises:
        ConfigError: if there are no rows, or beta is outside [0, 1).

    Example:
        >>> sampler = Effective(targets=np.repeat([[1.0, 0], [0, 1]], [3, 1], axis=0), seed=0, beta=0.0)
        >>> sampler.probabilities.tolist()
        [0.75, 0.25]
    """

    targets: Float[np.ndarray, "n K"] = field(repr=False)
    seed: int
    beta: float = 0.999
    _deal: "_Deal" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.beta < 1:
            raise ConfigError(f"beta must lie in [0, 1), got {self.beta}: 0 is natural, 0.999 nearly balanced")
        object.__setattr__(self, "_deal", _Deal.make(self.targets, seed=self.seed, share=self._share))

    @property
    def probabilities(self) -> Float[np.ndarray, " C"]:
        """Probability of each class; one more than K, for "no finding", where there are rows without a label."""
        return self._deal.probabilities

    @property
    def epoch(self) -> int:
        """Number of positions as long as one pass over the rows."""
        return len(self.targets)

    def row(self, positions: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Return the row of every position."""
        return self._deal.row(positions)

    def _share(self, counts: Float[np.ndarray, " C"]) -> Float[np.ndarray, " C"]:
        return counts * (1 - self.beta) / (1 - self.beta ** np.maximum(counts, 1))


SAMPLERS: Mapping[str, type[Natural] | type[Balanced] | type[Sqrt] | type[Effective] | type[LabelBalanced]] = {
    "natural": Natural,
    "balanced": Balanced,
    "sqrt": Sqrt,
    "effective": Effective,
    "label_balanced": LabelBalanced,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Deal:
    """Deal classes in cycles with exact counts and random order, and rows within each class in shuffled passes."""

    members: list[np.ndarray]
    probabilities: Float[np.ndarray, " C"]
    quota: Int[np.ndarray, " C"]
    seed: int
    memo: dict[Any, Any] = field(default_factory=dict)

    @classmethod
    def make(cls, targets: Float[np.ndarray, "n K"], *, seed: int, share: Callable[[Any], Any]) -> "_Deal":
        _require_rows(targets)
        # Four bytes a row: shuffled and looked up at random, half the memory is half the time.
        kind = np.int32 if len(targets) <= np.iinfo(np.int32).max else np.int64
        positive = [targets[:, k] > 0.5 for k in range(targets.shape[1])]
        members = [np.flatnonzero(column).astype(kind) for column in positive]
        without = np.flatnonzero(~np.logical_or.reduce(positive)) if positive else np.arange(len(targets))
        if len(without):
            members.append(without.astype(kind))
        counts = np.array([len(rows) for rows in members], dtype=np.float64)
        weight = np.where(counts > 0, share(counts), 0.0)
        probabilities = weight / weight.sum()
        return cls(members=members, probabilities=probabilities, quota=_quota(probabilities), seed=seed)

    def row(self, positions: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        asked = np.asarray(positions, dtype=np.int64)
        if is_stretch(asked):
            return self._stretch(int(asked[0]), int(asked[-1]) + 1)
        length = int(self.quota.sum())
        rows = np.empty(len(asked), dtype=np.int64)
        for number, mine in runs(asked // length):
            places = self._cycle(number)
            label, rank = np.empty(length, dtype=np.int64), np.empty(length, dtype=np.int64)
            for c, place in enumerate(places):
                label[place], rank[place] = c, np.arange(len(place))
            offset = asked[mine] - number * length
            turns, found = number * self.quota[label[offset]] + rank[offset], np.empty(len(offset), dtype=np.int64)
            for c in np.unique(label[offset]).tolist():
                chosen = label[offset] == c
                found[chosen] = walk(
                    turns[chosen],
                    count=len(self.members[c]),
                    passes=self._passes(c),
                    memo=self.memo,
                    slot=c,
                    draw=self._drawer(c),
                )
            rows[mine] = found
        return rows

    def _stretch(self, start: int, stop: int) -> Int[np.ndarray, " m"]:
        """Return the rows of consecutive positions: within a cycle, a class's turns follow one another too."""
        length = int(self.quota.sum())
        rows = np.empty(stop - start, dtype=np.int64)
        for number in range(start // length, (stop - 1) // length + 1):
            begin = number * length
            here = rows[max(0, begin - start) : begin + length - start]
            first = max(start - begin, 0)
            for c, places in enumerate(self._cycle(number)):
                low, high = np.searchsorted(places, (first, first + len(here))).tolist()
                turn = number * int(self.quota[c])
                size = self._passes(c) * len(self.members[c])
                draw = self._drawer(c)
                for at, part in pieces(turn + low, turn + high, size=size, memo=self.memo, slot=c, draw=draw):
                    here[places[at - turn : at - turn + len(part)] - first] = part
        return rows

    def _cycle(self, number: int) -> list[Int[np.ndarray, " q"]]:
        """Return where each class stands in a cycle, in ascending order."""
        known = self.memo.get("cycle")
        if known is None or known[0] != number:
            # Sixteen bits, where they suffice, are sorted by counting.
            kind = np.int16 if len(self.quota) < 1 << 15 else np.int64
            labels = np.repeat(np.arange(len(self.quota), dtype=kind), self.quota)
            labels = labels[rng(self.seed, "sample", number).permutation(len(labels))]
            order = np.argsort(labels, kind="stable")
            known = (number, np.split(order, np.cumsum(self.quota)[:-1]))
            self.memo["cycle"] = known
        return known[1]

    def _passes(self, c: int) -> int:
        return max(1, PASSES // max(len(self.members[c]), 1))

    def _drawer(self, c: int) -> Callable[[int], Int[np.ndarray, " p"]]:
        members, passes = self.members[c], self._passes(c)

        def draw(number: int) -> Int[np.ndarray, " p"]:
            stream = rng(self.seed, "shuffle", c, number)
            if passes == 1:
                return stream.permutation(members)
            return stream.permuted(np.broadcast_to(members, (passes, len(members))), axis=1).reshape(-1)

        return draw


def _quota(probabilities: Float[np.ndarray, " C"]) -> Int[np.ndarray, " C"]:
    """Share a cycle out among the classes by largest remainders, at least one position to each class that has rows."""
    present = int((probabilities > 0).sum())
    length = present * -(-CYCLE // present)
    exact = probabilities * length
    quota = np.floor(exact + 1e-9).astype(np.int64)
    rest = length - int(quota.sum())
    quota[np.argsort(quota - exact, kind="stable")[:rest]] += 1
    quota[(quota == 0) & (probabilities > 0)] = 1
    return quota


def _require_rows(targets: Float[np.ndarray, "n K"]) -> None:
    if not len(targets):
        raise ConfigError("a sampler needs at least one row, got none: look at the training split")
