"""Second opinions on a comparison, and corrections for asking several questions.

McNemar, Psychometrika 12, 1947 (mid-p: Fagerland et al., BMC Med. Res. Methodol. 13, 2013,
https://doi.org/10.1186/1471-2288-13-91); Cochran, Biometrika 37, 1950; Holm, Scand. J. Stat. 6, 1979; Benjamini &
Hochberg, J. R. Stat. Soc. B 57, 1995; Nadeau & Bengio, "Inference for the generalization error", Mach. Learn. 52, 2003,
https://doi.org/10.1023/A:1024068626366 (as a posterior: Corani & Benavoli 2015,
https://doi.org/10.1007/s10994-015-5486-z); Christodoulou et al., "False promises in medical imaging AI?", 2025,
https://arxiv.org/abs/2505.04720.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import beta, binom, chi2
from scipy.stats import t as student

from raremix.core.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class McNemar:
    """Tests of paired right and wrong decisions.

    Attributes:
        only_a, only_b: patients that only A, and only B, had right.
        exact: exact binomial p.
        mid_p: exact p less half of the probability of what was seen; the recommended one.
        chi2, p_chi2: asymptotic.
        chi2_corrected, p_corrected: with Edwards' continuity correction.
    """

    only_a: int
    only_b: int
    exact: float
    mid_p: float
    chi2: float
    p_chi2: float
    chi2_corrected: float
    p_corrected: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectedT:
    """A t-test of differences over folds or repeats whose training sets overlap.

    Attributes:
        mean: of the differences.
        t: statistic.
        degrees: of freedom.
        p: two-sided; half of it is one-sided.
        low, high: 95 % interval of the mean.
        probability_better: posterior probability that the mean is above `rope`.
        probability_equal: posterior probability that it is within plus and minus `rope`.
    """

    mean: float
    t: float
    degrees: int
    p: float
    low: float
    high: float
    probability_better: float
    probability_equal: float


def mcnemar(only_a: int, only_b: int) -> McNemar:
    """Test whether two deciders are right equally often, from the patients on whom they differ.

    Args:
        only_a: patients that only A had right, >= 0.
        only_b: patients that only B had right, >= 0.

    Example:
        >>> round(mcnemar(2, 9).mid_p, 11)
        0.03857421875
    """
    n, fewer = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return McNemar(
            only_a=0, only_b=0, exact=1.0, mid_p=1.0, chi2=0.0, p_chi2=1.0, chi2_corrected=0.0, p_corrected=1.0
        )
    tail, seen = float(binom.cdf(fewer, n, 0.5)), float(binom.pmf(fewer, n, 0.5))
    plain = (only_a - only_b) ** 2 / n
    corrected = max(abs(only_a - only_b) - 1, 0) ** 2 / n
    return McNemar(
        only_a=only_a,
        only_b=only_b,
        exact=min(2 * tail, 1.0),
        mid_p=min(2 * tail - seen, 1.0),
        chi2=plain,
        p_chi2=float(chi2.sf(plain, 1)),
        chi2_corrected=corrected,
        p_corrected=float(chi2.sf(corrected, 1)),
    )


def cochran_q(right: Bool[np.ndarray, "n A"]) -> tuple[float, int, float]:
    """Test whether several deciders are right equally often on the same patients; McNemar's chi2 for two.

    Args:
        right: one row per patient, one column per arm.

    Returns:
        Q, degrees of freedom, p. Where all arms agree everywhere, Q is 0 and p is 1.

    Example:
        >>> cochran_q(np.array([[True, False], [True, True]]))[0]
        1.0
    """
    A = right.shape[1]
    columns, rows = right.sum(axis=0).astype(np.float64), right.sum(axis=1).astype(np.float64)
    below = A * rows.sum() - (rows**2).sum()
    if below == 0:
        return 0.0, A - 1, 1.0
    q = float((A - 1) * (A * (columns**2).sum() - columns.sum() ** 2) / below)
    return q, A - 1, float(chi2.sf(q, A - 1))


def holm(p: Float[np.ndarray, " n"] | list[float]) -> Float[np.ndarray, " n"]:
    """Correct p-values of one family so that the chance of any false claim stays at the level (Holm, step down).

    Args:
        p: uncorrected; leave refused comparisons out.

    Example:
        >>> holm([0.01, 0.04, 0.03, 0.005]).tolist()
        [0.03, 0.06, 0.06, 0.02]
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1.0) if len(values) else stepped
    return corrected


