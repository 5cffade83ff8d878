"""Two-way loss: positives above negatives, within each image and within each class."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.core.protocols import Loss
from raremix.losses.labelled import labelled_cells
from raremix.losses.zlpr import log_shares


def two_way(
    logits: Float[Tensor, "B K"],
    targets: Float[Tensor, "B K"],
    *,
    positive_temperature: float = 4.0,
    negative_temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Compute the two-way multi-label loss of a batch.

    For a set S of cells, l(S) = softplus( Tn log sum_S (1 - y) e^(z / Tn) + Tp log sum_S y e^(-z / Tp) ): the hardest
    negatives against the hardest positives. L is the mean of l over the rows that have a positive, plus the mean over
    the columns that have one [1]. For soft targets each cell takes part in both sums by its share.

    [1] Kobayashi, "Two-way Multi-Label Loss", CVPR 2023, https://staff.aist.go.jp/takumi.kobayashi/publication/2023/CVPR2023.pdf.

    Args:
        logits: any float type; half precision is computed in float32.
        targets: values in [0, 1]; a NaN cell takes part in no sum.
        positive_temperature: Tp, > 0.
        negative_temperature: Tn, > 0.

    Returns:
        The sum of both means; 0, with a gradient of 0, where there is no positive. Rows of a batch are compared, so
        this is not the mean of their own losses; with several ranks each compares its own.

    Example:
        >>> two_way(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))  # softplus(0) by row; the column has no negative
        tensor(0.6931)
    """
    part = labelled_cells(logits, targets)
    yes, no = log_shares(part.shares, part.known)
    total = 0.0 * part.logits.sum()
    for dim in (0, 1):
        has_positive = (part.shares > 0).any(dim=dim)
        hard_positive = positive_temperature * torch.logsumexp(yes - part.logits / positive_temperature, dim=dim)
        hard_negative = negative_temperature * torch.logsumexp(no + part.logits / negative_temperature, dim=dim)
        losses = functional.softplus(torch.where(has_positive, hard_positive + hard_negative, 0.0))
        total = total + torch.where(has_positive, losses, 0.0).sum() / has_positive.sum().clamp(min=1)
    return total


@dataclass(frozen=True, kw_only=True)
class TwoWay(Loss):
    """Two-way ranking within images and within classes, for multilabel tasks; NaN cells do not count.

    Args:
        positive_temperature: > 0; the larger, the more of the positives are looked at.
        negative_temperature: > 0; the same for negatives.

    Raises:
        ConfigError: if a temperature is not above 0.

    Example:
        >>> TwoWay()(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
        tensor(0.6931)
    """

    positive_temperature: float = 4.0
    negative_temperature: float = 1.0

    def __post_init__(self) -> None:
        if not (self.positive_temperature > 0 and self.negative_temperature > 0):
            raise ConfigError(
                f"two_way needs temperatures above 0, got {self.positive_temperature} and {self.negative_temperature}"
            )

    def __call__(self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Compute the loss of a batch."""
        return two_way(
            logits,
            targets,
            positive_temperature=self.positive_temperature,
            negative_temperature=self.negative_temperature,
        )
