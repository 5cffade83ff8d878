"""From scores to decisions, and the thresholds for it, which are chosen on validation rows and nowhere else.

Youden's J: Youden, "Index for rating diagnostic tests", Cancer 3, 1950,
https://doi.org/10.1002/1097-0142(1950)3:1<32::AID-CNCR2820030106>3.0.CO;2-3.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from raremix.core.errors import DataError, HeldOutError
from raremix.core.types import Split, Task
from raremix.evaluate.rows import Scores, Thresholds, broadcast_thresholds, checked_scores, checked_targets

Rule = Literal["youden", "f1", "half"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationRows:
    """Rows on which thresholds and temperatures may be chosen: the only type that the functions which choose accept.

    Attributes:
        targets: 1, 0 or NaN, (N, K).
        outputs: what the model said, (N, K): scores to choose thresholds on, logits to fit a temperature on.
        split: the split that each row belongs to, (N,), from the manifest; every one must be "validation".

    Raises:
        HeldOutError: if a row is of another split.
        DataError: if the lengths differ.
    """

    targets: Float[np.ndarray, "N K"]
    outputs: Float[np.ndarray, "N K"]
    split: np.ndarray | list[str] | Split

    def __post_init__(self) -> None:
        if self.targets.shape != self.outputs.shape:
            raise DataError(
                f"expected targets and outputs of one shape, got {self.targets.shape} and {self.outputs.shape}: "
                "both must list the same validation rows"
            )
        splits = np.atleast_1d(np.asarray(self.split))
        if not isinstance(self.split, str) and len(splits) != len(self.targets):
            raise DataError(f"expected a split for each of {len(self.targets)} rows, got {len(splits)}")
        foreign = np.flatnonzero(splits != "validation")
        if len(foreign):
            raise HeldOutError(
                f"expected validation rows only, got {len(foreign)} others (row {foreign[0]} is of "
                f"{str(splits[foreign[0]])!r}): choose thresholds and temperatures on validation, never on test"
            )


def decide(
    scores: Scores, *, task: Task, thresholds: Thresholds | None = None
) -> Bool[np.ndarray, "N K"] | Bool[np.ndarray, "S N K"]:
    """Turn scores into decisions, one column per class.

    Binary: the last class where its score reaches its threshold, else the first. Multiclass: the largest score (the
    first of equals); thresholds play no part. Multilabel: every label whose score reaches its threshold.

    Args:
        scores: probabilities, (N, K) or (S, N, K).
        task: what the columns mean.
        thresholds: per class, per seed and class, or per seed, row and class; None means one half.

    Example:
        >>> decide(np.array([[0.4, 0.6]]), task="binary", thresholds=np.array([0.3, 0.7])).tolist()
        [[True, False]]
    """
    seeds = scores[None] if scores.ndim == 2 else scores
    limits = broadcast_thresholds(thresholds, (seeds.shape[0], seeds.shape[1], seeds.shape[2]))
    if task == "multiclass":
        called = np.arange(seeds.shape[2]) == seeds.argmax(axis=2)[..., None]
    elif task == "binary":
        positive = seeds[..., -1] >= limits[..., -1]
        called = np.stack([~positive, positive], axis=2)
    else:
        called = seeds >= limits
    return called[0] if scores.ndim == 2 else called


def choose_thresholds(rows: ValidationRows, *, task: Task, rule: Rule = "youden") -> Float[np.ndarray, " K"]:
    """Choose one threshold per class on validation rows.

    Candidates lie half-way between neighbouring scores, so that none sits on an image. Of equally good ones the
    nearest to one half is taken. A label without both kinds of validation rows gets one half.

    Args:
        rows: validation rows, with scores as outputs.
        task: binary gives (1 - t, t) for the threshold t of the last class; multiclass gives one half everywhere,
            because the largest score decides.
        rule: "youden" maximises sensitivity + specificity - 1, "f1" maximises 2 TP / (2 TP + FP + FN), "half" is one
            half.

    Raises:
        TargetError: if the targets do not fit the task.

    Example:
        >>> rows = ValidationRows(
        ...     targets=np.array([[0.0, 1.0], [1.0, 0.0]]),
        ...     outputs=np.array([[0.2, 0.8], [0.6, 0.4]]),
        ...     split="validation",
        ... )
        >>> choose_thresholds(rows, task="binary").round(6).tolist()
        [0.4, 0.6]
    """
    targets = checked_targets(rows.targets, task=task)
    scores = checked_scores(rows.outputs, like=targets)[0]
    K = targets.shape[1]
    if task == "multiclass" or rule == "half":
        return np.full(K, 0.5)
    if task == "binary":
        best = _best_threshold(targets[:, -1], scores[:, -1], rule)
        return np.array([1 - best, best])
    return np.array([_best_threshold(targets[:, k], scores[:, k], rule) for k in range(K)])


def _best_threshold(targets: Float[np.ndarray, " N"], scores: Float[np.ndarray, " N"], rule: Rule) -> float:
    known = ~np.isnan(targets)
    labels, values = targets[known], scores[known]
    positives = labels.sum()
    if positives in (0, len(labels)):
        return 0.5
    levels, at = np.unique(values, return_inverse=True)
    below = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [np.nextafter(1.0, 2.0)]])
    hits = positives - np.concatenate([[0.0], np.bincount(at, weights=labels).cumsum()])
    alarms = len(labels) - positives - np.concatenate([[0.0], np.bincount(at, weights=1 - labels).cumsum()])
    if rule == "youden":
        merit = hits / positives - alarms / (len(labels) - positives)
    else:
        merit = 2 * hits / (hits + alarms + positives)
    best = np.flatnonzero(merit >= merit.max() - 1e-12)
    return float(below[best[np.abs(below[best] - 0.5).argmin()]])
