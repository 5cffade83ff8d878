"""A look at one file of every kind: what it is, how bright it is, and what is wrong with it."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raremix.core.errors import ReadError
from raremix.data.audit.look import correlation, fits, look_at, look_closely, picture, standardise


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=form, **options)
    return stream.getvalue()


RAMP = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (100, 1)))


@pytest.mark.parametrize(
    ("image", "form", "kind"),
    [
        (RAMP, "PNG", "PNG, grey"),
        (RAMP, "JPEG", "JPEG, grey"),
        (RAMP.convert("RGB"), "JPEG", "JPEG, colour"),
        (RAMP.convert("RGB"), "BMP", "BMP, colour"),
        (RAMP.convert("RGBA"), "PNG", "PNG, colour with alpha"),
        (RAMP.convert("P"), "PNG", "PNG, palette"),
        (RAMP.convert("1"), "PNG", "PNG, black and white"),
        (RAMP.convert("I;16"), "TIFF", "TIFF, grey, 16 bit"),
        (RAMP.convert("CMYK"), "JPEG", "JPEG, CMYK"),
    ],
)
def test_kinds_of_files(image: Image.Image, form: str, kind: str) -> None:
    seen = look_at(encoded(image, form), sha256="x")
    assert (seen.reason, seen.kind, seen.width, seen.height, seen.sha256) == ("", kind, 200, 100, "x")
    assert seen.thumbnail is not None
    assert seen.thumbnail.shape == (32, 32)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_brightness_is_the_mean_and_the_thumbnail_is_the_image(form: str) -> None:
    seen = look_at(encoded(RAMP, form), sha256="")
    assert seen.thumbnail is not None
    assert seen.brightness == pytest.approx(np.arange(200).mean() / 255, abs=0.004)
    assert seen.contrast == pytest.approx(np.arange(200).std() / 255, abs=0.01)
    assert np.abs(seen.thumbnail[0].astype(int) - (np.arange(32) + 0.5) * 200 / 32).max() < 4


def test_sixteen_bit_is_looked_at_by_its_own_range() -> None:
    dim = Image.fromarray(np.tile(np.arange(200, dtype=np.uint16) * 16, (100, 1)))
    seen = look_at(encoded(dim, "PNG"), sha256="")
    assert seen.thumbnail is not None
    assert seen.thumbnail.max() > 245
    assert seen.brightness == pytest.approx(1592 / 65535, abs=0.001)


def test_a_turned_jpeg_is_looked_at_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    seen = look_at(encoded(RAMP, "JPEG", exif=exif), sha256="")
    assert (seen.width, seen.height) == (100, 200)
    assert seen.thumbnail is not None
    assert seen.thumbnail[0].mean() < 10
    assert seen.thumbnail[-1].mean() > 180


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP"])
def test_a_truncated_file_is_found(form: str) -> None:
    whole = encoded(RAMP, form)
    seen = look_at(whole[: len(whole) // 2], sha256="x")
    assert seen.reason
    assert (seen.sha256, seen.thumbnail) == ("x", None)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"hello"])
def test_what_is_no_image_is_said_to_be_none(data: bytes) -> None:
    assert look_at(data, sha256="").reason


def test_a_bomb_is_not_decoded() -> None:
    bomb = encoded(Image.new("1", (20_000, 20_000)), "PNG")
    assert "expected at most" in look_at(bomb, sha256="").reason
    large = encoded(Image.new("L", (9_000, 8_000)), "JPEG")
    assert "expected at most" in look_at(large, sha256="").reason


def test_endings() -> None:
    assert fits("PNG, grey", ".PNG")
    assert not fits("PNG, grey", ".jpg")
    assert fits("", ".anything")


def test_correlation_does_not_see_brightness_and_contrast() -> None:
    stream = np.random.default_rng(0)
    images = stream.integers(0, 100, (5, 64), dtype=np.uint8)
    assert correlation(images, images * 2 + 10) == pytest.approx(1, abs=1e-5)
    assert correlation(images, np.full_like(images, 7)).tolist() == [0] * 5
    expected = np.corrcoef(images[0], images[1])[0, 1]
    assert correlation(images[:1], images[1:2])[0] == pytest.approx(expected, abs=1e-5)


def test_what_all_images_share_does_not_count() -> None:
    stream = np.random.default_rng(0)
    common = 60 * np.sin(np.linspace(0, 6, 1024))
    images = (128 + common + stream.normal(0, 12, (400, 1024))).clip(0, 255).astype(np.uint8)
    average = standardise(images).mean(axis=0)
    assert correlation(images[:200], images[200:]).min() > 0.9
    assert np.abs(correlation(images[:200], images[200:], average=average)).max() < 0.2
    assert correlation(images, images, average=average) == pytest.approx(1, abs=1e-5)


def test_pixels_have_one_hash_whatever_the_file(tmp_path: Path) -> None:
    for form, name in (("PNG", "a.png"), ("BMP", "b.bmp"), ("TIFF", "c.tif")):
        (tmp_path / name).write_bytes(encoded(RAMP, form))
    (tmp_path / "d.png").write_bytes(encoded(RAMP.resize((100, 200)), "PNG"))
    seen = [look_closely(tmp_path / name)[0] for name in ("a.png", "b.bmp", "c.tif", "d.png")]
    assert len(set(seen[:3])) == 1
    assert seen[3] != seen[0]


def test_a_picture_is_a_small_jpeg(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(RAMP, "PNG"))
    made = picture(tmp_path / "a.png", side=64)
    with Image.open(io.BytesIO(made)) as image:
        assert (image.format, image.size) == ("JPEG", (64, 32))
    with pytest.raises(ReadError):
        picture(tmp_path / "b.png", side=64)
