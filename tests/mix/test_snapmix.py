"""SnapMix: boxes resized as by hand, and labels weighed by what each box holds."""

import pytest
import torch
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.core.types import Batch, Boxes
from raremix.mix import SnapMix
from raremix.mix.snapmix import resize_boxes


def make_boxes(*edges: tuple[int, int, int, int], height: int = 12, width: int = 16) -> Boxes:
    return Boxes(edges=torch.tensor(edges, dtype=torch.int32).T.contiguous(), height=height, width=width)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_box_is_resized_as_if_it_were_an_image(dtype: torch.dtype) -> None:
    """Larger, smaller, of one pixel, and as it is: what torch's own resizing makes of the part alone."""
    images = torch.rand(6, 3, 12, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    rows = torch.tensor([5, 0, 3, 3])
    cut = [(1, 2, 5, 6), (0, 0, 12, 16), (3, 3, 4, 4), (2, 2, 7, 9)]
    into = [(0, 4, 11, 13), (5, 6, 9, 9), (2, 2, 8, 10), (2, 2, 7, 9)]
    found = resize_boxes(images, rows, cut=make_boxes(*cut), into=make_boxes(*into))
    for row, ((t, x, b, r), (to_t, to_x, to_b, to_r)) in enumerate(zip(cut, into, strict=True)):
        part = images[rows[row] : rows[row] + 1, :, t:b, x:r].to(torch.promote_types(dtype, torch.float32))
        size = (to_b - to_t, to_r - to_x)
        expected = functional.interpolate(part, size=size, mode="bilinear", align_corners=False)[0]
        assert torch.equal(found[row, :, to_t:to_b, to_x:to_r], expected.to(dtype))
    assert torch.equal(found[3, :, 2:7, 2:9], images[3, :, 2:7, 2:9])


def test_labels_weigh_what_each_box_holds() -> None:
    """With all importance in the left half, the weights are counted from the drawn boxes, column by column."""
    rows, side = 12, 32
    maps = torch.zeros(rows, 1, 4, 4)
    maps[..., :2] = 0.5
    batch = Batch(images=torch.rand(rows, 1, side, side), targets=torch.eye(rows), importance=maps)
    plan = SnapMix(alpha=2.0).plan(batch, batch, rng=rng(0, "mix"))
    assert isinstance(plan.mask, Boxes)
    assert plan.partner_weight is not None
    assert plan.partner_images is not None
    stream = rng(0, "mix")
    stream.permutation(rows)
    drawn = []
    for _ in range(2):
        share = stream.beta(2.0, 2.0, size=rows)
        centre, half = stream.random((2, rows)), (1 - share) ** 0.5 / 2
        low, high = (((centre + sign * half).clip(0, 1) * side).round() for sign in (-1, 1))
        drawn.append((low[0], low[1], high[0], high[1]))
    (top, left, bottom, right), (cut_top, cut_left, cut_bottom, cut_right) = drawn
    apart = plan.partner.numpy() != range(rows)
    kept = 1 - (bottom - top) * (right.clip(max=16) - left.clip(max=16)) / (side * 16)
    given = (cut_bottom - cut_top) * (cut_right.clip(max=16) - cut_left.clip(max=16)) / (side * 16)
    total = (kept + given).clip(min=1)
    torch.testing.assert_close(plan.weight[apart], torch.from_numpy(kept / total)[apart].float())
    torch.testing.assert_close(plan.partner_weight[apart], torch.from_numpy(given / total)[apart].float())
    assert bool((plan.weight[apart] + plan.partner_weight[apart] < 0.99).any()), "the weights need not add up to one"
    mixed = plan.apply(batch)
    assert bool((mixed.targets.sum(dim=1) <= 1 + 1e-6).all())


def test_background_on_background_leaves_the_label() -> None:
    """Nothing important is covered, and nothing important comes: the label stays whole, and nothing is added to it."""
    maps = torch.zeros(64, 1, 32, 32)
    maps[:, :, 0, 0] = 1.0
    batch = Batch(images=torch.rand(64, 1, 32, 32), targets=torch.eye(64), importance=maps)
    plan = SnapMix().plan(batch, batch, rng=rng(0, "mix"))
    assert isinstance(plan.mask, Boxes)
    assert plan.partner_weight is not None
    is_clear = (plan.mask.edges[0] > 0) | (plan.mask.edges[1] > 0)
    assert bool((plan.weight[is_clear & (plan.partner_weight == 0)] == 1).all())
    assert int((is_clear & (plan.partner_weight == 0) & (plan.mask.share() < 1)).sum()) > 20


def test_an_image_that_meets_itself_stays_whole() -> None:
    images, targets = torch.rand(1, 3, 20, 20), torch.ones(1, 1)
    mixed, labels = SnapMix()(images, targets, rng=rng(0, "mix"))
    assert torch.equal(mixed, images)
    assert torch.equal(labels, targets)


def test_other_label_rules() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(8, 1, 4, 4, generator=generator)
    batch = Batch(images=torch.rand(8, 1, 32, 32), targets=torch.eye(8), importance=maps)
    by_area = SnapMix(label="area").plan(batch, batch, rng=rng(0, "mix"))
    assert isinstance(by_area.mask, Boxes)
    assert torch.equal(by_area.weight, by_area.mask.share())
    assert by_area.partner_weight is None
    own, mass = (SnapMix(label=label).plan(batch, batch, rng=rng(0, "mix")) for label in ("own", "mass"))
    assert mass.partner_weight is None
    assert own.partner_weight is not None
    torch.testing.assert_close(mass.weight, own.weight / (own.weight + own.partner_weight))


def test_empty_maps_weigh_by_area() -> None:
    batch = Batch(images=torch.rand(8, 1, 32, 32), targets=torch.eye(8), importance=torch.zeros(8, 1, 4, 4))
    plan = SnapMix().plan(batch, batch, rng=rng(0, "mix"))
    assert isinstance(plan.mask, Boxes)
    assert plan.partner_weight is not None
    torch.testing.assert_close(plan.weight, plan.mask.share())
    torch.testing.assert_close(plan.weight + plan.partner_weight, torch.ones(8))


@pytest.mark.parametrize("settings", [{"alpha": -1.0}, {"probability": 1.5}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        SnapMix(**settings)
