"""Binary cross-entropy: a case computed by hand, torch's and timm's on whatever they can do, cells without a label."""

import numpy as np
import pytest
import torch
from tests.contract.loss_promises import example, value_and_gradient
from timm.loss import BinaryCrossEntropy as TimmBinaryCrossEntropy
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.losses import BinaryCrossEntropy, binary_cross_entropy


def test_hand_computed_case() -> None:
    """Odds 3:1 for a certain yes, even odds for a half: (-log 0.75 - log 0.5) / 2."""
    logits = torch.tensor([[np.log(3.0), 0.0, 9.0]]).float()
    targets = torch.tensor([[1.0, 0.5, torch.nan]])
    assert float(binary_cross_entropy(logits, targets)) == pytest.approx((np.log(4 / 3) + np.log(2)) / 2, abs=1e-6)


def test_torch_agrees() -> None:
    logits, targets = example()
    weights = torch.tensor([0.5, 2.0, 1.0, 3.0])
    expected = functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)
    torch.testing.assert_close(binary_cross_entropy(logits, targets, positive_weights=weights), expected)


def test_timm_agrees() -> None:
    logits, targets = example()
    expected = TimmBinaryCrossEntropy(smoothing=0.0)(logits, targets)
    torch.testing.assert_close(binary_cross_entropy(logits, targets), expected)


def test_unlabelled_cells_are_dropped() -> None:
    """The loss is the mean over the cells that have a label, and only they have a gradient."""
    logits, targets = example()
    missing = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) < 0.4
    value, gradient = value_and_gradient(BinaryCrossEntropy(), logits, targets.masked_fill(missing, torch.nan))
    cells = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    torch.testing.assert_close(value, cells[~missing].mean())
    assert torch.equal(gradient == 0, missing)


def test_smoothing_draws_towards_a_half() -> None:
    logits, targets = example()
    expected = functional.binary_cross_entropy_with_logits(logits, 0.9 * targets + 0.05)
    torch.testing.assert_close(BinaryCrossEntropy(label_smoothing=0.1)(logits, targets), expected)


def test_inverse_weights_give_the_positives_of_every_class_the_same_total() -> None:
    """An unsure answer costs every class's positives the same in sum, and negatives what they cost before."""
    counts = (60, 30, 10)
    loss = BinaryCrossEntropy(class_weights="inverse", class_counts=counts)
    costs = [float(loss(torch.zeros(1, 3), torch.eye(3)[k : k + 1])) for k in range(3)]
    positives = [3 * cost / np.log(2) - 2 for cost in costs]
    assert np.multiply(positives, counts) == pytest.approx([60, 60, 60], rel=1e-5)


def test_one_column_is_enough() -> None:
    loss = BinaryCrossEntropy(class_weights="inverse", class_counts=(12,))
    assert float(loss(torch.zeros(3, 1), torch.tensor([[1.0], [0.0], [torch.nan]]))) == pytest.approx(np.log(2))


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="class_counts"):
        BinaryCrossEntropy(class_weights="sqrt")
    with pytest.raises(ConfigError, match="label_smoothing"):
        BinaryCrossEntropy(label_smoothing=-0.1)
    with pytest.raises(ConfigError, match="4 classes"):
        BinaryCrossEntropy(class_weights="inverse", class_counts=(3, 1))(*example())
