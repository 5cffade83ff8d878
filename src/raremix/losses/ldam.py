"""LDAM: a larger margin for rarer classes, and their weights late in training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.core.protocols import Loss
from raremix.losses.class_balanced import check_beta
from raremix.losses.class_weights import check_classes, effective_row_weights, required_counts
from raremix.losses.expanded import Expanded

COSINE_SCALE, LINEAR_SCALE = 30.0, 4.0
"""Scales of logits that are cosines, and of unbounded ones."""


def ldam(
    logits: Float[Tensor, "B K"],
    targets: Float[Tensor, "B K"],
    *,
    margins: Float[Tensor, " K"],
    class_weights: Float[Tensor, " K"] | None = None,
) -> Float[Tensor, ""]:
    """Compute the mean cross-entropy with a margin for the true class over the labelled rows.

    L(z, c) = -v_c log [ e^(z_c - m_c) / (e^(z_c - m_c) + sum_(k != c) e^z_k) ] [1]; soft targets are expanded,
    L_i = sum_c y_ic L(z_i, c), since a margin for half a class has no meaning.

    [1] Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019,
    https://arxiv.org/abs/1906.07413.

    Args:
        logits: any float type; half precision is computed in float32.
        targets: probabilities; a row with a NaN does not count.
        margins: m, >= 0, in units of the logits.
        class_weights: v, 1 by default.

    Returns:
        The mean over labelled rows; 0, with a gradient of 0, where there is none.

    Example:
        >>> loss = ldam(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), margins=torch.log(torch.tensor([3.0, 1.0])))
        >>> loss  # odds 1:3 for the true class: log 4
        tensor(1.3863)
    """

    check_classes(margins, logits, what="margins")
    if class_weights is not None:
        check_classes(class_weights, logits, what="class_weights")

    def per_row(rows: Tensor, classes: Tensor) -> Tensor:
        shift = functional.one_hot(classes, rows.shape[1]) * margins.to(rows)
        losses = functional.cross_entropy(rows - shift, classes, reduction="none")
        return losses if class_weights is None else losses * class_weights.to(rows)[classes]

    return Expanded(loss=per_row)(logits, targets)


@lru_cache(maxsize=64)
def ldam_margins(class_counts: tuple[float, ...], largest: float, device: torch.device) -> Float[Tensor, " K"]:
    """Return margins in proportion to n^(-1/4), the largest of them as given."""
    margins = np.asarray(class_counts) ** -0.25
    with torch.inference_mode(False):  # a validation may come first, and the margins are kept for training
        return torch.tensor(largest * margins / margins.max(), dtype=torch.float32, device=device)


@dataclass(frozen=True, kw_only=True)
class LDAM(Loss):
    """Margins by class frequency with deferred re-weighting (LDAM-DRW), for binary and multiclass tasks.

    In the paper logits are scale * cos of the angle between features and weights: `[model] head = "cosine"` gives
    them. The margin is scale * max_margin logits for the rarest class. With a linear last layer, whose logits begin
    near 0, the paper's scale would be a margin of 15 of them, which drowns the images; 4 is what it is there.

    Args:
        max_margin: margin of the rarest class in units of the cosine, >= 0.
        scale: s, by which a cosine is multiplied, > 0; the logits come multiplied already. None: 30 where logits are
            cosines, as published, else 4.
        reweight_from: share of the training after which classes are weighted by their effective number: 0 from the
            start, 1 never; at half of the steps a cosine has done four fifths of its work. Called without a step, the
            loss is the one of its start.
        beta: of the effective number, in [0, 1).
        is_cosine: whether logits are cosines; a study fills it in.
        class_counts: training images per class; a study fills them in.

    Raises:
        ConfigError: if there are no counts, a class has none, or a value is out of range.

    Example:
        >>> loss = LDAM(class_counts=(160_000, 10_000), max_margin=0.5, scale=2.0)
        >>> float(loss(torch.tensor([[0.5, 0.0]]), torch.tensor([[1.0, 0.0]])))  # margin 1/2: 0.5 - 0.5 against 0
        0.6931471824645996
    """

    max_margin: float = 0.5
    scale: float | None = None
    reweight_from: float = 0.5
    beta: float = 0.9999
    is_cosine: bool = True
    class_counts: Sequence[float | int] | np.ndarray | None = None

    def __post_init__(self) -> None:
        check_beta(self.beta)
        if self.scale is None:
            object.__setattr__(self, "scale", COSINE_SCALE if self.is_cosine else LINEAR_SCALE)
        if not (0 <= self.max_margin < np.inf and self.scale is not None and 0 < self.scale < np.inf):
            raise ConfigError(
                f"ldam needs finite max_margin >= 0 and scale > 0, got {self.max_margin} and {self.scale}"
            )
        if not 0 <= self.reweight_from <= 1:
            raise ConfigError(f"reweight_from is a share of the training, 0 to 1, got {self.reweight_from}")
        object.__setattr__(self, "class_counts", required_counts(self.class_counts, loss="ldam"))

    def at_step(self, step: int, *, steps: int) -> "LDAM":
        """Return the loss in force: with weights from `reweight_from` on."""
        is_late = self.reweight_from < 1 and step >= self.reweight_from * steps
        return replace(self, reweight_from=0.0) if is_late and self.reweight_from > 0 else self

    def __call__(self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Compute the loss of the labelled rows.

        Raises:
            ConfigError: if there are not as many class counts as logits.
        """
        assert isinstance(self.class_counts, tuple) and self.scale is not None
        check_classes(self.class_counts, logits)
        margins = ldam_margins(self.class_counts, self.scale * self.max_margin, logits.device)
        is_weighted = self.reweight_from == 0
        weights = effective_row_weights(self.class_counts, self.beta, logits.device) if is_weighted else None
        return ldam(logits, targets, margins=margins, class_weights=weights)
