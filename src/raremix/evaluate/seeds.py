"""The second level: how much the mean over a few seeds would move with other seeds.

Three seeds cannot be resampled into more than ten different means, and their spread is known so poorly that a level
of 5 % becomes 12 to 23 % where seeds matter more than patients (400 patients, tests/evaluate/test_level.py). So
patients are resampled, and seeds are drawn from Student's family, as a generalised pivot (Weerahandi, "Generalized
confidence intervals", JASA 88, 1993, https://doi.org/10.1080/01621459.1993.10476355): with s^2 the variance of S
seeds' values, nu = S - 1, and v the part of it that comes from the finite test set alone (the variance over resampled
patients of a seed's value about the mean of seeds, which the first level brings already),

    deviation = Z sqrt(max(s^2 nu / X - v, 0) / S),    Z standard normal, X chi-squared with nu degrees of freedom.

For the difference of two arms the variances of the means are added, and so are the degrees of freedom.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import chdtri, ndtri

from raremix.core.random import rng
from raremix.evaluate.bootstrap import BLOCK


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What S seeds say about their mean.

    Attributes:
        variance: of the mean, s^2 / S.
        known: the part of it that resampling patients brings already, v / S.
        degrees: of freedom of the variance.
    """

    variance: float
    known: float
    degrees: float

    def plus(self, other: "Spread") -> "Spread":
        """Return the spread of the difference of two means of unrelated seeds.

        With as many seeds in both arms the degrees of freedom are added, as in the two-sample t-test, which unequal
        variances hardly disturb at equal sizes and which has twice the power of Welch's at three seeds; else Welch's.
        """
        total = self.variance + other.variance
        degrees = self.degrees + other.degrees
        if self.degrees != other.degrees and total > 0:
            degrees = total**2 / (self.variance**2 / self.degrees + other.variance**2 / other.degrees)
        return Spread(variance=total, known=self.known + other.known, degrees=degrees)


def spread(values: Float[np.ndarray, " S"], replicates: Float[np.ndarray, "R S"]) -> Spread:
    """Estimate the spread of the mean over seeds.

    Args:
        values: the metric of each seed on the test rows, at least two.
        replicates: the same in each resample of the patients; rows with NaN are left out.

    Example:
        >>> spread(np.array([1.0, 2.0, 3.0]), np.tile([1.0, 2.0, 3.0], (5, 1)))
        Spread(variance=0.3333333333333333, known=0.0, degrees=2.0)
    """
    S = len(values)
    kept = replicates[~np.isnan(replicates).any(axis=1)]
    own = kept - kept.mean(axis=1, keepdims=True)
    noise = float(own.var(axis=0).mean()) * S / (S - 1) if len(kept) > 1 else 0.0
    return Spread(variance=float(values.var(ddof=1)) / S, known=noise / S, degrees=float(S - 1))


def seed_draws(resamples: int, *, seed: int) -> tuple[Float[np.ndarray, " R"], Float[np.ndarray, " R"]]:
    """Draw a standard normal and a uniform number per resample, beside the blocks of patients.

    Both are stratified: each hundredth of their distributions is drawn from once per block, which steadies the tails.

    Args:
        resamples: how many.
        seed: of the study or the report.

    Example:
        >>> [len(draw) for draw in seed_draws(10, seed=0)]
        [10, 10]
    """
    streams = [rng(seed, "bootstrap", block, 1) for block in range(-(-resamples // BLOCK))]
    pairs = np.concatenate([np.stack([_stratified(stream), _stratified(stream)]) for stream in streams], axis=1)
    return ndtri(pairs[0, :resamples]), pairs[1, :resamples]


def _stratified(stream: np.random.Generator) -> Float[np.ndarray, " B"]:
    # never 0, of which the normal and the chi-squared quantiles would be infinite
    return (stream.permutation(BLOCK) + np.maximum(stream.random(BLOCK), 1e-9)) / BLOCK


def deviations(
    found: Spread, draws: tuple[Float[np.ndarray, " R"], Float[np.ndarray, " R"]]
) -> Float[np.ndarray, " R"]:
    """Return how far the mean over seeds lies from that over all seeds, once per resample.

    Args:
        found: see `spread`.
        draws: see `seed_draws`.

    Example:
        >>> bool((deviations(Spread(variance=0.0, known=0.0, degrees=2.0), seed_draws(9, seed=0)) == 0).all())
        True
    """
    normal, uniform = draws
    chi2 = chdtri(found.degrees, uniform)
    return normal * np.sqrt(np.maximum(found.variance * found.degrees / chi2 - found.known, 0.0))


def two_level(
    values: Float[np.ndarray, " S"],
    replicates: Float[np.ndarray, "R S"],
    draws: tuple[Float[np.ndarray, " R"], Float[np.ndarray, " R"]],
) -> Float[np.ndarray, " R2"]:
    """Return replicates of the mean over seeds, patients and seeds drawn: twice as many, deviations with both signs.

    Args:
        values: of each seed, at least two.
        replicates: the same in each resample of the patients.
        draws: see `seed_draws`.

    Example:
        >>> two_level(np.array([1.0, 1.0]), np.ones((2, 2)), seed_draws(2, seed=0)).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    middle = replicates.mean(axis=1)
    if np.isnan(values).any():
        return np.concatenate([middle, middle])
    aside = deviations(spread(values, replicates), draws)
    return np.concatenate([middle + aside, middle - aside])
