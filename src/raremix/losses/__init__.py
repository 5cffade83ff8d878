"""Losses on soft targets, which skip what is not labelled; one file per loss."""

from raremix.core.protocols import Loss
from raremix.losses.binary_cross_entropy import BinaryCrossEntropy, binary_cross_entropy
from raremix.losses.cross_entropy import CrossEntropy, cross_entropy
from raremix.losses.expanded import Expanded

LOSSES: dict[str, type[Loss]] = {"cross_entropy": CrossEntropy, "binary_cross_entropy": BinaryCrossEntropy}
"""Every loss, by the name that a study file gives it."""

__all__ = ["LOSSES", "BinaryCrossEntropy", "CrossEntropy", "Expanded", "binary_cross_entropy", "cross_entropy"]
