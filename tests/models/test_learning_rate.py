"""What rate a study takes where its file names none."""

from typing import Any

import pytest
import timm

from raremix.models.learning_rate import CONVOLUTIONAL, usual_learning_rate


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50", 3e-4),
        ("mobilenetv2_100", 3e-4),
        ("efficientnet_b0.ra_in1k", 3e-4),
        ("inception_v3", 3e-4),
        ("densenet121", 3e-4),
        ("vgg16", 1e-4),
        ("convnext_tiny.fb_in1k", 1e-4),
        ("vit_small_patch16_224", 1e-4),
        ("swinv2_tiny_window8_256", 1e-4),
        ("vit_small_resnet50d_s16_224", 1e-4),
    ],
)
def test_of_a_network_with_weights(name: str, expected: float) -> None:
    assert usual_learning_rate(name, fine_tuned=True) == expected
    assert usual_learning_rate(name, fine_tuned=False) == 1e-3
    assert usual_learning_rate(name, fine_tuned=True, frozen=True) == 3e-3


def test_the_families_are_timm_s() -> None:
    """A family that timm renames would silently get the other rate."""
    known: Any = {timm.models.model_entrypoint(name).__module__.rsplit(".", 1)[1] for name in timm.list_models()}
    assert known >= CONVOLUTIONAL
