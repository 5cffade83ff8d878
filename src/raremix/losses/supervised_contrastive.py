"""Supervised contrastive loss: features of one class together, of others apart."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from raremix.core.errors import ConfigError, DataError
from raremix.core.protocols import FeatureLoss
from raremix.losses.cross_entropy import cross_entropy


def supervised_contrastive(
    features: Float[Tensor, "B D"],
    targets: Float[Tensor, "B K"],
    *,
    keys: Float[Tensor, "Q D"] | None = None,
    key_targets: Float[Tensor, "Q K"] | None = None,
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Compute the supervised contrastive loss of the rows that share a class with another one.

    L_i = -(1 / |P_i|) sum_(j in P_i) log [ e^(f_i f_j / t) / sum_(k != i) e^(f_i f_k / t) ], P_i the others of i's
    class: L_out of the paper [1]. Soft targets are expanded: L_i = sum_c y_ic L(i as class c), where j belongs to class
    c by its share.

    [1] Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, https://arxiv.org/abs/2004.11362.

    Args:
        features: of length 1; any float type, computed in float32.
        targets: probabilities or multi-hot labels; a row with a NaN is compared with nothing.
        keys: further features of length 1, to compare with only.
        key_targets: what they show; a row with a NaN does not count.
        temperature: t, > 0.

    Returns:
        The mean over the rows that have a partner; 0, with a gradient of 0, where there is none.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
        >>> supervised_contrastive(features, torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))  # one of two: log 2
        tensor(0.6931)
    """
    pairs = compared(features, targets, keys=keys, key_targets=key_targets, temperature=temperature)
    log_shares = pairs.similarities.log_softmax(dim=1).clamp(min=-1e4)
    # For class c: the mean over j of its members, weighted by their share; then over c by row i's own share.
    share = torch.where(pairs.members > 0, pairs.targets / pairs.members.clamp(min=1e-12), 0.0)
    losses = -(common_share(share, pairs.others) * pairs.is_other * log_shares).sum(dim=1)
    has_partner = (share > 0).any(dim=1)
    return torch.where(has_partner, losses, 0.0).sum() / has_partner.sum().clamp(min=1)


def common_share(share: Float[Tensor, "B K"], others: Float[Tensor, "N K"]) -> Float[Tensor, "B N"]:
    """Return what rows have in common with others, in the precision of their labels whatever the step computes in."""
    with torch.autocast(share.device.type, enabled=False):
        return share @ others.T


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Rows beside all that they are compared with.

    Attributes:
        similarities: f_i f_j / temperature; far below all others where j is i itself or has no label.
        targets: of the rows, 0 where a row has no label.
        others: targets of what they are compared with, 0 where there is none.
        is_other: 1, and 0 where j is i itself.
        members: how many others show each class, by their shares.
    """

    similarities: Float[Tensor, "B N"]
    targets: Float[Tensor, "B K"]
    others: Float[Tensor, "N K"]
    is_other: Float[Tensor, "B N"]
    members: Float[Tensor, "B K"]


def compared(
    features: Float[Tensor, "B D"],
    targets: Float[Tensor, "B K"],
    *,
    keys: Float[Tensor, "Q D"] | None,
    key_targets: Float[Tensor, "Q K"] | None,
    temperature: float,
) -> Compared:
    """Compare every row with all others of the batch, and with the keys."""
    if len(features) != len(targets):
        raise DataError(f"{len(features)} rows of features and {len(targets)} of targets: expected as many of both")
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    targets = targets.to(features)
    every, labels = features, targets
    if keys is not None and key_targets is not None and len(keys):
        every, labels = torch.cat([features, keys.to(features)]), torch.cat([targets, key_targets.to(features)])
    known = ~labels.isnan().any(dim=1)
    labels = torch.where(known[:, None], labels, 0.0)
    B = len(features)
    is_self = torch.eye(B, len(every), dtype=torch.bool, device=features.device)
    # In the precision of the features, whatever the step computes in: t = 0.1 multiplies what bf16 would round.
    with torch.autocast(features.device.type, enabled=False):
        similarities = torch.where(is_self | ~known, -1e9, features @ every.T / temperature)
    own = labels[:B]
    return Compared(
        similarities=similarities,
        targets=own,
        others=labels,
        is_other=(~is_self).to(features),
        members=labels.sum(dim=0) - own,
    )


@dataclass(frozen=True, kw_only=True)
class SupervisedContrastive(FeatureLoss):
    """Cross-entropy of the logits plus the supervised contrastive loss of the features, where one class is true.

    The paper trains features first and a linear layer after; here both are trained at once, and an image's partners
    are the other images of its class in the batch and the queue, since there is one view of each image.

    Args:
        strength: what the contrastive part is multiplied by, >= 0.
        temperature: of similarities, > 0.
        width: length of the projected features.
        queue: how many features of earlier images are compared with.
        momentum: decay of the moving average that draws these; None: the trained network draws them itself.

    Raises:
        ConfigError: if a value is out of range.

    Example:
        >>> SupervisedContrastive()(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))  # without features: cross-entropy
        tensor(0.6931)
    """

    strength: float = 1.0
    temperature: float = 0.1
    width: int = 128
    queue: int = 0
    momentum: float | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.strength < float("inf") and 0 < self.temperature < float("inf")):
            raise ConfigError(
                f"supervised_contrastive needs strength >= 0 and temperature > 0, got {self.strength} and "
                f"{self.temperature}"
            )
        check_queue(self)

    def __call__(self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Compute the part that needs no features: cross-entropy."""
        return cross_entropy(logits, targets)

    def with_features(
        self,
        logits: Float[Tensor, "B K"],
        targets: Float[Tensor, "B K"],
        *,
        features: Float[Tensor, "B D"],
        keys: Float[Tensor, "Q D"],
        key_targets: Float[Tensor, "Q K"],
    ) -> Float[Tensor, ""]:
        """Compute both parts."""
        contrast = supervised_contrastive(
            features, targets, keys=keys, key_targets=key_targets, temperature=self.temperature
        )
        return self(logits, targets) + self.strength * contrast


def check_queue(loss: FeatureLoss) -> None:
    """Refuse sizes of features and queue that mean nothing.

    Raises:
        ConfigError: naming the value.
    """
    if loss.width < 1 or loss.queue < 0:
        raise ConfigError(f"expected width >= 1 and queue >= 0, got {loss.width} and {loss.queue}")
    if loss.momentum is not None and not 0 <= loss.momentum < 1:
        raise ConfigError(f"momentum must lie in [0, 1), or be left out, got {loss.momentum}")
    if loss.momentum is not None and loss.queue == 0:
        raise ConfigError("momentum draws the features of the queue, and queue is 0: set a queue, or leave it out")
