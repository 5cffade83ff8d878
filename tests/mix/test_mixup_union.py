"""MixUpUnion: MixUp by another stream."""

import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.core.types import Stream, Streams
from raremix.mix import GenMix, MixUp, MixUpUnion


def test_it_is_mixup() -> None:
    images, targets = torch.rand(8, 1, 4, 4), torch.eye(8)
    mixed, labels = MixUpUnion(alpha=0.7, probability=0.6)(images, targets, rng=rng(0, "mix"))
    expected, wanted = MixUp(alpha=0.7, probability=0.6)(images, targets, rng=rng(0, "mix"))
    assert torch.equal(mixed, expected)
    assert torch.equal(labels, wanted)


def test_real_and_generated_images_come_in_one_stream() -> None:
    assert MixUpUnion().streams == Streams(own=Stream(sampling="natural", origin="any"), pool=None)


def test_it_is_as_strong_as_what_it_controls() -> None:
    assert (MixUpUnion().alpha, MixUpUnion().probability) == (GenMix().alpha, GenMix().probability)


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"probability": -0.5}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        MixUpUnion(**settings)
