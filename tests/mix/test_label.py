"""Label rules: truth tables computed by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from raremix.core.random import rng
from raremix.core.types import Batch, Boxes
from raremix.mix import CutMix, MixUp
from raremix.mix.label import mass, remix


def test_mass_is_the_importance_that_is_left() -> None:
    """Of the own image 3 of 4 parts lie where the mask keeps it, of the partner 1 of 5 where it fills."""
    mask = torch.tensor([[[[1.0, 0.0]]]])
    own, partner = torch.tensor([[[[0.75, 0.25]]]]), torch.tensor([[[[0.8, 0.2]]]])
    assert mass(mask, own, partner).tolist() == pytest.approx([0.75 / (0.75 + 0.2)])


def test_mass_weighs_amounts() -> None:
    """Half of each map is kept, but the own map holds three times as much."""
    mask = torch.full((1, 1, 1, 1), 0.5)
    assert mass(mask, torch.full((1, 1, 2, 2), 0.9), torch.full((1, 1, 2, 2), 0.3)).tolist() == pytest.approx([0.75])


def test_mass_of_boxes_and_of_maps_of_another_size() -> None:
    """A box over the right half of 4 x 8 pixels; the maps are 2 x 2, and all that matters lies in its top left cell."""
    box = Boxes(edges=torch.tensor([[0], [4], [4], [8]]), height=4, width=8)
    spot = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    flat = torch.ones(1, 1, 2, 2)
    assert mass(box, spot, spot).tolist() == [1.0]
    assert mass(box, flat, spot).tolist() == [1.0]
    assert mass(box, spot, flat).tolist() == pytest.approx([1 / 3])
    assert mass(box, flat, flat).tolist() == pytest.approx([0.5])


def test_where_nothing_important_is_left_mass_is_area() -> None:
    mask = torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]])
    nothing = torch.zeros(1, 1, 1, 4)
    assert mass(mask, nothing, nothing).tolist() == [0.25]
    assert mass(mask, 1 - mask, mask).tolist() == [0.25]  # what matters of either is hidden by the other


def test_a_method_weighs_by_mass_when_asked() -> None:
    importance = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    batch = Batch(images=torch.rand(6, 1, 16, 16), targets=torch.eye(6), importance=importance)
    plan = CutMix(label="mass").plan(batch, batch, rng=rng(0, "mix"))
    assert isinstance(plan.mask, Boxes)
    kept = importance.repeat_interleave(4, 2).repeat_interleave(4, 3) * plan.mask.to_mask()
    given = importance[plan.partner].repeat_interleave(4, 2).repeat_interleave(4, 3) * (1 - plan.mask.to_mask())
    kept, given = kept.sum(dim=(1, 2, 3)), given.sum(dim=(1, 2, 3))
    torch.testing.assert_close(plan.weight, kept / (kept + given))
    plain = CutMix().plan(replace(batch, importance=None), replace(batch, importance=None), rng=rng(0, "mix"))
    assert isinstance(plain.mask, Boxes)
    assert torch.equal(plan.mask.edges, plain.mask.edges)


def test_keep_keeps_the_own_label() -> None:
    batch = Batch(images=torch.rand(6, 1, 8, 8), targets=torch.eye(6))
    plan = MixUp(alpha=1.0, label="keep").plan(batch, batch, rng=rng(0, "mix"))
    mixed = plan.apply(batch)
    assert torch.equal(mixed.targets, batch.targets)
    assert not torch.equal(mixed.images, batch.images)


@pytest.mark.parametrize(
    ("own", "partner", "weight", "expected"),
    [
        (90, 10, 0.4, 0.0),  # own much more frequent, and its share small: the partner's
        (90, 10, 0.6, 0.6),  # its share is large: as mixed
        (90, 10, 0.5, 0.5),  # the share must lie below tau
        (30, 10, 0.4, 0.0),  # exactly kappa times
        (29, 10, 0.4, 0.4),  # not quite kappa times
        (10, 90, 0.6, 1.0),  # own much rarer, and the other's share small: own
        (10, 90, 0.4, 0.4),
        (10, 90, 0.5, 0.5),
        (10, 30, 0.6, 1.0),
        (10, 29, 0.6, 0.6),
        (10, 10, 0.1, 0.1),
        (np.inf, 10, 0.4, 0.0),  # a row without labels is more frequent than all
        (10, np.inf, 0.6, 1.0),
        (np.inf, np.inf, 0.3, 0.3),
        (0, 10, 0.6, 1.0),  # a class that training never saw
        (10, 0, 0.4, 0.0),
    ],
)
def test_remix_truth_table(own: float, partner: float, weight: float, expected: float) -> None:
    given = torch.tensor([weight])
    assert remix(given, np.array([float(own)]), np.array([float(partner)])).tolist() == pytest.approx([expected])
    assert given.tolist() == pytest.approx([weight])


def test_remix_settings() -> None:
    weight, own, partner = torch.tensor([0.4, 0.7]), np.array([50.0, 50.0]), np.array([10.0, 10.0])
    assert remix(weight, own, partner, kappa=5.1).tolist() == pytest.approx([0.4, 0.7])
    assert remix(weight, own, partner, tau=0.8).tolist() == [0.0, 0.0]
    assert remix(weight, own, partner, tau=0.0).tolist() == pytest.approx([0.4, 0.7])
    one = np.array([10.0, 10.0])
    assert remix(weight, one, one, kappa=3.0, tau=1.0).tolist() == pytest.approx([0.4, 0.7])


def test_maps_of_two_sizes_are_compared_at_the_own_maps() -> None:
    own = torch.tensor([[[[1.0, 0.0]]]])
    partner = torch.tensor([[[[0.0, 0.0, 0.4, 0.8]]]])
    mask = torch.tensor([[[[1.0, 0.0]]]])
    torch.testing.assert_close(mass(mask, own=own, partner=partner), torch.tensor([1.0 / 1.6]))
