"""Every registered loss keeps every promise."""

from collections.abc import Callable

import pytest
from tests.contract.loss_promises import PROMISES

from raremix.core.protocols import Loss
from raremix.losses import LOSSES


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_loss_keeps_its_promise(name: str, promise: Callable[[type[Loss]], None]) -> None:
    promise(LOSSES[name])
