"""Focal loss: what is surely right already counts for little."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.core.protocols import Loss
from raremix.losses.class_weights import Scheme, check_classes, checked_counts, row_weights
from raremix.losses.labelled import labelled_cells, labelled_rows

TINY = 1e-12
"""Least base of a power: below 1, an exponent has no gradient at 0."""


def focal(
    logits: Float[Tensor, "B K"],
    targets: Float[Tensor, "B K"],
    *,
    gamma: float = 2.0,
    class_weights: Float[Tensor, " K"] | None = None,
) -> Float[Tensor, ""]:
    """Compute the mean focal loss of softmax scores over the labelled rows.

    L = -(1 / n) sum_i sum_c v_c y_ic (1 - p_ic)^gamma log p_ic, p = softmax(z) [1]. For soft targets this is the
    expanded sum: each class's loss, weighted by its share.

    [1] Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, https://arxiv.org/abs/1708.02002.

    Args:
        logits: any float type; half precision is computed in float32.
        targets: probabilities; a row with a NaN does not count.
        gamma: >= 0; 0 is cross-entropy.
        class_weights: v, a weight per class; 1 by default.

    Returns:
        The mean over labelled rows; 0, with a gradient of 0, where there is none.

    Example:
        >>> import torch
        >>> focal(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), gamma=2.0)  # (1 / 2)^2 log 2
        tensor(0.1733)
    """
    part = labelled_rows(logits, targets)
    if class_weights is not None:
        check_classes(class_weights, logits, what="class_weights")
    log_scores = part.logits.log_softmax(dim=1)
    cells = (1 - log_scores.exp()).clamp(min=TINY) ** gamma * log_scores * part.shares
    return part.mean_of_rows(-(cells if class_weights is None else cells * class_weights.to(cells)).sum(dim=1))


def binary_focal(
    logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"], *, gamma: float = 2.0, alpha: float | None = None
) -> Float[Tensor, ""]:
    """Compute the mean focal loss of one yes-or-no question per class over the labelled cells.

    L = -(1 / n) sum_ic [ a y (1 - p)^gamma log p + (1 - a) (1 - y) p^gamma log(1 - p) ], p = s(z) [1].

    [1] Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, https://arxiv.org/abs/1708.02002.

    Args:
        logits: any float type; half precision is computed in float32.
        targets: values in [0, 1]; a NaN cell does not count.
        gamma: >= 0; 0 is binary cross-entropy.
        alpha: a, weight of the positive part, in [0, 1]; None: both parts weigh 1.

    Returns:
        The mean over labelled cells; 0, with a gradient of 0, where there is none.

    Example:
        >>> import torch
        >>> binary_focal(torch.zeros(1, 1), torch.ones(1, 1), gamma=2.0)  # (1 / 2)^2 log 2
        tensor(0.1733)
    """
    part = labelled_cells(logits, targets)
    yes, no = functional.logsigmoid(part.logits), functional.logsigmoid(-part.logits)
    positive, negative = (gamma * no).exp() * yes, (gamma * yes).exp() * no
    if alpha is not None:
        positive, negative = alpha * positive, (1 - alpha) * negative
    return part.mean_of_cells(-(part.shares * positive + (1 - part.shares) * negative))


@dataclass(frozen=True, kw_only=True)
class Focal(Loss):
    """Focal loss on softmax scores, for binary and multiclass tasks; rows with a NaN target do not count.

    Args:
        gamma: how fast sure answers lose weight, >= 0; 0 is cross-entropy.
        class_weights: as in cross-entropy: "none", "inverse", "sqrt" or "effective".
        class_counts: number of training images per class; needed for any weights but "none".

    Raises:
        ConfigError: if weights are asked for without counts, or gamma is negative.

    Example:
        >>> import torch
        >>> Focal(gamma=0.0)(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
        tensor(0.6931)
    """

    gamma: float = 2.0
    class_weights: Scheme = "none"
    class_counts: Sequence[float | int] | np.ndarray | None = None

    def __post_init__(self) -> None:
        check_gamma(self.gamma)
        object.__setattr__(self, "class_counts", checked_counts(self.class_counts, scheme=self.class_weights))

    def __call__(self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Compute the mean focal loss of the labelled rows.

        Raises:
            ConfigError: if there are not as many class counts as logits.
        """
        weights = None
        if self.class_weights != "none" and isinstance(self.class_counts, tuple):
            check_classes(self.class_counts, logits)
            weights = row_weights(self.class_counts, self.class_weights, logits.device)
        return focal(logits, targets, gamma=self.gamma, class_weights=weights)


@dataclass(frozen=True, kw_only=True)
class BinaryFocal(Loss):
    """Focal loss on one yes-or-no question per class, for multilabel tasks; NaN cells do not count.

    Args:
        gamma: how fast sure answers lose weight, >= 0; 0 is binary cross-entropy.
        alpha: weight of the positive part against that of the negative one, in [0, 1]; None: both weigh 1. The paper
            takes 0.25 with gamma = 2, for detectors with thousands of negatives per positive.

    Raises:
        ConfigError: if a value is out of range.

    Example:
        >>> import torch
        >>> BinaryFocal(gamma=0.0)(torch.zeros(1, 2), torch.tensor([[1.0, torch.nan]]))
        tensor(0.6931)
    """

    gamma: float = 2.0
    alpha: float | None = None

    def __post_init__(self) -> None:
        check_gamma(self.gamma)
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha must lie in [0, 1], got {self.alpha}")

    def __call__(self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Compute the mean focal loss of the labelled cells."""
        return binary_focal(logits, targets, gamma=self.gamma, alpha=self.alpha)


def check_gamma(gamma: float, *, name: str = "gamma") -> None:
    """Refuse a focusing exponent below 0.

    Raises:
        ConfigError: naming the value.
    """
    if not 0 <= gamma < np.inf:
        raise ConfigError(f"{name} must be a finite number, at least 0, got {gamma}")
