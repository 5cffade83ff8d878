"""ROC and precision-recall curves with bands, averaged over seeds on a fixed grid, and the confusion matrix.

Between points of a ROC curve is a straight line; between points of a precision-recall curve there is none (Davis &
Goadrich, ICML 2006, https://doi.org/10.1145/1143844.1143874), so precision is taken at the first threshold that
reaches the recall. Bands are pointwise, from the same resamples of patients (and seeds) as all other intervals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from raremix.core.types import Task
from raremix.evaluate.bootstrap import blocks, patients, tail_rank
from raremix.evaluate.compare import CONFIDENCE, MIN_SEEDS, Claim, canonical_order
from raremix.evaluate.decide import decide
from raremix.evaluate.metrics import divide
from raremix.evaluate.rows import (
    Scores,
    Thresholds,
    broadcast_thresholds,
    checked_scores,
    checked_targets,
    labelled_rows,
)
from raremix.evaluate.seeds import seed_draws, two_level
from raremix.evaluate.sufficient import Steps, ranked

Sample = Callable[[Float[np.ndarray, " B"], Float[np.ndarray, " B"], Float[np.ndarray, " M"]], Float[np.ndarray, " M"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A curve on a fixed grid with a pointwise 95 % band.

    Attributes:
        x: false positive rate, or recall.
        y: true positive rate, or precision; mean over seeds (and over classes).
        low, high: the band.
        note: why the arrays are empty; else "".
    """

    x: Float[np.ndarray, " M"]
    y: Float[np.ndarray, " M"]
    low: Float[np.ndarray, " M"]
    high: Float[np.ndarray, " M"]
    note: str = ""


def roc_curve(
    targets: Float[np.ndarray, "N K"],
    scores: Scores,
    *,
    task: Task,
    groups: np.ndarray,
    label: int | None = None,
    points: int = 101,
    claim: Claim | None = None,
    resamples: int = 500,
    seed: int = 0,
) -> Curve:
    """Draw the ROC curve of a class, or the mean of the classes' curves, with its band.

    Args:
        targets: 1, 0 or NaN, (N, K).
        scores: probabilities, (N, K) or (S, N, K).
        task: what the columns mean.
        groups: the patient of each row, (N,).
        label: the class; None is the last one of a binary task, else the mean over classes.
        points: of the grid of false positive rates.
        claim: "recipe" resamples seeds too; None: where there are at least three.
        resamples: for the band.
        seed: of the random stream.

    Example:
        >>> targets = np.tile(np.eye(2), (20, 1))
        >>> curve = roc_curve(targets, np.clip(targets, 0.1, 0.9), task="binary", groups=np.arange(40), points=3)
        >>> curve.y.tolist()
        [1.0, 1.0, 1.0]
    """
    return _curve(
        targets,
        scores,
        task=task,
        groups=groups,
        label=label,
        points=points,
        claim=claim,
        resamples=resamples,
        seed=seed,
        sample=_sample_roc,
    )


def pr_curve(
    targets: Float[np.ndarray, "N K"],
    scores: Scores,
    *,
    task: Task,
    groups: np.ndarray,
    label: int | None = None,
    points: int = 101,
    claim: Claim | None = None,
    resamples: int = 500,
    seed: int = 0,
) -> Curve:
    """Draw the precision-recall curve of a class, or the mean of the classes' curves, with its band.

    Args:
        targets: 1, 0 or NaN, (N, K).
        scores: probabilities, (N, K) or (S, N, K).
        task: what the columns mean.
        groups: the patient of each row, (N,).
        label: the class; None is the last one of a binary task, else the mean over classes.
        points: of the grid of recalls.
        claim: "recipe" resamples seeds too; None: where there are at least three.
        resamples: for the band.
        seed: of the random stream.

    Example:
        >>> targets = np.tile(np.eye(2), (20, 1))
        >>> curve = pr_curve(targets, np.clip(targets, 0.1, 0.9), task="binary", groups=np.arange(40), points=3)
        >>> curve.y.tolist()
        [1.0, 1.0, 1.0]
    """
    return _curve(
        targets,
        scores,
        task=task,
        groups=groups,
        label=label,
        points=points,
        claim=claim,
        resamples=resamples,
        seed=seed,
        sample=_sample_pr,
    )


