"""Remix: images as by MixUp, labels by a truth table."""

import numpy as np
import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.mix import MixUp, Remix


def test_hand_computed_labels() -> None:
    """Classes of 90, 30 and 10 images, kappa = 3: every pair differs enough, and the rarer wins where it has enough."""
    counts = (90.0, 30.0, 10.0)
    batch = Batch(images=torch.rand(300, 1, 2, 2), targets=torch.eye(3).repeat(100, 1))
    plan = Remix(class_counts=counts).plan(batch, batch, rng=rng(0, "mix"))
    drawn = MixUp(alpha=1.0).plan(batch, batch, rng=rng(0, "mix"))
    assert torch.equal(torch.as_tensor(plan.mask), torch.as_tensor(drawn.mask))
    seen = set()
    for row in range(300):
        own, partner, w = row % 3, int(plan.partner[row]) % 3, float(drawn.weight[row])
        if own < partner and w < 0.5:  # the partner is rarer, and the own share is small
            expected, case = 0.0, "partner's"
        elif own > partner and 1 - w < 0.5:
            expected, case = 1.0, "own"
        else:
            expected, case = w, "mixed"
        assert float(plan.weight[row]) == expected
        seen.add(case)
    assert seen == {"partner's", "own", "mixed"}


def test_counts_come_from_the_pool_where_none_are_given() -> None:
    classes = torch.tensor([0] * 30 + [1] * 10)
    batch = Batch(images=torch.rand(40, 1, 2, 2), targets=torch.eye(2)[classes])
    counted = Remix().plan(batch, batch, rng=rng(0, "mix"))
    given = Remix(class_counts=(30.0, 10.0)).plan(batch, batch, rng=rng(0, "mix"))
    equal = Remix(class_counts=(1.0, 1.0)).plan(batch, batch, rng=rng(0, "mix"))
    assert torch.equal(counted.weight, given.weight)
    assert not torch.equal(counted.weight, equal.weight)
    assert torch.equal(equal.weight, torch.as_tensor(equal.mask).flatten())


def test_kappa_and_tau_are_heeded() -> None:
    classes = torch.tensor([0] * 30 + [1] * 10)
    batch = Batch(images=torch.rand(40, 1, 2, 2), targets=torch.eye(2)[classes])
    plans = {
        (kappa, tau): Remix(kappa=kappa, tau=tau).plan(batch, batch, rng=rng(0, "mix")).weight
        for kappa, tau in ((3.0, 0.5), (3.1, 0.5), (3.0, 0.0), (3.0, 1.0))
    }
    drawn = MixUp(alpha=1.0).plan(batch, batch, rng=rng(0, "mix")).weight
    assert torch.equal(plans[3.1, 0.5], drawn)
    assert torch.equal(plans[3.0, 0.0], drawn)
    partner = MixUp(alpha=1.0).plan(batch, batch, rng=rng(0, "mix")).partner
    is_apart = classes != classes[partner]
    # With tau = 1 the rarer class takes every mixed label.
    assert plans[3.0, 1.0][is_apart].tolist() == classes[is_apart].float().tolist()
    assert 0 < int((plans[3.0, 0.5] != drawn).sum()) < int(is_apart.sum())


def test_rows_without_labels_and_whole_rows() -> None:
    targets = torch.tensor([[0.0, 0.0], [torch.nan, torch.nan], [1.0, 1.0], [0.0, 0.0]])
    batch = Batch(images=torch.rand(4, 1, 2, 2), targets=targets)
    plan = Remix(class_counts=(9.0, 1.0)).plan(batch, batch, rng=rng(0, "mix"))
    assert bool(((plan.weight >= 0) & (plan.weight <= 1)).all())
    never = Remix(class_counts=(9.0, 1.0), probability=0.0).plan(batch, batch, rng=rng(0, "mix"))
    assert never.weight.tolist() == [1.0] * 4


def test_another_label_rule_may_be_asked_for() -> None:
    batch = Batch(images=torch.rand(9, 1, 2, 2), targets=torch.eye(3).repeat(3, 1))
    plan = Remix(class_counts=(90.0, 9.0, 1.0), label="area").plan(batch, batch, rng=rng(0, "mix"))
    np.testing.assert_array_equal(plan.weight, torch.as_tensor(plan.mask).flatten())


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"kappa": 0.9}, {"tau": 1.1}, {"kappa": float("nan")}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Remix(**settings)
