"""Manifold MixUp: the layer is drawn per batch, the weights per image, and a network is mixed where the plan says."""

import numpy as np
import pytest
import torch
from torch import nn

from raremix.core.errors import ConfigError
from raremix.core.features import forward_mixed
from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.mix import ManifoldMixUp, MixUp

BATCH = Batch(images=torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), targets=torch.eye(4))


def test_the_layer_is_drawn_uniformly_for_each_batch() -> None:
    mixer, stream = ManifoldMixUp(layers=("input", "stage1", "a.b")), rng(0, "mix")
    drawn = [mixer.plan(BATCH, BATCH, rng=stream).at for _ in range(900)]
    assert set(drawn) == {None, "stage1", "a.b"}
    for layer in (None, "stage1", "a.b"):
        assert abs(drawn.count(layer) - 300) < 5 * (900 * 1 / 3 * 2 / 3) ** 0.5


def test_all_but_the_layer_is_mixup() -> None:
    plan = ManifoldMixUp(alpha=0.7).plan(BATCH, BATCH, rng=rng(1, "mix"))
    expected = MixUp(alpha=0.7).plan(BATCH, BATCH, rng=rng(1, "mix"))
    assert torch.equal(plan.weight, expected.weight)
    assert torch.equal(plan.partner, expected.partner)
    assert torch.equal(torch.as_tensor(plan.mask), torch.as_tensor(expected.mask))


def test_hand_computed_hidden_states() -> None:
    """A network of two layers, the first of which squares: mixing after it is not mixing before it."""

    class Square(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x**2

    net = nn.Sequential(Square(), nn.Flatten())
    batch = Batch(images=torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1), targets=torch.eye(2))
    stream = rng(1, "mix")
    assert stream.permutation(2).tolist() == [1, 0]
    weight = stream.beta(2.0, 2.0, size=2)
    for layer, expected in (
        ("0", weight * [1, 9] + (1 - weight) * [9, 1]),
        ("input", (weight * [1, 3] + (1 - weight) * [3, 1]) ** 2),
    ):
        plan = ManifoldMixUp(layers=(layer,)).plan(batch, batch, rng=rng(1, "mix"))
        logits, targets = forward_mixed(net, batch, plan)
        np.testing.assert_allclose(logits[:, 0], expected, rtol=1e-6)
        np.testing.assert_allclose(targets.diagonal(), weight, rtol=1e-6)


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"probability": 1.1}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        ManifoldMixUp(**settings)


@pytest.mark.parametrize("layers", [(), ("stage1", "")])
def test_layers_must_be_named(layers: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="layers names where to mix"):
        ManifoldMixUp(layers=layers)
