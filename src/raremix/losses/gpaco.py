"""GPaCo: contrast with other images and with learnt class centres, in one softmax."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from raremix.core.errors import ConfigError
from raremix.core.protocols import FeatureLoss
from raremix.losses.class_weights import counts_for, log_prior, required_counts
from raremix.losses.logit_adjustment import logit_adjustment
from raremix.losses.supervised_contrastive import check_queue, common_share, compared


def gpaco(
    logits: Float[Tensor, "B K"],
    targets: Float[Tensor, "B K"],
    features: Float[Tensor, "B D"],
    *,
    class_counts: Sequence[float | int] | np.ndarray,
    keys: Float[Tensor, "Q D"] | None = None,
    key_targets: Float[Tensor, "Q K"] | None = None,
    alpha: float = 0.05,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 0.2,
) -> Float[Tensor, ""]:
    """Compute the generalised parametric contrastive loss of the labelled rows.

    With l_ic = z_ic + log pi_c for the class centres, l_ij = f_i f_j / t for the other images, and

        log p = l - log [ sum_c e^l_ic + gamma sum_(j != i) e^l_ij ]

    L_i = -( beta log p_iy + alpha sum_(j of class y) log p_ij ) / (beta + alpha n_y), n_y the number of such j [1].
    Soft targets are expanded: L_i = sum_c y_ic L(i as class c), where j belongs to class c by its share.

    [1] Cui et al., "Generalized Parametric Contrastive Learning", TPAMI 2023, https://arxiv.org/abs/2209.12400.

    Args:
        logits: any float type; half precision is computed in float32.
        targets: probabilities; a row with a NaN does not count.
        features: of the same rows, of length 1.
        class_counts: training images per class, > 0.
        keys: features of earlier images, of length 1.
        key_targets: what they show; a row with a NaN does not count.
        alpha: weight of each other image of the class, >= 0.
        beta: weight of the class centre, > 0.
        gamma: weight of other images in the softmax, >= 0.
        temperature: t, > 0.

    Returns:
        The mean over labelled rows; 0, with a gradient of 0, where there is none.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> gpaco(torch.zeros(2, 2), targets, features, class_counts=(5.0, 5.0))  # e^0 of 1/2 + 1/2 + e^0: log 4
        tensor(1.3863)
    """
    prior = log_prior(counts_for(class_counts, logits, loss="gpaco"), logits.device)
    pairs = compared(features, targets, keys=keys, key_targets=key_targets, temperature=temperature)
    centres = logits.to(pairs.similarities) + prior.to(pairs.similarities)
    # log gamma is added to the images' exponents; with gamma = 0 they leave the softmax.
    weighted = pairs.similarities + float(np.log(gamma)) if gamma > 0 else torch.full_like(pairs.similarities, -1e9)
    total = torch.logsumexp(torch.cat([centres, weighted], dim=1), dim=1, keepdim=True)
    share = pairs.targets / (beta + alpha * pairs.members)
    near = common_share(share, pairs.others) * pairs.is_other
    by_centre = (share * (centres - total)).sum(dim=1)
    by_image = torch.where(near > 0, near * (pairs.similarities - total), 0.0).sum(dim=1)
    is_labelled = ~targets.isnan().any(dim=1)
    losses = torch.where(is_labelled, -(beta * by_centre + alpha * by_image), 0.0)
    return losses.sum() / is_labelled.sum().clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class GPaCo(FeatureLoss):
    """Contrast with other images and with the classifier's logits in one softmax, for multiclass tasks.

    The paper compares with a second view of each image and a queue, both drawn by a momentum encoder. Here there is
    one view, and by default the queue holds the features that the trained network itself had drawn: with
    `momentum = 0.999` a moving average draws them, at the price of one more forward pass per step.

    Args:
        alpha: weight of each other image of the class, >= 0.
        beta: weight of the class centre, > 0.
        gamma: weight of other images in the softmax, >= 0.
        temperature: of similarities, > 0.
        width: length of the projected features.
        queue: how many features of earlier images are compared with; at most as many as there are training images.
        momentum: see above, in [0, 1); left out: none.
        class_counts: training images per class; a study fills them in.

    Raises:
        ConfigError: if there are no counts, a class has none, or a value is out of range.

    Example:
        >>> loss = GPaCo(class_counts=(3, 1))
        >>> loss(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]))  # without features: logit adjustment, log 4
        tensor(1.3863)
    """

    alpha: float = 0.05
    beta: float = 1.0
    gamma: float = 1.0
    temperature: float = 0.2
    width: int = 128
    queue: int = 8192
    momentum: float | None = None
    class_counts: Sequence[float | int] | np.ndarray | None = None

    def __post_init__(self) -> None:
        known = (self.alpha, self.beta, self.gamma, self.temperature)
        if not (
            np.isfinite(known).all() and self.alpha >= 0 and self.beta > 0 and self.gamma >= 0 and self.temperature > 0
        ):
            raise ConfigError(
                "gpaco needs finite numbers, alpha >= 0, beta > 0, gamma >= 0 and temperature > 0, got "
                f"{self.alpha}, {self.beta}, {self.gamma} and {self.temperature}"
            )
        check_queue(self)
        object.__setattr__(self, "class_counts", required_counts(self.class_counts, loss="gpaco"))

    def __call__(self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Compute what remains without features: logit adjustment.

        Raises:
            ConfigError: if there are not as many class counts as logits.
        """
        assert isinstance(self.class_counts, tuple)
        return logit_adjustment(logits, targets, class_counts=self.class_counts)

    def with_features(
        self,
        logits: Float[Tensor, "B K"],
        targets: Float[Tensor, "B K"],
        *,
        features: Float[Tensor, "B D"],
        keys: Float[Tensor, "Q D"],
        key_targets: Float[Tensor, "Q K"],
    ) -> Float[Tensor, ""]:
        """Compute the loss of the labelled rows.

        Raises:
            ConfigError: if there are not as many class counts as logits.
        """
        assert isinstance(self.class_counts, tuple)
        return gpaco(
            logits,
            targets,
            features,
            class_counts=self.class_counts,
            keys=keys,
            key_targets=key_targets,
            alpha=self.alpha,
            beta=self.beta,
            gamma=self.gamma,
            temperature=self.temperature,
        )
