"""Deferred: the loss in force, and the promises of losses."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from tests.contract.loss_promises import PROMISES, a_step_changes_no_settings, example

from raremix.core.errors import ConfigError
from raremix.core.protocols import Loss
from raremix.losses import LDAM, CrossEntropy, Deferred, Focal

FIRST, THEN = CrossEntropy(), Focal()


@dataclass(frozen=True, kw_only=True)
class FocalLater(Deferred):
    """With losses by default, as the contract suite builds them."""

    first: Loss = FIRST
    then: Loss = THEN


def test_the_second_comes_at_its_moment() -> None:
    loss = Deferred(first=CrossEntropy(), then=Focal(), start=0.5)
    assert [type(loss.at_step(step, steps=10)).__name__ for step in (0, 4, 5, 9)] == ["CrossEntropy"] * 2 + [
        "Focal"
    ] * 2
    logits, targets = example()
    torch.testing.assert_close(loss(logits, targets), CrossEntropy()(logits, targets))


def test_a_schedule_within_goes_on() -> None:
    inner = LDAM(class_counts=(9, 1), reweight_from=0.6)
    loss = Deferred(first=CrossEntropy(), then=inner, start=0.5)
    assert loss.at_step(5, steps=10) == inner
    assert loss.at_step(6, steps=10) == LDAM(class_counts=(9, 1), reweight_from=0.0)


def test_a_moment_outside_the_training_is_refused() -> None:
    with pytest.raises(ConfigError, match="share of the training"):
        Deferred(first=CrossEntropy(), then=Focal(), start=80.0)


@pytest.mark.parametrize(
    "promise", [p for p in PROMISES if p is not a_step_changes_no_settings], ids=lambda promise: promise.__name__
)
def test_it_keeps_the_promises_of_losses(promise: Callable[[type[Loss]], None]) -> None:
    promise(FocalLater)
