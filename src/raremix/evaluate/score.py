"""One number, without an interval: what training watches on its validation rows."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from raremix.core.registry import look_up
from raremix.core.types import Task
from raremix.evaluate.decide import decide
from raremix.evaluate.metrics import METRICS, mean_defined
from raremix.evaluate.rows import Scores, Thresholds, broadcast_thresholds, checked_scores, checked_targets
from raremix.evaluate.sufficient import reduce_predictions


def score(
    targets: Float[np.ndarray, "N K"],
    scores: Scores,
    *,
    metric: str,
    task: Task,
    thresholds: Thresholds | None = None,
    labels: Sequence[int] | None = None,
) -> float | None:
    """Compute one metric, mean over seeds.

    Args:
        targets: 1, 0 or NaN, (N, K).
        scores: probabilities, (N, K) or (S, N, K).
        metric: a name of `METRICS`.
        task: what the columns mean.
        thresholds: from validation; None means one half.
        labels: the mean over these classes, and not the overall value.

    Returns:
        The value; None where it is undefined.

    Raises:
        UnknownNameError: if there is no such metric.

    Example:
        >>> score(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[0.2, 0.8], [0.7, 0.3]]), metric="auroc", task="binary")
        1.0
    """
    look_up(METRICS, metric, kind="metric")
    truth = checked_targets(targets, task=task)
    values = checked_scores(scores, like=truth)
    S, N, K = values.shape
    called = decide(values, task=task, thresholds=broadcast_thresholds(thresholds, (S, N, K)))
    asked = list(labels) if labels is not None else [K - 1] if task == "binary" else list(range(K))
    found = []
    for s in range(S):
        unit = reduce_predictions(
            truth,
            values[s],
            called[s],
            task=task,
            metrics=[metric],
            group=np.zeros(N, dtype=np.int64),
            G=1,
            classes=asked,
        )
        row = unit.under(np.ones((1, 1)))[metric][0]
        found.append(row[0] if labels is None else mean_defined(row[[1 + k for k in labels]]))
    value = float(np.mean(found))
    return None if np.isnan(value) else value
