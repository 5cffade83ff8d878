"""Cross-entropy on soft targets, for binary and multiclass tasks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from raremix.core.protocols import Loss
from raremix.losses.class_weights import Scheme, check_classes, check_smoothing, checked_counts, row_weights
from raremix.losses.labelled import check_shapes


def cross_entropy(
    logits: Float[Tensor, "B K"],
    targets: Float[Tensor, "B K"],
    *,
    class_weights: Float[Tensor, " K"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Compute the mean cross-entropy of the labelled rows.

    L = -(1 / n) sum_i sum_c v_c y_ic log softmax(z_i)_c over the n rows i that are labelled; v = 1 where no weights are
    given. As in torch for probability targets, the sum is divided by the number of rows and not by the sum of their
    weights, so that the gradient of a batch is an unbiased estimate of that of the whole set.

    Args:
        logits: any float type; half precision is computed in float32.
        targets: probabilities, rows sum to 1; a row with a NaN does not count.
        class_weights: weight per class.
        label_smoothing: share of each target that is spread evenly over the K classes, in [0, 1).

    Returns:
        The mean over labelled rows; 0, with a gradient of 0, where there is none.

    Example:
        >>> cross_entropy(torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [torch.nan, torch.nan]]))
        tensor(0.6931)
    """
    check_shapes(logits, targets)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = targets.to(logits.dtype)
    is_labelled = ~targets.isnan().any(dim=1)
    shares = torch.where(is_labelled[:, None], targets, 0.0)
    if label_smoothing:
        shares = torch.lerp(shares, is_labelled[:, None].to(shares) / logits.shape[1], label_smoothing)
    if class_weights is not None:
        check_classes(class_weights, logits, what="class_weights")
        shares = shares * class_weights.to(shares)
    total = -(shares * logits.log_softmax(dim=1)).sum()
    return total / is_labelled.sum().clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Loss):
    """Cross-entropy on soft targets; rows with a NaN target do not count; mean over the labelled rows.

    Args:
        class_weights: "none", or how a class's weight falls with its number of images n: "inverse" 1 / n, "sqrt"
            1 / sqrt(n), "effective" (1 - b) / (1 - b^n), b = 0.9999; scaled to a mean of 1 over the training images.
        class_counts: number of training images per class; needed for any weights but "none".
        label_smoothing: share of each target that is spread evenly over the classes, in [0, 1).

    Raises:
        ConfigError: if weights are asked for without counts, or a value is out of range.

    Example:
        >>> loss = CrossEntropy(class_weights="inverse", class_counts=(90, 10))
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
        """Compute the mean cross-entropy of the labelled rows.

        Raises:
            ConfigError: if there are not as many class counts as logits.
        """
        counts = self.class_counts
        weights = None
        if self.class_weights != "none" and isinstance(counts, tuple):
            check_classes(counts, logits)
            weights = row_weights(counts, self.class_weights, logits.device)
        return cross_entropy(logits, targets, class_weights=weights, label_smoothing=self.label_smoothing)
