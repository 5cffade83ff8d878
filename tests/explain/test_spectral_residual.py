"""SpectralResidual against a slow reading of its formula."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from raremix.core.errors import ConfigError
from raremix.explain import SpectralResidual

NONE = torch.zeros(1, 1)


def by_definition(grey: np.ndarray) -> np.ndarray:
    """Residual of the log spectrum, with the phase kept, without the Gaussian."""
    spectrum = np.fft.fft2(grey)
    log = np.log(np.abs(spectrum))
    residual = log - ndimage.uniform_filter(log, 3, mode="wrap")
    return np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2


@pytest.mark.parametrize("shape", [(24, 24), (15, 22), (22, 15), (3, 2), (2, 3)])
def test_is_what_the_formula_says(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random(shape)
    expected = by_definition(image)
    found = SpectralResidual(sigma=0.0)(torch.from_numpy(image)[None, None], NONE)[0, 0].numpy()
    np.testing.assert_allclose(found, (expected - expected.min()) / np.ptp(expected), atol=1e-4)


def test_the_gaussian_keeps_the_mean_inside_and_sums_to_one_at_the_border() -> None:
    from raremix.explain.spectral_residual import _gaussian

    matrix = _gaussian(40, 2.5, like=torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(matrix.sum(dim=0), torch.ones(40, dtype=torch.float64))
    impulse = np.zeros(40)
    impulse[20] = 1
    np.testing.assert_allclose(matrix[20].numpy(), ndimage.gaussian_filter1d(impulse, 2.5, truncate=5), atol=1e-6)


def test_finds_what_stands_out_of_a_texture() -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    images = 0.5 + 0.2 * torch.sin(x) * torch.sin(y)
    images[40:46, 12:18] = 1
    found = SpectralResidual()(images[None, None], NONE)[0, 0]
    assert found[38:48, 10:20].mean() > 3 * found.mean()


@pytest.mark.parametrize(("shape", "expected"), [((224, 224), (64, 64)), ((200, 100), (64, 32)), ((28, 30), (28, 30))])
def test_maps_have_at_most_the_size(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    assert SpectralResidual()(torch.rand(2, 3, *shape), torch.zeros(2, 1)).shape == (2, 1, *expected)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("side", [1, 64, 100])
def test_an_image_without_contrast_has_a_map_of_zeros(value: float, side: int) -> None:
    assert SpectralResidual()(torch.full((1, 3, side, side), value), NONE).count_nonzero() == 0


@pytest.mark.parametrize("settings", [{"size": 0}, {"sigma": -1.0}, {"sigma": float("nan")}])
def test_refuses_settings_out_of_range(settings: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        SpectralResidual(**settings)
