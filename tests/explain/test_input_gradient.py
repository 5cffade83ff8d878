"""InputGradient on networks whose gradient is known."""

import pytest
import torch
from torch import nn

from raremix.core.errors import DataError
from raremix.explain import InputGradient
from raremix.losses import BinaryCrossEntropy


def linear(weights: torch.Tensor) -> nn.Module:
    """Return a network of K logits, each a weighted sum of the pixels."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(weights[0].numel(), len(weights), bias=False))
    network[1].weight.data = weights.flatten(1)
    return network


def test_of_a_linear_network_by_hand() -> None:
    # Two classes of logits 0 (image of zeros): d loss / d logits = (.5 - 1, .5 - 0); by pixel .5 (w_1 - w_0).
    first, second = torch.zeros(2, 1, 2), torch.tensor([[[1.0, -3.0]], [[2.0, 0.5]]])
    found = InputGradient(model=linear(torch.stack([first, second])))(torch.zeros(1, 2, 1, 2), torch.eye(2)[:1])
    torch.testing.assert_close(found.flatten(), torch.tensor([3.0, 3.5]) / 3.5)


def test_any_loss_can_be_asked_about() -> None:
    weights = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 4.0]]]])
    targets = torch.tensor([[1.0, float("nan")], [1.0, 0.0]])
    found = InputGradient(model=linear(weights), loss=BinaryCrossEntropy())(torch.zeros(2, 1, 1, 2), targets)
    # Unlabelled classes do not count; of the other row, |sigmoid(0) - target| is the same for both classes.
    torch.testing.assert_close(found.flatten(1), torch.tensor([[1.0, 0.0], [0.25, 1.0]]))


def test_unlabelled_images_have_a_map_of_zeros() -> None:
    weights = torch.rand(2, 1, 2, 2)
    targets = torch.tensor([[float("nan")] * 2, [0.0, 1.0]])
    found = InputGradient(model=linear(weights))(torch.rand(2, 1, 2, 2), targets)
    assert found[0].count_nonzero() == 0
    assert found[1].max() == 1


def test_nothing_is_left_behind() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(72, 2)
    )
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        found = InputGradient(model=network)(images, torch.eye(2)[[0, 1, 1]])
    assert not images.requires_grad
    assert not found.requires_grad
    assert network.training
    assert network[1].num_batches_tracked == 0
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


def test_the_network_must_answer_about_the_targets() -> None:
    with pytest.raises(DataError, match="the network puts out"):
        InputGradient(model=linear(torch.rand(2, 1, 2, 2)))(torch.rand(2, 1, 2, 2), torch.eye(3)[:2])
