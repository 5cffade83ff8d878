"""ZLPR: every positive label above 0 and every negative one below, and so above each other."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from raremix.core.protocols import Loss
from raremix.losses.labelled import labelled_cells

ABSENT = -1e30
"""Exponent of what does not take part: its exponential is 0, and 0 times its gradient is 0, which -inf has not."""


def zlpr(logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
    """Compute the zero-bounded log-sum-exp and pairwise rank loss over the labelled rows.

    L = (1 / n) sum_i [ log(1 + sum_c (1 - y_ic) e^z_ic) + log(1 + sum_c y_ic e^-z_ic) ] [1]. For soft targets each
    class takes part in both sums by its share, which leaves targets of 0 and 1 as they are and has no threshold.

    [1] Su et al., "ZLPR: A Novel Loss for Multi-label Classification", 2022, https://arxiv.org/abs/2208.02955.

    Args:
        logits: any float type; half precision is computed in float32.
        targets: values in [0, 1]; a NaN cell takes part in neither sum.

    Returns:
        The mean over rows with any label; 0, with a gradient of 0, where there is none.

    Example:
        >>> zlpr(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]]))  # log 3 + log 2
        tensor(1.7918)
    """
    part = labelled_cells(logits, targets)
    yes, no = log_shares(part.shares, part.known)
    negative = functional.softplus(torch.logsumexp(part.logits + no, dim=1))
    positive = functional.softplus(torch.logsumexp(yes - part.logits, dim=1))
    return part.mean_of_rows(negative + positive)


def log_shares(shares: Float[Tensor, "B K"], known: Tensor) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
    """Return the logarithms of each cell's positive and negative share, `ABSENT` where there is none."""
    yes, no = torch.where(known, shares, 0.0), torch.where(known, 1 - shares, 0.0)
    return yes.log().clamp(min=ABSENT), no.log().clamp(min=ABSENT)


@dataclass(frozen=True, kw_only=True)
class ZLPR(Loss):
    """Zero-bounded pairwise ranking, for multilabel tasks; NaN cells do not count; no settings.

    Example:
        >>> ZLPR()(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]]))
        tensor(1.7918)
    """

    def __call__(self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Compute the loss of the labelled rows."""
        return zlpr(logits, targets)
