"""Plans: what a mask, a box, a weight and a pool come to, on images, targets, ids and features."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from raremix.core.errors import DataError
from raremix.core.types import (
    Batch,
    Boxes,
    MixPlan,
    Others,
    Policy,
    combine_targets,
    mix_targets,
)

IMAGES = torch.arange(3 * 2 * 4 * 6, dtype=torch.float32).reshape(3, 2, 4, 6)
BATCH = Batch(images=IMAGES, targets=torch.eye(3), ids=torch.tensor([7, 8, 9]))


def boxes(*edges: tuple[int, int, int, int], height: int = 4, width: int = 6) -> Boxes:
    return Boxes(edges=torch.tensor(edges).T, height=height, width=width)


def test_boxes_count_their_pixels() -> None:
    given = boxes((0, 0, 0, 0), (1, 2, 3, 5), (0, 0, 4, 6))
    assert given.share().tolist() == [1.0, 0.75, 0.0]
    assert torch.equal(given.to_mask().mean(dim=(1, 2, 3)), given.share())
    inside = torch.zeros(4, 6).bool()
    inside[1:3, 2:5] = True
    assert torch.equal(given.to_mask()[1, 0], (~inside).float())


def test_a_plan_may_have_more_rows_than_the_batch() -> None:
    """Two rows per pair, as in two-way mixing: together they hold all pixels of both."""
    mask = torch.rand(2, 1, 4, 6, generator=torch.Generator().manual_seed(0)).round()
    own, partner = torch.tensor([0, 1]), torch.tensor([2, 0])
    share = mask.mean(dim=(1, 2, 3))
    plan = MixPlan(
        own=torch.cat([own, partner]),
        partner=torch.cat([partner, own]),
        mask=torch.cat([mask, mask]),
        weight=torch.cat([share, share]),
    )
    mixed = plan.apply(BATCH)
    assert mixed.images.shape == (4, 2, 4, 6)
    torch.testing.assert_close(mixed.images[:2] + mixed.images[2:], IMAGES[own] + IMAGES[partner])
    torch.testing.assert_close(mixed.targets[:2] + mixed.targets[2:], torch.eye(3)[own] + torch.eye(3)[partner])
    assert mixed.ids is not None
    assert mixed.ids.tolist() == [7, 8, 9, 7]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("needs_grad", [False, True])
def test_every_path_agrees_with_the_definition(dtype: torch.dtype, needs_grad: bool) -> None:
    """Blend, boxes, patches and full masks, with and without a gradient, for fewer rows than the batch has."""
    images = torch.rand(4, 3, 8, 12, generator=torch.Generator().manual_seed(0)).to(dtype)
    pool = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(1)).to(dtype)
    batch = Batch(images=images.clone().requires_grad_(needs_grad), targets=torch.rand(4, 5))
    others = Batch(images=pool, targets=torch.rand(2, 5))
    own, partner = torch.tensor([3, 0, 3]), torch.tensor([1, 1, 0])
    masks: dict[str, torch.Tensor | Boxes] = {
        "blend": torch.tensor([0.25, 1.0, 0.0])[:, None, None, None],
        "boxes": boxes((1, 2, 3, 5), (0, 0, 8, 12), (2, 2, 2, 9), height=8, width=12),
        "patches": torch.rand(3, 1, 2, 3, generator=torch.Generator().manual_seed(2)),
        "full": torch.rand(3, 1, 8, 12, generator=torch.Generator().manual_seed(3)),
    }
    for name, mask in masks.items():
        full = mask.to_mask() if isinstance(mask, Boxes) else mask
        full = full.double().repeat_interleave(8 // full.shape[2], 2).repeat_interleave(12 // full.shape[3], 3)
        weight = full.mean(dim=(1, 2, 3)).float()
        mixed = MixPlan(own=own, partner=partner, mask=mask, weight=weight).apply(batch, others)
        expected = full * images[own].double() + (1 - full) * pool[partner].double()
        assert mixed.images.dtype == dtype
        assert mixed.images.requires_grad == needs_grad, name
        torch.testing.assert_close(
            mixed.images.detach().double(),
            expected,
            rtol=0,
            atol=torch.finfo(dtype).eps if dtype.itemsize < 8 else 1e-6,
        )


def test_long_rows_take_the_same_path_as_short_ones() -> None:
    images = torch.rand(3, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    batch = Batch(images=images, targets=torch.eye(3))
    share = torch.tensor([0.3, 0.9, 0.0])
    plan = MixPlan(own=torch.arange(3), partner=torch.tensor([1, 2, 0]), mask=share[:, None, None, None], weight=share)
    for given in (images, images.contiguous(memory_format=torch.channels_last)):
        mixed = plan.apply(replace(batch, images=given)).images
        expected = share[:, None, None, None] * images + (1 - share[:, None, None, None]) * images[plan.partner]
        torch.testing.assert_close(mixed, expected)
        assert mixed.is_contiguous(memory_format=torch.channels_last) == (given is not images)


@pytest.mark.parametrize("side", [8, 160])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_the_mixed_pixel_and_not_the_share(dtype: torch.dtype, side: int) -> None:
    images = torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(0)).to(dtype)
    share = torch.rand(4, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    partner = torch.tensor([2, 3, 1, 0])
    plan = MixPlan(own=torch.arange(4), partner=partner, mask=share, weight=share.flatten())
    expected = torch.lerp(images[partner].float(), images.float(), share).to(dtype)
    for given in (images, images.clone().requires_grad_()):
        assert torch.equal(plan.apply(Batch(images=given, targets=torch.eye(4))).images.detach(), expected)


def test_warped_partners_replace_the_pools_pixels() -> None:
    warped = torch.full((3, 2, 4, 6), -1.0)
    for mask in (boxes(*[(0, 0, 2, 6)] * 3), torch.full((3, 1, 1, 1), 0.5), torch.rand(3, 1, 4, 6)):
        full = mask.to_mask() if isinstance(mask, Boxes) else mask
        plan = MixPlan(
            own=torch.arange(3), partner=torch.tensor([1, 2, 0]), mask=mask, weight=torch.ones(3), partner_images=warped
        )
        torch.testing.assert_close(plan.apply(BATCH).images, full * IMAGES - (1 - full))


def test_features_are_mixed_by_the_mask_at_their_size() -> None:
    plan = MixPlan(
        own=torch.tensor([0, 1]),
        partner=torch.tensor([2, 2]),
        mask=boxes((0, 0, 4, 3), (0, 0, 2, 3)),
        weight=torch.tensor([0.5, 0.75]),
    )
    maps = torch.tensor([1.0, 2.0, 4.0])[:, None, None, None].expand(3, 5, 2, 2)
    mixed = plan.apply_features(maps)
    assert mixed[0, 0].tolist() == [[4.0, 1.0], [4.0, 1.0]]
    assert mixed[1, 0].tolist() == [[4.0, 2.0], [2.0, 2.0]]
    vectors = torch.tensor([1.0, 2.0, 4.0])[:, None].expand(3, 7)
    assert plan.apply_features(vectors)[:, 0].tolist() == [2.5, 2.5]
    pool = torch.full((3, 7), 8.0)
    assert plan.apply_features(vectors, pool)[:, 0].tolist() == [4.5, 3.5]


def test_features_of_half_precision_and_with_gradients() -> None:
    plan = MixPlan(
        own=torch.tensor([0]), partner=torch.tensor([1]), mask=torch.tensor([[[[0.123]]]]), weight=torch.tensor([0.123])
    )
    features = torch.tensor([[1.0], [3.0]], dtype=torch.bfloat16, requires_grad=True)
    mixed = plan.apply_features(features)
    assert mixed.dtype == torch.bfloat16
    assert float(mixed.detach()) == pytest.approx(3 - 2 * 0.123, rel=0.004)
    mixed.sum().backward()
    assert features.grad is not None
    assert features.grad.flatten().tolist() == pytest.approx([0.123, 0.877], rel=0.004)


def test_a_target_is_missing_only_where_a_contributor_is() -> None:
    own = torch.tensor([[torch.nan, 1.0], [torch.nan, 1.0], [torch.nan, 1.0]])
    partner = torch.tensor([[0.5, torch.nan], [0.5, torch.nan], [0.5, torch.nan]])
    mixed = mix_targets(own, partner, torch.tensor([1.0, 0.0, 1e-30]))
    assert mixed.isnan().tolist() == [[True, False], [False, True], [True, True]]
    assert float(mixed[0, 1]) == 1.0
    assert float(mixed[1, 0]) == 0.5


def test_rows_of_one_class_stay_one() -> None:
    weight = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(1000, 1)
    assert torch.equal(mix_targets(ones, ones, weight), ones)


def test_shapes_that_do_not_fit_are_refused() -> None:
    plan = MixPlan(
        own=torch.arange(3), partner=torch.arange(3), mask=torch.full((3, 1, 1, 1), 0.5), weight=torch.full((3,), 0.5)
    )
    with pytest.raises(DataError, match="resize"):
        plan.apply(BATCH, replace(BATCH, images=torch.rand(3, 2, 4, 5)))
    with pytest.raises(DataError, match="the batch 3"):
        plan.apply(BATCH, replace(BATCH, targets=torch.rand(3, 2)))
    with pytest.raises(DataError, match="boxes"):
        replace(plan, mask=boxes(*[(0, 0, 1, 1)] * 3, height=5, width=6)).apply(BATCH)


def three() -> tuple[MixPlan, Tensor]:
    """Return a plan of one row in which a second and a third image give a part of each of two pixels."""
    mask = torch.tensor([[[[0.5, 0.0]]]])
    others = Others(
        rows=torch.tensor([[1, 2]]),
        masks=torch.tensor([[[[0.25, 0.25]], [[0.0, 0.5]]]]),
        weights=torch.tensor([[0.25, 0.25]]),
    )
    plan = MixPlan(
        own=torch.tensor([0]), partner=torch.tensor([3]), mask=mask, weight=torch.tensor([0.25]), others=others
    )
    return plan, torch.tensor([1.0, 10.0, 100.0, 1000.0]).reshape(4, 1, 1, 1).expand(4, 1, 1, 2)


def test_others_give_their_shares() -> None:
    """The partner fills what the mask and the others leave: a quarter of each pixel, and of the label."""
    plan, images = three()
    mixed = plan.apply(Batch(images=images, targets=torch.eye(4)))
    assert mixed.images.flatten().tolist() == [0.5 + 2.5 + 250, 2.5 + 50 + 250]
    assert mixed.targets.tolist() == [[0.25] * 4]
    assert plan.apply_features(images).flatten().tolist() == mixed.images.flatten().tolist()
    vectors = torch.tensor([1.0, 10.0, 100.0, 1000.0])[:, None]
    assert plan.apply_features(vectors).tolist() == [[0.25 + 2.5 + 25 + 250]]


def test_others_that_fill_all_leave_nothing_to_the_partner() -> None:
    """Also where the weights add up to one but for rounding: then the partner's missing label does not spread."""
    thirds = torch.tensor([[1 / 3, 1 / 3]])
    others = Others(rows=torch.tensor([[1, 2]]), masks=thirds.reshape(1, 2, 1, 1), weights=thirds)
    third = thirds[0, :1]
    plan = MixPlan(
        own=torch.tensor([0]),
        partner=torch.tensor([3]),
        mask=third.reshape(1, 1, 1, 1),
        weight=third + 6e-8,
        others=others,
    )
    targets = torch.tensor([[1.0], [0.0], [0.0], [torch.nan]])
    mixed = plan.apply_targets(targets)
    assert mixed.tolist() == [[pytest.approx(1 / 3)]]


