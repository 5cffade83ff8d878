"""FineGrained against its definition, pixel by pixel, and against OpenCV."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.explain.saliency_reference import FILE, IMAGES, SHAPES, pictures

from raremix.core.errors import ConfigError
from raremix.explain import FineGrained
from raremix.explain import fine_grained as module

NONE = torch.zeros(1, 1)


def blurred(grey: np.ndarray) -> np.ndarray:
    """Blur twice with [1 2 1] / 4 in both directions, mirrored about the border pixels."""
    for axis in (0, 1, 0, 1):
        if grey.shape[axis] > 1:
            width = [(1, 1) if a == axis else (0, 0) for a in range(2)]
            before, here, after = (
                np.take(np.pad(grey, width, mode="reflect"), range(k, k + grey.shape[axis]), axis=axis)
                for k in range(3)
            )
            grey = (before + 2 * here + after) / 4
    return grey


def contrasts(grey: np.ndarray, half_widths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Loop over pixels and windows."""
    grey = blurred(grey.astype(np.float64))
    on, off = np.zeros_like(grey), np.zeros_like(grey)
    for n in half_widths:
        for y, x in np.ndindex(grey.shape):
            window = grey[max(y - n + 1, 0) : y + n + 1, max(x - n + 1, 0) : x + n + 1]
            if window.size > 1:
                contrast = grey[y, x] - (window.sum() - grey[y, x]) / (window.size - 1)
                on[y, x] += max(contrast, 0)
                off[y, x] += max(-contrast, 0)
    return on, off


def scaled(on: np.ndarray, off: np.ndarray) -> np.ndarray:
    """Scale and add what is brighter and what is darker."""
    peaks = [c.max() if c.max() > 1e-5 else np.inf for c in (on, off)]  # less is rounding
    return np.minimum(on / peaks[0] + off / peaks[1], 1)


def by_definition(grey: np.ndarray, half_widths: list[int]) -> np.ndarray:
    """Compute the map pixel by pixel."""
    return scaled(*contrasts(grey, half_widths))


@pytest.mark.parametrize(
    ("height", "width", "half_widths"), [(40, 40, [1, 2, 4, 2, 4, 9]), (19, 26, [1, 1, 2, 1, 2, 4])]
)
def test_is_what_the_definition_says(height: int, width: int, half_widths: list[int]) -> None:
    images = torch.from_numpy(np.random.default_rng(0).random((3, 1, height, width)))
    maps = FineGrained()(images, torch.zeros(3, 1))
    for image, found in zip(images[:, 0].numpy(), maps[:, 0].numpy(), strict=True):
        np.testing.assert_allclose(found, by_definition(image, half_widths), atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 7), (2, 3), (3, 1), (5, 2)])
def test_is_what_the_definition_says_of_the_smallest_images(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).random(shape)
    found = FineGrained()(torch.from_numpy(image)[None, None], NONE)
    np.testing.assert_allclose(found[0, 0].numpy(), by_definition(image, [1] * 6), atol=1e-9)


def test_windows_larger_than_the_image_are_clipped() -> None:
    image = np.random.default_rng(2).random((9, 14))
    found = FineGrained(reference=9)(torch.from_numpy(image)[None, None], NONE)
    np.testing.assert_allclose(found[0, 0].numpy(), by_definition(image, [12, 24, 48, 28, 56, 112]), atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_maps_that_opencv_made(shape: tuple[int, int]) -> None:
    images = torch.from_numpy(pictures(*shape)).permute(0, 3, 1, 2) / 255
    found = FineGrained(reference=min(shape))(images, torch.zeros(IMAGES, 1))[:, 0].numpy()
    with np.load(FILE) as reference:
        for ours, theirs in zip(found, reference[f"{shape[0]}x{shape[1]}"], strict=True):
            assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] >= 0.99
            assert np.abs(ours - theirs / 255).mean() < 0.05  # they round to 8 bits seven times


def test_agrees_with_opencv_on_real_images(shared_data: Path) -> None:
    cv2 = pytest.importorskip(
        "cv2.saliency", reason="opencv-contrib is not installed"
    ).StaticSaliencyFineGrained_create()
    from PIL import Image

    for path in sorted((shared_data / "ham10000_128" / "images").rglob("*.jpg"))[:8]:
        image = np.asarray(Image.open(path).convert("RGB"))
        theirs = cv2.computeSaliency(image[:, :, ::-1].copy())[1]
        ours = FineGrained(reference=128)(torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255, NONE)
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] >= 0.99


def test_an_image_does_not_depend_on_its_neighbours_in_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(7, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    whole = FineGrained()(images, torch.zeros(7, 1))
    monkeypatch.setattr(module, "CPU_PIXELS", 3 * 400)  # parts of three images, the last one overlapping
    assert torch.equal(FineGrained()(images, torch.zeros(7, 1)), whole)
    assert torch.equal(FineGrained()(images[4:5], NONE), whole[4:5])


def test_contrast_and_brightness_do_not_matter() -> None:
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    fine = FineGrained()
    torch.testing.assert_close(fine(0.25 * images - 3, torch.zeros(2, 1)), fine(images, torch.zeros(2, 1)))


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_an_image_without_contrast_has_a_map_of_zeros(value: float) -> None:
    assert FineGrained()(torch.full((1, 3, 50, 50), value), NONE).count_nonzero() == 0


def test_float32_is_as_good_as_double() -> None:
    images = torch.rand(1, 3, 300, 300, generator=torch.Generator().manual_seed(0))
    single, double = FineGrained()(images, NONE), FineGrained()(images.double(), NONE)
    assert (single - double).abs().max() < 5e-5


def test_memory_formats_give_the_same() -> None:
    images = torch.rand(3, 3, 17, 23, generator=torch.Generator().manual_seed(0))
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(FineGrained()(last, torch.zeros(3, 1)), FineGrained()(images, torch.zeros(3, 1)))


@pytest.mark.parametrize("size", [(40, 40), (19, 27), (4, 5)])
@pytest.mark.parametrize("stride", [2, 3])
def test_every_second_pixel_is_what_it_is_among_all(stride: int, size: tuple[int, int]) -> None:
    image = np.random.default_rng(3).random(size)
    half_widths = [max(1, round(n * min(size) / 512)) for n in module.HALF_WIDTHS]
    on, off = (contrast[::stride, ::stride] for contrast in contrasts(image, half_widths))
    found = FineGrained(stride=stride)(torch.from_numpy(image)[None, None], NONE)
    np.testing.assert_allclose(found[0, 0].numpy(), scaled(on, off), atol=1e-9)


@pytest.mark.parametrize("name", ["reference", "stride"])
def test_refuses_less_than_one_pixel(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        FineGrained(**{name: 0})
