"""The expanded sum: a loss that knows only class numbers, on mixed labels."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from raremix.core.protocols import Loss
from raremix.losses.labelled import check_shapes


@dataclass(frozen=True, kw_only=True)
class Expanded(Loss):
    """Weigh the losses of all classes by the target: L = (1 / n) sum_i sum_c y_ic loss(z_i, c) over labelled rows [1].

    A loss whose form depends on the true class, such as one with a margin for it, has no value for a target that is
    half one class and half another. The sum over classes has, and for class numbers it is the loss itself.

    [1] The form in which mixup is trained with any loss: Zhang et al., "mixup: Beyond Empirical Risk Minimization",
    ICLR 2018, https://arxiv.org/abs/1710.09412.

    Args:
        loss: (logits (n, K), class numbers (n)) -> a loss per row, (n).

    Example:
        >>> from functools import partial
        >>> margin = partial(torch.nn.functional.multi_margin_loss, reduction="none")
        >>> loss = Expanded(loss=margin)
        >>> loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.75, 0.25]]))
        tensor(0.3750)
    """

    loss: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Return the mean over rows whose whole target is known; 0, with a gradient of 0, where there is none.

        Raises:
            DataError: if the shapes differ.
        """
        check_shapes(logits, targets)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        is_labelled = ~targets.isnan().any(dim=1)
        shares = torch.where(is_labelled[:, None], targets, 0.0).to(logits)
        # Only what counts is computed: a batch without mixing costs one pass, one of pairs two.
        rows, classes = shares.nonzero(as_tuple=True)
        losses = self.loss(logits[rows], classes)
        total = (shares[rows, classes] * losses).sum() + 0.0 * logits.sum()
        return total / is_labelled.sum().clamp(min=1)
