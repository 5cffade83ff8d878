"""Balanced softmax: by hand, and as logit adjustment."""

import numpy as np
import pytest
import torch
from tests.contract.loss_promises import example

from raremix.core.errors import ConfigError
from raremix.losses import BalancedSoftmax, LogitAdjustment


def test_hand_computed_case() -> None:
    """n e^z: 8 e^0 against 1 e^(log 2) = 2, so that the second class has 1/5."""
    loss = BalancedSoftmax(class_counts=(8, 1))
    logits = torch.tensor([[0.0, np.log(2.0)]]).float()
    assert float(loss(logits, torch.tensor([[0.0, 1.0]]))) == pytest.approx(np.log(5), rel=1e-6)


def test_it_is_logit_adjustment_by_the_whole_prior() -> None:
    logits, targets = example()
    counts = (40, 30, 20, 10)
    expected = LogitAdjustment(class_counts=counts)(logits, targets)
    torch.testing.assert_close(BalancedSoftmax(class_counts=counts)(logits, targets), expected)


def test_counts_are_needed() -> None:
    with pytest.raises(ConfigError, match="balanced_softmax needs class_counts"):
        BalancedSoftmax()
    with pytest.raises(ConfigError, match="4 classes"):
        BalancedSoftmax(class_counts=(2, 1))(*example())
