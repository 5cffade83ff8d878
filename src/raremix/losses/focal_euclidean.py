"""Focal-weighted Euclidean distance to prototypes: variant C of the dual-weighted metric loss."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from raremix.core.errors import ConfigError
from raremix.core.protocols import HeadLoss, Prototypes
from raremix.losses.dual_weighted_metric import structure_gap
from raremix.losses.focal import check_gamma
from raremix.losses.labelled import labelled_cells
from raremix.losses.proxy_anchor import distances


def focal_euclidean(
    squared_distances: Float[Tensor, "B K"],
    targets: Float[Tensor, "B K"],
    *,
    reach: float = 2.0,
    gamma: float = 1.0,
    pull: float = 4.0,
) -> Float[Tensor, ""]:
    """Compute the focal-weighted distance loss of the labelled cells.

    L = (1 / n) sum_ic [ pull y (D / 4)^gamma D + (1 - y) h^gamma h ], h = max(0, reach - D) / reach: positives are
    drawn in, the far ones harder; negatives are pushed out to the reach, the near ones harder. D of vectors of
    length 1 lies in [0, 4]. The form is ours, after what is said of the predecessor of Jin et al. (2023): a focal
    weight on Euclidean distances, harder samples up, and a stronger pull on positives.

    Args:
        squared_distances: D, of images to prototypes, in [0, 4].
        targets: values in [0, 1]; a NaN cell does not count. Soft targets weigh both parts.
        reach: squared distance from which a negative costs nothing, > 0.
        gamma: focal exponent, >= 0.
        pull: weight of the positives, >= 0.

    Returns:
        The mean over labelled cells; 0, with a gradient of 0, where there is none.

    Example:
        >>> import torch
        >>> focal_euclidean(torch.full((1, 1), 2.0), torch.ones(1, 1), gamma=1.0, pull=4.0)  # 4 (2/4) 2
        tensor(4.)
    """
    part = labelled_cells(squared_distances, targets)
    distance = part.logits.clamp(min=0)
    hinge = (reach - distance).clamp(min=0) / reach
    positive = pull * (distance / 4).clamp(min=1e-12) ** gamma * distance
    negative = hinge.clamp(min=1e-12) ** gamma * hinge
    return part.mean_of_cells(part.shares * positive + (1 - part.shares) * negative)


@dataclass(frozen=True, kw_only=True)
class FocalEuclidean(HeadLoss):
    """Focal-weighted distances to prototypes, for multilabel tasks; NaN cells do not count.

    Args:
        reach: squared distance from which a negative costs nothing, in (0, 4].
        gamma: focal exponent, >= 0.
        pull: weight of the positives, >= 0.
        mu: weight of the gap between the prototypes' and the label vectors' cosines, >= 0.
        head_scale, head_margin: those of the head, where there is none to ask.

    Raises:
        ConfigError: if a value is out of range.

    Example:
        >>> import torch
        >>> FocalEuclidean()(torch.tensor([[8 * (1 - 2.0)]]), torch.ones(1, 1))
        tensor(4.)
    """

    reach: float = 2.0
    gamma: float = 1.0
    pull: float = 4.0
    mu: float = 0.01
    head_scale: float = 8.0
    head_margin: float = 1.0

    def __post_init__(self) -> None:
        check_gamma(self.gamma)
        if not (0 < self.reach <= 4 and self.pull >= 0 and self.mu >= 0 and self.head_scale > 0):
            raise ConfigError(
                "focal_euclidean needs reach in (0, 4], pull >= 0, mu >= 0 and head_scale > 0, got "
                f"{self.reach}, {self.pull}, {self.mu} and {self.head_scale}"
            )

    def __call__(self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Compute the loss of the labelled cells, for logits of the first scale and margin."""
        return self._of(distances(logits, self.head_scale, self.head_margin), targets)

    def with_head(
        self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"], *, head: Prototypes
    ) -> Float[Tensor, ""]:
        """Compute the loss of the labelled cells for a head's logits, and the gap of its prototypes."""
        loss = self._of(distances(logits, head.scale, head.margin), targets)
        return loss + self.mu * structure_gap(head) if self.mu else loss

    def _of(self, squared: Tensor, targets: Tensor) -> Tensor:
        return focal_euclidean(squared, targets, reach=self.reach, gamma=self.gamma, pull=self.pull)
