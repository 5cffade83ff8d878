"""Focal-weighted distances: by hand, what costs nothing, and with a head."""

import pytest
import torch
from tests.contract.loss_promises import example

from raremix.core.errors import ConfigError
from raremix.losses import FocalEuclidean
from raremix.losses.focal_euclidean import focal_euclidean
from raremix.models import PrototypeHead


def test_hand_computed_case() -> None:
    """A positive at 1: 4 (1/4) 1 = 1; a negative at 1/2 with reach 2: (3/4)^2; their mean."""
    value = focal_euclidean(torch.tensor([[1.0, 0.5]]), torch.tensor([[1.0, 0.0]]))
    assert float(value) == pytest.approx((1 + 9 / 16) / 2)


def test_a_far_negative_and_a_reached_positive_cost_nothing() -> None:
    assert float(focal_euclidean(torch.tensor([[0.0, 2.5]]), torch.tensor([[1.0, 0.0]]))) == pytest.approx(0, abs=1e-9)


def test_the_distances_of_a_head_are_used() -> None:
    torch.manual_seed(0)
    head = PrototypeHead(5, 4, scale=3.0, margin=0.7)
    features, targets = torch.randn(6, 5), example()[1]
    images = torch.nn.functional.normalize(head.of_images(features), dim=1)
    squared = ((images[:, None] - head.points()) ** 2).sum(dim=2)
    value = FocalEuclidean(mu=0.0).with_head(head(features), targets, head=head)
    torch.testing.assert_close(value, focal_euclidean(squared, targets), rtol=1e-4, atol=1e-5)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="reach in"):
        FocalEuclidean(reach=5.0)
    with pytest.raises(ConfigError, match="gamma"):
        FocalEuclidean(gamma=-1.0)