def confusion(
    targets: Float[np.ndarray, "N K"], scores: Scores, *, task: Task, thresholds: Thresholds | None = None
) -> Float[np.ndarray, "K K"] | Float[np.ndarray, "K 2 2"]:
    """Count truth (rows) against decision (columns), mean over seeds.

    Args:
        targets: 1, 0 or NaN, (N, K); rows without a label are left out.
        scores: probabilities, (N, K) or (S, N, K).
        task: binary and multiclass give (K, K); multilabel gives (K, 2, 2), absent before present.
        thresholds: from validation; None means one half.

    Example:
        >>> confusion(np.array([[0.0, 1.0]]), np.array([[0.8, 0.2]]), task="binary").tolist()
        [[0.0, 0.0], [1.0, 0.0]]
    """
    truth = checked_targets(targets, task=task)
    values = checked_scores(scores, like=truth)
    S, N, K = values.shape
    called = decide(values, task=task, thresholds=broadcast_thresholds(thresholds, (S, N, K)))
    if task == "multilabel":
        known, positive = ~np.isnan(truth), truth == 1
        cells = [[~positive & ~called, ~positive & called], [positive & ~called, positive & called]]
        table = np.array([[(cell & known).sum(axis=1).mean(axis=0) for cell in row] for row in cells])
        return np.moveaxis(table, 2, 0)
    known = labelled_rows(truth)
    shares = called[:, known].mean(axis=0)
    return truth[known].T @ shares


def _curve(
    targets: Float[np.ndarray, "N K"],
    scores: Scores,
    *,
    task: Task,
    groups: np.ndarray,
    label: int | None,
    points: int,
    claim: Claim | None,
    resamples: int,
    seed: int,
    sample: Sample,
) -> Curve:
    truth = checked_targets(targets, task=task)
    values = checked_scores(scores, like=truth)
    order = canonical_order(groups, truth, values)
    truth, values = truth[order], values[:, order]
    who = patients(groups[order], truth)
    S, _, K = values.shape
    ks: Sequence[int] = [label] if label is not None else [K - 1] if task == "binary" else range(K)
    ks = [k for k in ks if who.positives[k] and who.negatives[k]]
    if not ks:
        none = np.empty(0)
        return Curve(x=none, y=none, low=none, high=none, note="no positive or no negative row: there is no curve")
    grid = np.linspace(0, 1, points)
    steps = [[ranked(truth[:, k], values[s, :, k], who.index, who.count, precise=True) for k in ks] for s in range(S)]
    at_all = _on_grid(steps, np.ones((1, who.count)), grid, sample)[0]
    y = at_all.mean(axis=0)
    drawn = np.concatenate(
        [_on_grid(steps, weights, grid, sample) for weights in blocks(who, resamples=resamples, seed=seed)]
    )
    middle = drawn.mean(axis=1)
    if S >= MIN_SEEDS and claim != "weights":
        draws = seed_draws(resamples, seed=seed)
        middle = np.stack([two_level(at_all[:, m], drawn[:, :, m], draws) for m in range(points)], axis=1).clip(0, 1)
    ordered = np.sort(middle, axis=0)
    outside = tail_rank(len(ordered), CONFIDENCE)
    low, high = ordered[outside - 1], ordered[len(ordered) - outside]
    return Curve(x=grid, y=y, low=np.minimum(low, y), high=np.maximum(high, y))


def _on_grid(
    steps: list[list[Steps]], weights: Float[np.ndarray, "r G"], grid: Float[np.ndarray, " M"], sample: Sample
) -> Float[np.ndarray, "r S M"]:
    columns = np.ascontiguousarray(weights.T)
    result = np.zeros((len(weights), len(steps), len(grid)))
    for s, classes in enumerate(steps):
        for one in classes:
            hits = np.cumsum((one.positives @ columns)[::-1], axis=0).T.copy()
            alarms = np.cumsum((one.negatives @ columns)[::-1], axis=0).T.copy()
            for r in range(len(weights)):
                result[r, s] += sample(hits[r], alarms[r], grid) / len(classes)
    return result


def _sample_roc(
    hits: Float[np.ndarray, " B"], alarms: Float[np.ndarray, " B"], grid: Float[np.ndarray, " M"]
) -> Float[np.ndarray, " M"]:
    x = np.concatenate([[0.0], alarms / max(alarms[-1], 1.0)])
    y = np.concatenate([[0.0], hits / max(hits[-1], 1.0)])
    return np.interp(grid, x, y)


def _sample_pr(
    hits: Float[np.ndarray, " B"], alarms: Float[np.ndarray, " B"], grid: Float[np.ndarray, " M"]
) -> Float[np.ndarray, " M"]:
    recall = hits / max(hits[-1], 1.0)
    precision = divide(hits, hits + alarms, otherwise=0.0)
    # a recall of 0 is read at the first positive; rounding must not skip the threshold that reaches a recall exactly
    first = np.searchsorted(recall, np.maximum(grid, 1e-12) - 1e-12, side="left")
    first = np.maximum(first, np.searchsorted(recall, 0.0, side="right"))
    return precision[np.minimum(first, len(precision) - 1)]
