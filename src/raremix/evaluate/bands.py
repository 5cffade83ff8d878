"""Head, medium and tail: which classes are rare, from the counts of the training rows.

Long-tail convention: more than 100 images head, 20 to 100 medium, fewer than 20 tail (Liu et al., "Large-scale
long-tailed recognition in an open world", CVPR 2019, https://arxiv.org/abs/1904.05160).
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int

Band = Literal["head", "medium", "tail"]
BANDS: tuple[Band, ...] = ("head", "medium", "tail")

MANY, FEW = 100, 20
FLAT = 2.0
"""Below this ratio of the largest to the smallest class nothing is rare, and every class is head."""


def bands(train_counts: Int[np.ndarray, " K"] | Float[np.ndarray, " K"]) -> list[Band]:
    """Sort classes into head, medium and tail.

    Where the convention splits the classes into at least two bands, it is used: head above 100 training images, tail
    below 20. In small or large sets, where it would put all into one, the range of log counts is cut into thirds
    instead. Classes within a factor of 2 of each other are all head.

    Args:
        train_counts: training images (positives) per class.

    Example:
        >>> bands(np.array([4000, 80, 12]))
        ['head', 'medium', 'tail']
        >>> bands(np.array([4323, 583, 491, 264, 183, 110]))
        ['head', 'medium', 'medium', 'tail', 'tail', 'tail']
    """
    counts = np.asarray(train_counts, dtype=np.float64)
    if not len(counts) or counts.max() < FLAT * max(counts.min(), 1.0):
        return ["head"] * len(counts)
    convention: list[Band] = ["head" if c > MANY else "tail" if c < FEW else "medium" for c in counts]
    if len(set(convention)) > 1:
        return convention
    logs = np.log(np.maximum(counts, 1.0))
    low, high = logs.min(), logs.max()
    cuts = low + (high - low) / 3, low + 2 * (high - low) / 3
    return ["head" if x > cuts[1] else "tail" if x <= cuts[0] else "medium" for x in logs]


def explain_bands(train_counts: Int[np.ndarray, " K"] | Float[np.ndarray, " K"]) -> str:
    """Say in words which rule made the bands.

    Example:
        >>> explain_bands(np.array([50, 60]))
        'no class is rare: the largest has less than 2 times the images of the smallest'
    """
    counts = np.asarray(train_counts, dtype=np.float64)
    if not len(counts) or counts.max() < FLAT * max(counts.min(), 1.0):
        return f"no class is rare: the largest has less than {FLAT:g} times the images of the smallest"
    if len({"head" if c > MANY else "tail" if c < FEW else "medium" for c in counts}) > 1:
        return f"head: more than {MANY} training images; tail: fewer than {FEW}"
    return "thirds of the range of the logarithm of the training counts"
