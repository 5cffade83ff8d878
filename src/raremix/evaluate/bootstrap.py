"""Resampling patients by weights, and intervals from resamples.

A resample of patients is a vector of how often each was drawn. Patients are drawn within strata (the rarest class that
a patient has; those without any form their own), so that no class can vanish from a resample. All rows of a patient
move together. Because metrics are functions of weighted sums and weighted ranks, nothing is copied: memory is one block
of resamples, whatever their number. The second level, seeds, is in `seeds`.

BCa: Efron, "Better bootstrap confidence intervals", JASA 82, 1987, https://doi.org/10.1080/01621459.1987.10478410.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtr, ndtri

from raremix.core.errors import DataError
from raremix.core.random import rng
from raremix.evaluate.sufficient import Sufficient

BLOCK = 100
"""Resamples per block; each block has its own random stream, so that more resamples keep the first ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patients:
    """Who the rows belong to.

    Attributes:
        index: number of each row's patient, in the order of the patients' names.
        count: number of patients.
        strata: the patients of each stratum.
        positives: patients with a positive row, per class.
        negatives: patients with a negative row, per class.
        affected: patients with a positive row of any class.
    """

    index: Int[np.ndarray, " N"]
    count: int
    strata: tuple[Int[np.ndarray, " _"], ...]
    positives: Int[np.ndarray, " K"]
    negatives: Int[np.ndarray, " K"]
    affected: int


def patients(groups: np.ndarray, targets: Float[np.ndarray, "N K"]) -> Patients:
    """Number the patients and put each into the stratum of its rarest class.

    Args:
        groups: the patient of each row, (N,), any type that sorts.
        targets: 1, 0 or NaN.

    Raises:
        DataError: if there is not one group per row.

    Example:
        >>> found = patients(np.array(["b", "a", "b"]), np.array([[1.0], [0.0], [0.0]]))
        >>> (found.index.tolist(), found.positives.tolist(), [s.tolist() for s in found.strata])
        ([1, 0, 1], [1], [[1], [0]])
    """
    if groups.shape != targets.shape[:1]:
        raise DataError(
            f"expected one group for each of {len(targets)} rows, got {groups.shape}: "
            "give each row its patient, or its own id where patients are unknown"
        )
    names, index = np.unique(groups, return_inverse=True)
    G, K = len(names), targets.shape[1]
    has = np.zeros((G, K), dtype=bool)
    lacks = np.zeros((G, K), dtype=bool)
    row, label = np.nonzero(targets == 1)
    has[index[row], label] = True
    row, label = np.nonzero(targets == 0)
    lacks[index[row], label] = True
    counts = has.sum(axis=0)
    first = np.where(has.any(axis=0), has.argmax(axis=0), G)
    order = np.lexsort((first, counts))
    stratum = np.where(has.any(axis=1), has[:, order].argmax(axis=1), K)
    members = (np.flatnonzero(stratum == s) for s in range(K + 1))
    return Patients(
        index=index.astype(np.int64),
        count=G,
        strata=tuple(m for m in members if len(m)),
        positives=counts.astype(np.int64),
        negatives=lacks.sum(axis=0).astype(np.int64),
        affected=int(has.any(axis=1).sum()),
    )


