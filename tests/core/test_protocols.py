"""Calling a mixer: labels and pools that do not fit the images are refused, and which images are synthetic is known."""

import subprocess
import sys

import pytest
import torch

from raremix.core.errors import ConfigError, TargetError
from raremix.core.protocols import dense_targets
from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.mix import CutMix, GenMix, MixUp, OneOf

# In a process of its own: the tests' check of shapes at run time would come first.
SHAPES = """
import torch
from raremix.core.errors import RaremixError
from raremix.core.types import Batch
from raremix.mix import CutMix, ResizeMix

x, y, classes = torch.rand(4, 3, 16, 16), torch.eye(4), torch.tensor([0, 1, 2, 1])
five = (torch.rand(5, 3, 16, 16), torch.eye(4)[:3])


def plan():
    batch = Batch(images=x, targets=torch.eye(4).repeat(2, 1))
    return CutMix().plan(batch, batch, rng=__import__("numpy").random.default_rng(0)).apply(batch)


for call in (
    lambda: CutMix()(x, y.repeat(2, 1)),
    lambda: CutMix()(x, y[:3]),
    lambda: CutMix(num_classes=3)(x, classes[:3]),
    lambda: CutMix(num_classes=3)(x, classes[:, None]),
    lambda: CutMix()(x, classes[:, None]),
    lambda: CutMix(num_classes=3)(x, classes + 1),
    lambda: CutMix(num_classes=3)(x, y),
    lambda: CutMix(num_classes=3)(x, y[None]),
    lambda: CutMix(num_classes=3)(x, torch.tensor(1)),
    lambda: CutMix()(x[0], y),
    lambda: CutMix()(x, y, pool=five),
    lambda: CutMix()(x, y, pool=(x, torch.eye(5)[:4])),
    lambda: ResizeMix()(x, y, pool=(x[..., :8], y)),
    lambda: CutMix(num_classes=4)(x, y, pool=(x, classes + 2)),
    plan,
):
    try:
        print("taken", call()[1].shape)
    except RaremixError as error:
        print(type(error).__name__, error)
"""

SAID = [
    "TargetError 4 images, but targets of shape (8, 4): give one row per image",
    "TargetError 4 images, but targets of shape (3, 4): give one row per image",
    "TargetError 4 images, but targets of shape (3,): give one row per image",
    "TargetError targets of shape (4, 1) do not have num_classes = 3 columns: give one column per class, or class "
    "numbers of shape (4,)",
    "TargetError targets of shape (4, 1) hold integers from 0 to 2, where a column holds 0 or 1: class numbers have "
    "shape (4,)",
    "TargetError targets hold classes 1 to 3, but num_classes is 3",
    "TargetError targets of shape (4, 4) do not have num_classes = 3 columns: give one column per class, or class "
    "numbers of shape (4,)",
    "TargetError 4 images, but targets of shape (1, 4, 4): give one row per image",
    "TargetError targets of shape () and type torch.int64 must be integers of shape (B,), class numbers, or have "
    "shape (B, K)",
    "DataError images must have shape (B, C, H, W), got (3, 16, 16): images[None] is one image",
    "TargetError the pool: 5 images, but targets of shape (3, 4): give one row per image",
    "DataError pool has 5 classes, the batch 4: take both from one manifest",
    "DataError pool are for images of shape (3, 16, 8), the batch has (3, 16, 16): resize first",
    "TargetError targets hold classes 2 to 4, but num_classes is 4",
    "DataError the batch has 4 images and 8 rows of targets: give one row per image",
]


def test_what_does_not_fit_the_images_is_refused() -> None:
    done = subprocess.run([sys.executable, "-c", SHAPES], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == SAID


@pytest.mark.parametrize("value", [2, -1])
def test_columns_of_integers_hold_zeros_and_ones(value: int) -> None:
    with pytest.raises(TargetError, match="a column holds 0 or 1"):
        dense_targets(torch.tensor([[0, value]]), num_classes=None)
    assert dense_targets(torch.tensor([[0, 1]]), num_classes=None).tolist() == [[0.0, 1.0]]
    assert dense_targets(torch.zeros(0, 2, dtype=torch.int64), num_classes=None).shape == (0, 2)


@pytest.mark.parametrize(
    "mixer",
    [
        CutMix(pairing="synthetic_with_real"),
        GenMix(pairing="synthetic_with_real", probability=1.0),
        OneOf(mixers=(MixUp(alpha=1.0, pairing="synthetic_with_real"),)),
    ],
)
def test_the_pool_of_a_call_is_the_synthetic_one(mixer: CutMix) -> None:
    """Real images are 0, synthetic ones 1, and both of the same class: every row is mixed."""
    real, synthetic = torch.zeros(64, 3, 16, 16), torch.ones(7, 3, 16, 16)
    mixed, targets = mixer(real, torch.eye(2)[:1].expand(64, 2), pool=(synthetic, torch.eye(2)[1:].expand(7, 2)))
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), targets[:, 1])
    assert float((targets[:, 1] > 0).float().mean()) > 0.9


def test_nothing_that_says_which_are_synthetic_is_no_silent_rest() -> None:
    mixer, images = MixUp(alpha=1.0, pairing="synthetic_with_real"), torch.rand(4, 3, 8, 8)
    with pytest.raises(ConfigError, match=r"Batch\(is_synthetic="):
        mixer(images, torch.eye(4))
    batch = Batch(images=images, targets=torch.eye(4), is_synthetic=torch.tensor([True, True, False, False]))
    partner = mixer.plan(batch, batch, rng=rng(0, "mix")).partner
    assert set(partner[:2].tolist()) <= {2, 3}
    assert set(partner[2:].tolist()) <= {0, 1}
