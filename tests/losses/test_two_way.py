"""Two-way loss: by hand, and timm's on hard targets."""

import numpy as np
import pytest
import torch
from tests.contract.loss_promises import example
from timm.loss import TwoWayLoss

from raremix.core.errors import ConfigError
from raremix.losses import TwoWay


def test_hand_computed_case() -> None:
    """Temperatures 1. Rows: softplus(0 - 1) each; columns likewise, 1 against 0."""
    loss = TwoWay(positive_temperature=1.0, negative_temperature=1.0)
    assert float(loss(torch.eye(2), torch.eye(2))) == pytest.approx(2 * np.log(1 + np.exp(-1)), rel=1e-6)


@pytest.mark.parametrize("cut", [0.1, 0.25, 0.4, 2.0])
def test_timm_agrees_on_hard_targets(cut: float) -> None:
    logits, targets = example()
    targets = (targets > cut).float()
    torch.testing.assert_close(TwoWay()(logits, targets), TwoWayLoss()(logits, targets))


def test_a_missing_cell_takes_part_in_no_sum() -> None:
    logits, targets = example()
    targets = (targets > 0.25).float()
    targets[:, 3] = torch.nan
    torch.testing.assert_close(TwoWay()(logits, targets), TwoWay()(logits[:, :3], targets[:, :3]))


def test_temperatures_of_0_are_refused() -> None:
    with pytest.raises(ConfigError, match="temperatures above 0"):
        TwoWay(positive_temperature=0.0)