def test_a_partners_weight_of_its_own() -> None:
    """Labels may add up to less or more than one where a method says so."""
    plan = MixPlan(
        own=torch.tensor([0, 0]),
        partner=torch.tensor([1, 1]),
        mask=torch.full((2, 1, 1, 1), 0.5),
        weight=torch.tensor([0.4, 1.0]),
        partner_weight=torch.tensor([0.3, 0.0]),
    )
    targets = torch.tensor([[1.0, 0.0], [torch.nan, 1.0]])
    mixed = plan.apply_targets(targets)
    assert mixed[0, 0].isnan()
    assert mixed[0, 1].item() == pytest.approx(0.3)
    assert mixed[1].tolist() == [1.0, 0.0]


OWN, PARTNER = [1.0, 0.0, torch.nan, torch.nan, 0.4], [0.0, 0.0, 1.0, torch.nan, 0.6]


@pytest.mark.parametrize(
    ("policy", "weight", "expected"),
    [
        ("interpolate", 0.75, [0.75, 0.0, None, None, 0.45]),
        ("interpolate", 0.0, [*PARTNER[:3], None, 0.6]),
        ("union", 0.75, [1.0, 0.0, None, None, 0.6]),
        ("union", 0.01, [1.0, 0.0, None, None, 0.6]),
        ("union", 1.0, [1.0, 0.0, None, None, 0.4]),
        ("union", 0.0, [0.0, 0.0, 1.0, None, 0.6]),
        ("threshold", 0.75, [1.0, 0.0, None, None, 0.6]),
        ("threshold", 0.76, [1.0, 0.0, None, None, 0.4]),
        ("threshold", 0.25, [1.0, 0.0, None, None, 0.6]),
        ("threshold", 0.24, [0.0, 0.0, 1.0, None, 0.6]),
        ("threshold", 1.0, [1.0, 0.0, None, None, 0.4]),
    ],
)
def test_policies(policy: Policy, weight: float, expected: list[float | None]) -> None:
    plan = MixPlan(
        own=torch.tensor([0]),
        partner=torch.tensor([1]),
        mask=torch.full((1, 1, 1, 1), weight),
        weight=torch.tensor([weight]),
        policy=policy,
    )
    mixed = plan.apply_targets(torch.tensor([OWN, PARTNER]))[0]
    wanted = torch.tensor([torch.nan if value is None else value for value in expected])
    torch.testing.assert_close(mixed, wanted, equal_nan=True)


