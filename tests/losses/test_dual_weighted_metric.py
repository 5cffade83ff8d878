"""Dual-weighted metric loss: by hand, each weight on its own, and with a head of prototypes."""

import numpy as np
import pytest
import torch
from tests.contract.loss_promises import example
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.losses import DualWeightedMetric
from raremix.losses.dual_weighted_metric import dual_weighted_metric, structure_gap
from raremix.models import PrototypeHead

SIGMOID = functional.logsigmoid


def test_hand_computed_case() -> None:
    """Distances 1, 2 (positive) and 3, 1 (negative), scale 8, margin 1, tau 1.

    The far positive weighs e^2 / (e^1 + e^2), the near negative e^-1 / (e^-1 + e^-3).
    """
    squared = np.array([1.0, 2.0, 3.0, 1.0])
    logits = 8 * (1 - squared)
    far = np.exp(2) / (np.exp(1) + np.exp(2))
    near = np.exp(-1) / (np.exp(-1) + np.exp(-3))
    yes, no = (lambda z: -np.log1p(np.exp(-z))), (lambda z: -np.log1p(np.exp(z)))
    expected = -((1 - far) * yes(logits[0]) + far * yes(logits[1]) + (1 - near) * no(logits[2]) + near * no(logits[3]))
    targets = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    value = dual_weighted_metric(torch.tensor(logits).float()[None], targets, scale=8.0, tau=1.0)
    assert float(value) == pytest.approx(expected, rel=1e-5)


def test_class_weights_by_hand() -> None:
    """beta 1/2, positives 2 and 1 of 4 and 4: w+ 0.8 and 1.2, w- of 2 and 3 negatives: 1.5 and 1.75 effective."""
    loss = DualWeightedMetric(class_counts=(2, 1), labelled_counts=(4, 4), beta=0.5, weighs_images=False, mu=0.0)
    rarer = np.array([1 / 1.5, 1 / 1.75])
    w_minus = rarer / rarer.mean()
    value = float(loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])))
    assert value == pytest.approx((0.8 + w_minus[1]) * np.log(2), rel=1e-5)


def test_image_weights_vanish_for_large_tau() -> None:
    logits, targets = example()
    targets = (targets > 0.25).float()
    flat = dual_weighted_metric(logits, targets, tau=None)
    torch.testing.assert_close(dual_weighted_metric(logits, targets, tau=1e6), flat)
    positive = (targets * SIGMOID(logits)).sum(dim=1) / targets.sum(dim=1).clamp(min=1)
    negative = ((1 - targets) * SIGMOID(-logits)).sum(dim=1) / (1 - targets).sum(dim=1).clamp(min=1)
    torch.testing.assert_close(flat, -(positive + negative).mean())
    assert float(dual_weighted_metric(logits, targets, tau=0.1)) > float(flat)  # the hard ones cost more


def test_image_weights_have_no_gradient() -> None:
    """With weights held fixed, the gradient of one positive and one negative is that of their logarithms alone."""
    logits = torch.tensor([[2.0, -1.0]], requires_grad=True)
    value = dual_weighted_metric(logits, torch.tensor([[1.0, 0.0]]), tau=0.1)
    (gradient,) = torch.autograd.grad(value, logits)
    expected = torch.tensor([[-torch.sigmoid(torch.tensor(-2.0)), torch.sigmoid(torch.tensor(-1.0))]])
    torch.testing.assert_close(gradient, expected)


def test_rho_weighs_the_negatives() -> None:
    logits, targets = example()
    whole, half = (float(dual_weighted_metric(logits, targets, rho=rho)) for rho in (1.0, 0.5))
    none = float(dual_weighted_metric(logits, targets, rho=0.0))
    assert half == pytest.approx((whole + none) / 2, rel=1e-5)


def test_missing_cells_leave_both_sums_and_their_weights() -> None:
    logits, targets = example()
    targets = (targets > 0.25).float()
    targets[:, 2] = torch.nan
    kept = [0, 1, 3]
    torch.testing.assert_close(
        dual_weighted_metric(logits, targets), dual_weighted_metric(logits[:, kept], targets[:, kept])
    )


def test_with_a_head_the_structure_of_the_labels_counts() -> None:
    torch.manual_seed(0)
    labels = torch.randn(3, 6)
    head = PrototypeHead(5, 3, label_vectors=labels)
    targets = torch.eye(3)
    logits = head(torch.randn(3, 5))
    loss = DualWeightedMetric(weighs_classes=False, mu=0.5)
    plain = DualWeightedMetric(weighs_classes=False, mu=0.0)
    centred = functional.normalize(labels - labels.mean(dim=0), dim=1)
    pairs = [(0, 1), (0, 2), (1, 2)]
    points = head.points().detach()
    gap = np.mean([abs(float(points[a] @ points[b] - centred[a] @ centred[b])) for a, b in pairs])
    assert float(structure_gap(head).detach()) == pytest.approx(gap, rel=1e-4)
    value = loss.with_head(logits, targets, head=head) - plain.with_head(logits, targets, head=head)
    assert float(value.detach()) == pytest.approx(0.5 * gap, rel=1e-3)
    value.backward()
    assert all(p.grad is not None for p in head.of_labels.parameters())  # type: ignore[union-attr]
    free = PrototypeHead(5, 3)
    assert float(structure_gap(free).detach()) == 0


def test_the_heads_scale_is_that_of_the_weights() -> None:
    """The same distances weigh the same, whatever the head's scale has become."""
    logits, targets = example()
    head = PrototypeHead(5, 4, scale=2.0)
    loss = DualWeightedMetric(weighs_classes=False, mu=0.0)
    expected = dual_weighted_metric(logits, targets, scale=2.0)
    torch.testing.assert_close(loss.with_head(logits, targets, head=head), expected)
    assert float(expected) != pytest.approx(float(loss(logits, targets)))


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="dual_weighted_metric needs class_counts"):
        DualWeightedMetric()
    with pytest.raises(ConfigError, match="positive in every"):
        DualWeightedMetric(class_counts=(1, 4), labelled_counts=(4, 4))
    with pytest.raises(ConfigError, match="tau > 0"):
        DualWeightedMetric(weighs_classes=False, tau=0.0)
    assert DualWeightedMetric(weighs_classes=False).class_counts is None
