"""SPMix: shares computed by hand, whose label stays, and where it is mixed."""

import pytest
import torch
from torch import nn

from raremix.core.errors import ConfigError
from raremix.core.features import forward_mixed
from raremix.core.random import rng
from raremix.core.types import Batch, Stream, Streams
from raremix.mix import SPMix
from raremix.mix.spmix import strength


def test_hand_computed_shares() -> None:
    """Patches of 2 pixels: s is .5 + .5 (0, .5, 1, .25) and .5 + .5 (1, 0, 0, 0); r is their larger, at most .8."""
    images = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 1, 2, 8)
    importance = torch.tensor([[0.0, 0.2, 0.3, 0.3, 0.5, 0.5, 0.2, 0.2], [0.8, 0.8, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]])
    importance = importance[:, None, None, :].expand(2, 1, 2, 8)
    batch = Batch(images=images, targets=torch.eye(2), importance=importance)
    plan = SPMix(patch=2).plan(batch, batch, rng=rng(1, "mix"))
    assert plan.partner.tolist() == [1, 0]
    assert isinstance(plan.mask, torch.Tensor)
    expected = torch.tensor([0.8, 0.75, 0.8, 0.625])  # min-max of (.1, .3, .5, .2): (0, .5, 1, .25)
    torch.testing.assert_close(plan.mask[:, 0, 0], expected.expand(2, 4))
    mixed = plan.apply(batch)
    torch.testing.assert_close(mixed.images[0, 0, 0], 1 - expected.repeat_interleave(2))
    assert torch.equal(mixed.targets, torch.eye(2))


def test_every_patch_keeps_a_half_to_four_fifths() -> None:
    batch = Batch(images=torch.rand(16, 3, 28, 28), targets=torch.rand(16, 2), importance=torch.rand(16, 1, 9, 11))
    plan = SPMix().plan(batch, batch, rng=rng(0, "mix"))
    assert isinstance(plan.mask, torch.Tensor)
    assert float(plan.mask.min()) >= 0.5
    assert float(plan.mask.max()) == pytest.approx(0.8)
    assert bool((plan.mask < 0.75).any())


def test_the_share_does_not_depend_on_the_maps_scale() -> None:
    maps = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(strength(maps, cells=(4, 4)), strength(0.1 * maps + 0.3, cells=(4, 4)))
    assert torch.equal(strength(torch.full((1, 1, 8, 8), 0.3), cells=(4, 4)), torch.full((1, 1, 4, 4), 0.5))


def test_the_two_readings_differ_in_who_is_who() -> None:
    balanced, natural = Stream(sampling="balanced"), Stream(sampling="natural")
    assert SPMix().streams == Streams(own=balanced, pool=natural)
    assert SPMix(reading="code").streams == Streams(own=natural, pool=balanced)


@pytest.mark.parametrize(
    ("side", "patch", "cells"),
    [((224, 224), None, (14, 14)), ((256, 320), None, (16, 20)), ((28, 28), None, (14, 14)), ((64, 64), 16, (4, 4))],
)
def test_patches_have_sixteen_pixels_and_less_on_small_images(
    side: tuple[int, int], patch: int | None, cells: tuple[int, int]
) -> None:
    batch = Batch(images=torch.rand(2, 1, *side), targets=torch.eye(2), importance=torch.rand(2, 1, 16, 16))
    plan = SPMix(patch=patch).plan(batch, batch, rng=rng(0, "mix"))
    assert isinstance(plan.mask, torch.Tensor)
    assert plan.mask.shape[-2:] == cells


def test_tokens_are_mixed_where_asked() -> None:
    """A stem of patches of 4 pixels, and 2 tokens more: tokens mix by their patch, labels stay the own ones."""
    stem = nn.Conv2d(3, 5, 4, stride=4)
    model = nn.Sequential(stem, nn.Flatten(), nn.Linear(5 * 16, 2))
    batch = Batch(images=torch.rand(6, 3, 16, 16), targets=torch.eye(2).repeat(3, 1), importance=torch.rand(6, 1, 8, 8))
    plan = SPMix(at="0", patch=4).plan(batch, batch, rng=rng(0, "mix"))
    assert plan.at == "0"
    assert isinstance(plan.mask, torch.Tensor)
    assert plan.mask.shape == (6, 1, 4, 4)
    logits, targets = forward_mixed(model, batch, plan)
    tokens = stem(batch.images)
    mixed = plan.mask * tokens + (1 - plan.mask) * tokens[plan.partner]
    torch.testing.assert_close(logits, model[2](mixed.flatten(1)))
    assert torch.equal(targets, batch.targets)


def test_a_pool_gives_partners_only() -> None:
    own = Batch(images=torch.zeros(4, 1, 16, 16), targets=torch.eye(4), importance=torch.rand(4, 1, 16, 16))
    pool = Batch(images=torch.ones(9, 1, 16, 16), targets=torch.ones(9, 4), importance=torch.rand(9, 1, 4, 4))
    mixed = SPMix().plan(own, pool, rng=rng(0, "mix")).apply(own, pool)
    assert float(mixed.images.min()) >= 0.2 - 1e-6
    assert float(mixed.images.max()) <= 0.5
    assert torch.equal(mixed.targets, torch.eye(4))


@pytest.mark.parametrize("settings", [{"reading": "other"}, {"patch": 0}, {"probability": 3.0}])
def test_impossible_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(Exception, match=next(iter(settings))) as caught:
        SPMix(**settings)  # type: ignore[arg-type]
    assert isinstance(caught.value, ConfigError) or "reading" in settings