def test_where_no_image_is_visible_the_heaviest_counts() -> None:
    """Five images of a fifth each: none reaches a quarter, so those with the most of all are taken."""
    parts = [(torch.eye(5)[i : i + 1], torch.tensor([share])) for i, share in enumerate([0.2, 0.21, 0.21, 0.19, 0.19])]
    assert combine_targets(*parts, policy="threshold").tolist() == [[0.0, 1.0, 1.0, 0.0, 0.0]]
    assert combine_targets(*parts, policy="union").tolist() == [[1.0] * 5]
    assert combine_targets(*parts, policy="interpolate")[0].tolist() == pytest.approx([0.2, 0.21, 0.21, 0.19, 0.19])


def test_masks_ride_along() -> None:
    """Planes of floats are mixed as pixels are; class numbers come from whoever gives most to the pixel."""
    plan, _ = three()
    planes = torch.tensor([1.0, 10.0, 100.0, 1000.0]).reshape(4, 1, 1, 1).expand(4, 1, 1, 2)
    assert plan.apply_masks(planes).flatten().tolist() == [0.5 + 2.5 + 250, 2.5 + 50 + 250]
    numbers = torch.tensor([1, 2, 3, 4], dtype=torch.uint8).reshape(4, 1, 1, 1).expand(4, 1, 1, 2)
    mixed = plan.apply_masks(numbers)
    assert mixed.dtype == torch.uint8
    assert mixed.flatten().tolist() == [1, 3]
    pool = numbers + 10
    assert plan.apply_masks(numbers, pool).flatten().tolist() == [1, 13]


