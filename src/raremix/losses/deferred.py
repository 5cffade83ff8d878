"""Deferred: one loss first, another one late in training."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from raremix.core.errors import ConfigError
from raremix.core.protocols import Loss


@dataclass(frozen=True, kw_only=True)
class Deferred(Loss):
    """Train by one loss, and from a moment on by another: deferred re-weighting with any pair of losses.

    Weights for rare classes from the start spoil the features; late, when the features are there, they only move the
    boundaries [1]. A training loop asks `at_step` for the loss in force; called without a step it is the first.

    [1] Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019, section 3.3,
    https://arxiv.org/abs/1906.07413.

    Args:
        first: the loss until then.
        then: the loss from then on.
        start: the moment, as a share of the training in [0, 1]. Half of the steps, since a learning rate that falls by
            a cosine has then done four fifths of its work; the paper's .8 would leave 1.5 % of it.

    Raises:
        ConfigError: if start is out of range.

    Example:
        >>> from raremix.losses import CrossEntropy
        >>> weighted = CrossEntropy(class_weights="effective", class_counts=(90, 10))
        >>> loss = Deferred(first=CrossEntropy(), then=weighted)
        >>> loss.at_step(49, steps=100) == CrossEntropy(), loss.at_step(50, steps=100) == weighted
        (True, True)
    """

    first: Loss
    then: Loss
    start: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.start <= 1:
            raise ConfigError(f"deferred: start is a share of the training, 0 to 1, got {self.start}")

    def at_step(self, step: int, *, steps: int) -> Loss:
        """Return the loss in force."""
        chosen = self.then if step >= self.start * steps else self.first
        return chosen.at_step(step, steps=steps)

    def __call__(self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Compute the first loss, whatever the moment."""
        return self.first(logits, targets)
