"""Guidance: masks fit the image exactly, and boxes hold what they cover."""

import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.core.masks import resize_mask
from raremix.core.types import Batch, Boxes
from raremix.mix.guidance import fit, maps_of, mass_in_boxes


@pytest.mark.parametrize("image", [(8, 12), (7, 13), (3, 2), (1, 1), (40, 5)])
@pytest.mark.parametrize("cells", [(4, 4), (1, 1), (7, 5)])
def test_a_fitted_masks_mean_is_the_share_of_pixels(image: tuple[int, int], cells: tuple[int, int]) -> None:
    mask = torch.rand(5, 1, *cells)
    fitted = fit(mask, height=image[0], width=image[1])
    full = resize_mask(fitted, *image).expand(5, 1, *image)
    torch.testing.assert_close(fitted.mean(dim=(1, 2, 3)), full.mean(dim=(1, 2, 3)))
    assert float(full.min()) >= float(mask.min()) - 1e-6
    assert float(full.max()) <= float(mask.max()) + 1e-6


def test_masks_of_zeros_and_ones_stay_so_where_they_grow() -> None:
    mask = (torch.rand(5, 1, 7, 7) > 0.5).float()
    assert set(fit(mask, height=20, width=31).unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("cells", [(16, 24), (4, 6), (3, 7), (1, 1)])
def test_mass_in_a_box_is_that_of_its_pixels(cells: tuple[int, int]) -> None:
    """Against the map repeated over (a multiple of) the pixels, added up one by one."""
    maps = torch.rand(3, 1, *cells)
    edges = torch.tensor([[0, 3, 5], [0, 2, 7], [16, 9, 5], [24, 20, 20]], dtype=torch.int32)
    boxes = Boxes(edges=edges, height=16, width=24)
    fine = maps.repeat_interleave(16, dim=2).repeat_interleave(24, dim=3)  # 16 h x 24 w points
    h, w = cells
    expected = torch.stack(
        [fine[i, 0, h * t : h * b, w * x : w * y].sum() / (16 * 24) for i, (t, x, b, y) in enumerate(edges.T.tolist())]
    )
    torch.testing.assert_close(mass_in_boxes(maps, boxes), expected)


def test_maps_are_floats_without_gradient_or_nan() -> None:
    maps = torch.rand(2, 1, 4, 4, dtype=torch.float64, requires_grad=True) + 0.0
    batch = Batch(images=torch.rand(2, 1, 8, 8), targets=torch.eye(2), importance=maps)
    assert maps_of(batch).dtype == torch.float32
    assert not maps_of(batch).requires_grad
    with pytest.raises(ConfigError, match="importance"):
        maps_of(Batch(images=batch.images, targets=batch.targets))
