"""Balance labels without taking them apart: draw whole rows, tilted so that every label comes up as often."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.data.shuffled import walk

GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, modulo 1, spread more evenly than any other number's."""

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
    draws: Float[np.ndarray, " n"] = field(init=False, repr=False)
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
        object.__setattr__(self, "draws", tilt(labels, wanted, repeats=self.repeats))
        object.__setattr__(self, "_order", rng(self.seed, "sample").permutation(len(self.targets)))

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
        ends = np.floor(np.cumsum(self.draws[self._order]) + start).astype(np.int64)
        # Rounding in the sum must not cost a position.
        ends[-1] = len(ends)
        times = np.diff(ends, prepend=0)
        return rng(self.seed, "shuffle", number).permutation(np.repeat(self._order, times))


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
    n, shown = len(labels), labels.any(axis=0)
    if not shown.any():
        return np.ones(n)
    patterns, where, counts = patterns_of(labels[:, shown])
    table = np.concatenate([np.ones((len(patterns), 1)), patterns.astype(np.float64)], axis=1)
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
    return (drawn * (n / (counts * drawn).sum()))[where]


def patterns_of(
    labels: Bool[np.ndarray, "n K"],
) -> tuple[Bool[np.ndarray, "P K"], Int[np.ndarray, " n"], Int[np.ndarray, " P"]]:
    """Return the different combinations of labels, which one each row has, and how many rows have each.

    Example:
        >>> patterns, where, counts = patterns_of(np.array([[True, False], [False, False], [True, False]]))
        >>> patterns.tolist(), where.tolist(), counts.tolist()
        ([[False, False], [True, False]], [1, 0, 1], [1, 2])
    """
    # Rows are told apart by one number per eight labels at a time, which sorts far faster than rows do.
    code = np.zeros(len(labels), dtype=np.int64)
    for byte in np.packbits(labels, axis=1).T:
        _, code = np.unique(code * 256 + byte, return_inverse=True)
    _, first, where, counts = np.unique(code, return_index=True, return_inverse=True, return_counts=True)
    return labels[first], where, counts
