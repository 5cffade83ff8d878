"""GenMix: real with generated images, and nothing else."""

import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.core.types import Stream, Streams
from raremix.mix import GenMix


def test_hand_computed_blend() -> None:
    """Real images are 0, generated ones 1: a pixel is the share of the generated one, and so is the label."""
    stream = rng(3, "mix")
    partner = stream.permutation(5)[:4]
    chosen = stream.random(4) < 0.5
    share = stream.random(4)
    real, synthetic = torch.zeros(4, 1, 2, 2), torch.ones(5, 1, 2, 2)
    mixed, targets = GenMix()(real, torch.eye(9)[:4], pool=(synthetic, torch.eye(9)[4:]), rng=rng(3, "mix"))
    expected = torch.where(torch.from_numpy(chosen), 1 - torch.from_numpy(share).float(), 0.0)
    assert 0 < chosen.sum() < 4
    torch.testing.assert_close(mixed[:, 0, 0, 0], expected)
    torch.testing.assert_close(targets[torch.arange(4), 4 + torch.from_numpy(partner)], expected)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(4))


def test_every_partner_is_a_generated_image() -> None:
    real, synthetic = torch.zeros(64, 1, 2, 2), torch.ones(16, 1, 2, 2)
    mixed, targets = GenMix(probability=1.0)(
        real, torch.eye(2)[:1].expand(64, 2), pool=(synthetic, torch.eye(2)[1:].expand(16, 2)), rng=rng(0, "mix")
    )
    torch.testing.assert_close(mixed[:, 0, 0, 0], targets[:, 1])
    assert float(targets[:, 1].mean()) == pytest.approx(0.5, abs=0.1)


def test_same_class_keeps_the_label() -> None:
    classes, others = torch.tensor([0, 1, 2, 2, 1, 0]), torch.tensor([2, 1, 0])
    mixer = GenMix(pairing="same_class", probability=1.0, num_classes=3)
    mixed, targets = mixer(torch.zeros(6, 1, 2, 2), classes, pool=(torch.ones(3, 1, 2, 2), others), rng=rng(0, "mix"))
    torch.testing.assert_close(targets, torch.eye(3)[classes])
    assert float(mixed.amin()) > 0


def test_a_study_feeds_real_images_and_generated_ones() -> None:
    own, pool = Stream(sampling="natural", origin="real"), Stream(sampling="balanced", origin="synthetic")
    assert GenMix().streams == Streams(own=own, pool=pool, repeat=None)
    assert GenMix(offline_images=500).streams == Streams(own=own, pool=pool, repeat=500)


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"probability": 1.5}, {"offline_images": 0}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        GenMix(**settings)  # type: ignore[arg-type]
