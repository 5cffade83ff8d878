"""CutMix: a case computed by hand, pixels counted one by one, and its settings."""

import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.core.types import Batch, Boxes
from raremix.mix import CutMix


def test_hand_computed_box() -> None:
    """The box that the stream is known to draw, in an image of 10 x 20 pixels."""
    images = torch.arange(2.0)[:, None, None, None].expand(2, 1, 10, 20)
    stream = rng(1, "mix")
    assert stream.permutation(2).tolist() == [1, 0]
    share = stream.random(2)
    y, x = stream.random((2, 2))[:, 0] * [10, 20]
    half = (1 - share[0]) ** 0.5 / 2
    expected = torch.zeros(10, 20)
    rows = slice(max(round(y - 10 * half), 0), round(y + 10 * half))
    expected[rows, max(round(x - 20 * half), 0) : round(x + 20 * half)] = 1.0
    mixed, targets = CutMix()(images, torch.eye(2), rng=rng(1, "mix"))
    assert torch.equal(mixed[0, 0], expected)
    assert targets[0].tolist() == pytest.approx([1 - expected.mean().item(), expected.mean().item()])
    assert 0 < expected.mean() < 1


@pytest.mark.parametrize(("height", "width"), [(28, 28), (17, 40), (1, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_every_counted_pixel_is_in_the_label(height: int, width: int, dtype: torch.dtype) -> None:
    """Image i is i everywhere, so the pixels of each image can be counted; the counts are the label, exactly."""
    rows = 16
    images = torch.arange(rows, dtype=dtype)[:, None, None, None].expand(rows, 2, height, width)
    mixed, targets = CutMix()(images, torch.eye(rows), rng=rng(0, "mix"))
    counted = torch.stack([(mixed[:, 0] == i).sum(dim=(1, 2)) for i in range(rows)], dim=1)
    assert torch.equal(mixed[:, 0], mixed[:, 1])
    assert torch.equal(counted, (targets * height * width).round().long())
    own = counted.diagonal() / (height * width)
    assert torch.equal(targets.diagonal(), own)


def test_label_is_that_of_the_clipped_box() -> None:
    batch = Batch(images=torch.rand(300, 1, 16, 16), targets=torch.rand(300, 2))
    plan = CutMix().plan(batch, batch, rng=rng(0, "mix"))
    assert isinstance(plan.mask, Boxes)
    touches = (plan.mask.edges[:2] == 0).any(dim=0) | (plan.mask.edges[2:] == 16).any(dim=0)
    assert 0.3 < float(touches.float().mean()) < 0.95
    assert torch.equal(plan.weight, plan.mask.to_mask().mean(dim=(1, 2, 3)))


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"alpha": float("inf")}, {"probability": -0.1}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        CutMix(**settings)


def test_a_plan_is_drawn_without_looking_at_pixels() -> None:
    batch = Batch(images=torch.rand(4, 3, 8, 8), targets=torch.rand(4, 2))
    no_pixels = Batch(images=batch.images.to("meta"), targets=batch.targets)
    plan, other = (CutMix().plan(given, given, rng=rng(0, "mix")) for given in (batch, no_pixels))
    assert isinstance(plan.mask, Boxes)
    assert isinstance(other.mask, Boxes)
    assert torch.equal(plan.mask.edges, other.mask.edges)
