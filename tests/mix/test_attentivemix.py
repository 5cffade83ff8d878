"""AttentiveMix: the cells that matter most, counted and ranked."""

import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.mix import AttentiveMix


def test_hand_computed_cells() -> None:
    """Of 2 x 2 cells the first image keeps its top right one, the second its bottom left one."""
    images = torch.arange(2.0)[:, None, None, None].expand(2, 1, 4, 6)
    importance = torch.tensor([[[[0.1, 0.9], [0.3, 0.2]]], [[[0.1, 0.2], [0.8, 0.7]]]])
    batch = Batch(images=images, targets=torch.eye(2), importance=importance)
    plan = AttentiveMix(grid=2, cells=1).plan(batch, batch, rng=rng(1, "mix"))
    assert plan.partner.tolist() == [1, 0]
    mixed = plan.apply(batch)
    first, second = torch.ones(4, 6), torch.zeros(4, 6)
    first[:2, 3:], second[2:, :3] = 0.0, 1.0
    assert torch.equal(mixed.images[:, 0], torch.stack([first, second]))
    assert mixed.targets.tolist() == [[0.25, 0.75], [0.75, 0.25]]


@pytest.mark.parametrize(("height", "width"), [(28, 28), (20, 33), (5, 5)])
def test_what_is_kept_matters_more_than_what_is_not(height: int, width: int) -> None:
    maps = torch.rand(8, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    batch = Batch(images=torch.rand(8, 1, height, width), targets=torch.rand(8, 2), importance=maps)
    plan = AttentiveMix().plan(batch, batch, rng=rng(0, "mix"))
    assert isinstance(plan.mask, torch.Tensor)
    assert bool(((plan.mask == 0) | (plan.mask == 1)).all())
    torch.testing.assert_close(plan.weight, plan.mask.mean(dim=(1, 2, 3)))
    if (height, width) == (28, 28):
        assert torch.equal(plan.weight, torch.full((8,), 6 / 49))
        kept = torch.where(plan.mask > 0, maps, torch.inf).amin(dim=(1, 2, 3))
        left = torch.where(plan.mask > 0, -torch.inf, maps).amax(dim=(1, 2, 3))
        assert bool((kept >= left).all())


def test_fine_maps_are_averaged_over_the_cells() -> None:
    maps = torch.rand(4, 1, 56, 56, generator=torch.Generator().manual_seed(0))
    coarse = maps.reshape(4, 1, 7, 8, 7, 8).mean(dim=(3, 5))
    images = torch.rand(4, 1, 56, 56)
    plans = [
        AttentiveMix().plan(batch, batch, rng=rng(0, "mix"))
        for batch in (Batch(images=images, targets=torch.rand(4, 2), importance=m) for m in (maps, coarse))
    ]
    assert isinstance(plans[0].mask, torch.Tensor)
    assert isinstance(plans[1].mask, torch.Tensor)
    assert torch.equal(plans[0].mask, plans[1].mask)


def test_cells_that_tie_are_drawn() -> None:
    batch = Batch(images=torch.rand(400, 1, 7, 7), targets=torch.rand(400, 2), importance=torch.zeros(400, 1, 7, 7))
    plan = AttentiveMix().plan(batch, batch, rng=rng(0, "mix"))
    assert isinstance(plan.mask, torch.Tensor)
    often = plan.mask.mean(dim=0)
    assert bool((plan.mask.sum(dim=(1, 2, 3)) == 6).all())
    assert float((often - 6 / 49).abs().max()) < 5 * (6 / 49 * 43 / 49 / 400) ** 0.5


def test_the_number_of_cells_can_be_drawn_per_image() -> None:
    maps = torch.rand(4000, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    batch = Batch(images=torch.rand(4000, 1, 7, 7), targets=torch.rand(4000, 2), importance=maps)
    weight = AttentiveMix(cells=None).plan(batch, batch, rng=rng(0, "mix")).weight
    counts = (weight * 49).round()
    assert set(counts.tolist()) == set(range(1, 49))
    assert float(weight.mean()) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("settings", [{"grid": 0}, {"cells": 0}, {"cells": 50}, {"alpha": 0.0}, {"probability": 2.0}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        AttentiveMix(**settings)  # type: ignore[arg-type]
