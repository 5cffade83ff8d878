"""Binary cross-entropy on soft targets, one yes-or-no question per class, for multilabel tasks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from raremix.core.protocols import Loss
from raremix.losses.class_weights import Scheme, check_classes, check_smoothing, checked_counts, positive_weights
from raremix.losses.labelled import check_shapes


def binary_cross_entropy(
    logits: Float[Tensor, "B K"],
    targets: Float[Tensor, "B K"],
    *,
    positive_weights: Float[Tensor, " K"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Compute the mean binary cross-entropy of the labelled cells.

    L = -(1 / n) sum_ic [ v_c y_ic log s(z_ic) + (1 - y_ic) log(1 - s(z_ic)) ] over the n cells that are labelled; s is
    the logistic function, v = 1 where no weights are given.

    Args:
        logits: any float type; half precision is computed in float32.
        targets: values in [0, 1]; a NaN cell does not count.
        positive_weights: weight of each class's positive part.
        label_smoothing: targets are drawn towards 1/2 by this share, in [0, 1).

    Returns:
        The mean over labelled cells; 0, with a gradient of 0, where there is none.

    Example:
        >>> binary_cross_entropy(torch.zeros(1, 2), torch.tensor([[1.0, torch.nan]]))
        tensor(0.6931)
    """
    check_shapes(logits, targets)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = targets.to(logits.dtype)
    is_labelled = ~targets.isnan()
    shares = torch.where(is_labelled, targets, 0.0)
    if label_smoothing:
        shares = shares * (1.0 - label_smoothing) + 0.5 * label_smoothing
    if positive_weights is not None:
        check_classes(positive_weights, logits, what="positive_weights")
    weights = None if positive_weights is None else positive_weights.to(logits)
    cells = functional.binary_cross_entropy_with_logits(logits, shares, pos_weight=weights, reduction="none")
    return torch.where(is_labelled, cells, 0.0).sum() / is_labelled.sum().clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class BinaryCrossEntropy(Loss):
    """Binary cross-entropy on soft targets; NaN cells do not count; mean over the labelled cells.

    Args:
        class_weights: "none", or how the weight of a class's positives falls with their number n: "inverse" 1 / n,
            "sqrt" 1 / sqrt(n), "effective" (1 - b) / (1 - b^n), b = 0.9999; scaled to 1 for the most frequent class.
            "inverse" thus gives the positives of every class the same total weight.
        class_counts: number of positive training images per class; needed for any weights but "none".
        label_smoothing: targets are drawn towards 1/2 by this share, in [0, 1).

    Raises:
        ConfigError: if weights are asked for without counts, or a value is out of range.

    Example:
        >>> loss = BinaryCrossEntropy(class_weights="inverse", class_counts=(90, 10))
        >>> round(float(loss(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]))), 3)
        3.466
    """

    class_weights: Scheme = "none"
    class_counts: Sequence[float | int] | np.ndarray | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_smoothing(self.label_smoothing)
        object.__setattr__(self, "class_counts", checked_counts(self.class_counts, scheme=self.class_weights))

    def __call__(self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Compute the mean binary cross-entropy of the labelled cells.

        Raises:
            ConfigError: if there are not as many class counts as logits.
        """
        counts = self.class_counts
        weights = None
        if self.class_weights != "none" and isinstance(counts, tuple):
            check_classes(counts, logits)
            weights = positive_weights(counts, self.class_weights, logits.device)
        return binary_cross_entropy(logits, targets, positive_weights=weights, label_smoothing=self.label_smoothing)