def test_masks_of_boxes() -> None:
    plan = MixPlan(
        own=torch.tensor([0]), partner=torch.tensor([1]), mask=boxes((1, 2, 3, 5)), weight=torch.tensor([0.75])
    )
    inside = torch.zeros(4, 6).bool()
    inside[1:3, 2:5] = True
    for masks in (torch.tensor([3, 7]), torch.tensor([3.0, 7.0]), torch.tensor([False, True])):
        mixed = plan.apply_masks(masks.reshape(2, 1, 1, 1).expand(2, 1, 4, 6))
        assert mixed.dtype == masks.dtype
        assert torch.equal(mixed[0, 0], torch.where(inside, masks[1], masks[0]))


@pytest.mark.parametrize("which", ["own_images", "partner_images"])
def test_masks_do_not_follow_warped_pixels(which: str) -> None:
    plan = MixPlan(own=torch.tensor([0]), partner=torch.tensor([1]), mask=torch.ones(1, 1, 4, 6), weight=torch.ones(1))
    with pytest.raises(DataError, match="warps"):
        replace(plan, **{which: IMAGES[:1]}).apply_masks(IMAGES)


@pytest.mark.parametrize("first", [0, 1])  # six tokens would be the grid of an image of 4 x 6
def test_tokens_are_mixed_by_the_mask_at_their_place(first: int) -> None:
    """Class tokens come first and are blended by the mask's mean; the rest lie row by row on a grid of 2 x 2."""
    plan = MixPlan(
        own=torch.tensor([0]), partner=torch.tensor([1]), mask=boxes((0, 0, 4, 3), (0, 0, 0, 0)), weight=torch.ones(1)
    )
    plan = replace(plan, mask=boxes((0, 0, 2, 3)))  # the top left quarter is the partner's
    tokens = torch.tensor([1.0, 5.0]).reshape(2, 1, 1).expand(2, first + 4, 3)
    mixed = plan.apply_features(tokens)
    assert mixed.shape == (1, first + 4, 3)
    assert mixed[0, :, 0].tolist() == [2.0] * first + [5.0, 1.0, 1.0, 1.0]
    blended = replace(plan, mask=torch.full((1, 1, 1, 1), 0.25))
    assert blended.apply_features(tokens)[0, :, 0].tolist() == [4.0] * (first + 4)


