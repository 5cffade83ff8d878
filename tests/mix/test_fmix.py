"""FMix: fields are the sums of waves they are said to be, and masks keep exactly the share that was drawn."""

import numpy as np
import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.mix import FMix
from raremix.mix.fmix import DROPPED, low_frequencies


def waves(height: int, width: int) -> list[tuple[int, int]]:
    """Return one of every pair of opposite waves."""
    down = range(-(height // 2), height // 2 + 1)
    return [(y, x) for y in down for x in range(width // 2 + 1) if x > 0 or y > 0]


def test_hand_computed_field() -> None:
    """In an image of 1 x 3 there is one wave: a cos(2 pi x / 3) + b sin(2 pi x / 3), whatever the decay."""
    real, imaginary = rng(0, "mix").standard_normal((1, 2), dtype=np.float32)[0]
    turns = 2 * np.pi * np.arange(3) / 3
    for decay in (0.0, 3.0):
        field = low_frequencies(1, height=1, width=3, decay=decay, rng=rng(0, "mix"))
        np.testing.assert_allclose(field[0, 0], real * np.cos(turns) - imaginary * np.sin(turns), atol=1e-6)


@pytest.mark.parametrize(("height", "width", "decay"), [(16, 16, 3.0), (9, 14, 1.5), (12, 5, 0.0)])
def test_amplitudes_fall_with_frequency(height: int, width: int, decay: float) -> None:
    """The power of every wave, over many fields, is f^(-2 decay); what is left out carries less than `DROPPED`."""
    rows = 6000
    fields = low_frequencies(rows, height=height, width=width, decay=decay, rng=rng(1, "mix")).double().numpy()
    y, x = np.mgrid[:height, :width]
    power, expected = [], []
    for down, across in waves(height, width):
        if 2 * abs(down) == height or 2 * across == width:
            continue  # waves of two pixels: opposite ones are the same, and their power adds up otherwise
        turns = 2 * np.pi * (down * y / height + across * x / width)
        parts = [(fields * part(turns)).sum(axis=(1, 2)) * 2 / (height * width) for part in (np.cos, np.sin)]
        power.append(np.mean([part**2 for part in parts]))
        frequency = np.hypot(down / height, across / width) * max(height, width)
        expected.append(frequency ** (-2 * decay))
    power, expected = np.array(power), np.array(expected)
    is_kept = power > 1e-9
    np.testing.assert_allclose(power[is_kept], expected[is_kept], rtol=8 / rows**0.5)
    assert expected[~is_kept].sum() <= DROPPED * expected.sum()


@pytest.mark.parametrize(("height", "width"), [(28, 28), (7, 13), (80, 60), (1, 2)])
def test_masks_keep_the_share_that_was_drawn(height: int, width: int) -> None:
    """Exactly, in whole pixels, in short and in long rows; and those pixels are the highest of the field."""
    batch = Batch(images=torch.zeros(40, 1, height, width), targets=torch.zeros(40, 1))
    plan = FMix(alpha=0.5).plan(batch, batch, rng=rng(2, "mix"))
    stream = rng(2, "mix")
    stream.permutation(40)
    share = stream.beta(0.5, 0.5, size=40)
    field = low_frequencies(40, height=height, width=width, decay=3.0, rng=stream)
    assert isinstance(plan.mask, torch.Tensor)
    kept = plan.mask[:, 0]
    assert set(kept.unique().tolist()) <= {0.0, 1.0}
    assert kept.sum(dim=(1, 2)).tolist() == np.rint(share * height * width).tolist()
    assert torch.equal(plan.weight, kept.mean(dim=(1, 2)))
    lowest_kept = torch.where(kept > 0, field, torch.inf).amin(dim=(1, 2))
    assert bool((lowest_kept > torch.where(kept > 0, -torch.inf, field).amax(dim=(1, 2))).all())


def test_regions_are_large() -> None:
    """At the paper's decay nearly all neighbours lie on the same side; without any decay, half of them do."""
    for decay, low, high in ((3.0, 0.93, 1.0), (0.0, 0.4, 0.6)):
        kept = low_frequencies(50, height=32, width=32, decay=decay, rng=rng(0, "mix")) > 0
        together = float((kept[:, 1:] == kept[:, :-1]).float().mean())
        assert low < together < high


def test_a_large_decay_is_no_overflow() -> None:
    field = low_frequencies(3, height=200, width=300, decay=500.0, rng=rng(0, "mix"))
    assert bool(field.isfinite().all())
    assert float(field.std()) > 0.1


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"decay": -1.0}, {"decay": float("inf")}, {"probability": 1.5}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        FMix(**settings)
