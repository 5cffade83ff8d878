"""GridMix: cells computed by hand, of equal and of unequal size."""

import numpy as np
import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.mix import GridMix
from raremix.mix.gridmix import _cells


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 3)])
def test_hand_computed_cells(height: int, width: int) -> None:
    """A grid of 2 x 2 divides 4 x 6 pixels evenly, and 5 x 3 into cells of 3 and 2 rows, 2 and 1 columns."""
    images = torch.arange(2.0)[:, None, None, None].expand(2, 1, height, width)
    stream = rng(1, "mix")
    assert stream.permutation(2).tolist() == [1, 0]
    share = stream.random(2)
    kept = stream.random((2, 2, 2)) < share[:, None, None]
    rows, columns = {4: (2, 2), 5: (3, 2)}[height], {6: (3, 3), 3: (2, 1)}[width]
    expected = torch.cat(
        [
            torch.cat([torch.full((tall, wide), float(not kept[0, i, j])) for j, wide in enumerate(columns)], dim=1)
            for i, tall in enumerate(rows)
        ]
    )
    mixed, targets = GridMix(grid=2)(images, torch.eye(2), rng=rng(1, "mix"))
    assert torch.equal(mixed[0, 0], expected)
    assert targets[0].tolist() == pytest.approx([1 - expected.mean().item(), expected.mean().item()])
    assert 0 < expected.mean() < 1


@pytest.mark.parametrize(("height", "width", "grid"), [(28, 28, 4), (17, 40, 4), (3, 9, 5), (1, 1, 4), (8, 12, 1)])
def test_every_pixel_is_of_one_image_and_in_the_label(height: int, width: int, grid: int) -> None:
    rows = 16
    images = torch.arange(float(rows))[:, None, None, None].expand(rows, 2, height, width)
    mixed, targets = GridMix(grid=grid)(images, torch.eye(rows), rng=rng(0, "mix"))
    counted = torch.stack([(mixed[:, 0] == i).sum(dim=(1, 2)) for i in range(rows)], dim=1)
    assert counted.sum(dim=1).tolist() == [height * width] * rows
    torch.testing.assert_close(targets, counted / (height * width), rtol=0, atol=1e-6)


def test_cells_are_kept_with_the_share_that_was_drawn() -> None:
    batch = Batch(images=torch.zeros(5000, 1, 8, 8), targets=torch.zeros(5000, 1))
    plan = GridMix(alpha=0.3, grid=8).plan(batch, batch, rng=rng(3, "mix"))
    variance = 1 / (4 * 1.6)  # of Beta(0.3, 0.3); of the mean of 64 cells: that plus E[w (1 - w)] / 64
    assert float(plan.weight.mean()) == pytest.approx(0.5, abs=5 * (variance / 5000) ** 0.5)
    assert float(plan.weight.double().var()) == pytest.approx(variance + (0.25 - variance) / 64, rel=0.05)


@pytest.mark.parametrize("settings", [{"alpha": -1.0}, {"grid": 0}, {"probability": 1.5}])
def test_impossible_settings_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        GridMix(**settings)


@pytest.mark.parametrize(("length", "grid"), [(5, 4), (17, 4), (28, 5), (3, 2), (8, 8)])
def test_cells_differ_by_a_pixel_at_most(length: int, grid: int) -> None:
    sizes = np.bincount(_cells(length, grid), minlength=grid)
    assert len(sizes) == grid
    assert sizes.max() - sizes.min() <= 1
