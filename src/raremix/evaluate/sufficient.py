"""What a set of predictions must be reduced to so that every metric can be had under any weights of the patients.

Decision and probability metrics need column sums per patient. AUROC and average precision need the rows in the order of
their scores: sorted once, rows between which no metric can tell are merged into one step, and a resample is then one
sparse product and one cumulative sum. The weighted AUROC is sum over steps of P (N_below + N / 2) / (P_total
N_total), which for weights of one is the mid-rank (Mann-Whitney) estimate; all its terms are halves of integers, so
it is exact in float64.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from raremix.core.types import Task
from raremix.evaluate.metrics import (
    ECE_BINS,
    EPSILON,
    METRICS,
    PROBABILITY_FAMILIES,
    Family,
    divide,
    from_counts,
    from_sums,
    with_overall,
)
from raremix.evaluate.recalibration import RECALIBRATIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """One class's rows in the order of their scores, as steps by patients, lowest score first.

    Attributes:
        positives, negatives: (steps, G), how many rows each patient has on each step.
    """

    positives: sparse.csr_matrix
    negatives: sparse.csr_matrix

    def under(self, weights: Float[np.ndarray, "G r"], *, wanted: Sequence[str]) -> dict[str, Float[np.ndarray, " r"]]:
        """Compute AUROC and average precision under weights of the patients.

        Args:
            weights: one column per resample.
            wanted: of "auroc" and "average_precision".

        Returns:
            NaN where a resample has no positive or no negative.

        Example:
            >>> steps = ranked(np.array([0.0, 1.0]), np.array([0.2, 0.3]), np.arange(2), 2, precise=True)
            >>> steps.under(np.ones((2, 1)), wanted=["auroc"])["auroc"].tolist()
            [1.0]
        """
        up, across = self.positives @ weights, self.negatives @ weights
        # from the highest step down: negatives that outrank or share a step
        alarms = np.cumsum(across[::-1], axis=0)[::-1]
        ups, downs = up.sum(axis=0), across.sum(axis=0)
        both = np.where((ups > 0) & (downs > 0), 1.0, np.nan)
        result = {}
        if "auroc" in wanted:
            below = downs - alarms
            below += across / 2
            result["auroc"] = divide(np.einsum("br,br->r", up, below), ups * downs)
        if "average_precision" in wanted:
            hits = np.cumsum(up[::-1], axis=0)[::-1]
            # a step that nobody was drawn from divides 0 by 0, and has no weight
            precision = hits / np.maximum(hits + alarms, 1.0)
            result["average_precision"] = divide(np.einsum("br,br->r", up, precision), ups) * both
        return result


def ranked(
    targets: Float[np.ndarray, " N"],
    scores: Float[np.ndarray, " N"],
    group: Int[np.ndarray, " N"],
    G: int,
    *,
    precise: bool,
) -> Steps:
    """Sort one class's rows into steps.

    Args:
        targets: 1, 0 or NaN.
        scores: the class's scores.
        group: number of each row's patient.
        G: number of patients.
        precise: keep each distinct score of a positive apart, as average precision needs; AUROC does not.

    Example:
        >>> ranked(np.array([0.0, 0.0, 1.0]), np.array([0.1, 0.2, 0.3]), np.arange(3), 3, precise=True).positives.shape
        (2, 3)
    """
    known = ~np.isnan(targets)
    positive, patient = targets[known] == 1, group[known]
    _, level = np.unique(scores[known], return_inverse=True)
    levels = int(level.max()) + 1 if len(level) else 0
    up = np.bincount(level, weights=positive, minlength=levels) > 0
    across = np.bincount(level, weights=~positive, minlength=levels) > 0
    kind = up + 2 * across
    starts = np.ones(levels, dtype=bool)
    starts[1:] = (kind[1:] != kind[:-1]) | (kind[1:] == 3) | (up[1:] & precise)
    step = (np.cumsum(starts) - 1)[level] if levels else level
    shape = (int(starts.sum()), G)
    one, zero = positive, ~positive
    return Steps(
        positives=sparse.csr_matrix((np.ones(int(one.sum())), (step[one], patient[one])), shape=shape),
        negatives=sparse.csr_matrix((np.ones(int(zero.sum())), (step[zero], patient[zero])), shape=shape),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sufficient:
    """One set of predictions, reduced.

    Attributes:
        task: what the classes mean.
        K: number of classes.
        sums: per family the column sums of each patient, (G, C).
        steps: the classes in the order of their scores; None for a class that was not asked for.
        metrics: the names that can be computed.
    """

    task: Task
    K: int
    sums: dict[Family, Float[np.ndarray, "G C"]]
    steps: tuple[Steps | None, ...]
    metrics: tuple[str, ...]

    def totals(self, weights: Float[np.ndarray, "r G"]) -> dict[Family, Float[np.ndarray, "r C"]]:
        """Sum the columns of each family under weights of the patients."""
        return {family: weights @ sums for family, sums in self.sums.items()}

    def areas(self, columns: Float[np.ndarray, "G r"]) -> dict[str, Float[np.ndarray, "r K1"]]:
        """Compute the rankings' metrics under weights of the patients, one column per resample, as in `values`."""
        wanted = [name for name in self.metrics if METRICS[name].family == "ranking"]
        if not wanted:
            return {}
        unknown = {name: np.full(columns.shape[1], np.nan) for name in wanted}
        found = [unknown if step is None else step.under(columns, wanted=wanted) for step in self.steps]
        return {name: with_overall(np.stack([one[name] for one in found], axis=1), task=self.task) for name in wanted}

    def values(self, totals: Mapping[Any, Float[np.ndarray, "r C"]]) -> dict[str, Float[np.ndarray, "r K1"]]:
        """Compute all other metrics from column sums: the overall value first, then one per class."""
        result = {}
        for name in self.metrics:
            family = METRICS[name].family
            if family == "counts":
                counts = totals[family].reshape(-1, self.K, 4)
                result[name] = from_counts(name, counts, task=self.task)
            elif family in RECALIBRATIONS:
                cells = totals[family].reshape(-1, self.K, RECALIBRATIONS[family].cells)
                result[name] = with_overall(RECALIBRATIONS[family].value(cells), task=self.task)
            elif family != "ranking":
                result[name] = from_sums(family, totals[family], task=self.task, K=self.K)
        return result

    def under(self, weights: Float[np.ndarray, "r G"]) -> dict[str, Float[np.ndarray, "r K1"]]:
        """Compute every metric under weights of the patients, the overall value first, then one per class."""
        return self.values(self.totals(weights)) | self.areas(np.ascontiguousarray(weights.T))


