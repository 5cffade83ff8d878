"""GuidedMixup: a mask computed by hand, its pairs, and maps that say nothing."""

import numpy as np
import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.mix import GuidedMixup
from raremix.mix.guidedmixup import spread


def test_hand_computed_mask() -> None:
    """Maps (3, 1) and (2, 6) are (.75, .25) and (.25, .75) of their sums: the first keeps .75 left, .25 right."""
    images = torch.tensor([[[[0.0, 0.0]]], [[[1.0, 1.0]]]])
    importance = torch.tensor([[[[0.3, 0.1]]], [[[0.2, 0.6]]]])
    batch = Batch(images=images, targets=torch.eye(2), importance=importance)
    mixed = GuidedMixup(sigma=0.0).plan(batch, batch, rng=rng(0, "mix")).apply(batch)
    torch.testing.assert_close(mixed.images[:, 0, 0], torch.tensor([[0.25, 0.75], [0.25, 0.75]]))
    torch.testing.assert_close(mixed.targets, torch.full((2, 2), 0.5))


def test_openmixup_drops_the_pairing_it_computes() -> None:
    """OpenMixup 37e1372: partners are taken at random before they are chosen; here all is of the chosen ones."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(16, 1, 8, 8, generator=generator)
    batch = Batch(images=torch.rand(16, 2, 8, 8, generator=generator), targets=torch.eye(16), importance=maps)
    plan = GuidedMixup(sigma=0.0).plan(batch, batch, rng=rng(0, "mix"))
    own, partner = (m / m.sum(dim=(2, 3), keepdim=True) for m in (maps, maps[plan.partner]))
    mask = own / (own + partner)
    mixed = plan.apply(batch)
    torch.testing.assert_close(mixed.images, mask * batch.images + (1 - mask) * batch.images[plan.partner])
    weight = mask.mean(dim=(1, 2, 3))
    torch.testing.assert_close(mixed.targets[torch.arange(16), plan.partner], 1 - weight)
    assert sorted(plan.partner.tolist()) == list(range(16))
    distance = torch.cdist(own.flatten(1), own.flatten(1))
    assert float(distance[torch.arange(16), plan.partner].mean()) > float(distance.mean()) * 16 / 15


def test_partners_are_salient_elsewhere() -> None:
    maps = torch.zeros(8, 1, 4, 4)
    maps[::2, :, :, :2] = 1.0
    maps[1::2, :, :, 2:] = 1.0
    batch = Batch(images=torch.rand(8, 1, 16, 16), targets=torch.rand(8, 2), importance=maps)
    plan = GuidedMixup(sigma=0.0).plan(batch, batch, rng=rng(0, "mix"))
    assert bool(((plan.partner % 2) != torch.arange(8) % 2).all())
    assert isinstance(plan.mask, torch.Tensor)
    assert torch.equal(plan.mask, maps)  # each keeps exactly where it is salient


def test_two_that_have_each_other_share_every_pixel() -> None:
    """Masks of both add up to one, so both rows are the same picture with the same label."""
    batch = Batch(images=torch.rand(2, 1, 12, 9), targets=torch.eye(2), importance=torch.rand(2, 1, 5, 4))
    plan = GuidedMixup().plan(batch, batch, rng=rng(0, "mix"))
    assert isinstance(plan.mask, torch.Tensor)
    torch.testing.assert_close(plan.mask[0], 1 - plan.mask[1])
    mixed = plan.apply(batch)
    torch.testing.assert_close(mixed.images[0], mixed.images[1])
    torch.testing.assert_close(mixed.targets[0], mixed.targets[1])


def test_where_neither_is_salient_both_give_half() -> None:
    maps = torch.tensor([[[[1.0, 0.0, 0.0]]], [[[0.0, 1.0, 0.0]]]])
    batch = Batch(images=torch.rand(2, 1, 1, 3), targets=torch.eye(2), importance=maps)
    plan = GuidedMixup(sigma=0.0).plan(batch, batch, rng=rng(0, "mix"))
    assert isinstance(plan.mask, torch.Tensor)
    assert plan.mask[:, 0, 0].tolist() == [[1, 0, 0.5], [0, 1, 0.5]]


@pytest.mark.parametrize("sigma", [0.0, 3.0])
def test_maps_that_say_nothing_give_halves(sigma: float) -> None:
    maps = torch.zeros(4, 1, 4, 4)
    maps[0] = torch.nan
    batch = Batch(images=torch.rand(4, 1, 8, 8), targets=torch.rand(4, 2), importance=maps)
    plan = GuidedMixup(sigma=sigma).plan(batch, batch, rng=rng(0, "mix"))
    assert isinstance(plan.mask, torch.Tensor)
    assert torch.equal(plan.mask, torch.full((4, 1, 4, 4), 0.5))
    assert torch.equal(plan.weight, torch.full((4,), 0.5))


def test_the_blur_is_a_gaussian_of_the_images_pixels() -> None:
    """One bright pixel, far from the border, becomes exp(-d^2 / 2 sigma^2), scaled to a sum of one."""
    maps = torch.zeros(1, 1, 31, 31)
    maps[0, 0, 15, 15] = 5.0
    places = np.arange(31) - 15
    line = np.exp(-0.5 * (places / 2.0) ** 2)
    expected = np.outer(line, line) / line.sum() ** 2
    found = spread(maps, down=2.0, across=2.0)[0, 0]
    torch.testing.assert_close(found, torch.from_numpy(expected).float(), rtol=1e-4, atol=1e-7)


def test_maps_and_pool_may_have_any_resolution() -> None:
    batch = Batch(images=torch.rand(3, 1, 13, 10), targets=torch.rand(3, 2), importance=torch.rand(3, 1, 7, 4))
    pool = Batch(images=torch.rand(5, 1, 13, 10), targets=torch.rand(5, 2), importance=torch.rand(5, 1, 16, 16))
    plan = GuidedMixup().plan(batch, pool, rng=rng(0, "mix"))
    assert isinstance(plan.mask, torch.Tensor)
    assert plan.mask.shape == (3, 1, 13, 10)
    torch.testing.assert_close(plan.weight, plan.mask.mean(dim=(1, 2, 3)))


@pytest.mark.parametrize("settings", [{"sigma": -1.0}, {"sigma": float("nan")}, {"probability": -0.1}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        GuidedMixup(**settings)
