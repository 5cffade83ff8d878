"""MixUp: a case computed by hand, its settings, and its drawing without pixels."""

import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.mix import MixUp


@pytest.mark.parametrize("side", [2, 200])
def test_hand_computed_pair(side: int) -> None:
    """Two images, 0.2 and 0.8 grey, blended by the weights that the stream is known to draw."""
    images = torch.tensor([0.2, 0.8])[:, None, None, None].expand(2, 3, side, side)
    targets = torch.eye(2)
    stream = rng(1, "mix")
    partner = stream.permutation(2)
    first, second = stream.beta(0.7, 0.7, size=2)
    mixed, labels = MixUp(alpha=0.7)(images, targets, rng=rng(1, "mix"))
    assert partner.tolist() == [1, 0]
    assert float(mixed[0, 1, 1, 0]) == pytest.approx(0.2 * first + 0.8 * (1 - first), abs=1e-6)
    assert float(mixed[1, 2, 0, 1]) == pytest.approx(0.8 * second + 0.2 * (1 - second), abs=1e-6)
    assert labels[0].tolist() == pytest.approx([first, 1 - first], abs=1e-6)
    assert labels[1].tolist() == pytest.approx([1 - second, second], abs=1e-6)


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"alpha": -1.0}, {"alpha": float("nan")}, {"probability": 1.5}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        MixUp(**settings)


def test_tiny_alpha_leaves_images_whole() -> None:
    batch = Batch(images=torch.rand(256, 1, 2, 2), targets=torch.rand(256, 2))
    plan = MixUp(alpha=1e-4).plan(batch, batch, rng=rng(0, "mix"))
    assert bool(plan.weight.isfinite().all())
    assert float(((plan.weight < 1e-3) | (plan.weight > 0.999)).float().mean()) > 0.99


def test_a_plan_is_drawn_without_looking_at_pixels() -> None:
    batch = Batch(images=torch.rand(4, 3, 8, 8), targets=torch.rand(4, 2))
    no_pixels = Batch(images=batch.images.to("meta"), targets=batch.targets)
    plan, other = (MixUp().plan(given, given, rng=rng(0, "mix")) for given in (batch, no_pixels))
    assert torch.equal(plan.partner, other.partner)
    assert torch.equal(plan.weight, other.weight)


def test_images_of_integers_are_refused_in_words() -> None:
    with pytest.raises(Exception, match=r"float|Float"):
        MixUp()(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.eye(2))
