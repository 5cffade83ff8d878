"""Class-balanced loss: weights by the effective number of images of a class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from raremix.core.errors import ConfigError
from raremix.core.protocols import Loss
from raremix.losses.class_weights import counts_for, effective_weights, required_counts
from raremix.losses.focal import check_gamma, focal


def class_balanced(
    logits: Float[Tensor, "B K"],
    targets: Float[Tensor, "B K"],
    *,
    class_counts: Sequence[float | int] | np.ndarray,
    beta: float = 0.9999,
    gamma: float = 0.0,
) -> Float[Tensor, ""]:
    """Compute the class-balanced cross-entropy, or focal loss, of the labelled rows.

    L = -(1 / n) sum_i sum_c w_c y_ic (1 - p_ic)^gamma log p_ic, w_c ~ (1 - beta) / (1 - beta^n_c) [1], mean of w over
    the classes 1. The further images of a class overlap with those before, so that n images count as many as
    (1 - beta^n) / (1 - beta).

    [1] Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019, https://arxiv.org/abs/1901.05555.

    Args:
        logits: any float type; half precision is computed in float32.
        targets: probabilities; a row with a NaN does not count.
        class_counts: training images per class, > 0.
        beta: in [0, 1).
        gamma: exponent of the focal factor, >= 0; 0 leaves cross-entropy.

    Returns:
        The mean over labelled rows; 0, with a gradient of 0, where there is none.

    Example:
        >>> import torch
        >>> class_balanced(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]), class_counts=(2.0, 1.0), beta=0.5)
        tensor(0.8318)
    """
    check_beta(beta)
    weights = effective_weights(counts_for(class_counts, logits, loss="class_balanced"), beta, logits.device)
    return focal(logits, targets, gamma=gamma, class_weights=weights)


@dataclass(frozen=True, kw_only=True)
class ClassBalanced(Loss):
    """Cross-entropy or focal loss weighted by the effective number of images, for binary and multiclass tasks.

    Args:
        beta: in [0, 1); the paper tries .9, .99, .999 and .9999.
        gamma: exponent of the focal factor, >= 0; 0 is the paper's class-balanced cross-entropy.
        class_counts: training images per class; a study fills them in.

    Raises:
        ConfigError: if there are no counts, a class has none, or a value is out of range.

    Example:
        >>> import torch
        >>> loss = ClassBalanced(beta=0.5, class_counts=(2, 1))
        >>> loss(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]))  # weights 2/3 and 1, over their mean; times log 2
        tensor(0.8318)
    """

    beta: float = 0.9999
    gamma: float = 0.0
    class_counts: Sequence[float | int] | np.ndarray | None = None

    def __post_init__(self) -> None:
        check_gamma(self.gamma)
        check_beta(self.beta)
        object.__setattr__(self, "class_counts", required_counts(self.class_counts, loss="class_balanced"))

    def __call__(self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Compute the class-balanced loss of the labelled rows.

        Raises:
            ConfigError: if there are not as many class counts as logits.
        """
        assert isinstance(self.class_counts, tuple)
        return class_balanced(logits, targets, class_counts=self.class_counts, beta=self.beta, gamma=self.gamma)


def check_beta(beta: float) -> None:
    """Refuse a beta of the effective number outside [0, 1).

    Raises:
        ConfigError: naming the value.
    """
    if not 0 <= beta < 1:
        raise ConfigError(f"beta must lie in [0, 1), got {beta}")
