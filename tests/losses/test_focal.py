"""Focal loss: by hand, torchvision's, and cross-entropy where it is one."""

import numpy as np
import pytest
import torch
from tests.contract.loss_promises import example
from torchvision.ops import sigmoid_focal_loss

from raremix.core.errors import ConfigError
from raremix.losses import BinaryFocal, Focal, binary_cross_entropy, binary_focal, cross_entropy, focal


def test_hand_computed_case() -> None:
    """Odds 3:1 for the true class: (1/4)^2 log(4/3); for half of each class also (3/4)^2 log 4, each by half."""
    logits = torch.tensor([[np.log(3.0), 0.0]]).float()
    first, second = np.log(4 / 3) / 16, 9 / 16 * np.log(4)
    assert float(focal(logits, torch.tensor([[1.0, 0.0]]))) == pytest.approx(first, rel=1e-5)
    assert float(focal(logits, torch.tensor([[0.5, 0.5]]))) == pytest.approx((first + second) / 2, rel=1e-5)


def test_without_focus_it_is_cross_entropy() -> None:
    logits, targets = example()
    torch.testing.assert_close(focal(logits, targets, gamma=0.0), cross_entropy(logits, targets))
    torch.testing.assert_close(binary_focal(logits, targets, gamma=0.0), binary_cross_entropy(logits, targets))


@pytest.mark.parametrize("alpha", [0.25, None])
def test_torchvision_agrees_on_hard_targets(alpha: float | None) -> None:
    logits, targets = example()
    targets = (targets > 0.25).float()
    expected = sigmoid_focal_loss(logits, targets, alpha=-1 if alpha is None else alpha, gamma=2, reduction="mean")
    torch.testing.assert_close(BinaryFocal(alpha=alpha)(logits, targets), expected)


@pytest.mark.parametrize("kind", [Focal, BinaryFocal])
def test_gentle_focus_has_a_finite_gradient_where_all_is_sure(kind: type) -> None:
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(kind(gamma=0.5)(logits, torch.tensor([[1.0, 0.0]])), logits)
    assert bool(gradient.isfinite().all())


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="gamma"):
        Focal(gamma=-1.0)
    with pytest.raises(ConfigError, match="alpha"):
        BinaryFocal(alpha=2.0)
    with pytest.raises(ConfigError, match="4 classes"):
        Focal(class_weights="inverse", class_counts=(3, 1))(*example())
