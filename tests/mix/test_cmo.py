"""CMO: a box of the pool's image on the row's own, half of the time."""

import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.core.types import Batch, Boxes, Stream, Streams
from raremix.mix import CMO, CutMix, NoMix, Scheduled


def test_foregrounds_lie_on_backgrounds() -> None:
    """Backgrounds are 0, foregrounds 1: the box is the foreground's, and the label counts its pixels."""
    background = Batch(images=torch.zeros(50, 1, 12, 12), targets=torch.tensor([[1.0, 0.0]]).repeat(50, 1))
    foreground = Batch(images=torch.ones(20, 1, 12, 12), targets=torch.tensor([[0.0, 1.0]]).repeat(20, 1))
    plan = CMO().plan(background, foreground, rng=rng(0, "mix"))
    mixed = plan.apply(background, foreground)
    assert isinstance(plan.mask, Boxes)
    for row, (top, left, bottom, right) in enumerate(plan.mask.edges.T.tolist()):
        expected = torch.zeros(12, 12)
        expected[top:bottom, left:right] = 1.0
        assert torch.equal(mixed.images[row, 0], expected)
    torch.testing.assert_close(mixed.targets[:, 1], mixed.images.mean(dim=(1, 2, 3)), rtol=0, atol=1e-6)
    assert plan.partner.max() < 20


def test_half_of_the_rows_are_mixed() -> None:
    batch = Batch(images=torch.zeros(4000, 1, 64, 64), targets=torch.zeros(4000, 1))
    share = float((CMO(alpha=4.0).plan(batch, batch, rng=rng(0, "mix")).weight < 1).float().mean())
    assert share == pytest.approx(0.5, abs=5 * (0.25 / 4000) ** 0.5)


def test_box_and_label_are_cutmixs() -> None:
    batch = Batch(images=torch.rand(9, 1, 16, 10), targets=torch.eye(9))
    plan, expected = (
        mixer.plan(batch, batch, rng=rng(0, "mix")) for mixer in (CMO(probability=1.0), CutMix(probability=1.0))
    )
    assert isinstance(plan.mask, Boxes)
    assert isinstance(expected.mask, Boxes)
    assert torch.equal(plan.mask.edges, expected.mask.edges)
    assert torch.equal(plan.weight, expected.weight)


def test_streams_survive_a_schedule() -> None:
    """The first and last 3 of 100 epochs without, as in the authors' code; the streams stay."""
    scheduled = Scheduled(mixer=CMO(), start=0.03, stop=0.97)
    assert scheduled.streams == Streams(own=Stream(sampling="natural"), pool=Stream(sampling="balanced"))
    in_force = [isinstance(scheduled.at_step(step, steps=100), CMO) for step in range(100)]
    assert in_force == [False] * 3 + [True] * 94 + [False] * 3
    assert isinstance(scheduled.at_step(0, steps=100), NoMix)


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"probability": 1.1}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        CMO(**settings)
