"""IntegratedGradients on networks whose integrals are known."""

import pytest
import torch
from torch import Tensor, nn

from raremix.core.errors import ConfigError, DataError
from raremix.explain import IntegratedGradients

ONE = torch.eye(2)[:1]


class Known(nn.Module):
    """Of the pixels a, b, c: class 0: a b + 2 c; class 1: a^3 - c."""

    def __init__(self) -> None:
        super().__init__()
        self.no = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        a, b, c = images.flatten(1).T
        return torch.stack([a * b + 2 * c, a**3 - c], dim=1) + self.no


IMAGE = torch.tensor([[[[0.5, 0.25, 0.125]]]])


def attributions(targets: Tensor, **settings: float) -> Tensor:
    return IntegratedGradients(model=Known(), **settings).attributions(IMAGE, targets).flatten()


def test_by_hand() -> None:
    # From black: a and b share their product alike; c adds 2 c. The gradient is linear, so one point is exact.
    torch.testing.assert_close(attributions(ONE, steps=1), torch.tensor([0.0625, 0.0625, 0.25]))
    # From .5: a does not move; b goes from .5 to .25 at a = .5; c from .5 to .125.
    torch.testing.assert_close(attributions(ONE, steps=1, baseline=0.5), torch.tensor([0.0, -0.125, -0.75]))


def test_parts_add_up_to_the_difference_of_logits() -> None:
    model, targets = Known(), torch.tensor([[0.3, 0.7]])
    logits = model(IMAGE) - model(torch.full_like(IMAGE, 0.2))
    expected = float((logits * targets).sum().detach())
    found = [float(attributions(targets, steps=n, baseline=0.2).sum()) for n in (1, 8, 64)]
    errors = [abs(one - expected) for one in found]
    assert errors[0] > 4 * errors[1] > 16 * errors[2]
    assert errors[2] < 1e-5


def test_the_map_is_what_speaks_for_the_class() -> None:
    found = IntegratedGradients(model=Known(), steps=64)(IMAGE, torch.eye(2)[1:])
    torch.testing.assert_close(found.flatten(), torch.tensor([1.0, 0.0, 0.0]))


def test_what_is_not_asked_about_does_not_count() -> None:
    maps = IntegratedGradients(model=Known())
    assert maps(IMAGE, torch.full((1, 2), float("nan"))).count_nonzero() == 0
    torch.testing.assert_close(maps(IMAGE, torch.tensor([[1.0, float("nan")]])), maps(IMAGE, ONE))


def test_nothing_is_left_behind() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(72, 2)
    )
    found = IntegratedGradients(model=network, steps=2)(torch.rand(3, 1, 8, 8), torch.eye(2)[[0, 1, 1]])
    assert not found.requires_grad
    assert network.training
    assert network[1].num_batches_tracked == 0
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


def test_says_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match="steps >= 1"):
        IntegratedGradients(model=Known(), steps=0)
    with pytest.raises(ConfigError, match="baseline in"):
        IntegratedGradients(model=Known(), baseline=2.0)
    with pytest.raises(DataError, match="the network puts out"):
        IntegratedGradients(model=Known())(IMAGE, torch.eye(3)[:1])
