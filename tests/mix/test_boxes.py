"""Boxes of all images that a row shows, with the share that is visible."""

import pytest
import torch

from raremix.core.errors import DataError
from raremix.core.random import rng
from raremix.core.types import Batch, Boxes, MixPlan, Others
from raremix.mix import MIXERS, MixUp
from raremix.mix.boxes import mix_boxes


def left_half(*partners: int) -> MixPlan:
    """Return a plan in which the left half of 8 x 8 images comes from a partner."""
    rows = len(partners)
    mask = Boxes(edges=torch.tensor([[0], [0], [8], [4]]).expand(4, rows), height=8, width=8)
    return MixPlan(own=torch.arange(rows), partner=torch.tensor(partners), mask=mask, weight=mask.share())


def test_visible_shares_by_hand() -> None:
    """Image 0 keeps its right half: a box over all, one on the left (pasted over), one from column 3 to 7.

    Image 1 gives its left half: of a box from column 2.5 to 6.5, 1.5 of 4 columns.
    """
    zero = torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 4.0, 8.0], [3.0, 2.0, 7.0, 6.0]])
    one = torch.tensor([[2.5, 1.0, 6.5, 3.0]])
    first, second = mix_boxes(left_half(1, 0), [zero, one], height=8, width=8)
    torch.testing.assert_close(first.visible, torch.tensor([0.5, 0.75, 0.375]))
    assert first.image.tolist() == [0, 0, 1]
    assert first.number.tolist() == [0, 2, 0]
    assert torch.equal(first.edges, torch.cat([zero[[0, 2]], one]))
    torch.testing.assert_close(second.visible, torch.tensor([0.625, 0.5, 1.0, 0.25]))
    assert second.image.tolist() == [1, 0, 0, 0]


def test_an_image_that_meets_itself_has_its_boxes_once() -> None:
    (row,) = mix_boxes(left_half(0), [torch.tensor([[2.0, 2.0, 6.0, 6.0]])], height=8, width=8)
    assert row.visible.tolist() == [1.0]


def test_a_pool_has_boxes_of_its_own() -> None:
    own, other = torch.tensor([[0.0, 0.0, 8.0, 8.0]]), torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    (row,) = mix_boxes(left_half(0), [own], height=8, width=8, pool_boxes=[other])
    assert row.visible.tolist() == [0.5, 1.0]
    assert row.is_from_pool.tolist() == [False, True]


def test_boxes_without_area_outside_or_absent_are_left_out() -> None:
    nothing = torch.tensor([[6.0, 2.0, 6.0, 5.0], [9.0, 9.0, 12.0, 12.0]])
    rows = mix_boxes(left_half(1, 0), [nothing, torch.zeros(0, 4)], height=8, width=8)
    assert [row.edges.shape for row in rows] == [(0, 4), (0, 4)]


def test_further_images_give_boxes_too() -> None:
    mask = torch.full((1, 1, 1, 1), 0.5)
    others = Others(rows=torch.tensor([[2]]), masks=torch.full((1, 1, 1, 1), 0.3), weights=torch.tensor([[0.3]]))
    plan = MixPlan(
        own=torch.tensor([0]), partner=torch.tensor([1]), mask=mask, weight=torch.tensor([0.5]), others=others
    )
    (row,) = mix_boxes(plan, [torch.tensor([[1.0, 1.0, 2.0, 3.0]])] * 3, height=4, width=4)
    shown = dict(zip(row.image.tolist(), row.visible.tolist(), strict=True))
    assert shown == pytest.approx({0: 0.5, 1: 0.2, 2: 0.3})


def test_warped_partners_are_refused() -> None:
    plan = left_half(0)
    warped = MixPlan(
        own=plan.own, partner=plan.partner, mask=plan.mask, weight=plan.weight, partner_images=torch.rand(1, 1, 8, 8)
    )
    with pytest.raises(DataError, match="warps"):
        mix_boxes(warped, [torch.zeros(0, 4)], height=8, width=8)


@pytest.mark.parametrize("name", MIXERS)
def test_a_box_over_the_whole_image_shows_the_share_of_its_pixels(name: str) -> None:
    """Whatever the method: the visible share of such a box is the counted share of its image's pixels."""
    images = torch.eye(4)[:, :, None, None].expand(4, 4, 9, 12).contiguous()
    batch = Batch(images=images, targets=torch.eye(4))
    plan = MIXERS[name]().plan(batch, batch, rng=rng(3, "mix"))
    if plan.partner_images is not None or plan.at is not None:
        pytest.skip("warps its partners, or mixes inside the network")
    mixed = plan.apply(batch).images.mean(dim=(2, 3))
    rows = mix_boxes(plan, [torch.tensor([[0.0, 0.0, 12.0, 9.0]])] * 4, height=9, width=12)
    for row, shares in zip(rows, mixed, strict=True):
        counted = torch.zeros(4).index_add_(0, row.image, row.visible)
        torch.testing.assert_close(counted, shares, rtol=0, atol=1e-5)


def test_blends_show_their_weight() -> None:
    batch = Batch(images=torch.rand(2, 1, 8, 8), targets=torch.eye(2))
    plan = MixUp(alpha=1.0).plan(batch, batch, rng=rng(1, "mix"))
    rows = mix_boxes(plan, [torch.tensor([[1.0, 1.0, 3.5, 6.0]])] * 2, height=8, width=8)
    for row, weight, partner, own in zip(rows, plan.weight, plan.partner, plan.own, strict=True):
        expected = [1.0] if partner == own else [float(weight), 1 - float(weight)]
        assert row.visible.tolist() == pytest.approx(expected, abs=1e-5)
