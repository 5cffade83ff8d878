"""VariMix: both rows of a pair, their labels, and masks that follow the difference map."""

from dataclasses import dataclass

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.core.types import Batch, MixPlan
from raremix.mix import VariMix
from raremix.mix.varimix import keep_from


@dataclass(frozen=True, kw_only=True, eq=False)
class Remembered:
    """A flat map that remembers what it was asked."""

    asked: list[tuple[Tensor, Tensor]]

    def __call__(self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"]) -> Float[Tensor, "B 1 1 1"]:
        self.asked.append((images, targets))
        return images.new_zeros(len(images), 1, 1, 1)


def a_batch(rows: int = 6, *, side: tuple[int, int] = (12, 8), cells: tuple[int, int] = (4, 4), seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        images=torch.rand(rows, 3, *side, generator=generator),
        targets=torch.eye(rows),
        importance=torch.rand(rows, 1, *cells, generator=generator),
    )


def mask_of(plan: MixPlan) -> Tensor:
    assert isinstance(plan.mask, Tensor)
    return plan.mask


def test_hand_computed_pair() -> None:
    """Map (.1, .9) at a level between: u keeps the right pixel of its own image, v the left one."""
    images = torch.tensor([[[[1.0, 2.0]]], [[[3.0, 4.0]]]])
    maps = torch.tensor([[[[0.1, 0.9]]], [[[0.1, 0.9]]]])
    batch = Batch(images=images, targets=torch.eye(2), importance=maps)
    stream = rng(1, "mix")
    assert stream.permutation(2).tolist() == [1, 0]
    assert bool(((level := stream.random(2)) > 0.1).all())
    assert bool((level < 0.9).all())
    mixed = VariMix().plan(batch, batch, rng=rng(1, "mix")).apply(batch)
    assert mixed.images[:, 0, 0].tolist() == [[3, 2], [1, 4], [1, 4], [3, 2]]
    assert torch.equal(mixed.targets, torch.full((4, 2), 0.5))


@pytest.mark.parametrize("label", ["area", "mass"])
@pytest.mark.parametrize("cells", [(4, 4), (5, 7), (24, 16)])
def test_both_rows_of_a_pair_are_both_images(label: str, cells: tuple[int, int]) -> None:
    """u + v = x_own + x_partner, and likewise for the labels."""
    batch = a_batch(cells=cells)
    plan = VariMix(label=label).plan(batch, batch, rng=rng(0, "mix"))  # type: ignore[arg-type]
    mixed = plan.apply(batch)
    partner = plan.partner[:6]
    torch.testing.assert_close(mixed.images[:6] + mixed.images[6:], batch.images + batch.images[partner])
    torch.testing.assert_close(mixed.targets[:6] + mixed.targets[6:], batch.targets + batch.targets[partner])
    assert torch.equal(plan.own, torch.arange(6).repeat(2))


def test_level_zero_keeps_all_and_a_level_above_the_map_keeps_nothing() -> None:
    maps = torch.rand(4, 1, 5, 5) * 0.9
    maps[0, 0, 0, 0] = 0.0
    assert bool((keep_from(maps, torch.zeros(4)) == 1).all())
    assert bool((keep_from(maps, maps.amax(dim=(1, 2, 3)) + 0.01) == 0).all())


def test_the_area_never_grows_with_the_level() -> None:
    maps = torch.rand(1, 1, 9, 9).expand(50, 1, 9, 9)
    area = keep_from(maps, torch.linspace(0, 1, 50)).mean(dim=(1, 2, 3))
    assert bool((area.diff() <= 0).all())
    assert float(area[0]) == 1


def test_the_mean_area_is_the_mean_of_the_map() -> None:
    """E over t of mean 1[a >= t] is mean a: t is uniform."""
    maps = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0)).expand(20_000, 1, 4, 4)
    batch = Batch(images=torch.zeros(20_000, 1, 4, 4), targets=torch.zeros(20_000, 1), importance=maps)
    plan = VariMix().plan(batch, batch, rng=rng(0, "mix"))
    assert float(plan.weight[:20_000].mean()) == pytest.approx(float(maps[0].mean()), abs=0.01)


