"""What counts in a loss: the rows or cells that have a label, in at least 32 bits."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from raremix.core.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Logits beside their targets, with what has no label taken out of the way.

    Attributes:
        logits: float32, or float64 where they were.
        shares: the targets, 0 where there is none.
        known: which cells count.
    """

    logits: Float[Tensor, "B K"]
    shares: Float[Tensor, "B K"]
    known: Bool[Tensor, "B K"]

    @property
    def rows(self) -> Bool[Tensor, " B"]:
        """The rows of which anything counts."""
        return self.known.any(dim=1)

    def mean_of_cells(self, cells: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """Return the mean over the cells that count; 0, with a gradient of 0, where there is none."""
        return torch.where(self.known, cells, 0.0).sum() / self.known.sum().clamp(min=1)

    def mean_of_rows(self, values: Float[Tensor, " B"]) -> Float[Tensor, ""]:
        """Return the mean over the rows of which anything counts; 0, with a gradient of 0, where there is none."""
        return torch.where(self.rows, values, 0.0).sum() / self.rows.sum().clamp(min=1)


def labelled_cells(logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Labelled:
    """Sort out what counts where every class is a question of its own: a cell counts unless its target is NaN.

    Raises:
        DataError: if the shapes differ.
    """
    check_shapes(logits, targets)
    return _labelled(logits, targets, ~targets.isnan())


def labelled_rows(logits: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> Labelled:
    """Sort out what counts where the classes share one answer: a row counts if its whole target is known.

    Raises:
        DataError: if the shapes differ.
    """
    check_shapes(logits, targets)
    return _labelled(logits, targets, ~targets.isnan().any(dim=1, keepdim=True).expand_as(targets))


def check_shapes(logits: Tensor, targets: Tensor) -> None:
    """Refuse targets of another shape than the logits: torch would stretch them.

    Raises:
        DataError: naming both shapes.
    """
    if logits.ndim == 2 and logits.shape == targets.shape:
        return
    hint = ""
    if targets.ndim == 1 and targets.shape[0] == logits.shape[0] and not targets.is_floating_point():
        hint = f"; class numbers become such rows by torch.nn.functional.one_hot(targets, {logits.shape[-1]}).float()"
    raise DataError(
        f"logits of shape {tuple(logits.shape)} and targets of shape {tuple(targets.shape)}: expected a value for each "
        f"class of each image in both, (images, classes){hint}"
    )


def _labelled(logits: Tensor, targets: Tensor, known: Tensor) -> Labelled:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return Labelled(logits=logits, shares=torch.where(known, targets, 0.0).to(logits), known=known)