def reduce_predictions(
    targets: Float[np.ndarray, "N K"],
    scores: Float[np.ndarray, "N K"],
    called: Bool[np.ndarray, "N K"],
    *,
    task: Task,
    metrics: Sequence[str],
    group: Int[np.ndarray, " N"],
    G: int,
    classes: Sequence[int] | None = None,
    probabilities: Float[np.ndarray, "N K"] | None = None,
) -> Sufficient:
    """Reduce one set of predictions to what its metrics need.

    Args:
        targets: 1, 0 or NaN.
        scores: probabilities.
        called: decisions.
        task: what the classes mean.
        metrics: names from `METRICS`.
        group: number of each row's patient, 0 to G - 1.
        G: number of patients.
        classes: classes whose rankings are wanted; None means all.
        probabilities: what the metrics of probabilities look at, where that is not the scores.
    """
    families: list[Family] = list(dict.fromkeys(METRICS[name].family for name in metrics))
    gather = sparse.csr_matrix((np.ones(len(group)), (group, np.arange(len(group)))), shape=(G, len(group)))
    K = targets.shape[1]
    steps: tuple[Steps | None, ...] = ()
    if "ranking" in families:
        precise = "average_precision" in metrics
        asked = range(K) if classes is None else classes
        steps = tuple(
            ranked(targets[:, k], scores[:, k], group, G, precise=precise) if k in asked else None for k in range(K)
        )
    return Sufficient(
        task=task,
        K=K,
        sums={
            f: gather
            @ columns(
                f,
                targets,
                scores if probabilities is None or f not in PROBABILITY_FAMILIES else probabilities,
                called,
                task=task,
            )
            for f in families
            if f != "ranking"
        },
        steps=steps,
        metrics=tuple(metrics),
    )


def columns(
    family: Family,
    targets: Float[np.ndarray, "N K"],
    scores: Float[np.ndarray, "N K"],
    called: Bool[np.ndarray, "N K"],
    *,
    task: Task,
) -> Float[np.ndarray, "N C"]:
    """Lay out what is to be summed over rows for a family of metrics.

    counts: TP, FP, FN, TN per class. brier: squared error and 1 per class. log_loss: -log likelihood and 1 per class;
        last,
    for multiclass, -log of the true class's score. ece: per class (and, for multiclass, last for the called class)
    outcome - score in the column of the score's bin, and 1. slope, intercept: see `recalibration`.

    Example:
        >>> one = np.ones((1, 1))
        >>> columns("counts", one, one, one > 0, task="multilabel").tolist()
        [[1.0, 0.0, 0.0, 0.0]]
    """
    known = ~np.isnan(targets)
    positive = targets == 1
    N = len(targets)
    if family == "counts":
        negative = known & ~positive
        cells = np.stack([positive & called, negative & called, positive & ~called, negative & ~called], axis=2)
        return cells.reshape(N, -1).astype(np.float64)
    truth = np.where(known, targets, 0.0)
    if family in RECALIBRATIONS:
        return RECALIBRATIONS[family].columns(truth, scores, known)
    if family == "brier":
        return np.stack([np.where(known, (scores - truth) ** 2, 0.0), known], axis=2).reshape(N, -1)
    if family == "log_loss":
        safe = np.clip(scores, EPSILON, 1 - EPSILON)
        loss = -np.log(np.where(positive, safe, 1 - safe))
        cells = np.stack([np.where(known, loss, 0.0), known], axis=2).reshape(N, -1)
        if task != "multiclass":
            return cells
        return np.concatenate([cells, np.where(positive, loss, 0.0).sum(axis=1, keepdims=True)], axis=1)
    if task == "multiclass":
        top = scores.argmax(axis=1)[:, None]
        scores = np.concatenate([scores, np.take_along_axis(scores, top, axis=1)], axis=1)
        truth = np.concatenate([truth, np.take_along_axis(truth, top, axis=1)], axis=1)
        known = np.concatenate([known, np.take_along_axis(known, top, axis=1)], axis=1)
    cells = np.zeros((N, scores.shape[1], ECE_BINS + 1))
    place = np.minimum((scores * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    np.put_along_axis(cells, place[..., None], np.where(known, truth - scores, 0.0)[..., None], axis=2)
    cells[..., -1] = known
    return cells.reshape(N, -1)