def test_a_map_that_is_scaled_to_its_own_range_knows_no_scale() -> None:
    """What a difference map does: min-max over the image; after it, doubling all differences changes no mask."""
    from raremix.explain.scale import min_max

    difference = torch.rand(6, 1, 12, 8, generator=torch.Generator().manual_seed(1))
    masks = []
    for scaled in (difference, 8 * difference):
        batch = Batch(images=torch.rand(6, 3, 12, 8), targets=torch.eye(6), importance=min_max(scaled))
        masks.append(mask_of(VariMix().plan(batch, batch, rng=rng(0, "mix"))))
    assert torch.equal(masks[0], masks[1])


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_flat_difference_map_is_no_nan(value: float) -> None:
    """VariMix's code: 0/0 makes the mask NaN; here u is the partner and v the image."""
    batch = a_batch()
    batch = Batch(images=batch.images, targets=batch.targets, importance=torch.full((6, 1, 4, 4), value))
    for label in ("area", "mass"):
        plan = VariMix(label=label).plan(batch, batch, rng=rng(0, "mix"))  # type: ignore[arg-type]
        mixed = plan.apply(batch)
        torch.testing.assert_close(mixed.images, torch.cat([batch.images[plan.partner[:6]], batch.images]))
        torch.testing.assert_close(mixed.targets, torch.cat([batch.targets[plan.partner[:6]], batch.targets]))


def test_labels_by_mass_count_the_evidence() -> None:
    """All of the map in one cell of sixteen: where that is kept, the whole label is."""
    maps = torch.zeros(32, 1, 4, 4)
    maps[:, :, 1, 2] = 1.0
    batch = Batch(images=torch.rand(32, 1, 8, 8), targets=torch.eye(32), importance=maps)
    area, mass = (VariMix(label=label).plan(batch, batch, rng=rng(0, "mix")) for label in ("area", "mass"))
    assert torch.equal(area.weight[:32], torch.full((32,), 1 / 16))
    assert torch.equal(mass.weight, torch.cat([torch.ones(32), torch.zeros(32)]))


def test_the_map_is_asked_about_the_partners_class() -> None:
    batch = a_batch()
    batch = Batch(images=batch.images, targets=batch.targets)
    importance = Remembered(asked=[])
    plan = VariMix(importance=importance).plan(batch, batch, rng=rng(0, "mix"))
    ((images, targets),) = importance.asked
    assert torch.equal(images, batch.images)
    assert torch.equal(targets, batch.targets[plan.partner[:6]])
    assert not torch.equal(targets, batch.targets)


def test_rows_that_are_not_mixed_come_out_whole_twice() -> None:
    batch = a_batch()
    same = Batch(images=batch.images, targets=torch.ones(6, 1), importance=batch.importance)
    for mixer in (VariMix(probability=0.0), VariMix(pairing="different_class")):
        mixed = mixer.plan(same, same, rng=rng(0, "mix")).apply(same)
        assert torch.equal(mixed.images, batch.images.repeat(2, 1, 1, 1))


def test_pairs_of_one_class_can_be_avoided() -> None:
    batch = a_batch(8)
    batch = Batch(images=batch.images, targets=torch.eye(2).repeat(4, 1), importance=batch.importance)
    plan = VariMix(pairing="different_class").plan(batch, batch, rng=rng(0, "mix"))
    assert bool((batch.targets[plan.partner] != batch.targets[plan.own]).all())


@pytest.mark.parametrize("settings", [{"label": "keep"}, {"label": "remix"}, {"probability": -0.5}])
def test_impossible_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        VariMix(**settings)  # type: ignore[arg-type]


def test_without_any_map_it_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="DifferenceMap"):
        VariMix(importance=None)(torch.rand(2, 1, 8, 8), torch.eye(2), rng=rng(0, "mix"))
