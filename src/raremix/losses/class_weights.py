"""Weights per class from the number of training images of each class."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from raremix.core.errors import ConfigError

Scheme = Literal["none", "inverse", "sqrt", "effective"]

EFFECTIVE_BETA = 0.9999  # the largest value that Cui et al. try, and the one of their large data sets


def raw_weights(class_counts: Sequence[float | int], *, scheme: Scheme) -> Float[np.ndarray, " K"]:
    """Return a weight per class, up to a common factor.

    "inverse": 1 / n; "sqrt": 1 / sqrt(n); "effective": (1 - b) / (1 - b^n) with b = 0.9999 [1]; "none": 1. A class
    without images counts as one image.

    [1] Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019, https://arxiv.org/abs/1901.05555.

    Args:
        class_counts: number of training images per class, >= 0.
        scheme: which formula.

    Example:
        >>> raw_weights([1, 4], scheme="sqrt")
        array([1. , 0.5])
    """
    counts = np.maximum(np.asarray(class_counts, dtype=np.float64), 1.0)
    match scheme:
        case "none":
            return np.ones_like(counts)
        case "inverse":
            return 1.0 / counts
        case "sqrt":
            return 1.0 / np.sqrt(counts)
        case "effective":
            return (1.0 - EFFECTIVE_BETA) / (1.0 - EFFECTIVE_BETA**counts)


@lru_cache(maxsize=64)
def row_weights(class_counts: tuple[float, ...], scheme: Scheme, device: torch.device) -> Float[Tensor, " K"]:
    """Return weights whose mean over the training images is 1, for losses in which a row belongs to one class.

    A class of n images weighs n times its weight in an epoch, so the loss keeps its size and the learning rate its
    meaning; "inverse" gives N / (K n), scikit-learn's "balanced".
    """
    counts = np.maximum(np.asarray(class_counts, dtype=np.float64), 1.0)
    weights = raw_weights(class_counts, scheme=scheme)
    return _kept(weights * counts.sum() / (weights * counts).sum(), device)


@lru_cache(maxsize=64)
def positive_weights(class_counts: tuple[float, ...], scheme: Scheme, device: torch.device) -> Float[Tensor, " K"]:
    """Return weights of positive cells, 1 for the most frequent class and more for rarer ones, for losses per cell."""
    weights = raw_weights(class_counts, scheme=scheme)
    return _kept(weights / weights.min(), device)


def _kept(weights: Float[np.ndarray, " K"], device: torch.device) -> Float[Tensor, " K"]:
    with torch.inference_mode(False):  # a validation may come first, and the weights are kept for training
        return torch.tensor(weights, dtype=torch.float32, device=device)


def checked_counts(
    class_counts: Sequence[float | int] | np.ndarray | None, *, scheme: Scheme
) -> tuple[float, ...] | None:
    """Return the counts as a tuple.

    Raises:
        ConfigError: if the scheme is unknown, needs counts and has none, or the counts are no counts.
    """
    if scheme not in get_args(Scheme):
        raise ConfigError(f"class_weights must be one of {', '.join(get_args(Scheme))}, got {scheme!r}")
    if class_counts is None:
        if scheme != "none":
            raise ConfigError(f"class_weights = {scheme!r} needs class_counts: the number of training images per class")
        return None
    counts = tuple(float(count) for count in class_counts)
    if not counts or not all(np.isfinite(count) and count >= 0 for count in counts):
        raise ConfigError(f"class_counts must be finite numbers >= 0, one per class, got {counts}")
    return counts


def check_smoothing(label_smoothing: float) -> None:
    """Refuse a label smoothing outside [0, 1).

    Raises:
        ConfigError: naming the value.
    """
    if not 0 <= label_smoothing < 1:
        raise ConfigError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
