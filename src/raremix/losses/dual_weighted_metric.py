"""Dual-weighted metric loss, after Jin et al.: distances to prototypes, weighted by image and by class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.core.protocols import HeadLoss, Prototypes
from raremix.losses.class_balanced import check_beta
from raremix.losses.class_weights import check_classes, effective_weights
from raremix.losses.distribution_balanced import checked_label_counts
from raremix.losses.labelled import labelled_cells


def dual_weighted_metric(
    logits: Float[Tensor, "B K"],
    targets: Float[Tensor, "B K"],
    *,
    scale: float | Float[Tensor, ""] = 8.0,
    positive_weights: Float[Tensor, " K"] | None = None,
    negative_weights: Float[Tensor, " K"] | None = None,
    tau: float | None = 0.5,
    rho: float = 1.0,
) -> Float[Tensor, ""]:
    """Compute the dual-weighted metric loss of the labelled rows, after Jin et al. [1].

    The logits are z = scale (margin - D), D the squared distance of an image to a class's prototype. Then

        L = -(1 / n) sum_i [ sum_c y u+ w+ log s(z) + rho sum_c (1 - y) u- w- log(1 - s(z)) ]

    u+ = softmax(D / tau) over the row's positives, the far ones up, u- = softmax(-D / tau) over its negatives, the near
    ones up; neither has a gradient. w weighs classes. The publication leaves its exact loss open: this one is ours, and
    described as "after" it.

    [1] Jin, Lu, Zhu, Huo, Comput. Biol. Med. 157:106683, 2023, https://doi.org/10.1016/j.compbiomed.2023.106683.

    Args:
        logits: any float type; half precision is computed in float32.
        targets: values in [0, 1]; a NaN cell does not count. Soft targets weigh both sums; what is positive at all
            takes part in u+, what is not wholly positive in u-.
        scale: by which distances were multiplied, > 0.
        positive_weights: w+, 1 by default.
        negative_weights: w-, 1 by default.
        tau: how much image weights differ, > 0; None: all positives of a row weigh alike, and all negatives.
        rho: weight of the negatives.

    Returns:
        The mean over rows with any label; 0, with a gradient of 0, where there is none.

    Example:
        >>> dual_weighted_metric(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]]))  # log 2 for each of both kinds
        tensor(1.3863)
    """
    if tau is not None and not tau > 0:
        raise ConfigError(f"tau must be above 0, or None: all of a row weigh alike; got {tau}")
    part = labelled_cells(logits, targets)
    negatives = torch.where(part.known, 1 - part.shares, 0.0)
    with torch.no_grad():
        nearness = torch.zeros_like(part.logits) if tau is None else part.logits / (scale * tau)
        weights = _share_among(-nearness, part.shares > 0), _share_among(nearness, negatives > 0)
    positive = part.shares * weights[0] * functional.logsigmoid(part.logits)
    negative = negatives * weights[1] * functional.logsigmoid(-part.logits)
    if positive_weights is not None:
        check_classes(positive_weights, logits, what="positive_weights")
        positive = positive * positive_weights.to(positive)
    if negative_weights is not None:
        check_classes(negative_weights, logits, what="negative_weights")
        negative = negative * negative_weights.to(negative)
    return part.mean_of_rows(-(positive + rho * negative).sum(dim=1))


def _share_among(exponents: Tensor, chosen: Tensor) -> Tensor:
    return torch.where(chosen, exponents, -torch.inf).softmax(dim=1).nan_to_num(0.0)


def structure_gap(head: Prototypes) -> Float[Tensor, ""]:
    """Return how far the prototypes' mutual cosines are from the label vectors': mean |cos p - cos t| over pairs.

    0 where there are no label vectors, or one class.
    """
    if head.label_vectors is None or len(head.label_vectors) < 2:
        return head.scale.sum() * 0.0
    points = functional.normalize(head.points().float(), dim=1)
    labels = functional.normalize(head.label_vectors.float(), dim=1)
    gaps = (points @ points.T - labels @ labels.T).abs()
    K = len(gaps)
    return (gaps * (1 - torch.eye(K, device=gaps.device))).sum() / (K * (K - 1))


@dataclass(frozen=True, kw_only=True)
class DualWeightedMetric(HeadLoss):
    """Distances to class prototypes, weighted by image and by class, for multilabel tasks; NaN cells do not count.

    It goes with a head of prototypes, whose scale it reads and whose structure it holds to that of the label vectors.

    Args:
        weighs_images: far positives and near negatives of a row count more; false switches it off.
        weighs_classes: by the effective number of positives and of negatives, mean 1 over the classes; false
            switches it off.
        tau: how much image weights differ, > 0: .1, .5 or 1.
        rho: weight of the negatives, >= 0.
        mu: weight of the gap between the prototypes' and the label vectors' cosines, >= 0.
        beta: of the effective number, in [0, 1).
        scale: of the logits, where there is no head to ask.
        class_counts: training images that show each label; a study fills them in.
        labelled_counts: training images in which each label is known; a study fills them in.

    Raises:
        ConfigError: if class weights lack counts, or a value is out of range.

    Example:
        >>> loss = DualWeightedMetric(class_counts=(5, 5, 5), labelled_counts=(10, 10, 10))
        >>> loss(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]]))
        tensor(1.3863)
    """

    weighs_images: bool = True
    weighs_classes: bool = True
    tau: float = 0.5
    rho: float = 1.0
    mu: float = 0.01
    beta: float = 0.9999
    scale: float = 8.0
    class_counts: Sequence[float | int] | np.ndarray | None = None
    labelled_counts: Sequence[float | int] | np.ndarray | None = None

    def __post_init__(self) -> None:
        check_beta(self.beta)
        if not (self.tau > 0 and self.rho >= 0 and self.mu >= 0 and self.scale > 0):
            raise ConfigError(
                "dual_weighted_metric needs tau > 0, rho >= 0, mu >= 0 and scale > 0, got "
                f"{self.tau}, {self.rho}, {self.mu} and {self.scale}"
            )
        counts, labelled = None, None
        if self.weighs_classes:
            counts, labelled = checked_label_counts(
                self.class_counts, self.labelled_counts, loss="dual_weighted_metric"
            )
        object.__setattr__(self, "class_counts", counts)
        object.__setattr__(self, "labelled_counts", labelled)

    def __call__(self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Compute the loss of the labelled rows, for logits of the first scale.

        Raises:
            ConfigError: if there are not as many class counts as logits.
        """
        return self._weighted(logits, targets, self.scale)

    def with_head(
        self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"], *, head: Prototypes
    ) -> Float[Tensor, ""]:
        """Compute the loss of the labelled rows for a head's logits, and the gap of its prototypes."""
        loss = self._weighted(logits, targets, head.scale.detach().to(logits.device))
        return loss + self.mu * structure_gap(head) if self.mu else loss

    def _weighted(self, logits: Tensor, targets: Tensor, scale: float | Tensor) -> Tensor:
        positive = negative = None
        if isinstance(self.class_counts, tuple) and isinstance(self.labelled_counts, tuple):
            rest = tuple(known - n for n, known in zip(self.class_counts, self.labelled_counts, strict=True))
            positive = effective_weights(self.class_counts, self.beta, logits.device)
            negative = effective_weights(rest, self.beta, logits.device)
        return dual_weighted_metric(
            logits,
            targets,
            scale=scale,
            positive_weights=positive,
            negative_weights=negative,
            tau=self.tau if self.weighs_images else None,
            rho=self.rho,
        )
