"""Partial AUC: by hand, and between the mean and the worst of the negatives."""

import numpy as np
import pytest
import torch
from tests.contract.loss_promises import example

from raremix.core.errors import ConfigError
from raremix.losses import PartialAUC

LOGITS = torch.tensor([[1.0], [0.5], [-1.0]])
TARGETS = torch.tensor([[1.0], [0.0], [0.0]])


def test_hand_computed_case() -> None:
    """Gaps 1/2 and 2: hinges 1/4 and 0; log of the mean of e^(1/4) and 1."""
    expected = np.log((np.exp(0.25) + 1) / 2)
    assert float(PartialAUC()(LOGITS, TARGETS)) == pytest.approx(expected, rel=1e-5)


def test_temperature_goes_from_the_hardest_negative_to_all() -> None:
    hardest, all_alike = PartialAUC(temperature=1e-3), PartialAUC(temperature=1e3)
    assert float(hardest(LOGITS, TARGETS)) == pytest.approx(0.25, abs=0.002)
    assert float(all_alike(LOGITS, TARGETS)) == pytest.approx(0.125, abs=0.002)


def test_only_differences_count() -> None:
    logits, targets = example()
    shifted = logits + torch.tensor([3.0, -2.0, 0.0, 1.0])
    torch.testing.assert_close(PartialAUC()(shifted, targets), PartialAUC()(logits, targets))


def test_the_batch_twice_is_the_batch() -> None:
    logits, targets = example()
    twice = PartialAUC()(logits.repeat(2, 1), targets.repeat(2, 1))
    torch.testing.assert_close(twice, PartialAUC()(logits, targets))


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="above 0"):
        PartialAUC(temperature=0.0)