def benjamini_hochberg(p: Float[np.ndarray, " n"] | list[float]) -> Float[np.ndarray, " n"]:
    """Correct p-values of one family so that the share of false claims stays at the level (step up).

    Args:
        p: uncorrected.

    Example:
        >>> benjamini_hochberg([0.01, 0.04, 0.03, 0.005]).tolist()
        [0.02, 0.04, 0.04, 0.02]
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    stepped = values[order] * len(values) / np.arange(len(values), 0, -1)
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(np.minimum.accumulate(stepped), 1.0) if len(values) else stepped
    return corrected


def nadeau_bengio(differences: Float[np.ndarray, " n"], *, test_share: float | int, rope: float = 0.0) -> CorrectedT:
    """Test differences over folds or repeats, with the variance corrected for overlapping training sets.

    t = mean / sqrt(s^2 (1 / n + test rows / training rows)), n - 1 degrees of freedom. A second opinion where only fold
    values are left; `compare` on out-of-fold predictions says more.

    Args:
        differences: A less B, per fold and repeat, at least 2.
        test_share: test rows over training rows of a split: 1 / 9 for ten folds; 0 gives the naive t-test.
        rope: half-width of the region of practical equivalence.

    Raises:
        DataError: if there are fewer than two differences.

    Example:
        >>> round(nadeau_bengio(np.array([0.02, 0.03, 0.0, 0.04, 0.02]), test_share=0.25).t, 6)
        2.211083
    """
    n = len(differences)
    if n < 2:
        raise DataError(f"expected at least two differences, got {n}: run more folds or repeats")
    mean, spread = float(differences.mean()), float(differences.var(ddof=1))
    error = float(np.sqrt(spread * (1 / n + test_share)))
    if error == 0:
        better, equal = float(mean > rope), float(abs(mean) <= rope)
        same = mean == 0
        return CorrectedT(
            mean=mean,
            t=0.0 if same else float(np.copysign(np.inf, mean)),
            degrees=n - 1,
            p=1.0 if same else 0.0,
            low=mean,
            high=mean,
            probability_better=0.5 if same and rope == 0 else better,
            probability_equal=equal,
        )
    half = float(student.ppf(0.975, n - 1)) * error
    better = float(student.sf((rope - mean) / error, n - 1))
    worse = float(student.cdf((-rope - mean) / error, n - 1))
    return CorrectedT(
        mean=mean,
        t=mean / error,
        degrees=n - 1,
        p=float(2 * student.sf(abs(mean) / error, n - 1)),
        low=mean - half,
        high=mean + half,
        probability_better=better,
        probability_equal=max(1 - better - worse, 0.0),
    )


def probability_false_claim(n: float | int, right_a: float, right_b: float, right_both: float) -> float:
    """Return the posterior probability that A, though ahead on this test set, is not better than B.

    With x_a = n (right_a - right_both) cases that only A had right and x_b alike, and a flat prior, it is the
    regularised incomplete beta function I_1/2(x_a + 1, x_b + 1).

    Args:
        n: patients.
        right_a, right_b: share that each had right.
        right_both: share that both had right, at most the smaller of the two.

    Raises:
        DataError: if more were right by both than by one.

    Example:
        >>> round(probability_false_claim(100, 0.85, 0.83, 0.78), 11)
        0.29052734375
    """
    only_a, only_b = n * (right_a - right_both), n * (right_b - right_both)
    if min(only_a, only_b) < -1e-9:
        raise DataError(f"expected right_both at most {min(right_a, right_b)}, got {right_both}")
    return float(beta.cdf(0.5, max(only_a, 0.0) + 1, max(only_b, 0.0) + 1))
