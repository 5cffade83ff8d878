"""Occlusion on networks whose falls can be counted."""

import pytest
import torch
from torch import Tensor, nn

from raremix.core.errors import ConfigError
from raremix.explain import Occlusion
from raremix.explain.occlusion import _windows


def linear(weights: Tensor) -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(weights[0].numel(), len(weights), bias=False))
    network[1].weight.data = weights.flatten(1)
    return network


def test_of_a_linear_network_by_hand() -> None:
    # Mean .5; covering pixel p changes the logit by w_p (.5 - x_p): falls of .5, -.5, 1 and .5.
    images = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    weights = torch.tensor([[[1.0, -1.0], [2.0, -1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    weights[0, 0, 1] = 1.0
    found = Occlusion(model=linear(weights), windows=2, overlap=1)(images, torch.eye(2)[:1])
    torch.testing.assert_close(found[0, 0], torch.tensor([[0.5, 0.0], [1.0, 0.5]]))


def test_pixels_get_the_mean_of_their_windows() -> None:
    # A row of three pixels, windows of two: falls f1 + f2 and f2 + f3; the middle one has their mean.
    images, weights = torch.tensor([[[[1.0, 0.0, 0.5]]]]), torch.tensor([[[[4.0, -1.0, 8.0]]]])
    found = Occlusion(model=linear(weights), windows=2, overlap=2)(images, torch.ones(1, 1))
    torch.testing.assert_close(found.flatten(), torch.tensor([2.5, 1.5, 0.5]) / 2.5)


@pytest.mark.parametrize("size", [1, 2, 7, 32, 33])
@pytest.mark.parametrize("windows", [1, 3, 8])
@pytest.mark.parametrize("overlap", [1, 2, 3])
def test_windows_cover_every_pixel(size: int, windows: int, overlap: int) -> None:
    found = _windows(size, windows=windows, overlap=overlap)
    covered = torch.zeros(size)
    for window in found:
        assert 0 <= window.start < window.stop <= size
        covered[window] += 1
    assert covered.min() >= 1
    assert len({window.stop - window.start for window in found}) == 1


def test_blocks_of_windows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images, targets = torch.rand(3, 2, 9, 6), torch.eye(3)
    occlusion = Occlusion(model=linear(torch.randn(3, 2, 9, 6)), windows=3)
    expected = occlusion(images, targets)
    monkeypatch.setattr("raremix.explain.occlusion.AT_ONCE", 1)
    torch.testing.assert_close(occlusion(images, targets), expected)


def test_finds_the_only_bright_place_that_counts() -> None:
    images = torch.zeros(1, 1, 32, 32)
    images[..., 4:8, 20:24] = images[..., 24:28, 2:6] = 1  # the second one the network does not look at
    weights = torch.zeros(1, 1, 32, 32)
    weights[..., :16, :] = 1
    found = Occlusion(model=linear(weights))(images, torch.ones(1, 1))[0, 0]
    assert found[4:8, 20:24].min() > 0.5
    assert found[24:28, 2:6].max() == 0
    assert found[12:, :16].max() == 0


def test_says_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        Occlusion(model=linear(torch.zeros(1, 4)), windows=0)
