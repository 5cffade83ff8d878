"""Logit adjustment: train with the prior added, and score without it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from raremix.core.errors import ConfigError
from raremix.core.protocols import Loss
from raremix.losses.class_weights import counts_for, log_prior, required_counts
from raremix.losses.cross_entropy import cross_entropy


def logit_adjustment(
    logits: Float[Tensor, "B K"],
    targets: Float[Tensor, "B K"],
    *,
    class_counts: Sequence[float | int] | np.ndarray,
    tau: float = 1.0,
) -> Float[Tensor, ""]:
    """Compute the logit-adjusted cross-entropy of the labelled rows.

    L = CE(z + tau log pi, y), pi_c = n_c / sum n [1]. The network learns what is left once the prior is known, so that
    its own logits are those of classes that are equally frequent: the argmax minimises the balanced error.

    [1] Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, https://arxiv.org/abs/2007.07314.

    Args:
        logits: any float type; half precision is computed in float32.
        targets: probabilities; a row with a NaN does not count.
        class_counts: training images per class, > 0.
        tau: strength; 1 is consistent for the balanced error, 0 is cross-entropy.

    Returns:
        The mean over labelled rows; 0, with a gradient of 0, where there is none.

    Example:
        >>> import torch
        >>> logit_adjustment(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]), class_counts=(3.0, 1.0))  # log 4
        tensor(1.3863)

    Raises:
        ConfigError: if there are not as many class counts as logits, or a class has none.
    """
    prior = log_prior(counts_for(class_counts, logits, loss="logit_adjustment"), logits.device)
    return cross_entropy(logits + tau * prior, targets)


@dataclass(frozen=True, kw_only=True)
class LogitAdjustment(Loss):
    """Cross-entropy with the classes' log prior added to the logits, for binary and multiclass tasks.

    Scores are of classes that are equally frequent; `raremix.evaluate.prior` brings them to a stated prevalence.

    Args:
        tau: strength, >= 0; 1 by default, 0 is cross-entropy.
        class_counts: training images per class; a study fills them in.

    Raises:
        ConfigError: if there are no counts, a class has none, or tau is negative.

    Example:
        >>> import torch
        >>> LogitAdjustment(class_counts=(3, 1))(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]))
        tensor(1.3863)
    """

    tau: float = 1.0
    class_counts: Sequence[float | int] | np.ndarray | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.tau < np.inf:
            raise ConfigError(f"tau must be a finite number, at least 0, got {self.tau}")
        object.__setattr__(self, "class_counts", required_counts(self.class_counts, loss="logit_adjustment"))

    def __call__(self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Compute the adjusted cross-entropy of the labelled rows.

        Raises:
            ConfigError: if there are not as many class counts as logits.
        """
        assert isinstance(self.class_counts, tuple)
        return logit_adjustment(logits, targets, class_counts=self.class_counts, tau=self.tau)
