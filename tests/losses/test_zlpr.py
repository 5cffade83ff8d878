"""ZLPR: by hand, timm's on hard targets, and soft ones between them."""

import numpy as np
import pytest
import torch
from tests.contract.loss_promises import example
from timm.loss import ZlprLoss

from raremix.losses import ZLPR


def test_hand_computed_case() -> None:
    """Negatives e^0 and e^(log 3), positive e^-(log 2): log(1 + 4) + log(1 + 1/2)."""
    logits = torch.tensor([[0.0, np.log(3.0), np.log(2.0)]]).float()
    value = float(ZLPR()(logits, torch.tensor([[0.0, 0.0, 1.0]])))
    assert value == pytest.approx(np.log(5) + np.log(1.5), rel=1e-6)


def test_timm_agrees_on_hard_targets() -> None:
    logits, targets = example()
    targets = (targets > 0.25).float()
    torch.testing.assert_close(ZLPR()(logits, targets), ZlprLoss()(logits, targets))


def test_soft_targets_have_no_threshold() -> None:
    """From 0 to 1 the loss changes without a jump; timm's steps at one half."""
    logits = torch.tensor([[1.0, -1.0]])
    values = torch.stack([ZLPR()(logits, torch.tensor([[float(y), 0.0]])) for y in np.linspace(0, 1, 101)])
    assert float(values.diff().abs().max()) < 0.1


def test_a_missing_label_is_neither() -> None:
    value = ZLPR()(torch.tensor([[5.0, 0.0, 1.0]]), torch.tensor([[torch.nan, 0.0, 1.0]]))
    torch.testing.assert_close(value, ZLPR()(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.0]])))
