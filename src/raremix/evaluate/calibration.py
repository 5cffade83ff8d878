"""Probabilities: from logits to scores, one temperature, and how far to believe the result.

Temperature scaling and the expected calibration error: Guo et al., "On calibration of modern neural networks", ICML
2017, https://proceedings.mlr.press/v70/guo17a.html.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import expit, softmax

from raremix.core.errors import DataError
from raremix.core.types import Task
from raremix.evaluate.decide import ValidationRows
from raremix.evaluate.intervals import wilson
from raremix.evaluate.metrics import ECE_BINS
from raremix.evaluate.rows import Scores, checked_scores, checked_targets

TEMPERATURE_RANGE = (0.05, 20.0)
"""A validation set that is separated perfectly asks for a temperature of 0; the range keeps scores off 0 and 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """A reliability diagram: bins of equal width, empty ones left out.

    Attributes:
        lower, upper: edges of each bin.
        confidence: mean score in the bin.
        observed: share of positives (or of right answers) in the bin.
        low, high: 95 % Wilson interval of `observed`, on the number of groups where groups are given.
        n: scores in the bin, mean over seeds.
    """

    lower: Float[np.ndarray, " M"]
    upper: Float[np.ndarray, " M"]
    confidence: Float[np.ndarray, " M"]
    observed: Float[np.ndarray, " M"]
    low: Float[np.ndarray, " M"]
    high: Float[np.ndarray, " M"]
    n: Float[np.ndarray, " M"]


def scores_from_logits(
    logits: Float[np.ndarray, "N K"], *, task: Task, temperature: float = 1.0
) -> Float[np.ndarray, "N K"]:
    """Turn logits into probabilities: softmax for binary and multiclass, sigmoid for multilabel.

    Args:
        logits: the model's outputs.
        task: which of the two applies.
        temperature: what the logits are divided by, > 0.

    Raises:
        DataError: if the temperature is not positive or a logit is not finite.

    Example:
        >>> scores_from_logits(np.zeros((1, 2)), task="binary").tolist()
        [[0.5, 0.5]]
    """
    if not temperature > 0:
        raise DataError(f"expected a temperature above 0, got {temperature}: 1 leaves scores as they are")
    if not np.isfinite(logits).all():
        raise DataError("expected finite logits, got NaN or infinity: the run diverged; lower the learning rate")
    scaled = logits.astype(np.float64) / temperature
    return expit(scaled) if task == "multilabel" else softmax(scaled, axis=1)


def fit_temperature(rows: ValidationRows, *, task: Task) -> float:
    """Find the temperature that minimises the negative log likelihood of validation rows.

    The likelihood is convex in 1/T; its derivative, sum of (expected logit - logit of the truth), is solved for 0.
    Dividing by a temperature changes no ranking within a label and no argmax.

    Args:
        rows: validation rows, with logits as outputs.
        task: softmax for binary and multiclass, sigmoid for multilabel.

    Returns:
        A temperature in `TEMPERATURE_RANGE`.

    Raises:
        TargetError: if the targets do not fit the task.

    Example:
        >>> rows = ValidationRows(
        ...     targets=np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]),
        ...     outputs=np.array([[2.0, 0.0]] * 4),
        ...     split="validation",
        ... )
        >>> round(fit_temperature(rows, task="binary"), 6)  # three right of four: the gap should be log 3
        1.820478
    """
    targets = checked_targets(rows.targets, task=task)
    keep = ~np.isnan(targets).all(axis=1)
    truth, logits = targets[keep], rows.outputs[keep].astype(np.float64)
    if not np.isfinite(logits).all():
        raise DataError("expected finite logits, got NaN or infinity: the run diverged; lower the learning rate")
    known = ~np.isnan(truth)
    answer = np.where(known, truth, 0.0)

    def slope(inverse: float) -> float:
        scaled = logits * inverse
        share = expit(scaled) if task == "multilabel" else softmax(scaled, axis=1)
        return float(np.sum(np.where(known, share - answer, 0.0) * logits))

    low, high = 1 / TEMPERATURE_RANGE[1], 1 / TEMPERATURE_RANGE[0]
    if not len(truth) or slope(low) == slope(high):
        return 1.0
    if slope(low) >= 0:
        return TEMPERATURE_RANGE[1]
    if slope(high) <= 0:
        return TEMPERATURE_RANGE[0]
    return 1 / float(brentq(slope, low, high, xtol=1e-14, rtol=1e-14))  # pyright: ignore[reportArgumentType]


def reliability(
    targets: Float[np.ndarray, "N K"],
    scores: Scores,
    *,
    task: Task,
    label: int | None = None,
    groups: np.ndarray | None = None,
    bins: int = ECE_BINS,
) -> Reliability:
    """Compare scores with what came true, in bins of equal width.

    Args:
        targets: 1, 0 or NaN, (N, K).
        scores: probabilities, (N, K) or (S, N, K); seeds are pooled, and count as one row per image in the interval.
        task: what the columns mean.
        label: the class whose score is looked at. None: for binary the last class, for multiclass the score of the
            class that was called against its being right (as Guo et al.), for multilabel all labels together.
        groups: the patient of each row; the interval then counts patients, not images.
        bins: number of bins of equal width on [0, 1].

    Example:
        >>> chart = reliability(np.array([[0.0, 1.0]]), np.array([[0.3, 0.7]]), task="binary", bins=2)
        >>> (chart.confidence.tolist(), chart.observed.tolist())
        ([0.7], [1.0])
    """
    truth = checked_targets(targets, task=task)
    values = checked_scores(scores, like=truth)
    S, N, K = values.shape
    units = np.arange(N) if groups is None else np.unique(groups, return_inverse=True)[1]
    if label is None and task == "multiclass":
        called = values.argmax(axis=2)
        score = values.max(axis=2)
        right = truth[np.arange(N), called]
    else:
        columns = slice(None) if label is None and task == "multilabel" else [K - 1 if label is None else label]
        score = values[:, :, columns].reshape(S, -1)
        right = np.broadcast_to(truth[:, columns].reshape(1, -1), score.shape)
        units = np.repeat(units, score.shape[1] // N) if N else units
    known = ~np.isnan(right)
    place = np.minimum((score * bins).astype(int), bins - 1)
    units = np.broadcast_to(units, score.shape)
    rows = []
    for b in range(bins):
        here = known & (place == b)
        if here.any():
            n, share, members = here.sum() / S, right[here].mean(), len(np.unique(units[here]))
            size = min(float(members), float(max(n, 1.0)))
            interval = wilson(share * size, size)
            rows.append((b / bins, (b + 1) / bins, score[here].mean(), share, interval.low, interval.high, n))
    table = np.array(rows, dtype=np.float64).reshape(-1, 7).T
    return Reliability(
        lower=table[0], upper=table[1], confidence=table[2], observed=table[3], low=table[4], high=table[5], n=table[6]
    )
