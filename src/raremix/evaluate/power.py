"""How small a difference can this test set decide? To be asked before training.

Two arms can differ only on the cases on which they disagree. If they disagree on a share q of a class's patients, as
often in favour of either, then the paired difference of its sensitivity has variance q / n, and no test can tell a
difference below 1.96 standard errors from none (the 95 % half-width). q is about .2 between single runs and .1
between averages over seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

from raremix.core.errors import DataError
from raremix.core.registry import look_up
from raremix.core.types import Task
from raremix.evaluate.bootstrap import patients
from raremix.evaluate.compare import MIN_POSITIVES, fewest_patients
from raremix.evaluate.intervals import hanley_mcneil_variance
from raremix.evaluate.metrics import METRICS
from raremix.evaluate.rows import checked_targets

SINGLE_RUNS, SEEDS_AVERAGED = 0.2, 0.1
"""Share of cases on which two arms disagree, as a working assumption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decidable:
    """The smallest paired difference that a test set can decide.

    Attributes:
        metric: of what.
        difference: 95 % half-width of the paired difference; None where there is no closed form or nothing to rank.
        disagreement: assumed share of cases on which the arms differ.
        groups: patients.
        positives: patients of the rarest class that decides.
        note: why there is none, or what to keep in mind; "" if nothing.
    """

    metric: str
    difference: float | None
    disagreement: float
    groups: int
    positives: int
    note: str


def decidable_difference(
    targets: Float[np.ndarray, "N K"],
    *,
    groups: np.ndarray,
    task: Task,
    metric: str = "balanced_accuracy",
    disagreement: float = SINGLE_RUNS,
    labels: Sequence[int] | None = None,
    expected_auroc: float = 0.85,
) -> Decidable:
    """Estimate the smallest paired difference of a metric that these test rows can decide.

    Patients count, not images. With P and N patients with and without a class and q the disagreement, the variances
    are q / P for a sensitivity, q / N for a specificity, q / n for accuracy, and those of their means follow; labels
    of a multilabel task are taken as independent. For AUROC it is 2 (1 - r) times Hanley and McNeil's variance, with
    the correlation r = cos(pi q) of two normal scores that disagree on a share q of decisions at the median.

    Args:
        targets: of the test rows: 1, 0 or NaN, (N, K).
        groups: the patient of each row, (N,).
        task: what the columns mean.
        metric: a name of `METRICS`.
        disagreement: q, .2 for single runs, .1 where seeds are averaged.
        labels: classes whose mean is compared; None is the overall value.
        expected_auroc: area to expect, for AUROC.

    Raises:
        DataError: if the disagreement is not in (0, 1).
        UnknownNameError: if there is no such metric.

    Example:
        >>> found = decidable_difference(np.tile(np.eye(2), (200, 1)), groups=np.arange(400), task="binary")
        >>> round(found.difference, 3)
        0.044
    """
    look_up(METRICS, metric, kind="metric")
    if not 0 < disagreement < 1:
        raise DataError(f"expected a disagreement between 0 and 1, got {disagreement}: .2 is usual for single runs")
    truth = checked_targets(targets, task=task)
    who = patients(groups, truth)
    K = truth.shape[1]
    positives, negatives = who.positives.astype(np.float64), who.negatives.astype(np.float64)
    fewest = fewest_patients(who, metric, task=task, labels=labels)
    ks = list(labels) if labels is not None else [K - 1] if task == "binary" else list(range(K))
    ks = [k for k in ks if positives[k] and negatives[k]]
    variance: float | None = None
    note = ""
    up, across = disagreement / positives[ks], disagreement / negatives[ks]
    if not ks:
        note = "no class has both positive and negative patients"
    elif metric == "accuracy":
        variance = disagreement / who.count
    elif metric == "sensitivity" or (metric == "balanced_accuracy" and task == "multiclass" and labels is None):
        variance = float(up.sum()) / len(ks) ** 2
    elif metric == "specificity":
        variance = float(across.sum()) / len(ks) ** 2
    elif metric in {"balanced_accuracy", "youden_j"}:
        variance = float((up + across).sum()) / len(ks) ** 2 / (4 if metric == "balanced_accuracy" else 1)
    elif metric == "auroc":
        alike = float(np.cos(np.pi * disagreement))
        single = [hanley_mcneil_variance(expected_auroc, float(positives[k]), float(negatives[k])) for k in ks]
        variance = 2 * (1 - alike) * sum(single) / len(ks) ** 2
    else:
        note = f"no closed form for {metric}; ask for balanced_accuracy or auroc"
    if variance is not None and fewest < MIN_POSITIVES:
        note = f"{fewest} patients of the rarest class: fewer than {MIN_POSITIVES}, arms will not be ranked"
    return Decidable(
        metric=metric,
        difference=None if variance is None else float(ndtri(0.975) * np.sqrt(variance)),
        disagreement=disagreement,
        groups=who.count,
        positives=fewest,
        note=note,
    )


def half_width(share: float, n: int) -> float:
    """Return the 95 % half-width of a proportion from the size of the test set alone: 1.96 sqrt(p (1 - p) / n).

    Args:
        share: p, for example the accuracy to expect.
        n: independent cases, > 0.

    Example:
        >>> round(half_width(0.524, 400), 3)  # RetinaMNIST
        0.049
    """
    if n <= 0:
        raise DataError(f"expected at least one case, got {n}")
    return float(ndtri(0.975) * np.sqrt(share * (1 - share) / n))
