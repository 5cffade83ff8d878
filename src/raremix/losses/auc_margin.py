"""AUC-margin: pull the mean scores of positives and negatives apart, and each kind together."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from raremix.core.errors import ConfigError
from raremix.core.protocols import Loss
from raremix.losses.labelled import labelled_cells


def auc_margin(
    logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"], *, margin: float = 1.0
) -> Float[Tensor, ""]:
    """Compute the AUC-margin loss of a batch, mean over the classes that show both kinds.

    With s = s(z), a and b the mean scores of a class's positives and negatives, for each class

        L_c = mean_pos (s - a)^2 + mean_neg (s - b)^2 + max(0, margin - a + b)^2

    The paper [1] minimises over a and b and maximises over a multiplier, kept from step to step and moved by an
    optimiser of its own, the same expression (times p (1 - p), p the share of positives). Over one batch the three have
    the closed solution that stands here, so the loss holds no state and goes with any optimiser. What is lost is the
    memory of earlier batches: batches should be large enough, or sampled so, that most classes have a positive.

    [1] Yuan et al., "Large-scale Robust Deep AUC Maximization", ICCV 2021, https://arxiv.org/abs/2012.03173.

    Args:
        logits: any float type; half precision is computed in float32.
        targets: values in [0, 1]; a NaN cell does not count. A soft target counts as positive by its share, and as
            negative by the rest.
        margin: how far apart the mean scores are to be, in (0, 1] at most, since scores lie in [0, 1].

    Returns:
        The mean over classes; 0, with a gradient of 0, where none shows both kinds. Rows of a batch are compared, so
        this is not the mean of their own losses; with several ranks each compares its own.

    Example:
        >>> auc_margin(torch.zeros(2, 1), torch.tensor([[1.0], [0.0]]))  # no spread, no gap: margin^2
        tensor(1.)
    """
    part = labelled_cells(logits, targets)
    scores = part.logits.sigmoid()
    yes = part.shares
    no = torch.where(part.known, 1 - part.shares, 0.0)
    a, positive_spread = _mean_and_spread(scores, yes)
    b, negative_spread = _mean_and_spread(scores, no)
    losses = positive_spread + negative_spread + (margin - a + b).clamp(min=0) ** 2
    has_both = (yes.sum(dim=0) > 0) & (no.sum(dim=0) > 0)
    return torch.where(has_both, losses, 0.0).sum() / has_both.sum().clamp(min=1)


def _mean_and_spread(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    shares = weights / weights.sum(dim=0).clamp(min=torch.finfo(weights.dtype).tiny)
    mean = (shares * values).sum(dim=0)
    return mean, (shares * (values - mean) ** 2).sum(dim=0)


@dataclass(frozen=True, kw_only=True)
class AUCMargin(Loss):
    """Batchwise AUC-margin loss, for multilabel and binary tasks; NaN cells do not count.

    Args:
        margin: how far apart the mean scores of positives and negatives are to be, in (0, 1].

    Raises:
        ConfigError: if the margin is out of range.

    Example:
        >>> AUCMargin()(torch.zeros(2, 1), torch.tensor([[1.0], [0.0]]))
        tensor(1.)
    """

    margin: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.margin <= 1:
            raise ConfigError(f"auc_margin: margin must lie in (0, 1], since scores do, got {self.margin}")

    def __call__(self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Compute the loss of a batch."""
        return auc_margin(logits, targets, margin=self.margin)
