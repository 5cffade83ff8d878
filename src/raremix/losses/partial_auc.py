"""Partial AUC: rank positives above the hardest negatives, where false alarms are few."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from raremix.core.errors import ConfigError
from raremix.core.protocols import Loss
from raremix.losses.labelled import labelled_cells
from raremix.losses.zlpr import log_shares


def partial_auc(
    logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"], *, margin: float = 1.0, temperature: float = 1.0
) -> Float[Tensor, ""]:
    """Compute a surrogate of the one-way partial AUC of a batch, mean over the classes that show both kinds.

    For each class, L_c = mean over positives i of  t log mean over negatives j of exp( h(z_i - z_j) / t ), with the
    squared hinge h(d) = max(0, margin - d)^2. Of all weightings of the negatives this is the worst, less t times its
    Kullback-Leibler distance from the even one [1]: the smaller t, the more the few highest-scoring negatives decide,
    which is the left end of the ROC curve; for large t it becomes the hinge surrogate of the whole AUC.

    [1] Zhu et al., "When AUC meets DRO: Optimizing Partial AUC for Deep Learning with Non-Convex Convergence
    Guarantee", ICML 2022, https://arxiv.org/abs/2203.00176. Their algorithm tracks the inner mean of every positive
    over the steps; here it is that of the batch, and nothing is kept.

    Args:
        logits: any float type; half precision is computed in float32.
        targets: values in [0, 1]; a NaN cell does not count. A soft target counts as positive by its share, and as
            negative by the rest.
        margin: by how much positives are to lie above negatives, in logits, > 0.
        temperature: t, > 0.

    Returns:
        The mean over classes; 0, with a gradient of 0, where none shows both kinds. Rows of a batch are compared
        (B^2 K numbers), so this is not the mean of their own losses; with several ranks each compares its own.

    Example:
        >>> partial_auc(torch.tensor([[0.5], [0.0]]), torch.tensor([[1.0], [0.0]]))  # (1 - 0.5)^2
        tensor(0.2500)
    """
    part = labelled_cells(logits, targets)
    yes, (_, no) = part.shares, log_shares(part.shares, part.known)
    # A soft row is its own positive and negative: the difference is then 0, and the pair costs margin^2 at any logit.
    gaps = part.logits[:, None, :] - part.logits[None, :, :]
    hinges = (margin - gaps).clamp(min=0) ** 2
    total = torch.logsumexp(no, dim=0)
    inner = temperature * (torch.logsumexp(hinges / temperature + no[None], dim=1) - total)
    positives = yes.sum(dim=0)
    has_both = (positives > 0) & ((1 - yes) * part.known).sum(dim=0).gt(0)
    mean = (yes * torch.where(yes > 0, inner, 0.0)).sum(dim=0) / positives.clamp(min=torch.finfo(yes.dtype).tiny)
    return torch.where(has_both, mean, 0.0).sum() / has_both.sum().clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class PartialAUC(Loss):
    """Batchwise surrogate of the partial AUC at few false alarms, for multilabel and binary tasks.

    Args:
        margin: by how much positives are to lie above negatives, in logits, > 0.
        temperature: the smaller, the fewer and harder the negatives that decide, > 0.

    Raises:
        ConfigError: if a value is out of range.

    Example:
        >>> PartialAUC()(torch.tensor([[0.5], [0.0]]), torch.tensor([[1.0], [0.0]]))
        tensor(0.2500)
    """

    margin: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not (self.margin > 0 and self.temperature > 0):
            raise ConfigError(
                f"partial_auc needs margin and temperature above 0, got {self.margin} and {self.temperature}"
            )

    def __call__(self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Compute the loss of a batch."""
        return partial_auc(logits, targets, margin=self.margin, temperature=self.temperature)
