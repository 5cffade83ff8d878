"""Balanced softmax: a softmax in which every class counts as often as it was seen."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from raremix.core.protocols import Loss
from raremix.losses.class_weights import counts_for, required_counts
from raremix.losses.logit_adjustment import logit_adjustment


def balanced_softmax(
    logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"], *, class_counts: Sequence[float | int] | np.ndarray
) -> Float[Tensor, ""]:
    """Compute the cross-entropy of the balanced softmax over the labelled rows.

    L = -(1 / n) sum_i sum_c y_ic log [ n_c e^z_ic / sum_k n_k e^z_ik ] [1]. It is logit adjustment with tau = 1, found
    from the shift between training and test priors.

    [1] Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020, https://arxiv.org/abs/2007.10740.

    Args:
        logits: any float type; half precision is computed in float32.
        targets: probabilities; a row with a NaN does not count.
        class_counts: training images per class, > 0.

    Returns:
        The mean over labelled rows; 0, with a gradient of 0, where there is none.

    Example:
        >>> import torch
        >>> balanced_softmax(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]), class_counts=(3.0, 1.0))  # log 4
        tensor(1.3863)
    """
    counts = counts_for(class_counts, logits, loss="balanced_softmax")
    return logit_adjustment(logits, targets, class_counts=counts, tau=1.0)


@dataclass(frozen=True, kw_only=True)
class BalancedSoftmax(Loss):
    """Cross-entropy of a softmax weighted by class counts, for binary and multiclass tasks.

    Args:
        class_counts: training images per class; a study fills them in.

    Raises:
        ConfigError: if there are no counts, or a class has none.

    Example:
        >>> import torch
        >>> BalancedSoftmax(class_counts=(3, 1))(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]))
        tensor(1.3863)
    """

    class_counts: Sequence[float | int] | np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_counts", required_counts(self.class_counts, loss="balanced_softmax"))

    def __call__(self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Compute the loss of the labelled rows.

        Raises:
            ConfigError: if there are not as many class counts as logits.
        """
        assert isinstance(self.class_counts, tuple)
        return balanced_softmax(logits, targets, class_counts=self.class_counts)
