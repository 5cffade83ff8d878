"""Masks: boxes lie inside the image, have the area that was asked for, and are counted after clipping."""

import numpy as np
import pytest
import torch

from raremix.core.random import rng
from raremix.core.types import Boxes
from raremix.mix import label
from raremix.mix.mask import blend, random_boxes


def test_blend_keeps_one_share_per_row() -> None:
    mask = blend(np.array([0.25, 1.0]))
    assert mask.shape == (2, 1, 1, 1)
    assert mask.flatten().tolist() == [0.25, 1.0]
    assert label.area(mask).tolist() == [0.25, 1.0]


@pytest.mark.parametrize(("height", "width"), [(28, 28), (5, 31), (1, 1), (224, 3)])
def test_boxes_lie_inside_the_image(height: int, width: int) -> None:
    stream = rng(0, "mask")
    boxes = random_boxes(stream.beta(0.5, 0.5, size=500), height=height, width=width, rng=stream)
    top, left, bottom, right = boxes.edges
    for low, high, length in ((top, bottom, height), (left, right, width)):
        assert bool((low >= 0).all() and (low <= high).all() and (high <= length).all())


def test_a_box_that_is_not_clipped_has_the_area_that_was_asked_for() -> None:
    boxes = random_boxes(np.full(400, 0.75), height=40, width=80, rng=rng(0, "mask"))
    top, left, bottom, right = boxes.edges
    is_whole = (top > 0) & (left > 0) & (bottom < 40) & (right < 80)
    assert 0.15 < float(is_whole.float().mean()) < 0.35  # (1/2 of the centres)^2 leave the box inside
    assert bool((boxes.share()[is_whole] == 0.75).all())
    assert bool((boxes.share() >= 0.75).all())


def test_the_mean_clipped_area_is_that_of_uniform_centres() -> None:
    # A side of s * n around a uniform centre keeps s - s^2 / 4 of n after clipping, for s <= 1 and large n.
    share = 0.64
    boxes = random_boxes(np.full(20_000, share), height=1000, width=1000, rng=rng(0, "mask"))
    side = (1 - share) ** 0.5
    expected = (side - side**2 / 4) ** 2
    assert float(1 - boxes.share().double().mean()) == pytest.approx(expected, abs=0.004)


def test_whole_and_empty_rows() -> None:
    kept = random_boxes(np.ones(50), height=9, width=7, rng=rng(0, "mask"))
    assert bool((kept.share() == 1).all())
    given = random_boxes(np.zeros(50), height=9, width=7, rng=rng(0, "mask"))
    assert bool((given.edges[2] - given.edges[0] >= 9 // 2).all())


def test_area_is_the_mean_of_the_mask() -> None:
    mask = torch.tensor([[[[1.0, 0.0], [0.5, 0.25]]], [[[0.0, 0.0], [0.0, 0.0]]]])
    assert label.area(mask).tolist() == [0.4375, 0.0]
    boxes = Boxes(edges=torch.tensor([[0, 2], [1, 0], [2, 2], [4, 4]]), height=3, width=4)
    assert label.area(boxes).tolist() == [0.5, 1.0]
    assert torch.equal(label.area(boxes.to_mask()), label.area(boxes))
