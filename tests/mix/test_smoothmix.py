"""SmoothMix: spots computed by hand, no edges, and labels that weigh every pixel's share."""

from math import exp, hypot

import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.mix import SmoothMix


def mask_of(mixer: SmoothMix, rows: int, height: int, width: int, *, seed: int = 0) -> torch.Tensor:
    batch = Batch(images=torch.zeros(rows, 1, height, width), targets=torch.zeros(rows, 1))
    plan = mixer.plan(batch, batch, rng=rng(seed, "mix"))
    assert isinstance(plan.mask, torch.Tensor)
    torch.testing.assert_close(plan.weight, plan.mask.mean(dim=(1, 2, 3)))
    return plan.mask[:, 0]


@pytest.mark.parametrize("shape", ["circle", "square"])
def test_hand_computed_spot(shape: str) -> None:
    stream = rng(0, "mix")
    stream.permutation(2)
    (y, x), s = stream.random((2, 2, 1))[:, 0, 0], stream.uniform(0.25, 0.5, size=(2, 1))[0, 0]
    kept = mask_of(SmoothMix(shape=shape), 2, 10, 20)[0]  # type: ignore[arg-type]
    for row, column in ((0, 0), (4, 7), (9, 19), (5, 12)):
        down, across = abs((row + 0.5) / 10 - y), abs((column + 0.5) / 20 - x)
        if shape == "circle":
            partner = exp(-(hypot(down, across) ** 2) / (2 * s**2))
        else:
            beyond = [max(d - s / 2, 0.0) for d in (down, across)]
            partner = exp(-(hypot(*beyond) ** 2) / (2 * (s / 2) ** 2))
        assert float(kept[row, column]) == pytest.approx(1 - partner, abs=1e-5)


@pytest.mark.parametrize("shape", ["circle", "square"])
def test_there_is_no_edge(shape: str) -> None:
    """At 224 pixels no two neighbours differ by more than the steepest slope of the narrowest spot."""
    kept = mask_of(SmoothMix(shape=shape), 40, 224, 224)  # type: ignore[arg-type]
    widths = 0.25 if shape == "circle" else 0.125
    steepest = exp(-0.5) / widths / 224 * 1.01
    assert float(kept.diff(dim=1).abs().max()) < steepest
    assert float(kept.diff(dim=2).abs().max()) < steepest
    assert bool(((kept >= 0) & (kept <= 1)).all())


def test_a_square_is_flat_in_the_middle() -> None:
    kept = mask_of(SmoothMix(shape="square", spread=(0.5, 0.5)), 20, 100, 100)
    is_partner = (kept == 0).sum(dim=(1, 2)) / 10_000
    assert float(is_partner.max()) <= 0.51 * 0.51
    assert float(is_partner.min()) >= 0.24 * 0.24  # a quarter of the square where its centre is a corner


def test_centres_are_uniform() -> None:
    kept = mask_of(SmoothMix(spread=(0.05, 0.05)), 2000, 20, 20)
    darkest = kept.flatten(1).argmin(dim=1)
    rows, columns = darkest // 20, darkest % 20
    for place in (rows, columns):
        counts = torch.bincount(place, minlength=20)
        assert float((counts - 100).abs().max()) < 5 * (2000 * 0.05 * 0.95) ** 0.5


@pytest.mark.parametrize("spread", [(0.0, 0.5), (0.5, 0.4), (0.1, float("inf"))])
def test_impossible_spreads_are_refused(spread: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="spread"):
        SmoothMix(spread=spread)