def test_warped_own_images_replace_the_rows_own() -> None:
    warped = torch.full((1, 2, 4, 6), -1.0)
    plan = MixPlan(
        own=torch.tensor([1]),
        partner=torch.tensor([2]),
        mask=torch.full((1, 1, 1, 1), 0.5),
        weight=torch.ones(1),
        own_images=warped,
    )
    torch.testing.assert_close(plan.apply(BATCH).images, 0.5 * warped + 0.5 * IMAGES[2:])


@pytest.mark.parametrize("policy", ["union", "threshold", "interpolate"])
def test_where_nothing_counts_there_is_no_label(policy: Policy) -> None:
    """SnapMix gives both images a weight of zero where neither shows its evidence."""
    zero = torch.zeros(1)
    assert combine_targets((torch.ones(1, 2), zero), (torch.ones(1, 2), zero), policy=policy).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("first", [0, 1, 5])
def test_tokens_of_images_that_are_not_square(first: int) -> None:
    """A box over the left half takes the left half of a 2 x 4 grid, behind whatever class tokens there are."""
    boxes = Boxes(edges=torch.tensor([[0], [0], [16], [16]], dtype=torch.int32), height=16, width=32)
    plan = MixPlan(own=torch.tensor([0]), partner=torch.tensor([1]), mask=boxes, weight=boxes.share())
    tokens = torch.tensor([0.0, 8.0]).reshape(2, 1, 1).expand(2, first + 8, 1)
    mixed = plan.apply_features(tokens)[0, :, 0]
    assert mixed.tolist() == [4.0] * first + [8.0, 8.0, 0.0, 0.0] * 2
