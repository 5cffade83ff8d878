"""ResizeMix: a patch computed by hand, the whole partner in every patch, and settings."""

import pytest
import torch
from torch.nn import functional

from raremix.core.errors import ConfigError, DataError
from raremix.core.random import rng
from raremix.core.types import Batch, Boxes
from raremix.explain import FineGrained
from raremix.mix import ResizeMix
from raremix.mix.resizemix import SHORT_SIDE, shrink


def boxes(*edges: tuple[int, int, int, int], height: int, width: int) -> Boxes:
    return Boxes(edges=torch.tensor(edges, dtype=torch.int32).T, height=height, width=width)


def test_hand_computed_patch() -> None:
    """At scale 1/2 a pixel of the patch weighs four pixels per side by 1, 3, 3, 1, without those beyond the border."""
    images = torch.zeros(2, 1, 4, 4)
    images[1] = torch.tensor([0.0, 1.0, 2.0, 4.0])
    mixed, targets = ResizeMix(scale=(0.5, 0.5))(images, torch.eye(2), rng=rng(1, "mix"))
    stream = rng(1, "mix")
    assert stream.permutation(2).tolist() == [1, 0]
    stream.random(2)  # the scales
    top, left = (int(start * 3) for start in stream.random((2, 2))[:, 0])
    row = torch.tensor([(3 * 0 + 3 * 1 + 1 * 2) / 7, (1 * 1 + 3 * 2 + 3 * 4) / 7])
    expected = torch.zeros(4, 4)
    expected[top : top + 2, left : left + 2] = row
    torch.testing.assert_close(mixed[0, 0], expected)
    assert targets.tolist() == [[0.75, 0.25], [0.25, 0.75]]


@pytest.mark.parametrize(("height", "width"), [(28, 28), (7, 40), (SHORT_SIDE + 6, 33), (1, 9), (1, 1)])
def test_every_patch_holds_the_whole_partner(height: int, width: int) -> None:
    """Inside the box lies the partner at the box's size, as torch resizes it; outside lies nothing of it."""
    generator = torch.Generator().manual_seed(0)
    batch = Batch(images=torch.rand(12, 2, height, width, generator=generator), targets=torch.eye(12))
    plan = ResizeMix().plan(batch, batch, rng=rng(0, "mix"))
    assert isinstance(plan.mask, Boxes)
    mixed = plan.apply(batch).images
    assert int((plan.mask.share() < 1).sum()) >= 10
    for row, (top, left, bottom, right) in enumerate(plan.mask.edges.T.tolist()):
        expected = batch.images[row].clone()
        if bottom > top:
            partner = batch.images[plan.partner[row]][None]
            size = (bottom - top, right - left)
            patch = functional.interpolate(partner, size=size, mode="bilinear", antialias=True)[0]
            expected[:, top:bottom, left:right] = patch
        torch.testing.assert_close(mixed[row], expected, rtol=0, atol=1e-5)


def test_short_and_long_rows_agree() -> None:
    images = torch.rand(2, 3, SHORT_SIDE, SHORT_SIDE, generator=torch.Generator().manual_seed(0))
    placed = boxes((0, 3, 10, 40), (0, 0, SHORT_SIDE, SHORT_SIDE), height=SHORT_SIDE, width=SHORT_SIDE)
    patches = shrink(images, torch.tensor([1, 0]), placed)
    torch.testing.assert_close(patches[1], images[0], rtol=0, atol=1e-6)
    whole = functional.interpolate(images[1:], size=(10, 37), mode="bilinear", antialias=True)[0]
    torch.testing.assert_close(patches[0, :, :10, 3:40], whole, rtol=0, atol=1e-5)
    assert float(patches[0].abs().sum()) == pytest.approx(float(whole.abs().sum()), rel=1e-5)


def test_no_spot_is_lost() -> None:
    """A lesion of one pixel, which sampling the nearest pixel would mostly skip, is in every patch, with its mass."""
    images = torch.zeros(64, 1, 100, 100)
    generator = torch.Generator().manual_seed(0)
    where = torch.randint(20, 80, (64, 2), generator=generator)
    images[torch.arange(64), 0, where[:, 0], where[:, 1]] = 1.0
    placed = boxes(*[(0, 0, 25, 25)] * 64, height=100, width=100)
    patches = shrink(images, torch.arange(64), placed)
    torch.testing.assert_close(patches.sum(dim=(1, 2, 3)), torch.full((64,), 1 / 16), rtol=0.1, atol=0)


def test_places_and_scales_are_uniform_and_inside() -> None:
    batch = Batch(images=torch.zeros(3000, 1, 50, 20), targets=torch.zeros(3000, 1))
    pool = Batch(images=batch.images[:1], targets=batch.targets[:1])
    plan = ResizeMix(scale=(0.2, 0.6)).plan(batch, pool, rng=rng(0, "mix"))
    assert isinstance(plan.mask, Boxes)
    top, left, bottom, right = plan.mask.edges.double()
    for low, high, length in ((top, bottom, 50), (left, right, 20)):
        assert bool((low >= 0).all() and (high <= length).all())
        size = high - low
        assert float(size.min()) == 0.2 * length
        assert float(size.max()) == 0.6 * length
        assert float(size.mean()) == pytest.approx(0.4 * length, rel=0.02)
        assert float((low / (length - size)).mean()) == pytest.approx(0.5, abs=0.02)


def test_a_row_that_meets_itself_stays_whole() -> None:
    batch = Batch(images=torch.rand(200, 1, 16, 16), targets=torch.eye(200))
    plan = ResizeMix().plan(batch, batch, rng=rng(2, "mix"))
    is_self = plan.partner == torch.arange(200)
    assert bool(is_self.any())
    assert bool(((plan.weight == 1) == is_self).all())


def test_segmentation_masks_cannot_ride_along() -> None:
    batch = Batch(images=torch.rand(4, 1, 16, 16), targets=torch.eye(4))
    plan = ResizeMix().plan(batch, batch, rng=rng(0, "mix"))
    with pytest.raises(DataError, match="warps"):
        plan.apply_masks(torch.zeros(4, 1, 16, 16))


@pytest.mark.parametrize("scale", [(0.0, 0.5), (0.6, 0.5), (0.5, 1.1), (float("nan"), 0.5)])
def test_impossible_scales_are_refused(scale: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="scale"):
        ResizeMix(scale=scale)


def test_impossible_probability_is_refused() -> None:
    with pytest.raises(ConfigError, match="probability"):
        ResizeMix(probability=2.0)


def test_importance_cannot_be_counted_where_pixels_were_moved() -> None:
    with pytest.raises(ConfigError, match="moves pixels"):
        ResizeMix(label="mass", importance=FineGrained())(torch.rand(4, 3, 16, 16), torch.eye(4))
