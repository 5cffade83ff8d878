"""How much labels are believed by a classifier that did not see them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.optimize import minimize
from scipy.special import logsumexp

from raremix.core.random import rng

FOLDS = 5
COMPONENTS = 64
RIDGE = 10.0
"""Weight of the squared coefficients beside the summed loss: of 1,000 / C in scikit-learn's words, C is 0.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelDoubt:
    """How doubtful the labels of rows are.

    Attributes:
        rows: the labelled rows.
        scores: one per row; larger is more doubtful.
        estimate: how many of them are wrong, as confident learning counts.
    """

    rows: Int[ndarray, " m"]
    scores: Float[ndarray, " m"]
    estimate: int


def doubt_labels(
    features: Float[ndarray, "n d"],
    targets: Float[ndarray, "n K"],
    *,
    groups: Int[ndarray, " n"] | None = None,
    is_multilabel: bool = False,
) -> LabelDoubt | None:
    """Score every labelled row by what a classifier that was fitted to other groups makes of its label.

    The classifier is a logistic regression on the first 64 principal components, each of unit variance. Every fifth of
    the groups is scored by the one that was fitted to the other four. With p its probability of the given label,

        one class per image     score = 1 - p
        several                 score = max over the image's labels k of  1 - p_k

    so positives of a rare finding that the representation does not show come first.

    The estimate of the number of errors is that of confident learning (Northcutt, Jiang & Chuang 2021,
    https://arxiv.org/abs/1911.00068): labels that another one beats, among those whose probability is at least what is
    usual for images of that label. It is far too high where classes are hard.

    Args:
        features: the representation.
        targets: labels, NaN where not labelled.
        groups: number of each row's group; groups are never divided between folds.
        is_multilabel: whether an image may have several labels, or none.

    Returns:
        None where there is nothing to compare: fewer than two labels, or fewer than five groups.

    Example:
        >>> features = np.repeat([[1.0, 0.0], [0.0, 1.0]], 10, axis=0)
        >>> targets = np.repeat([[1.0, 0.0], [0.0, 1.0]], [11, 9], axis=0)
        >>> int(doubt_labels(features, targets).scores.argmax())
        10
    """
    own = np.arange(len(features)) if groups is None else groups
    if not is_multilabel:
        rows = np.flatnonzero(~np.isnan(targets).any(axis=1) & (np.nansum(targets, axis=1) > 0))
        if len(rows) == 0:
            return None
        labels = targets[rows].argmax(axis=1)
        given = _out_of_fold(features[rows], labels, own[rows])
        if given is None:
            return None
        return LabelDoubt(rows=rows, scores=1 - _taken(*given), estimate=int(_beaten(*given).sum()))
    scores, wrong = np.full(len(features), -np.inf), np.zeros(len(features), dtype=bool)
    for values in targets.T:
        rows = np.flatnonzero(~np.isnan(values))
        given = _out_of_fold(features[rows], values[rows].astype(np.int64), own[rows]) if len(rows) else None
        if given is not None:
            chances, labels = given
            scores[rows] = np.maximum(scores[rows], 1 - _taken(chances, labels))
            wrong[rows] |= _beaten(chances, labels)
    rows = np.flatnonzero(np.isfinite(scores))
    return LabelDoubt(rows=rows, scores=scores[rows], estimate=int(wrong.sum())) if len(rows) else None


def _out_of_fold(
    features: Float[ndarray, "m d"], labels: Int[ndarray, " m"], groups: Int[ndarray, " m"]
) -> tuple[Float[ndarray, "m K"], Int[ndarray, " m"]] | None:
    """Return the probabilities of every row's labels by a classifier of other groups; None where there is one label."""
    known, codes = np.unique(labels, return_inverse=True)
    folds = _deal(codes, groups)
    if len(known) < 2 or folds.max() < FOLDS - 1:
        return None
    inputs = _components(features)
    chances = np.zeros((len(labels), len(known)))
    for fold in range(int(folds.max()) + 1):
        held = folds == fold
        weights = _fit(inputs[~held], codes[~held], count=len(known))
        chances[held] = _probabilities(inputs[held], weights)
    return chances, codes


def _components(features: Float[ndarray, "m d"]) -> Float[ndarray, "m c"]:
    """Return the first principal components, each of variance one; in blocks, since features may fill the memory."""
    blocks = [slice(start, start + 4096) for start in range(0, len(features), 4096)]
    mean = features.mean(axis=0, dtype=np.float64)
    spread = sum((features[b] - mean).T @ (features[b] - mean) for b in blocks) / len(features)
    values, vectors = np.linalg.eigh(spread)
    kept = np.argsort(-values)[:COMPONENTS]
    kept = kept[values[kept] > 1e-9 * max(float(values.max()), 1e-30)]
    return np.concatenate([(features[b] - mean) @ vectors[:, kept] / np.sqrt(values[kept]) for b in blocks])


def _deal(labels: Int[ndarray, " m"], groups: Int[ndarray, " m"]) -> Int[ndarray, " m"]:
    """Deal groups to folds, class by class, in an order that is drawn."""
    known, first, codes = np.unique(groups, return_index=True, return_inverse=True)
    drawn = rng(0, "split").permutation(len(known))
    order = drawn[np.argsort(labels[first][drawn], kind="stable")]
    fold = np.empty(len(known), dtype=np.int64)
    fold[order] = np.arange(len(known)) % FOLDS
    return fold[codes]


def _fit(inputs: Float[ndarray, "m c"], labels: Int[ndarray, " m"], *, count: int) -> Float[ndarray, "C K"]:
    design = np.column_stack([inputs, np.ones(len(inputs))])
    hot = np.eye(count)[labels]
    free = np.append(np.ones(inputs.shape[1]), 0.0)[:, None]

    def loss(flat: Float[ndarray, " w"]) -> tuple[float, Float[ndarray, " w"]]:
        weights = flat.reshape(-1, count)
        logits = design @ weights
        total = np.asarray(logsumexp(logits, axis=1, keepdims=True))
        gradient = design.T @ (np.exp(logits - total) - hot) + RIDGE * free * weights
        value = float(total.sum() - (logits * hot).sum() + RIDGE / 2 * (free * weights**2).sum())
        return value, gradient.ravel()

    start = np.zeros(design.shape[1] * count)
    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 100}).x.reshape(-1, count)


def _probabilities(inputs: Float[ndarray, "m c"], weights: Float[ndarray, "C K"]) -> Float[ndarray, "m K"]:
    logits = inputs @ weights[:-1] + weights[-1]
    return np.exp(logits - logsumexp(logits, axis=1, keepdims=True))


def _taken(chances: Float[ndarray, "m K"], labels: Int[ndarray, " m"]) -> Float[ndarray, " m"]:
    return chances[np.arange(len(labels)), labels]


def _usual(chances: Float[ndarray, "m K"], labels: Int[ndarray, " m"]) -> Float[ndarray, " K"]:
    counts = np.bincount(labels, minlength=chances.shape[1])
    return np.bincount(labels, weights=_taken(chances, labels), minlength=chances.shape[1]) / counts


def _beaten(chances: Float[ndarray, "m K"], labels: Int[ndarray, " m"]) -> Bool[ndarray, " m"]:
    """Return which labels are off the diagonal of the confident joint."""
    confident = np.where(chances >= _usual(chances, labels), chances, -1.0)
    best = confident.argmax(axis=1)
    return (confident.max(axis=1) >= 0) & (best != labels)
