"""Closed-form intervals for proportions and areas under the curve, chosen for few positives.

Wilson, JASA 22, 1927, https://doi.org/10.1080/01621459.1927.10502953; Clopper & Pearson, Biometrika 26, 1934,
https://doi.org/10.1093/biomet/26.4.404; Newcombe, "Confidence intervals for an effect size measure based on the
Mann-Whitney statistic. Part 2", Stat. Med. 25, 2006 (method 5), https://doi.org/10.1002/sim.2324; DeLong et al.,
Biometrics 44, 1988, https://doi.org/10.2307/2531595; Obuchowski, "Nonparametric analysis of clustered ROC curve
data", Biometrics 53, 1997, https://doi.org/10.2307/2533958; Hanley & McNeil, Radiology 143, 1982,
https://doi.org/10.1148/radiology.143.1.7063747; Korn & Graubard, Surv. Methodol. 24, 1998 (effective sample size);
Zou & Donner, Stat. Med. 27, 2008 (square-and-add), https://doi.org/10.1002/sim.3095.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import expit, logit, ndtr, ndtri
from scipy.stats import beta, rankdata
from scipy.stats import t as student

from raremix.core.errors import DataError


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval.

    Attributes:
        low, high: its ends.
    """

    low: float
    high: float

    def union(self, other: "Interval") -> "Interval":
        """Return the interval from the lower low to the higher high.

        Example:
            >>> Interval(0.1, 0.2).union(Interval(0.15, 0.3))
            Interval(low=0.1, high=0.3)
        """
        return Interval(min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeLong:
    """Areas under several curves of the same rows, with their covariance.

    Attributes:
        areas: one per curve.
        covariance: of the areas.
    """

    areas: Float[np.ndarray, " A"]
    covariance: Float[np.ndarray, "A A"]

    def difference(self, first: int = 0, second: int = 1) -> tuple[float, float, float]:
        """Return area of `first` less that of `second`, its standard error, and the two-sided p of no difference.

        Identical curves have p = 1.
        """
        step = float(self.areas[first] - self.areas[second])
        spread = self.covariance[first, first] + self.covariance[second, second] - 2 * self.covariance[first, second]
        error = float(np.sqrt(max(spread, 0.0)))
        if error == 0:
            return step, error, 1.0 if step == 0 else 0.0
        return step, error, float(2 * ndtr(-abs(step) / error))


def wilson(hits: float | int, n: float | int, *, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval of a proportion.

    Args:
        hits: successes, may be fractional where n is an effective size.
        n: trials, > 0.
        confidence: nominal coverage.

    Raises:
        DataError: if n is not positive.

    Example:
        >>> round(wilson(8, 10).low, 10)
        0.4901624715
    """
    if not n > 0:
        raise DataError(f"expected at least one trial, got {n}: a proportion of none has no interval")
    z = _z(confidence)
    share = hits / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low = 0.0 if hits <= 0 else max(float(middle - half), 0.0)
    high = 1.0 if hits >= n else min(float(middle + half), 1.0)
    return Interval(low, high)


def clopper_pearson(hits: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Return the exact binomial interval of a proportion, never below its nominal coverage.

    Args:
        hits: successes.
        n: trials, > 0.
        confidence: nominal coverage.

    Raises:
        DataError: if n is not positive.

    Example:
        >>> round(clopper_pearson(10, 10).low, 6)
        0.691503
    """
    if not n > 0:
        raise DataError(f"expected at least one trial, got {n}: a proportion of none has no interval")
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(1 - tail, hits + 1, n - hits))
    return Interval(low, high)


def effective_wilson(
    share: float, variance: float, *, groups: int, rows: float | int, confidence: float = 0.95
) -> Interval:
    """Return Wilson's interval for a proportion of rows that come in groups, or over seeds.

    The effective size is share (1 - share) / variance times (z / t)^2 with groups - 1 degrees of freedom, at most
    `rows`; where all rows agree the variance says nothing, and the groups are counted.

    Args:
        share: the proportion.
        variance: of the estimate, with groups (and seeds) resampled.
        groups: patients in the denominator, > 0.
        rows: rows in the denominator.
        confidence: nominal coverage.

    Example:
        >>> effective_wilson(1.0, 0.0, groups=10, rows=50.0) == wilson(10, 10)
        True
    """
    if share in (0.0, 1.0) or variance <= 0 or groups < 2:
        size = float(groups)
    else:
        shrink = (_z(confidence) / float(student.ppf((1 + confidence) / 2, groups - 1))) ** 2
        size = min(share * (1 - share) / variance * shrink, rows)
    return wilson(share * size, size, confidence=confidence)


def newcombe5(area: float, positives: float | int, negatives: float | int, *, confidence: float = 0.95) -> Interval:
    """Return Newcombe's method 5 for an area under the curve, from the area and two counts alone.

    Solves |A - theta| = z sqrt(theta (1 - theta) / (m n) (1 + N* ((1 - theta) / (2 - theta) + theta / (1 + theta))))
    with N* = (m + n) / 2 - 1: Hanley and McNeil's variance at the limit, with both sizes replaced by their mean.

    Args:
        area: in [0, 1].
        positives: m, > 0.
        negatives: n, > 0.
        confidence: nominal coverage.

    Raises:
        DataError: if a count is not positive.

    Example:
        >>> round(newcombe5(1.0, 5, 50).low, 6)
        0.790052
    """
    if not (positives > 0 and negatives > 0):
        raise DataError(f"expected positives and negatives, got {positives} and {negatives}: there is no curve")
    known = (area, positives, negatives, _z(confidence))
    # at theta = A the excess is negative, at 0 and 1 positive, unless A is there already
    low, high = 0.0, 1.0
    if area > 0:
        low = brentq(_excess, 0.0, _inside(area), args=known, xtol=1e-15)
    if area < 1:
        high = brentq(_excess, _inside(area), 1.0, args=known, xtol=1e-15)
    return Interval(float(low), float(high))  # pyright: ignore[reportArgumentType]


def _excess(theta: float, area: float, positives: float | int, negatives: float | int, z: float) -> float:
    mean = (positives + negatives) / 2 - 1
    spread = theta * (1 - theta) / (positives * negatives)
    spread *= 1 + mean * ((1 - theta) / (2 - theta) + theta / (1 + theta))
    return (area - theta) ** 2 - z**2 * spread


def _inside(area: float) -> float:
    return min(max(area, 1e-12), 1 - 1e-12)


def hanley_mcneil_variance(area: float, positives: float | int, negatives: float | int) -> float:
    """Return Hanley and McNeil's variance of an area under the curve for exponential scores.

    Example:
        >>> round(hanley_mcneil_variance(0.893171061528060, 51, 58) ** 0.5, 3)
        0.032
    """
    both, neither = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (positives - 1) * (both - area**2) + (negatives - 1) * (neither - area**2)
    return spread / (positives * negatives)


def delong(
    targets: Float[np.ndarray, " N"], scores: Float[np.ndarray, "A N"], *, groups: np.ndarray | None = None
) -> DeLong:
    """Estimate areas under curves with their covariance, of independent rows (DeLong) or of rows in groups
    (Obuchowski).

    V10_i is the share of negatives below positive i (half for equals), V01_j the share of positives above negative j.
    Rows of a group are summed, so that

        S10 = I10 / ((I10 - 1) m) sum_g (V10_g. - m_g A)(...)', S01 alike, S11 = I / (I - 1) sum_g (V10_g. - m_g
        A)(V01_g. - n_g A)' covariance = S10 / m + S01 / n + (S11 + S11') / (m n)

    with I10 and I01 groups that have positives and negatives, and I groups in all. Groups of one row give DeLong's
    (S11 is then 0).

    Args:
        targets: 1, 0 or NaN (left out).
        scores: one row per curve.
        groups: the patient of each row; None means that every row is its own.

    Raises:
        DataError: if there is no positive or no negative row.

    Example:
        >>> float(delong(np.array([0.0, 1.0, 1.0]), np.array([[0.1, 0.1, 0.3]])).areas[0])
        0.75
    """
    known = ~np.isnan(targets)
    positive = targets[known] == 1
    values = scores[:, known].astype(np.float64)
    m, n = int(positive.sum()), int((~positive).sum())
    if not m or not n:
        raise DataError(f"expected positives and negatives, got {m} and {n}: there is no curve to estimate")
    ranks = rankdata(values, axis=1)
    up = (ranks[:, positive] - rankdata(values[:, positive], axis=1)) / n
    across = 1 - (ranks[:, ~positive] - rankdata(values[:, ~positive], axis=1)) / m
    areas = (ranks[:, positive].sum(axis=1) - m * (m + 1) / 2) / (m * n)
    names = np.arange(len(positive)) if groups is None else groups[known]
    _, index = np.unique(names, return_inverse=True)
    G = int(index.max()) + 1
    first = _group_sums(up - areas[:, None], index[positive], G)
    second = _group_sums(across - areas[:, None], index[~positive], G)
    with_up = len(np.unique(index[positive]))
    with_across = len(np.unique(index[~positive]))
    s10 = first @ first.T * _unbiased(with_up) / m
    s01 = second @ second.T * _unbiased(with_across) / n
    s11 = first @ second.T * _unbiased(G)
    return DeLong(areas=areas, covariance=s10 / m + s01 / n + (s11 + s11.T) / (m * n))


def _unbiased(count: int) -> float:
    return count / (count - 1) if count > 1 else 1.0


def _group_sums(values: Float[np.ndarray, "A n"], index: np.ndarray, G: int) -> Float[np.ndarray, "A G"]:
    return np.stack([np.bincount(index, weights=row, minlength=G) for row in values])


def logit_interval(value: float, variance: float, *, confidence: float = 0.95) -> Interval | None:
    """Return a normal interval on the logit scale, back in [0, 1]; None at 0, at 1, or without variance.

    Args:
        value: in [0, 1].
        variance: of the value; that of its logit is variance / (value (1 - value))^2.
        confidence: nominal coverage.

    Example:
        >>> found = logit_interval(0.5, 0.01)
        >>> round(found.low + found.high, 12)
        1.0
    """
    if not 0 < value < 1 or not variance > 0:
        return None
    half = _z(confidence) * np.sqrt(variance) / (value * (1 - value))
    return Interval(float(expit(logit(value) - half)), float(expit(logit(value) + half)))


def auroc_interval(
    area: float, variance: float, *, positives: float | int, negatives: float | int, confidence: float = 0.95
) -> Interval:
    """Return the interval of one area under the curve: the union of logit-DeLong and Newcombe's method 5.

    Each alone fails with few positives (DeLong covers 67 % at 5 positives and an area of .95, Newcombe's can be
    narrow where scores are far from exponential); the union covered 90 to 99 % in twelve scenarios of 10 to 40
    positives.

    Args:
        area: in [0, 1].
        variance: DeLong's, clustered where rows come in groups.
        positives: patients with a positive row.
        negatives: patients with a negative row.
        confidence: nominal coverage.

    Example:
        >>> found = auroc_interval(1.0, 0.0, positives=5, negatives=50)
        >>> (round(found.low, 6), found.high)
        (0.790052, 1.0)
    """
    counted = newcombe5(area, positives, negatives, confidence=confidence)
    scaled = logit_interval(area, variance, confidence=confidence)
    return counted if scaled is None else counted.union(scaled)


def square_and_add(shares: Float[np.ndarray, " K"], intervals: list[Interval], *, scale: float) -> Interval:
    """Return the interval of scale times a sum of proportions from their own intervals (square-and-add, MOVER).

    Args:
        shares: the proportions.
        intervals: their intervals.
        scale: 1 / K for a mean.

    Example:
        >>> found = square_and_add(np.array([1.0, 1.0]), [wilson(10, 10), wilson(10, 10)], scale=0.5)
        >>> round(found.low, 4), found.high
        (0.8038, 1.0)
    """
    down = np.sqrt(sum((share - i.low) ** 2 for share, i in zip(shares, intervals, strict=True)))
    up = np.sqrt(sum((i.high - share) ** 2 for share, i in zip(shares, intervals, strict=True)))
    middle = scale * float(np.sum(shares))
    return Interval(middle - scale * float(down), middle + scale * float(up))


def _z(confidence: float) -> float:
    return float(ndtri((1 + confidence) / 2))
