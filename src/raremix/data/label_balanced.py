"""Balance labels without taking them apart: draw whole rows, tilted so that every label comes up as often."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.optimize import minimize

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.data.shuffled import walk

GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, modulo 1, spread more evenly than any other number's."""

BLOCK = 1 << 20
"""So many rows at a time are worked on, which bounds the memory that ten million take."""

SLACK = 1e-4
"""How much a label may miss its frequency where reaching it would need unbounded weights; see `tilt`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelBalanced:
    """Show every label about equally often, and keep how labels go together.

    A row is drawn with all its labels, w times an epoch on average. Of all weights that give label c the frequency
    f_c^(1 - strength) m^strength, f_c its own and m the mean over labels, those nearest to even ones (in relative
    entropy) are taken: w = exp(a + sum over the row's labels of b_c), at most `repeats`. Such a tilt has one factor per
    label and none per pair, so the odds ratio of any two labels, given the others, stays that of the images (up to the
    bound on repeats): the principle of raking, Deming & Stephan 1940 [1]. Rows without a label are drawn too.

    Within an epoch of n positions a row comes w times, rounded up or down, and over E epochs E w times, give or take a
    few: the rounding is systematic sampling whose start moves on by the golden ratio.

    [1] "On a least squares adjustment of a sampled frequency table when the expected marginal totals are known", Ann.
    Math. Statist. 11, https://doi.org/10.1214/aoms/1177731829.

    Args:
        targets: labels of the rows; above 0.5 is positive, NaN and below is not.
        seed: the run's seed.
        strength: in [0, 1]; 0 is as found, 1 all labels alike.
        repeats: how often a row may come in an epoch at most, at least 1.

    Raises:
        ConfigError: if there are no rows, or a value is out of range.

    Example:
        >>> targets = np.array([[1.0, 0], [1, 0], [1, 0], [1, 1]])
        >>> LabelBalanced(targets=targets, seed=0, strength=0.0).draws.round(3).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """

    targets: Float[np.ndarray, "n K"] = field(repr=False)
    seed: int
    strength: float = 1.0
    repeats: float = 20.0
    _pattern: Int[np.ndarray, " n"] = field(init=False, repr=False)
    _weight: Float[np.ndarray, " P"] = field(init=False, repr=False)
    _order: Int[np.ndarray, " n"] = field(init=False, repr=False)
    _memo: dict[Any, np.ndarray] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.targets):
            raise ConfigError("a sampler needs at least one row, got none: look at the training split")
        if not 0 <= self.strength <= 1:
            raise ConfigError(f"label_balanced: strength must lie in [0, 1], got {self.strength}; 1 makes labels alike")
        if not self.repeats >= 1:
            raise ConfigError(f"label_balanced: repeats must be at least 1, got {self.repeats}")
        labels = self.targets > 0.5
        shares = labels.mean(axis=0)
        mean = shares[shares > 0].mean() if shares.any() else 0.0
        wanted = shares ** (1 - self.strength) * mean**self.strength
        patterns, where, counts = patterns_of(labels)
        del labels
        object.__setattr__(self, "_weight", _tilt_patterns(patterns, counts, wanted, repeats=self.repeats))
        order = rng(self.seed, "sample").permutation(len(self.targets)).astype(where.dtype)
        object.__setattr__(self, "_order", order)
        object.__setattr__(self, "_pattern", where[order])

    @property
    def draws(self) -> Float[np.ndarray, " n"]:
        """How often each row comes in an epoch on average."""
        draws = np.empty(len(self._order))
        draws[self._order] = self._weight[self._pattern]
        return draws

    @property
    def epoch(self) -> int:
        """Number of positions as long as one pass over the rows."""
        return len(self.targets)

    def row(self, positions: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Return the row of every position."""
        return walk(positions, count=len(self.targets), passes=1, memo=self._memo, slot=0, draw=self._epoch)

    def _epoch(self, number: int) -> Int[np.ndarray, " n"]:
        """Return the rows of an epoch in their order."""
        start = (rng(self.seed, "sample", 0).random() + number * GOLDEN) % 1.0
        rows, done, total = np.empty_like(self._order), 0, 0.0
        for at in range(0, len(rows), BLOCK):
            some = self._order[at : at + BLOCK]
            sums = self._weight[self._pattern[at : at + BLOCK]]
            sums[0] += total
            total = np.cumsum(sums, out=sums)[-1]
            ends = np.floor(sums + start).astype(np.int64)
            if at + len(some) == len(rows):
                # Rounding in the sum must not cost a position.
                ends[-1] = len(rows)
            rows[done : ends[-1]] = np.repeat(some, np.diff(ends, prepend=done))
            done = int(ends[-1])
        return rng(self.seed, "shuffle", number).permutation(rows)


def tilt(
    labels: Bool[np.ndarray, "n K"], frequencies: Float[np.ndarray, " K"], *, repeats: float = np.inf
) -> Float[np.ndarray, " n"]:
    """Return how often to draw each row, n times in all, so that labels have given frequencies, as evenly as possible.

    The dual of the entropy problem: minimise sum of F(a + b x) - n (a + b f) over a and b, where F' = min(repeats, exp)
    and f are the frequencies. It is convex; a small quadratic term keeps b finite where f cannot be had.

    Args:
        labels: what each row shows.
        frequencies: share of the draws that are to show each label; what no row shows is left out.
        repeats: how often a row may be drawn at most.

    Example:
        >>> labels = np.array([[True], [False], [False], [False]])
        >>> tilt(labels, np.array([0.5])).round(2).tolist()
        [2.0, 0.67, 0.67, 0.67]
    """
    patterns, where, counts = patterns_of(labels)
    return _tilt_patterns(patterns, counts, frequencies, repeats=repeats)[where]


def _tilt_patterns(
    patterns: Bool[np.ndarray, "P K"],
    counts: Int[np.ndarray, " P"],
    frequencies: Float[np.ndarray, " K"],
    *,
    repeats: float,
) -> Float[np.ndarray, " P"]:
    """Return the same for the rows of each combination of labels."""
    n, shown = int(counts.sum()), patterns.any(axis=0)
    if not shown.any():
        return np.ones(len(patterns))
    table = np.ones((len(patterns), 1 + int(shown.sum())))
    table[:, 1:] = patterns[:, shown]
    aim = np.concatenate([[1.0], frequencies[shown]])
    most = np.log(repeats)

    def dual(b: Float[np.ndarray, " K1"]) -> tuple[float, Float[np.ndarray, " K1"]]:
        u = table @ b
        drawn = np.exp(np.minimum(u, most))
        beyond = np.maximum(u - most, 0.0) if np.isfinite(most) else 0.0
        value = (counts * drawn * (1 + beyond)).sum() / n - aim @ b + SLACK / 2 * (b[1:] @ b[1:])
        slope = table.T @ (counts * drawn) / n - aim
        slope[1:] += SLACK * b[1:]
        return float(value), slope

    found = minimize(
        dual, np.zeros(len(aim)), jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-10}
    )
    drawn = np.exp(np.minimum(table @ found.x, most))
    return drawn * (n / (counts * drawn).sum())