def blocks(who: Patients, *, resamples: int, seed: int) -> Iterator[Float[np.ndarray, "r G"]]:
    """Draw how often each patient is in each resample, a block at a time.

    Args:
        who: the patients.
        resamples: how many.
        seed: of the study or the report.

    Example:
        >>> who = patients(np.arange(4), np.array([[1.0], [1.0], [0.0], [0.0]]))
        >>> next(blocks(who, resamples=1, seed=0))[:, :2].sum().item()
        2.0
    """
    for block in range(-(-resamples // BLOCK)):
        stream = rng(seed, "bootstrap", block)
        weights = np.empty((BLOCK, who.count))
        for members in who.strata:
            weights[:, members] = _draw(stream, len(members))
        yield weights[: resamples - block * BLOCK]


def _draw(stream: np.random.Generator, n: int) -> Int[np.ndarray, "r n"]:
    drawn = stream.integers(0, n, size=(BLOCK, n), dtype=np.int32).astype(np.int64)
    drawn += np.arange(BLOCK)[:, None] * n
    return np.bincount(drawn.ravel(), minlength=BLOCK * n).reshape(BLOCK, n)


def replicate(
    units: Sequence[Sufficient], who: Patients, *, resamples: int, seed: int
) -> dict[str, Float[np.ndarray, "R U K1"]]:
    """Compute every metric of several sets of predictions under the same resamples of the patients.

    Args:
        units: sets of predictions of the same rows (arms, seeds), reduced.
        who: the patients.
        resamples: how many.
        seed: of the study or the report.

    Returns:
        Per metric: resample, unit, and the overall value followed by those of the classes.
    """
    totals, areas = [], []
    for weights in blocks(who, resamples=resamples, seed=seed):
        columns = np.ascontiguousarray(weights.T)
        totals.append([unit.totals(weights) for unit in units])
        areas.append([unit.areas(columns) for unit in units])
    found = []
    for u, unit in enumerate(units):
        sums = {family: np.concatenate([block[u][family] for block in totals]) for family in unit.sums}
        rankings = {name: np.concatenate([block[u][name] for block in areas]) for name in areas[0][u]}
        found.append(unit.values(sums) | rankings)
    return {name: np.stack([unit[name] for unit in found], axis=1) for name in units[0].metrics}


def tail_rank(resamples: int, confidence: float) -> int:
    """Return how many of the sorted replicates lie outside each end of a percentile interval.

    Example:
        >>> tail_rank(10_000, 0.95)
        250
    """
    return max(int((resamples + 1) * (1 - confidence) / 2), 1)


def percentile_interval(replicates: Float[np.ndarray, " R"], *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval: two order statistics, so that it is mirrored exactly when the sign is.

    Args:
        replicates: the statistic in each resample; NaN are left out.
        confidence: share of replicates inside.

    Example:
        >>> percentile_interval(np.arange(1000.0))
        (24.0, 975.0)
    """
    ordered = np.sort(replicates[~np.isnan(replicates)])
    outside = tail_rank(len(ordered), confidence)
    return float(ordered[outside - 1]), float(ordered[len(ordered) - outside])


def basic_interval(
    estimate: float, replicates: Float[np.ndarray, " R"], *, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the basic (reflected) interval: twice the estimate less the percentile interval.

    Example:
        >>> basic_interval(500.0, np.arange(1000.0))
        (25.0, 976.0)
    """
    low, high = percentile_interval(replicates, confidence=confidence)
    return 2 * estimate - high, 2 * estimate - low


def acceleration(*jackknives: Float[np.ndarray, " _"]) -> float:
    """Return BCa's acceleration from the leave-one-out values of one or several samples.

    With influence U_i = (n - 1) (mean - value without i): sum U^3 / n^3 over 6 (sum U^2 / n^2)^1.5, summed over
    samples.

    Args:
        *jackknives: per sample, the statistic without each of its members in turn.

    Example:
        >>> acceleration(np.array([1.0, 2.0, 3.0]))
        0.0
    """
    cubes = squares = 0.0
    for values in jackknives:
        n = len(values)
        influence = (n - 1) * (values.mean() - values)
        cubes += float((influence**3).sum()) / n**3
        squares += float((influence**2).sum()) / n**2
    return cubes / (6 * squares**1.5) if squares > 0 else 0.0


def bca_interval(
    estimate: float, replicates: Float[np.ndarray, " R"], *, accelerate: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the bias-corrected and accelerated interval.

    Args:
        estimate: the statistic of the sample itself.
        replicates: the statistic in each resample.
        accelerate: see `acceleration`.
        confidence: its nominal coverage.

    Example:
        >>> low, high = bca_interval(499.5, np.arange(1000.0), accelerate=0.0)
        >>> (round(low), round(high))
        (24, 974)
    """
    ordered = np.sort(replicates)
    below = np.clip((np.sum(ordered < estimate) + np.sum(ordered == estimate) / 2) / len(ordered), 1e-6, 1 - 1e-6)
    bias = ndtri(below)
    tails = ndtri(np.array([(1 - confidence) / 2, (1 + confidence) / 2]))
    shares = ndtr(bias + (bias + tails) / (1 - accelerate * (bias + tails)))
    places = np.clip((shares * (len(ordered) + 1)).astype(int) - 1, 0, len(ordered) - 1)
    return float(ordered[places[0]]), float(ordered[places[1]])


def bootstrap(
    statistic: Callable[[Float[np.ndarray, "r n"]], Float[np.ndarray, " r"]], n: int, *, resamples: int, seed: int
) -> Float[np.ndarray, " R"]:
    """Resample a statistic of n independent values that is written as a function of weights.

    Args:
        statistic: from weights (r, n), how often each value was drawn, to r values.
        n: sample size.
        resamples: how many.
        seed: of the study or the report.

    Example:
        >>> x = np.arange(100.0)
        >>> round(bootstrap(lambda w: w @ x / 100, 100, resamples=500, seed=0).std())
        3
    """
    who = patients(np.arange(n), np.zeros((n, 1)))
    return np.concatenate([statistic(weights) for weights in blocks(who, resamples=resamples, seed=seed)])
