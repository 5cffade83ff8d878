"""TransMix: the label is what the mixed image is looked at for."""

from dataclasses import dataclass

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.core.types import Batch, Boxes
from raremix.mix import TransMix
from raremix.mix import label as rules


@dataclass(frozen=True, kw_only=True)
class Brightness:
    """Importance is brightness."""

    def __call__(self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"]) -> Float[Tensor, "B 1 H W"]:
        return images[:, :1]


def test_the_mixed_image_is_looked_at() -> None:
    """Images of brightness 1 and 3: a box of share s of the brighter weighs 3 s / (3 s + 1 (1 - s))."""
    images = torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1).expand(2, 1, 16, 24).contiguous()
    batch = Batch(images=images, targets=torch.eye(2))
    plan = TransMix(importance=Brightness()).plan(batch, batch, rng=rng(1, "mix"))
    assert plan.partner.tolist() == [1, 0]
    assert isinstance(plan.mask, Boxes)
    area = plan.mask.share()
    expected = torch.stack([area[0] / (area[0] + 3 * (1 - area[0])), 3 * area[1] / (3 * area[1] + 1 - area[1])])
    torch.testing.assert_close(plan.weight, expected)
    half = TransMix(importance=Brightness(), area_share=0.5).plan(batch, batch, rng=rng(1, "mix"))
    torch.testing.assert_close(half.weight, (expected + area) / 2)


def test_maps_of_single_images_weigh_by_mass() -> None:
    maps = torch.rand(8, 1, 4, 6, generator=torch.Generator().manual_seed(0))
    batch = Batch(images=torch.rand(8, 2, 16, 24), targets=torch.eye(8), importance=maps)
    plan = TransMix().plan(batch, batch, rng=rng(0, "mix"))
    torch.testing.assert_close(plan.weight, rules.mass(plan.mask, maps, maps[plan.partner]))


def test_a_pool_may_bring_maps_of_another_resolution() -> None:
    """Both are flat: the mass is the area, whatever the resolution."""
    images = torch.rand(4, 1, 16, 16)
    batch = Batch(images=images, targets=torch.rand(4, 2), importance=torch.ones(4, 1, 7, 3))
    pool = Batch(images=images, targets=torch.rand(4, 2), importance=torch.ones(4, 1, 32, 32))
    plan = TransMix().plan(batch, pool, rng=rng(0, "mix"))
    assert isinstance(plan.mask, Boxes)
    total = plan.mask.share() * 21 + (1 - plan.mask.share()) * 21
    torch.testing.assert_close(plan.weight, plan.mask.share() * 21 / total)


def test_what_is_not_seen_weighs_by_area() -> None:
    batch = Batch(images=torch.zeros(8, 1, 16, 16), targets=torch.rand(8, 2))
    plan = TransMix(importance=Brightness()).plan(batch, batch, rng=rng(0, "mix"))
    assert isinstance(plan.mask, Boxes)
    assert torch.equal(plan.weight, plan.mask.share())


def test_whole_rows_keep_their_label() -> None:
    batch = Batch(images=torch.rand(200, 1, 8, 8), targets=torch.rand(200, 2))
    plan = TransMix(importance=Brightness(), probability=0.5).plan(batch, batch, rng=rng(0, "mix"))
    assert isinstance(plan.mask, Boxes)
    is_whole = plan.mask.share() == 1
    assert 0.3 < float(is_whole.float().mean()) < 0.7
    assert bool((plan.weight[is_whole] == 1).all())


def test_maps_of_one_side_alone_are_not_enough() -> None:
    images, targets = torch.rand(2, 1, 8, 8), torch.eye(2)
    batch = Batch(images=images, targets=targets, importance=torch.rand(2, 1, 4, 4))
    pool = Batch(images=images, targets=targets)
    with pytest.raises(ConfigError, match="pass importance="):
        TransMix(importance=None).plan(batch, pool, rng=rng(0, "mix"))


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"area_share": 1.5}, {"probability": -1.0}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        TransMix(**settings)
