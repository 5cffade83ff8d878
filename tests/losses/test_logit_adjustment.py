"""Logit adjustment: by hand, and that it finds the balanced classifier."""

import numpy as np
import pytest
import torch
from tests.contract.loss_promises import example, value_and_gradient
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.losses import CrossEntropy, LogitAdjustment


def test_hand_computed_case() -> None:
    """Equal logits of classes 3:1 stand for 3/4 and 1/4."""
    loss = LogitAdjustment(class_counts=(3, 1))
    costs = [float(loss(torch.zeros(1, 2), torch.eye(2)[k : k + 1])) for k in range(2)]
    assert costs == pytest.approx([np.log(4 / 3), np.log(4)], rel=1e-6)


def test_tau_scales_the_prior() -> None:
    logits, targets = example()
    counts = torch.tensor([40.0, 30, 20, 10])
    expected = functional.cross_entropy(logits + 0.5 * (counts / 100).log(), targets)
    torch.testing.assert_close(LogitAdjustment(tau=0.5, class_counts=counts.tolist())(logits, targets), expected)
    torch.testing.assert_close(
        LogitAdjustment(tau=0.0, class_counts=counts.tolist())(logits, targets), CrossEntropy()(logits, targets)
    )


def test_where_images_say_nothing_the_logits_do_not_either() -> None:
    """On labels alone, 90 to 10, cross-entropy rests where the logits are the prior, and logit adjustment at 0."""
    targets = torch.eye(2)[(torch.arange(100) < 10).long()]
    for loss, gap in ((CrossEntropy(), np.log(9)), (LogitAdjustment(class_counts=(90, 10)), 0.0)):
        _, gradient = value_and_gradient(loss, torch.tensor([[gap, 0.0]]).float().expand(100, 2), targets)
        assert gradient.sum(dim=0).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="tau"):
        LogitAdjustment(tau=-1.0, class_counts=(1, 1))
    with pytest.raises(ConfigError, match="no training image"):
        LogitAdjustment(class_counts=(1, 0))
