"""Masks at the resolution where they are used."""

import pytest
import torch

from raremix.core.masks import resize_mask, token_grid


@pytest.mark.parametrize(("height", "width"), [(4, 6), (8, 12), (2, 3), (1, 1), (16, 24)])
def test_resizing_a_mask_keeps_its_mean(height: int, width: int) -> None:
    mask = torch.rand(5, 1, 4, 6, generator=torch.Generator().manual_seed(0))
    resized = resize_mask(mask, height, width)
    assert resized.shape == (5, 1, height, width)
    torch.testing.assert_close(resized.mean(dim=(1, 2, 3)), mask.mean(dim=(1, 2, 3)))


def test_grids_of_tokens() -> None:
    assert token_grid(197, height=224, width=224) == (14, 14)
    assert token_grid(201, height=1, width=1) == (14, 14)  # a class token and four registers
    assert token_grid(3, height=224, width=100) == (1, 1)  # no such grid
