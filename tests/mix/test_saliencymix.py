"""SaliencyMix: a box computed by hand, each image's own, and maps of any resolution."""

import numpy as np
import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.core.types import Batch, Boxes, MixPlan
from raremix.mix import SaliencyMix


def peaked(cells: list[tuple[int, int]], *, side: tuple[int, int]) -> torch.Tensor:
    """Return maps that are 1 in one cell each."""
    maps = torch.zeros(len(cells), 1, *side)
    for row, (y, x) in enumerate(cells):
        maps[row, 0, y, x] = 1.0
    return maps


def boxes_of(plan: MixPlan) -> np.ndarray:
    assert isinstance(plan.mask, Boxes)
    return plan.mask.edges.numpy()


def test_hand_computed_box() -> None:
    """Peaks in the cells (1, 2) and (3, 0) of 4 x 4, images of 16 x 32 pixels: centres at (6, 20) and (14, 4)."""
    images = torch.arange(2.0)[:, None, None, None].expand(2, 1, 16, 32)
    batch = Batch(images=images, targets=torch.eye(2), importance=peaked([(1, 2), (3, 0)], side=(4, 4)))
    stream = rng(1, "mix")
    assert stream.permutation(2).tolist() == [1, 0]
    half = np.sqrt(1 - stream.random(2)) / 2
    expected = torch.zeros(2, 16, 32)
    for row, (y, x) in enumerate([(14, 4), (6, 20)]):  # the partner's peak
        top, bottom = round(max(y - 16 * half[row], 0)), round(min(y + 16 * half[row], 16))
        left, right = round(max(x - 32 * half[row], 0)), round(min(x + 32 * half[row], 32))
        expected[row, top:bottom, left:right] = 1.0
    mixed = SaliencyMix().plan(batch, batch, rng=rng(1, "mix")).apply(batch)
    assert torch.equal((mixed.images[:, 0] - images[:, 0]).abs(), expected)
    assert mixed.targets.diagonal().tolist() == pytest.approx([1 - float(e.mean()) for e in expected])
    assert 0 < expected.mean() < 1


def test_openmixup_uses_the_box_of_one_image_for_all() -> None:
    """OpenMixup 37e1372: the whole batch gets the box of its first image; here each box holds its partner's peak."""
    generator = np.random.default_rng(0)
    cells = [(int(y), int(x)) for y, x in generator.integers(0, 8, (32, 2))]
    batch = Batch(images=torch.rand(32, 1, 64, 64), targets=torch.rand(32, 2), importance=peaked(cells, side=(8, 8)))
    plan = SaliencyMix(alpha=5.0).plan(batch, batch, rng=rng(0, "mix"))
    boxes = boxes_of(plan)
    for row, partner in enumerate(plan.partner.tolist()):
        y, x = (8 * place + 4 for place in cells[partner])
        top, left, bottom, right = boxes[:, row]
        assert top <= y <= bottom
        assert left <= x <= right
    assert len(np.unique(boxes, axis=1).T) > 24


@pytest.mark.parametrize("side", [(2, 2), (5, 3), (64, 64), (100, 7)])
def test_maps_of_any_resolution_guide(side: tuple[int, int]) -> None:
    last = (side[0] - 1, side[1] - 1)
    batch = Batch(images=torch.rand(4, 1, 30, 40), targets=torch.rand(4, 2), importance=peaked([last] * 4, side=side))
    boxes = boxes_of(SaliencyMix(alpha=9.0).plan(batch, batch, rng=rng(0, "mix")))
    centre = np.array([30 * (side[0] - 0.5) / side[0], 40 * (side[1] - 0.5) / side[1]])
    assert bool((boxes[:2] <= centre[:, None]).all())
    assert bool((boxes[2:] >= np.floor(centre)[:, None]).all())


def test_where_nothing_stands_out_the_centre_is_drawn() -> None:
    images = torch.rand(64, 1, 32, 32)
    batch = Batch(images=images, targets=torch.rand(64, 2), importance=torch.full((64, 1, 4, 4), 0.5))
    boxes = boxes_of(SaliencyMix(alpha=9.0).plan(batch, batch, rng=rng(0, "mix")))
    assert (boxes[0] > 0).mean() > 0.3
    assert (boxes[2] < 32).mean() > 0.3


def test_partners_peaks_come_from_the_pools_maps() -> None:
    images = torch.rand(3, 1, 40, 40)
    batch = Batch(images=images, targets=torch.rand(3, 2), importance=peaked([(0, 0)] * 3, side=(4, 4)))
    pool = Batch(images=images, targets=torch.rand(3, 2), importance=peaked([(9, 9)] * 3, side=(10, 10)))
    boxes = boxes_of(SaliencyMix(alpha=50.0).plan(batch, pool, rng=rng(0, "mix")))
    assert bool((boxes[2:] == 40).all())
    assert bool((boxes[:2] > 10).all())


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"probability": 1.1}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        SaliencyMix(**settings)


def test_without_any_map_it_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="pass importance="):
        SaliencyMix(importance=None)(torch.rand(2, 1, 8, 8), torch.eye(2), rng=rng(0, "mix"))
