"""Test rows as all other modules here expect them: checked once, hard labels, scores per seed, thresholds broadcast."""

import numpy as np
from jaxtyping import Bool, Float

from raremix.core.errors import DataError, TargetError
from raremix.core.types import Task

Scores = Float[np.ndarray, "N K"] | Float[np.ndarray, "S N K"]
"""Probabilities of one set of weights, or of a recipe over seeds."""

Thresholds = Float[np.ndarray, " K"] | Float[np.ndarray, "S K"] | Float[np.ndarray, "S N K"]
"""One per class, per seed and class, or per seed, row and class (out-of-fold rows, whose folds differ)."""

OtherScores = Float[np.ndarray, "N K"] | Float[np.ndarray, "T N K"]
OtherThresholds = Float[np.ndarray, " K"] | Float[np.ndarray, "T K"] | Float[np.ndarray, "T N K"]
"""Those of a second arm, whose number of seeds may differ."""


def checked_targets(targets: Float[np.ndarray, "N K"], *, task: Task) -> Float[np.ndarray, "N K"]:
    """Return the targets in float64, or say why they cannot be scored.

    Args:
        targets: 1, 0 or NaN (not labelled); for binary and multiclass one 1 per row, or a row of NaN.
        task: what the columns mean.

    Raises:
        TargetError: if the values or the number of columns do not fit the task.

    Example:
        >>> checked_targets(np.array([[0.0, 1.0]]), task="binary").dtype.name
        'float64'
    """
    values = targets.astype(np.float64)
    K = values.shape[1]
    if (task == "binary" and K != 2) or (task == "multiclass" and K < 2) or K < 1:
        expected = {"binary": "2 columns", "multiclass": "at least 2 columns", "multilabel": "a column per label"}
        raise TargetError(f"expected {expected[task]} of targets for a {task} task, got {K}: check the card's classes")
    if not len(values):
        raise TargetError("expected rows to score, got none: the split is empty")
    missing = np.isnan(values)
    wrong = ~missing & (values != 0) & (values != 1)
    if wrong.any():
        row = int(np.argwhere(wrong)[0, 0])
        raise TargetError(
            f"expected targets of 0, 1 or NaN to score against, got {values[wrong][0]:g} in row {row}: "
            "soft labels are for training; score against the original ones"
        )
    if task != "multilabel":
        known = ~missing.all(axis=1)
        bad = known & (missing.any(axis=1) | (np.nansum(values, axis=1) != 1))
        if bad.any():
            raise TargetError(
                f"expected one class per row for a {task} task, got {values[bad][0].tolist()} in row "
                f"{int(np.flatnonzero(bad)[0])}: use the task multilabel where an image may show several"
            )
    return values


def checked_scores(scores: Scores, *, like: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "S N K"]:
    """Return the scores in float64 with an axis of seeds, or say why they cannot be used.

    Args:
        scores: probabilities in [0, 1], of shape (N, K) or (S, N, K).
        like: the targets that they belong to.

    Raises:
        DataError: if shapes differ or a score is not a probability.

    Example:
        >>> checked_scores(np.full((4, 2), 0.5), like=np.zeros((4, 2))).shape
        (1, 4, 2)
    """
    values = scores.astype(np.float64)
    values = values[None] if values.ndim == 2 else values
    if values.shape[1:] != like.shape or not len(values):
        raise DataError(
            f"expected scores of shape {like.shape}, or one such array per seed, got {scores.shape}: "
            "scores and targets must list the same rows and classes"
        )
    bad = ~((values >= 0) & (values <= 1))
    if bad.any():
        seed, row, _ = np.argwhere(bad)[0]
        raise DataError(
            f"expected probabilities in [0, 1], got {values[bad][0]:g} in row {row} of seed {seed} and "
            f"{int(bad.sum())} such in all: pass scores, not logits; a NaN means that the run diverged"
        )
    return values


def broadcast_thresholds(thresholds: Thresholds | None, shape: tuple[int, int, int]) -> Float[np.ndarray, "S N K"]:
    """Return one threshold per seed, row and class, without copying.

    Args:
        thresholds: see `Thresholds`; None means one half.
        shape: (S, N, K) of the scores.

    Raises:
        DataError: if the shape fits neither classes, nor seeds and classes, nor the scores.

    Example:
        >>> broadcast_thresholds(np.array([0.2, 0.8]), (3, 5, 2)).shape
        (3, 5, 2)
    """
    values = np.full(shape[2], 0.5) if thresholds is None else thresholds.astype(np.float64)
    values = values[:, None, :] if values.ndim == 2 else values
    if values.shape[-1] != shape[2] or (values.ndim == 3 and values.shape[0] not in {1, shape[0]}):
        raise DataError(
            f"expected thresholds of shape ({shape[2]},), ({shape[0]}, {shape[2]}) or {shape}, got {values.shape}: "
            "give one per class, or per seed and class"
        )
    return np.broadcast_to(values, shape)


def labelled_rows(targets: Float[np.ndarray, "N K"]) -> Bool[np.ndarray, " N"]:
    """Say which rows have at least one label.

    Example:
        >>> labelled_rows(np.array([[0.0, 1.0], [np.nan, np.nan]])).tolist()
        [True, False]
    """
    return np.asarray((~np.isnan(targets)).any(axis=1))
