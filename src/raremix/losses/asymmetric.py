"""Asymmetric loss: negatives are focused harder than positives, and the easy ones dropped."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.core.protocols import Loss
from raremix.losses.class_weights import check_smoothing
from raremix.losses.focal import TINY, check_gamma
from raremix.losses.labelled import labelled_cells, labelled_rows


def asymmetric(
    logits: Float[Tensor, "B K"],
    targets: Float[Tensor, "B K"],
    *,
    gamma_positive: float = 1.0,
    gamma_negative: float = 4.0,
    clip: float = 0.05,
) -> Float[Tensor, ""]:
    """Compute the mean asymmetric loss of one yes-or-no question per class over the labelled cells.

    L = -(1 / n) sum_ic [ y (1 - p)^g+ log p + (1 - y) q^g- log(1 - q) ], p = s(z), q = max(p - clip, 0) [1]. For soft
    targets this is the expanded sum; the authors' code, which knows 0 and 1 only, agrees on these.

    [1] Ridnik et al., "Asymmetric Loss For Multi-Label Classification", ICCV 2021, https://arxiv.org/abs/2009.14119.

    Args:
        logits: any float type; half precision is computed in float32.
        targets: values in [0, 1]; a NaN cell does not count.
        gamma_positive: g+, focus of the positive part, >= 0.
        gamma_negative: g-, focus of the negative part, >= 0.
        clip: scores of negatives below it cost nothing, in [0, 1).

    Returns:
        The mean over labelled cells (the paper sums them); 0, with a gradient of 0, where there is none.

    Example:
        >>> asymmetric(torch.zeros(1, 1), torch.ones(1, 1), gamma_positive=1.0)  # 1/2 log 2
        tensor(0.3466)
    """
    part = labelled_cells(logits, targets)
    yes, no = functional.logsigmoid(part.logits), functional.logsigmoid(-part.logits)
    positive = (gamma_positive * no).exp() * yes
    if clip:
        score = (yes.exp() - clip).clamp(min=0, max=1 - torch.finfo(yes.dtype).eps)
        negative = score.clamp(min=TINY) ** gamma_negative * torch.log1p(-score)
    else:
        negative = (gamma_negative * yes).exp() * no
    return part.mean_of_cells(-(part.shares * positive + (1 - part.shares) * negative))


def asymmetric_softmax(
    logits: Float[Tensor, "B K"],
    targets: Float[Tensor, "B K"],
    *,
    gamma_positive: float = 1.0,
    gamma_negative: float = 4.0,
    label_smoothing: float = 0.1,
) -> Float[Tensor, ""]:
    """Compute the mean asymmetric loss of softmax scores over the labelled rows.

    For a row of class c, L = -sum_k q_k f_k log p_k with q the smoothed label (1 - e) 1[k = c] + e / K, f_c =
    (1 - p_c)^g+ and f_k = p_k^g- for the others, as in the authors' code for one label per image [1]. Soft targets
    are expanded: each class's loss, weighted by its share.

    [1] Ridnik et al., "Asymmetric Loss For Multi-Label Classification", ICCV 2021, https://arxiv.org/abs/2009.14119.

    Args:
        logits: any float type; half precision is computed in float32.
        targets: probabilities; a row with a NaN does not count.
        gamma_positive: g+, focus of the true class, >= 0.
        gamma_negative: g-, focus of the others, >= 0.
        label_smoothing: e, in [0, 1); without it the others do not count.

    Returns:
        The mean over labelled rows; 0, with a gradient of 0, where there is none.

    Example:
        >>> asymmetric_softmax(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), label_smoothing=0.0)  # 1/2 log 2
        tensor(0.3466)
    """
    part = labelled_rows(logits, targets)
    log_scores = part.logits.log_softmax(dim=1)
    scores, spread = log_scores.exp(), label_smoothing / logits.shape[1]
    positive = (1 - label_smoothing + spread) * (1 - scores).clamp(min=TINY) ** gamma_positive
    negative = spread * scores.clamp(min=TINY) ** gamma_negative
    others = part.shares.sum(dim=1, keepdim=True) - part.shares
    return part.mean_of_rows(-(log_scores * (part.shares * positive + others * negative)).sum(dim=1))


@dataclass(frozen=True, kw_only=True)
class Asymmetric(Loss):
    """Asymmetric loss on one yes-or-no question per class, for multilabel tasks; NaN cells do not count.

    Args:
        gamma_positive: focus of the positive part, >= 0.
        gamma_negative: focus of the negative part, >= 0; larger, since negatives are many.
        clip: scores of negatives below it cost nothing, in [0, 1).

    Raises:
        ConfigError: if a value is out of range.

    Example:
        >>> Asymmetric()(torch.full((1, 2), -9.0), torch.tensor([[0.0, torch.nan]]))  # an easy negative
        tensor(0.)
    """

    gamma_positive: float = 1.0
    gamma_negative: float = 4.0
    clip: float = 0.05

    def __post_init__(self) -> None:
        check_gamma(self.gamma_positive, name="gamma_positive")
        check_gamma(self.gamma_negative, name="gamma_negative")
        if not 0 <= self.clip < 1:
            raise ConfigError(f"clip must lie in [0, 1), got {self.clip}")

    def __call__(self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Compute the mean asymmetric loss of the labelled cells."""
        return asymmetric(
            logits,
            targets,
            gamma_positive=self.gamma_positive,
            gamma_negative=self.gamma_negative,
            clip=self.clip,
        )


@dataclass(frozen=True, kw_only=True)
class AsymmetricSoftmax(Loss):
    """Asymmetric loss on softmax scores, for binary and multiclass tasks; rows with a NaN target do not count.

    Args:
        gamma_positive: focus of the true class, >= 0.
        gamma_negative: focus of the others, >= 0.
        label_smoothing: share of the label that is spread evenly, in [0, 1).

    Raises:
        ConfigError: if a value is out of range.

    Example:
        >>> AsymmetricSoftmax(label_smoothing=0.0)(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
        tensor(0.3466)
    """

    gamma_positive: float = 1.0
    gamma_negative: float = 4.0
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        check_gamma(self.gamma_positive, name="gamma_positive")
        check_gamma(self.gamma_negative, name="gamma_negative")
        check_smoothing(self.label_smoothing)

    def __call__(self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Compute the mean asymmetric loss of the labelled rows."""
        return asymmetric_softmax(
            logits,
            targets,
            gamma_positive=self.gamma_positive,
            gamma_negative=self.gamma_negative,
            label_smoothing=self.label_smoothing,
        )
