"""OneOf: methods are drawn by their probabilities, batch by batch."""

import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.core.types import Batch, Boxes
from raremix.mix import CMO, BalancedMixUp, CutMix, MixUp, NoMix, OneOf, Scheduled

BATCH = Batch(images=torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), targets=torch.eye(4))


@pytest.mark.parametrize(
    ("probabilities", "share"),
    [(None, 0.5), ((3.0, 1.0), 0.75), ((0.2, 0.8), 0.2), ((0.0, 1.0), 0.0), ((1.0, 0.0), 1.0)],
)
def test_methods_are_drawn_by_their_probabilities(probabilities: tuple[float, ...] | None, share: float) -> None:
    mixer, stream = OneOf(mixers=(CutMix(), MixUp()), probabilities=probabilities), rng(0, "mix")
    cut = sum(isinstance(mixer.plan(BATCH, BATCH, rng=stream).mask, Boxes) for _ in range(800))
    assert abs(cut / 800 - share) <= 5 * (share * (1 - share) / 800) ** 0.5


def test_the_drawn_method_plans_with_the_same_stream() -> None:
    mixer = OneOf(mixers=(CutMix(), MixUp()), probabilities=(1.0, 0.0))
    stream = rng(4, "mix")
    stream.random()
    expected = CutMix().plan(BATCH, BATCH, rng=stream)
    assert torch.equal(mixer.plan(BATCH, BATCH, rng=rng(4, "mix")).weight, expected.weight)


def test_class_numbers_are_taken() -> None:
    mixer = OneOf(mixers=(CutMix(), MixUp()), num_classes=3)
    _, targets = mixer(BATCH.images, torch.tensor([0, 1, 2, 2]), rng=rng(0, "mix"))
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(4))


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [((1.0,), "each one a number"), ((1.0, -1.0), "each one a number"), ((0.0, 0.0), "each one a number")],
)
def test_probabilities_must_fit(probabilities: tuple[float, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OneOf(mixers=(CutMix(), MixUp()), probabilities=probabilities)


def test_no_mixers_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one mixer"):
        OneOf(mixers=())


def test_mixers_of_different_streams_are_refused() -> None:
    with pytest.raises(ConfigError, match="different streams"):
        OneOf(mixers=(CMO(), MixUp()))


def test_mixers_of_the_same_streams_share_them() -> None:
    assert OneOf(mixers=(CMO(), BalancedMixUp())).streams == CMO().streams


def test_schedules_inside_are_followed() -> None:
    late = OneOf(mixers=(Scheduled(mixer=CutMix(), start=0.5), MixUp()), num_classes=4)
    assert late.at_step(0, steps=10) == OneOf(mixers=(NoMix(), MixUp()), num_classes=4)
    assert late.at_step(5, steps=10) == OneOf(mixers=(CutMix(), MixUp()), num_classes=4)


def test_a_schedule_inside_does_not_change_the_streams() -> None:
    """While one of them rests, the loader goes on as it was."""
    mixer = OneOf(mixers=(Scheduled(mixer=CMO(), start=0.5), BalancedMixUp()))
    resting = mixer.at_step(0, steps=10)
    assert resting.streams == mixer.streams
    assert isinstance(resting, OneOf)
    assert isinstance(resting.mixers[0], NoMix)
