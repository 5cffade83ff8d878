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
            return _effective(counts, EFFECTIVE_BETA)


@lru_cache(maxsize=64)
def row_weights(class_counts: tuple[float, ...], scheme: Scheme, device: torch.device) -> Float[Tensor, " K"]:
    """Return weights whose mean over the training images is 1, for losses in which a row belongs to one class.

    A class of n images weighs n times its weight in an epoch, so the loss keeps its size and the learning rate its
    meaning; "inverse" gives N / (K n), scikit-learn's "balanced".
    """
    counts = np.maximum(np.asarray(class_counts, dtype=np.float64), 1.0)
    weights = raw_weights(class_counts, scheme=scheme)
    return _kept(_of_rows(weights, counts), device)


@lru_cache(maxsize=64)
def positive_weights(class_counts: tuple[float, ...], scheme: Scheme, device: torch.device) -> Float[Tensor, " K"]:
    """Return weights of positive cells, 1 for the most frequent class and more for rarer ones, for losses per cell."""
    weights = raw_weights(class_counts, scheme=scheme)
    return _kept(weights / weights.min(), device)


def _effective(counts: Float[np.ndarray, " K"], beta: float) -> Float[np.ndarray, " K"]:
    return (1.0 - beta) / (1.0 - beta**counts)


def _of_rows(weights: Float[np.ndarray, " K"], counts: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    """Scale weights to a mean of 1 over the images."""
    return weights * counts.sum() / (weights * counts).sum()


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


def required_counts(
    class_counts: Sequence[float | int] | np.ndarray | None, *, loss: str, what: str = "class_counts"
) -> tuple[float, ...]:
    """Return counts that a loss cannot do without, as a tuple.

    Args:
        class_counts: what came.
        loss: the loss's name, for the message.
        what: the parameter's name, for the message.

    Raises:
        ConfigError: if there are none, they are no counts, or a class has none: its weight or prior would be made up.
    """
    if class_counts is None:
        raise ConfigError(f"{loss} needs {what}: the number of training images per class; a study fills them in")
    counts = tuple(float(count) for count in class_counts)
    if not counts or not all(np.isfinite(count) and count >= 0 for count in counts):
        raise ConfigError(f"{loss}: {what} must be finite numbers, one per class, got {counts}")
    absent = [k for k, count in enumerate(counts) if count == 0]
    if absent:
        raise ConfigError(
            f"{loss}: {what} is 0 for class {', '.join(map(str, absent))} (counted from 0): no training image shows "
            "it. Leave the class out of the data, or split so that train has some of each"
        )
    return counts


def counts_for(
    class_counts: Sequence[float | int] | np.ndarray | None, logits: Float[Tensor, "B K"], *, loss: str
) -> tuple[float, ...]:
    """Return counts that go with logits, as a tuple.

    Raises:
        ConfigError: if there are none, a class has none, or there are not as many as logits.
    """
    counts = required_counts(class_counts, loss=loss)
    check_classes(counts, logits)
    return counts


def check_classes(
    counts: Sequence[float] | Tensor, logits: Float[Tensor, "B K"], *, what: str = "class_counts"
) -> None:
    """Refuse counts, or weights, of another number of classes than the logits have.

    Raises:
        ConfigError: naming both numbers.
    """
    if len(counts) != logits.shape[1]:
        raise ConfigError(f"{what} has {len(counts)} entries, the logits have {logits.shape[1]} classes")


@lru_cache(maxsize=64)
def effective_weights(counts: tuple[float, ...], beta: float, device: torch.device) -> Float[Tensor, " K"]:
    """Return (1 - beta) / (1 - beta^n) per class, scaled to a mean of 1 over the classes, as Cui et al. do.

    Args:
        counts: images per class, > 0.
        beta: in [0, 1); 0 weighs all alike, towards 1 the weights become 1 / n.
        device: where they are wanted.
    """
    weights = _effective(np.asarray(counts, dtype=np.float64), beta)
    return _kept(weights / weights.mean(), device)


@lru_cache(maxsize=64)
def effective_row_weights(counts: tuple[float, ...], beta: float, device: torch.device) -> Float[Tensor, " K"]:
    """Return (1 - beta) / (1 - beta^n) per class, scaled to a mean of 1 over the training images, see `row_weights`."""
    known = np.asarray(counts, dtype=np.float64)
    return _kept(_of_rows(_effective(known, beta), known), device)


@lru_cache(maxsize=64)
def log_prior(counts: tuple[float, ...], device: torch.device) -> Float[Tensor, " K"]:
    """Return the logarithm of each class's share of the training images."""
    shares = np.asarray(counts) / np.sum(counts)
    return _kept(np.log(shares), device)
