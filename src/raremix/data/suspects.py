"""Ranked suspects: rows, or pairs of rows, that a person should look at, the likeliest first.

The task, and that it is one of ranking by distances in a representation, follow SelfClean (Groeger et al. 2024 [1]) and
its benchmark on human judgements, CleanPatrick (2025 [2]); which score ranks each kind was chosen by measurement, see
`docs/benchmarks/suspects.md`. A rank is a reason to look, never a reason to delete.

[1] https://arxiv.org/abs/2305.17048  [2] https://arxiv.org/abs/2505.11034
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from raremix.core.errors import DataError
from raremix.data.isolation import joining_distances, tenth_distances
from raremix.data.label_doubt import LabelDoubt, doubt_labels
from raremix.data.neighbours import EXACT_ROWS, Neighbours, nearest, unit

NEIGHBOURS = 32
LOCAL = 20
"""The neighbour whose distance is the scale of its surroundings: larger than families of copies usually are."""
CUTOFF = 3.5
"""Robust z-score beyond which a value is an outlier (Iglewicz & Hoaglin 1993, How to Detect and Handle Outliers)."""
MOST = 500
"""Entries that a list asks to be looked at, at most."""
TINY = 1e-6
"""Added to distances: below it they are rounding."""
BLOCK = 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspects:
    """One ranked list.

    Attributes:
        kind: "near-duplicate": entries are pairs of rows; "off-topic" or "label error": entries are rows.
        ids: manifest ids, one or two per entry, the likeliest first.
        scores: one per entry; larger is likelier.
        look_at: how many of the first entries are worth a look.
        words: in plain words, what the list holds and how it was ranked.
    """

    kind: Literal["near-duplicate", "off-topic", "label error"]
    ids: Int[ndarray, " m"] | Int[ndarray, "m 2"]
    scores: Float[ndarray, " m"]
    look_at: int
    words: str


def rank_suspects(
    features: Float[ndarray, "n d"],
    targets: Float[ndarray, "_ K"] | None = None,
    *,
    ids: Int[ndarray, " _"] | None = None,
    groups: ndarray | None = None,
    is_multilabel: bool = False,
    thumbnails: Float[ndarray, "_ e"] | None = None,
    exact_rows: int = EXACT_ROWS,
) -> list[Suspects]:
    """Rank near-duplicates, off-topic images and, where there are labels, likely label errors.

    Args:
        features: a representation, one row per image.
        targets: labels, NaN where not labelled.
        ids: manifest ids; the row numbers by default.
        groups: patient, or whatever shares images, of each row. Images of one group are never compared: several images
            of one patient are alike by right, and say nothing about each other.
        is_multilabel: whether an image may have several labels, or none.
        thumbnails: a second representation, which near-duplicates must be close in too (see `raremix.data.thumbnails`).
        exact_rows: rows up to which all distances are computed.

    Returns:
        Three lists; two without labels.

    Raises:
        DataError: if the arguments do not have one entry per row, or a feature is not finite.

    Example:
        >>> rows = np.array([[1.0, 0, 0], [1, 0.01, 0], [1, 1, 0], [1, 1, 0.5], [0, 0, -1]])
        >>> [found.ids[0].tolist() for found in rank_suspects(rows)]
        [[0, 1], 4]
    """
    count = len(features)
    own_ids = np.arange(count) if ids is None else np.asarray(ids)
    for name, values in (("targets", targets), ("ids", own_ids), ("groups", groups), ("thumbnails", thumbnails)):
        if values is not None and len(values) != count:
            raise DataError(f"{name} must have one entry per image: got {len(values)} for {count} images")
    if not count:
        raise DataError("there are no images to rank: expected at least one")
    codes = np.unique(own_ids if groups is None else groups, return_inverse=True)[1]
    views = [unit(features)] if thumbnails is None else [unit(features), unit(thumbnails)]
    near = [nearest(view, count=NEIGHBOURS, groups=codes, exact_rows=exact_rows) for view in views]
    found = [near_duplicates(views, near, ids=own_ids), off_topic(views[0], near[0], ids=own_ids)]
    if targets is not None:
        doubt = doubt_labels(views[0], targets, groups=codes, is_multilabel=is_multilabel)
        found += [] if doubt is None else [label_errors(doubt, ids=own_ids)]
    return found


def near_duplicates(
    views: Sequence[Float[ndarray, "n _"]], near: Sequence[Neighbours], *, ids: Int[ndarray, " n"]
) -> Suspects:
    """Rank pairs of neighbours by their distance over what is usual around them, in one or several representations.

    score(i, j) = sum over representations of  -log(d(i, j) / sqrt(s(i) s(j))), where s is the distance to the 20th
    neighbour: the scale of Zelnik-Manor & Perona 2004 (Self-Tuning Spectral Clustering, NIPS 17). SelfClean ranks by d
    alone, in one representation; then the pairs of the dense parts of the data, where all images are alike, come first.

    Args:
        views: representations, rows of length one.
        near: of each, the nearest rows of other groups; a pair is considered if they are neighbours in any.
        ids: manifest ids.
    """
    n = len(ids)
    low, high = _pairs(near)
    scores = np.zeros(len(low))
    for view, found in zip(views, near, strict=True):
        scale = _scale(found)
        for start in range(0, len(low), BLOCK):
            one, other = low[start : start + BLOCK], high[start : start + BLOCK]
            apart = np.maximum(1 - np.einsum("pd,pd->p", view[one], view[other], dtype=np.float64), 0)
            scores[start : start + BLOCK] -= np.log((apart + TINY) / (np.sqrt(scale[one] * scale[other]) + TINY))
    pairs = np.sort(np.stack([ids[low], ids[high]], axis=1), axis=1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -scores))
    return Suspects(
        kind="near-duplicate",
        ids=pairs[order],
        scores=scores[order],
        look_at=outliers(scores, usual=_best_of_each(low, high, scores, n=n), rows=n),
        words=(
            "Pairs of images that may show the same thing, the closest first: how alike they are, beside what is usual "
            "around them. Images of one group (patient) are not paired: they are alike by right."
        ),
    )


def off_topic(rows: Float[ndarray, "n d"], near: Neighbours, *, ids: Int[ndarray, " n"]) -> Suspects:
    """Rank rows by how far away they, or the small cluster they are in, are from the rest.

    The score is the mean of two distances of `raremix.data.isolation`: that at which the row's cluster joins the
    others, SelfClean's idea, and that to the nearest tenth of all rows. Which is better depends on the representation.

    Args:
        rows: the representation, of length one.
        near: nearest rows of other groups.
        ids: manifest ids.
    """
    scores = (joining_distances(rows, near) + tenth_distances(rows, ids=ids)) / 2
    order = np.lexsort((ids, -scores))
    return Suspects(
        kind="off-topic",
        ids=ids[order],
        scores=scores[order],
        look_at=outliers(scores, usual=scores, rows=len(rows)),
        words=(
            "Images that are unlike the rest, the farthest first: the distance at which an image, or the small cluster "
            "it is in, joins the others, and that to the nearest tenth of them. Rare diseases are found here too."
        ),
    )


def label_errors(doubt: LabelDoubt, *, ids: Int[ndarray, " n"]) -> Suspects:
    """Rank labelled rows by how little their labels are believed.

    Args:
        doubt: what `raremix.data.label_doubt.doubt_labels` found.
        ids: manifest ids of all rows.
    """
    own = ids[doubt.rows]
    order = np.lexsort((own, -doubt.scores))
    return Suspects(
        kind="label error",
        ids=own[order],
        scores=doubt.scores[order],
        look_at=min(doubt.estimate, _most(len(own))),
        words=(
            "Images whose label is doubtful, the least believed first: what a classifier that was fitted to the other "
            "groups makes of the given label. Difficult images of a right label are found here too."
        ),
    )


def outliers(scores: Float[ndarray, " m"], *, usual: Float[ndarray, " u"], rows: int) -> int:
    """Count the scores that lie above what is usual by more than 3.5 robust standard deviations, up to a cap.

    The standard deviation is 1.4826 times the median distance of the lower half from the median, so that the outliers
    do not widen it. The cap is a tenth of the rows, and 500: more than that is no list to look through.

    Args:
        scores: of all entries.
        usual: one score per row, most of which are ordinary.
        rows: number of rows.

    Example:
        >>> outliers(np.array([9.0, 2, 1, 0]), usual=np.arange(5.0), rows=100)
        1
    """
    if not len(usual):
        return 0
    middle = float(np.median(usual))
    below = middle - usual[usual <= middle]
    spread = max(1.4826 * float(np.median(below)), TINY)
    return min(int((scores > middle + CUTOFF * spread).sum()), _most(rows))


def _most(rows: int) -> int:
    return min(MOST, math.ceil(rows / 10))


def _pairs(near: Sequence[Neighbours]) -> tuple[Int[ndarray, " p"], Int[ndarray, " p"]]:
    """Return every pair of neighbours once, the smaller row number first."""
    n, keys = len(near[0].rows), []
    for found in near:
        k = found.rows.shape[1]
        first, second = np.repeat(np.arange(n), k), found.rows.ravel()
        known = second >= 0
        keys.append(np.minimum(first, second)[known] * n + np.maximum(first, second)[known])
    return np.divmod(np.unique(np.concatenate(keys)), n)


def _scale(near: Neighbours) -> Float[ndarray, " n"]:
    known = np.isfinite(near.distances).sum(axis=1)
    place = np.clip(np.minimum(known, LOCAL) - 1, 0, None)
    scale = near.distances[np.arange(len(place)), place].astype(np.float64)
    return np.where(np.isfinite(scale), scale, 0.0)


def _best_of_each(
    low: Int[ndarray, " p"], high: Int[ndarray, " p"], scores: Float[ndarray, " p"], *, n: int
) -> Float[ndarray, " u"]:
    best = np.full(n, -np.inf)
    np.maximum.at(best, low, scores)
    np.maximum.at(best, high, scores)
    return best[np.isfinite(best)]
