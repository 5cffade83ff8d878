"""Proxy-Anchor on images and on classes: variant B of the dual-weighted metric loss."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.core.protocols import HeadLoss, Prototypes
from raremix.losses.dual_weighted_metric import structure_gap
from raremix.losses.labelled import labelled_cells
from raremix.losses.zlpr import log_shares


def proxy_anchor(
    cosines: Float[Tensor, "B K"], targets: Float[Tensor, "B K"], *, margin: float = 0.1, sharpness: float = 32.0
) -> Float[Tensor, ""]:
    """Compute the Proxy-Anchor loss of a batch, over its columns and over its rows.

    For a set S of cells, l+(S) = log(1 + sum_S y e^(-a (s - d))) and l-(S) = log(1 + sum_S (1 - y) e^(a (s + d))). Over
    columns: the mean of l+ over classes with a positive, plus the mean of l- over all classes, as in the paper [1];
    over rows: the same for each image, so that hard labels of an image count more as hard images of a label do. L is
    the mean of both. For soft targets each cell takes part in both sums by its share.

    [1] Kim et al., "Proxy Anchor Loss for Deep Metric Learning", CVPR 2020, https://arxiv.org/abs/2003.13911.

    Args:
        cosines: s, of images and prototypes, in [-1, 1].
        targets: values in [0, 1]; a NaN cell takes part in no sum.
        margin: d.
        sharpness: a, > 0.

    Returns:
        The mean of both ways; 0, with a gradient of 0, where nothing is labelled. Rows of a batch are compared, so this
        is not the mean of their own losses; with several ranks each compares its own.

    Example:
        >>> proxy_anchor(torch.full((1, 1), 0.1), torch.ones(1, 1), margin=0.1)  # log(1 + e^0), both ways
        tensor(0.6931)
    """
    part = labelled_cells(cosines, targets)
    yes, no = log_shares(part.shares, part.known)
    total = 0.0 * part.logits.sum()
    for dim in (0, 1):
        positive = functional.softplus(torch.logsumexp(yes - sharpness * (part.logits - margin), dim=dim))
        negative = functional.softplus(torch.logsumexp(no + sharpness * (part.logits + margin), dim=dim))
        has_positive, is_known = (part.shares > 0).any(dim=dim), part.known.any(dim=dim)
        total = total + torch.where(has_positive, positive, 0.0).sum() / has_positive.sum().clamp(min=1)
        total = total + torch.where(is_known, negative, 0.0).sum() / is_known.sum().clamp(min=1)
    return total / 2


@dataclass(frozen=True, kw_only=True)
class ProxyAnchor(HeadLoss):
    """Proxy-Anchor on a head of prototypes, for multilabel tasks; NaN cells do not count.

    The head's logits are scale (margin - D) with D = 2 - 2 cos, from which the cosines are taken back.

    Args:
        margin: in units of the cosine.
        sharpness: > 0; the larger, the harder the cells that decide.
        mu: weight of the gap between the prototypes' and the label vectors' cosines, >= 0.
        head_scale, head_margin: those of the head, where there is none to ask.

    Raises:
        ConfigError: if a value is out of range.

    Example:
        >>> ProxyAnchor()(torch.tensor([[8 * (1 - 1.8)]]), torch.ones(1, 1))  # a cosine of 0.1, the margin
        tensor(0.6931)
    """

    margin: float = 0.1
    sharpness: float = 32.0
    mu: float = 0.01
    head_scale: float = 8.0
    head_margin: float = 1.0

    def __post_init__(self) -> None:
        if not (self.sharpness > 0 and self.mu >= 0 and self.head_scale > 0):
            raise ConfigError(
                "proxy_anchor needs sharpness > 0, mu >= 0 and head_scale > 0, got "
                f"{self.sharpness}, {self.mu} and {self.head_scale}"
            )

    def __call__(self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Compute the loss of a batch, for logits of the first scale and margin."""
        cosines = 1 - distances(logits, self.head_scale, self.head_margin) / 2
        return proxy_anchor(cosines, targets, margin=self.margin, sharpness=self.sharpness)

    def with_head(
        self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"], *, head: Prototypes
    ) -> Float[Tensor, ""]:
        """Compute the loss of a batch for a head's logits, and the gap of its prototypes."""
        cosines = 1 - distances(logits, head.scale, head.margin) / 2
        loss = proxy_anchor(cosines, targets, margin=self.margin, sharpness=self.sharpness)
        return loss + self.mu * structure_gap(head) if self.mu else loss


def distances(logits: Float[Tensor, "B K"], scale: float | Tensor, margin: float | Tensor) -> Float[Tensor, "B K"]:
    """Take squared distances back from a prototype head's logits, scale (margin - D)."""
    return margin - logits.to(torch.promote_types(logits.dtype, torch.float32)) / scale
