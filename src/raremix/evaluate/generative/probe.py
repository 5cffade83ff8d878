"""Whether a classifier that has seen generated images alone knows real ones."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from raremix.core.errors import DataError
from raremix.evaluate.bootstrap import blocks, patients, percentile_interval
from raremix.evaluate.generative.figures import Figure
from raremix.evaluate.intervals import effective_wilson

RESAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a linear probe knows of images that it has not seen.

    Attributes:
        accuracy: mean of the recalls.
        recall: by class, the share of its images that are told to be of it.
        images, patients: by class, how many were asked.
    """

    accuracy: Figure
    recall: Mapping[int, Figure]
    images: Mapping[int, int]
    patients: Mapping[int, int]


def linear_probe(
    seen: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    unseen: Float[np.ndarray, "m d"],
    true: Int[np.ndarray, " m"],
    *,
    groups: np.ndarray,
    seed: int = 0,
) -> Probe:
    """Fit a logistic regression to vectors of images, and ask it about others.

    With generated images seen and real ones unseen its balanced accuracy is after the classification accuracy score of
    Ravuri & Vinyals 2019 (https://arxiv.org/abs/1905.10887), who train a ResNet-50; here the encoder stays as it is and
    one linear layer is fitted, on standardised vectors and with C = 0.1. Beside it belongs the same of as many real
    images. Intervals are about this probe: the patients who are asked are resampled 1,000 times within the strata of
    their rarest class; that of a recall is Wilson's at the effective number of images, that of the accuracy a
    percentile interval.

    Args:
        seen, labels: what it is fitted to.
        unseen, true: what it is asked; classes that are not there do not count.
        groups: patient of each image that it is asked, (m,).
        seed: of the resamples.

    Raises:
        DataError: if fewer than two classes are seen, or nothing is asked.

    Example:
        >>> rows, labels = np.repeat([[0.0], [1.0]], 20, axis=0), np.repeat([0, 1], 20)
        >>> linear_probe(rows, labels, rows[18:22], labels[18:22], groups=np.arange(4)).recall[1].value
        1.0
    """
    known, asked = np.unique(labels), np.unique(true)
    if len(known) < 2 or not len(asked):
        raise DataError(f"{len(known)} classes to tell apart, {len(true)} images asked: expected at least two and one")
    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000, class_weight="balanced"))
    is_right = fitted.fit(seen, labels).predict(unseen) == true
    is_of = (true[:, None] == asked).astype(np.float64)
    who = patients(groups, is_of)
    counts, hits = np.zeros((who.count, len(asked))), np.zeros((who.count, len(asked)))
    np.add.at(counts, who.index, is_of)
    np.add.at(hits, who.index, is_of * is_right[:, None])
    weights = np.concatenate(list(blocks(who, resamples=RESAMPLES, seed=seed)))
    asked_of, right_of = weights @ counts, weights @ hits
    drawn = np.divide(right_of, asked_of, out=np.full_like(right_of, np.nan), where=asked_of > 0)
    share, images = hits.sum(axis=0) / counts.sum(axis=0), counts.sum(axis=0).astype(int)
    recall = {}
    for k, label in enumerate(asked.tolist()):
        variance, own = float(np.nanvar(drawn[:, k])), int(who.positives[k])
        interval = effective_wilson(float(share[k]), variance, groups=own, rows=int(images[k]))
        recall[label] = Figure(value=float(share[k]), low=interval.low, high=interval.high)
    low, high = percentile_interval(np.nanmean(drawn, axis=1))
    return Probe(
        accuracy=Figure(value=float(share.mean()), low=low, high=high),
        recall=recall,
        images=dict(zip(asked.tolist(), images.tolist(), strict=True)),
        patients=dict(zip(asked.tolist(), who.positives.tolist(), strict=True)),
    )
