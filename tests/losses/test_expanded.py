"""The expanded sum, against losses whose soft form is known."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from tests.contract.loss_promises import PROMISES
from torch import Tensor
from torch.nn import functional

from raremix.core.protocols import Loss
from raremix.losses import Expanded, cross_entropy


def entropies(logits: Tensor, classes: Tensor) -> Tensor:
    return functional.cross_entropy(logits, classes, reduction="none")


@dataclass(frozen=True, kw_only=True)
class ExpandedEntropy(Expanded):
    """With a loss by default, as the contract suite builds losses."""

    loss: Callable[[Tensor, Tensor], Tensor] = entropies


ENTROPY = ExpandedEntropy()


def test_the_expanded_cross_entropy_is_the_soft_one() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(9, 4, generator=generator), torch.rand(9, 4, generator=generator)
    targets = targets / targets.sum(dim=1, keepdim=True)
    targets[3] = torch.nan
    torch.testing.assert_close(ENTROPY(logits, targets), cross_entropy(logits, targets))


def test_on_class_numbers_it_is_the_loss_itself() -> None:
    logits, classes = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 2, 1, 1, 0, 2])
    margin = partial(functional.multi_margin_loss, reduction="none")
    expected = functional.multi_margin_loss(logits, classes)
    torch.testing.assert_close(Expanded(loss=margin)(logits, functional.one_hot(classes, 3).float()), expected)


def test_a_margin_by_hand() -> None:
    """A pair of 3/4 and 1/4: 3/4 of the first class's hinge, 0, and 1/4 of the second's, (1 + 2 - 0) / 2."""
    margin = partial(functional.multi_margin_loss, reduction="none")
    assert float(Expanded(loss=margin)(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.75, 0.25]]))) == pytest.approx(
        0.375
    )


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_it_keeps_the_promises_of_losses(promise: Callable[[type[Loss]], None]) -> None:
    promise(ExpandedEntropy)
