"""Scheduled and Sometimes: when a mixer is in force, and how often."""

import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.core.protocols import Mixer
from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.mix import CMO, CutMix, MixUp, NoMix, OneOf, Scheduled, Sometimes

BATCH = Batch(images=torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), targets=torch.eye(4))


def share_mixed(mixer: Mixer, times: int = 800) -> float:
    stream = rng(0, "mix")
    return sum(bool((mixer.plan(BATCH, BATCH, rng=stream).weight < 1).any()) for _ in range(times)) / times


@pytest.mark.parametrize(
    ("start", "stop", "first", "last"),
    [(0.0, 1.0, 0, 99), (0.1, 0.9, 10, 89), (0.0, 0.5, 0, 49), (0.995, 1.0, 100, 99)],
)
def test_the_mixer_is_in_force_between_start_and_stop(start: float, stop: float, first: int, last: int) -> None:
    mixer = Scheduled(mixer=CutMix(), start=start, stop=stop)
    in_force = [step for step in range(100) if mixer.at_step(step, steps=100) == CutMix()]
    assert in_force == list(range(first, last + 1))
    resting = [mixer.at_step(step, steps=100) for step in range(100) if step not in in_force]
    assert all(given == NoMix() for given in resting)


@pytest.mark.parametrize(("step", "probability"), [(20, 1.0), (40, 0.75), (60, 0.5), (99, 0.0125)])
def test_linear_decay(step: int, probability: float) -> None:
    """From 1 at step 20 of 100 to 0 at step 100."""
    mixer = Scheduled(mixer=MixUp(alpha=1.0), start=0.2, decay="linear")
    given = mixer.at_step(step, steps=100)
    assert isinstance(given, Sometimes)
    assert given.probability == pytest.approx(probability)
    assert mixer.at_step(19, steps=100) == NoMix()
    assert abs(share_mixed(given) - probability) <= 5 * (0.25 / 800) ** 0.5


@pytest.mark.parametrize("decay", [None, "linear"])
@pytest.mark.parametrize("step", [0, 50])
def test_class_numbers_are_taken_at_any_step(decay: None, step: int) -> None:
    mixer = Scheduled(mixer=CutMix(num_classes=3), start=0.2, decay=decay, num_classes=3)
    _, targets = mixer.at_step(step, steps=100)(BATCH.images, torch.tensor([0, 1, 2, 2]), rng=rng(0, "mix"))
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(4))


def test_without_a_step_it_mixes() -> None:
    plan = Scheduled(mixer=CutMix(), start=0.5).plan(BATCH, BATCH, rng=rng(0, "mix"))
    assert torch.equal(plan.weight, CutMix().plan(BATCH, BATCH, rng=rng(0, "mix")).weight)


def test_schedules_may_be_nested_and_keep_streams() -> None:
    inner = Scheduled(mixer=CMO(), start=0.5)
    mixer = Scheduled(mixer=Sometimes(mixer=inner, probability=0.5), stop=0.8)
    assert mixer.streams == CMO().streams
    assert mixer.at_step(10, steps=100) == NoMix()
    assert mixer.at_step(60, steps=100) == Sometimes(mixer=CMO(), probability=0.5)
    assert mixer.at_step(80, steps=100) == NoMix()


@pytest.mark.parametrize(("start", "stop"), [(0.5, 0.5), (-0.1, 1.0), (0.0, 1.1), (0.9, 0.1), (float("nan"), 1.0)])
def test_impossible_schedules_are_refused(start: float, stop: float) -> None:
    with pytest.raises(ConfigError, match="0 <= start < stop <= 1"):
        Scheduled(mixer=CutMix(), start=start, stop=stop)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_sometimes_mixes_whole_batches_with_its_probability(probability: float) -> None:
    share = share_mixed(Sometimes(mixer=MixUp(alpha=1.0), probability=probability))
    assert abs(share - probability) <= 5 * (probability * (1 - probability) / 800) ** 0.5


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_impossible_probabilities_are_refused(probability: float) -> None:
    with pytest.raises(ConfigError, match="probability"):
        Sometimes(mixer=CutMix(), probability=probability)


def test_class_numbers_are_taken_throughout_the_schedule() -> None:
    images, classes = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 0])
    for mixer in (
        Scheduled(mixer=CutMix(), start=0.1, num_classes=2),
        Scheduled(mixer=CutMix(num_classes=2), start=0.1, decay="linear"),
        Sometimes(mixer=CutMix(num_classes=2), probability=0.5),
        OneOf(mixers=(CutMix(num_classes=2), CutMix())),
    ):
        for step in (0, 50):
            assert mixer.at_step(step, steps=100)(images, classes)[1].shape == (4, 2)


def test_a_choice_all_of_whose_mixers_rest_leaves_batches_whole() -> None:
    resting = Sometimes(mixer=Scheduled(mixer=CMO(), start=0.1), probability=0.5)
    mixer = OneOf(mixers=(resting, CMO()))
    assert isinstance(mixer.at_step(0, steps=100), OneOf)
    alone = OneOf(mixers=(resting, resting))
    assert type(alone.at_step(0, steps=100)).__name__ == "NoMix"
