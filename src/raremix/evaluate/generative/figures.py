"""All figures of generated images at once, with intervals."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from scipy.stats import t as student

from raremix.evaluate.generative.distances import check_vectors, frechet_distance, kernel_distance
from raremix.evaluate.generative.neighbourhoods import NEIGHBOURS, between, from_distances, radii

BLOCKS = 20
"""Parts that are left out in turn."""

FIGURES: Mapping[str, str] = {
    "frechet": "Frechet distance",
    "kernel": "Kernel distance × 1000",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
}
"""Every figure by name, as it is called on paper; see `as_shown`."""

_SHARES = {"precision", "recall", "coverage"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def as_shown(name: str, figure: Figure) -> Figure:
    """Return a figure as people are shown it: a kernel distance in thousandths, as in publications.

    Example:
        >>> as_shown("kernel", Figure(value=0.5, low=0.25, high=1.0))
        Figure(value=500.0, low=250.0, high=1000.0)
    """
    if name != "kernel":
        return figure
    return Figure(value=1000 * figure.value, low=1000 * figure.low, high=1000 * figure.high)


def generative_figures(
    real: Float[np.ndarray, "n d"],
    made: Float[np.ndarray, "m e"],
    *,
    groups: Shaped[np.ndarray, " n"] | None = None,
    neighbours: int = NEIGHBOURS,
) -> dict[str, Figure]:
    """Compute all figures; intervals by the jackknife over blocks of patients and blocks of generated images.

    Real images are dealt to 20 blocks by patient, generated ones to 20 blocks; each is left out in turn. With f_b the
    figure without block b of one set, that set's variance is (B - 1) / B sum_b (f_b - mean f)^2 (Efron & Tibshirani
    1993, ch. 11), and the two add up. The bootstrap would not do: images that are drawn twice are at distance zero,
    which all of these figures notice.

    Args:
        real, made: vectors by one encoder; more than k + 1 rows each.
        groups: patient of each real row; every row by itself by default.
        neighbours: k of the four figures of neighbourhoods.

    Returns:
        The keys of `FIGURES`.

    Raises:
        DataError: for fewer rows, or numbers that are not finite.
    """
    check_vectors(real, made, least=neighbours + 2)
    apart, own, other = between(real, made), between(real, real), between(made, made)

    def computed(rows: np.ndarray, columns: np.ndarray) -> Float[np.ndarray, " f"]:
        found = from_distances(
            apart[np.ix_(rows, columns)],
            radii(own[np.ix_(rows, rows)], neighbours),
            radii(other[np.ix_(columns, columns)], neighbours),
            neighbours,
        )
        some, others = real[rows], made[columns]
        distances = [frechet_distance(some, others), kernel_distance(some, others)]
        return np.array([*distances, found.precision, found.recall, found.density, found.coverage])

    every, all_made = np.arange(len(real)), np.arange(len(made))
    value = computed(every, all_made)
    codes = every if groups is None else np.unique(groups, return_inverse=True)[1]
    least = neighbours + 1
    without_real = [computed(kept, all_made) for kept in _left(codes, least=least)]
    without_made = [computed(every, kept) for kept in _left(all_made, least=least)]
    variance = _variance(without_real) + _variance(without_made)
    freedom = max(1, min(len(without_real), len(without_made)) - 1)
    half = student.ppf(0.975, freedom) * np.sqrt(variance)
    found = {}
    for name, middle, width in zip(FIGURES, value, half, strict=True):
        low, high = middle - width, middle + width
        if name in _SHARES:
            low, high = max(low, 0.0), min(high, 1.0)
        elif name != "kernel":
            low = max(low, 0.0)
        found[name] = Figure(value=float(middle), low=float(low), high=float(high))
    return found


def _left(codes: np.ndarray, *, least: int) -> list[np.ndarray]:
    """Return which rows stay as each block of codes is left out; none where too few would stay."""
    known = np.unique(codes)
    block = np.arange(len(known)) * min(BLOCKS, len(known)) // len(known)
    kept = [np.flatnonzero(block[np.searchsorted(known, codes)] != b) for b in range(int(block.max()) + 1)]
    return [rows for rows in kept if len(rows) >= least]


def _variance(figures: list[Float[np.ndarray, " f"]]) -> Float[np.ndarray, " f"]:
    if len(figures) < 2:
        return np.full(len(FIGURES), np.inf)
    values = np.stack(figures)
    return (len(values) - 1) / len(values) * ((values - values.mean(axis=0)) ** 2).sum(axis=0)
