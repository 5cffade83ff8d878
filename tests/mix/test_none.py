"""NoMix: everything comes out as it went in."""

import torch

from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.mix import NoMix


def test_nothing_changes_and_nothing_is_drawn() -> None:
    images, targets = torch.rand(3, 2, 4, 5), torch.tensor([[1.0, 0.0], [torch.nan, 0.5], [0.0, 1.0]])
    stream = rng(0, "mix")
    before = stream.bit_generator.state["state"]["counter"].tolist()
    mixed, new_targets = NoMix()(images, targets, rng=stream)
    assert torch.equal(mixed, images)
    assert torch.equal(new_targets.nan_to_num(9.0), targets.nan_to_num(9.0))
    assert stream.bit_generator.state["state"]["counter"].tolist() == before


def test_a_pool_is_not_looked_at() -> None:
    batch = Batch(images=torch.rand(3, 1, 4, 4), targets=torch.rand(3, 2))
    pool = Batch(images=torch.full((1, 1, 4, 4), 7.0), targets=torch.full((1, 2), torch.nan))
    mixed = NoMix().plan(batch, pool, rng=rng(0, "mix")).apply(batch, pool)
    assert torch.equal(mixed.images, batch.images)
    assert torch.equal(mixed.targets, batch.targets)
