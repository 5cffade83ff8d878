"""How probabilities would have to be stretched and shifted to be right: calibration slope and intercept.

With p the probability of a class and y whether it is true, the slope is b in logit P(y) = a + b logit(p), and the
intercept ("calibration in the large") is a in logit P(y) = a + logit(p). Right probabilities have slope 1 and
intercept 0; a slope below 1 means that they are too extreme, an intercept above 0 that the class is more frequent than
they say. Cox, "Two further applications of a model for binary regression", Biometrika 45, 1958,
https://doi.org/10.1093/biomet/45.3-4.562; Van Calster et al., "Calibration: the Achilles heel of predictive analytics",
BMC Medicine 17, 2019, https://doi.org/10.1186/s12916-019-1466-7.

A resample of patients weighs rows. Its estimate is one Newton step from that of the whole: everything that the step
needs is a sum over rows, so that thousands of resamples cost one matrix product (Davidson & MacKinnon, "Bootstrap
testing in nonlinear models", Int. Econ. Rev. 40, 1999, https://doi.org/10.1111/1468-2354.00026).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit, logit

from raremix.evaluate.metrics import EPSILON, divide

ITERATIONS = 60
TOLERANCE = 1e-10
LEAST_SPREAD = 1e-6
"""Logits that differ by less say the same of every row, and a slope of rounding errors would say nothing."""
SLOPE_CELLS = 7
"""Columns per class: residual, the same times x, curvature, times x, times x^2, b, and 1."""
INTERCEPT_CELLS = 4
"""Columns per class: residual, curvature, a, and 1."""


def slope_columns(
    truth: Float[np.ndarray, "N K"], scores: Float[np.ndarray, "N K"], known: Bool[np.ndarray, "N K"]
) -> Float[np.ndarray, "N C"]:
    """Lay out what a calibration slope is computed from, per row and class.

    A class without positives or negatives, or whose positives all lie on one side of its negatives, has no slope: its
    columns are 0.
    """
    x = _logits(scores)
    a, b = fit_slope(truth, x, known)
    used = known & ~np.isnan(b)
    share = expit(np.where(used, np.nan_to_num(a) + np.nan_to_num(b) * x, 0.0))
    rest, curve = np.where(used, truth - share, 0.0), np.where(used, share * (1 - share), 0.0)
    cells = [rest, x * rest, curve, x * curve, x**2 * curve, used * np.nan_to_num(b), used]
    return np.stack(cells, axis=2).reshape(len(truth), -1)


def intercept_columns(
    truth: Float[np.ndarray, "N K"], scores: Float[np.ndarray, "N K"], known: Bool[np.ndarray, "N K"]
) -> Float[np.ndarray, "N C"]:
    """Lay out what a calibration intercept is computed from, per row and class; 0 where there is none."""
    x = _logits(scores)
    a = fit_intercept(truth, x, known)
    used = known & ~np.isnan(a)
    share = expit(np.where(used, np.nan_to_num(a) + x, 0.0))
    rest, curve = np.where(used, truth - share, 0.0), np.where(used, share * (1 - share), 0.0)
    return np.stack([rest, curve, used * np.nan_to_num(a), used], axis=2).reshape(len(truth), -1)


def slope_from(cells: Float[np.ndarray, "... K 7"]) -> Float[np.ndarray, "... K"]:
    """Return the slopes under weights of the rows, from sums of `slope_columns`."""
    rest, x_rest, curve, x_curve, xx_curve, b, n = (cells[..., i] for i in range(SLOPE_CELLS))
    return divide(b, n) + divide(curve * x_rest - x_curve * rest, curve * xx_curve - x_curve**2)


def intercept_from(cells: Float[np.ndarray, "... K 4"]) -> Float[np.ndarray, "... K"]:
    """Return the intercepts under weights of the rows, from sums of `intercept_columns`."""
    rest, curve, a, n = (cells[..., i] for i in range(INTERCEPT_CELLS))
    return divide(a, n) + divide(rest, curve)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibration:
    """How one of both is computed.

    Attributes:
        columns: from truth, probabilities and what is known to what is summed over rows.
        cells: columns per class.
        value: from sums, by class and column, to values.
    """

    columns: Callable[..., Float[np.ndarray, "N C"]]
    cells: int
    value: Callable[..., Float[np.ndarray, "..."]]


RECALIBRATIONS: dict[Any, Recalibration] = {
    "slope": Recalibration(columns=slope_columns, cells=SLOPE_CELLS, value=slope_from),
    "intercept": Recalibration(columns=intercept_columns, cells=INTERCEPT_CELLS, value=intercept_from),
}
"""By the family of the metric."""


def fit_slope(
    truth: Float[np.ndarray, "N K"], x: Float[np.ndarray, "N K"], known: Bool[np.ndarray, "N K"]
) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
    """Fit logit P(y) = a + b x to each class by maximum likelihood.

    Args:
        truth: 1 or 0 where known.
        x: logits of the probabilities.
        known: which cells count.

    Returns:
        a and b; NaN where the likelihood has no maximum.

    Example:
        >>> truth = np.array([[1.0], [0.0], [1.0], [1.0], [0.0], [0.0]])  # 2 of 3 at +1, 1 of 3 at -1: log 2 = b
        >>> x = np.array([[1.0], [1.0], [1.0], [-1.0], [-1.0], [-1.0]])
        >>> [found.round(6).tolist() for found in fit_slope(truth, x, np.ones((6, 1), dtype=bool))]
        [[0.0], [0.693147]]
    """
    a, b = np.zeros(x.shape[1]), np.ones(x.shape[1])
    for _ in range(ITERATIONS):
        share = expit(a + b * x)
        rest, curve = np.where(known, truth - share, 0.0), np.where(known, share * (1 - share), 0.0)
        g0, g1 = rest.sum(axis=0), (x * rest).sum(axis=0)
        h0, h1, h2 = curve.sum(axis=0), (x * curve).sum(axis=0), (x**2 * curve).sum(axis=0)
        area = h0 * h2 - h1**2
        # Far from the maximum a Newton step overshoots, most where all shares are near 0 or 1.
        step_a = np.clip(divide(h2 * g0 - h1 * g1, area, otherwise=0.0), -2.0, 2.0)
        step_b = np.clip(divide(h0 * g1 - h1 * g0, area, otherwise=0.0), -1.0, 1.0)
        a, b = a + step_a, b + step_b
        if max(np.abs(step_a).max(), np.abs(step_b).max()) < TOLERANCE:
            break
    overlaps = _overlaps(truth, x, known)
    return np.where(overlaps, a, np.nan), np.where(overlaps, b, np.nan)


def fit_intercept(
    truth: Float[np.ndarray, "N K"], x: Float[np.ndarray, "N K"], known: Bool[np.ndarray, "N K"]
) -> Float[np.ndarray, " K"]:
    """Fit logit P(y) = a + x to each class by maximum likelihood.

    Returns:
        a; NaN where a class has no positive or no negative row.

    Example:
        >>> truth, x = np.array([[1.0], [1.0], [1.0], [0.0]]), np.zeros((4, 1))  # 3 of 4, and even odds were said
        >>> fit_intercept(truth, x, np.ones((4, 1), dtype=bool)).round(6).tolist()
        [1.098612]
    """
    positives, rows = np.where(known, truth, 0.0).sum(axis=0), known.sum(axis=0)
    a = np.zeros(x.shape[1])
    for _ in range(ITERATIONS):
        share = expit(a + x)
        rest, curve = np.where(known, truth - share, 0.0), np.where(known, share * (1 - share), 0.0)
        step = np.clip(divide(rest.sum(axis=0), curve.sum(axis=0), otherwise=0.0), -2.0, 2.0)
        a = a + step
        if np.abs(step).max() < TOLERANCE:
            break
    return np.where((positives > 0) & (positives < rows), a, np.nan)


def _logits(scores: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
    return logit(np.clip(scores, EPSILON, 1 - EPSILON))


def _overlaps(
    truth: Float[np.ndarray, "N K"], x: Float[np.ndarray, "N K"], known: Bool[np.ndarray, "N K"]
) -> Bool[np.ndarray, " K"]:
    """Say for which classes positives and negatives overlap, so that the likelihood has a maximum."""
    up, down = known & (truth == 1), known & (truth == 0)
    infinite = np.inf

    def ends(chosen: Bool[np.ndarray, "N K"]) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
        return np.where(chosen, x, infinite).min(axis=0), np.where(chosen, x, -infinite).max(axis=0)

    (low_up, high_up), (low_down, high_down) = ends(up), ends(down)
    is_spread = np.maximum(high_up, high_down) - np.minimum(low_up, low_down) > LEAST_SPREAD
    return (low_up < high_down) & (low_down < high_up) & is_spread & up.any(axis=0) & down.any(axis=0)