def patterns_of(
    labels: Bool[np.ndarray, "n K"],
) -> tuple[Bool[np.ndarray, "P K"], Int[np.ndarray, " n"], Int[np.ndarray, " P"]]:
    """Return the different combinations of labels, which one each row has, and how many rows have each.

    Example:
        >>> patterns, where, counts = patterns_of(np.array([[True, False], [False, False], [True, False]]))
        >>> patterns.tolist(), where.tolist(), counts.tolist()
        ([[False, False], [True, False]], [1, 0, 1], [1, 2])
    """
    # Rows are told apart by one number, made of eight labels at a time.
    kind = np.int32 if len(labels) <= np.iinfo(np.int32).max else np.int64
    where, count = np.zeros(len(labels), dtype=kind), 1
    for byte in np.packbits(labels, axis=1).T:
        where, count = _ranked(where, byte, count)
    example = np.empty(count, dtype=np.int64)
    example[where] = np.arange(len(labels))
    return labels[example], where, _counted(where, count)


def _ranked(
    numbers: Int[np.ndarray, " n"], byte: Shaped[np.ndarray, " n"], count: int
) -> tuple[Int[np.ndarray, " n"], int]:
    """Number the pairs of a number below `count` and a byte from 0 in their order; return these, and how many."""
    if count * 256 > max(len(numbers), BLOCK):
        found, ranks = np.unique(numbers.astype(np.int64) * 256 + byte, return_inverse=True)
        return ranks.astype(numbers.dtype), len(found)
    # Few enough to count, which sorts nothing.
    pairs = numbers * 256 + byte
    present = _counted(pairs, count * 256) > 0
    return (np.cumsum(present, dtype=numbers.dtype) - 1)[pairs], int(present.sum())


def _counted(numbers: Int[np.ndarray, " n"], count: int) -> Int[np.ndarray, " c"]:
    """Count each number below `count`; a block at a time, since numpy widens what it counts."""
    found = np.zeros(count, dtype=np.int64)
    for start in range(0, len(numbers), BLOCK):
        found += np.bincount(numbers[start : start + BLOCK], minlength=count)
    return found
