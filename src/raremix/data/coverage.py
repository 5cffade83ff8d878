"""What a sampler shows: images drawn per label, repeats, and whether labels still go together as they do."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from raremix.data.label_balanced import patterns_of, tilt


@runtime_checkable
class Drawing(Protocol):
    """What is asked of a sampler here."""

    @property
    def epoch(self) -> int:
        """Number of positions of an epoch."""
        ...

    def row(self, positions: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Return the row of every position."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What the first epochs of a sampler showed, counted; each array has one entry per label.

    Attributes:
        epochs: how many were counted.
        rows: images to draw from.
        images: images that show the label.
        drawn: draws of such images, per epoch.
        distinct: different images of them, per epoch.
        unseen: share of all images that an epoch leaves out.
        most: draws of the image that came most often, in one epoch.
        labels_per_image: mean number of labels of the images, and of what is drawn.
        moved: share of the draws that would have to show another combination of labels for each combination to come as
            often as its single labels explain, by one factor per label and none per combination; 0: labels go together
            as they do in the images.
    """

    epochs: int
    rows: int
    images: Int[np.ndarray, " K"]
    drawn: Float[np.ndarray, " K"]
    distinct: Float[np.ndarray, " K"]
    unseen: float
    most: int
    labels_per_image: tuple[float, float]
    moved: float


def coverage(sampler: Drawing, targets: Float[np.ndarray, "n K"], *, epochs: int = 8) -> Coverage:
    """Count what the first epochs of a sampler show.

    Args:
        sampler: from position to row.
        targets: labels of the rows; above 0.5 is positive, NaN and below is not.
        epochs: how many are counted.

    Example:
        >>> from raremix.data.samplers import Natural
        >>> targets = np.array([[1.0, 0], [1, 1], [0, 0]])
        >>> found = coverage(Natural(targets=targets, seed=0), targets)
        >>> found.drawn.tolist(), found.unseen, found.most
        ([2.0, 1.0], 0.0, 1)
    """
    labels, n, length = targets > 0.5, len(targets), sampler.epoch
    times = np.zeros(n, dtype=np.int64)
    distinct, unseen, most = np.zeros(targets.shape[1]), 0.0, 0
    for number in range(epochs):
        here = np.bincount(sampler.row(np.arange(number * length, (number + 1) * length)), minlength=n)
        times += here
        distinct += labels[here > 0].sum(axis=0)
        unseen += float((here == 0).mean())
        most = max(most, int(here.max()))
    drawn = (times @ labels) / epochs
    share = times * (n / times.sum())
    _, pattern, _ = patterns_of(labels)
    even = tilt(labels, (share @ labels) / n)
    moved = np.bincount(pattern, weights=share) - np.bincount(pattern, weights=even)
    return Coverage(
        epochs=epochs,
        rows=n,
        images=labels.sum(axis=0).astype(np.int64),
        drawn=drawn,
        distinct=distinct / epochs,
        unseen=unseen / epochs,
        most=most,
        labels_per_image=(float(labels.sum() / n), float(drawn.sum() * epochs / times.sum())),
        moved=float(np.abs(moved).sum() / 2 / n),
    )
