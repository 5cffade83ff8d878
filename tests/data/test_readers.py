import io
import struct
import tracemalloc
import zlib
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raremix.core import files
from raremix.core.errors import ConfigError, ReadError
from raremix.data.readers import decode_image, fit_image, read_image

RAMP = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3) * 3


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def decoded(image: Image.Image, kind: str = "PNG", **options: object) -> np.ndarray:
    return decode_image(saved(image, kind, **options), name="x")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_lossless_kinds(kind: str) -> None:
    np.testing.assert_array_equal(decoded(Image.fromarray(RAMP), kind), RAMP)
    np.testing.assert_array_equal(decoded(Image.fromarray(RAMP[..., 0]), kind), RAMP[..., :1])


def test_jpeg() -> None:
    flat = np.full((16, 8, 3), 90, dtype=np.uint8)
    np.testing.assert_allclose(decoded(Image.fromarray(flat), "JPEG", quality=95), flat, atol=2)
    assert decoded(Image.fromarray(flat[..., 0]), "JPEG").shape == (16, 8, 1)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey(kind: str) -> None:
    values = np.array([[0, 1, 256], [4095, 40000, 65535]], dtype=np.uint16)
    got = decoded(Image.fromarray(values), kind)
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got[..., 0], values)


def test_thirty_two_bit_integers() -> None:
    values = np.array([[0, 65535]], dtype=np.int32)
    np.testing.assert_array_equal(decoded(Image.fromarray(values), "TIFF")[..., 0], values)
    for wrong in ([[0, 65536]], [[-1, 5]]):
        with pytest.raises(ReadError, match="expected 0 to 65535: rescale"):
            decoded(Image.fromarray(np.array(wrong, dtype=np.int32)), "TIFF")


def test_floats_are_refused() -> None:
    with pytest.raises(ReadError, match="floating-point"):
        decoded(Image.fromarray(np.zeros((2, 2), dtype=np.float32)), "TIFF")


def tiff(values: np.ndarray, *, photometric: int, bits: int = 16, data: bytes | None = None) -> bytes:
    """Return a little-endian grey TIFF, written by hand."""
    height, width = values.shape
    payload = values.astype("<u2").tobytes() if data is None else data
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, height)]
    tags.append((279, len(payload)))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(payload)) + payload + struct.pack("<H", len(tags)) + entries + b"\0" * 4


def test_white_is_zero_is_inverted() -> None:
    values = np.array([[0, 1], [300, 65535]], dtype=np.uint16)
    np.testing.assert_array_equal(decode_image(tiff(values, photometric=1), name="x")[..., 0], values)
    np.testing.assert_array_equal(decode_image(tiff(values, photometric=0), name="x")[..., 0], 65535 - values)
    eight = tiff(values, photometric=0, bits=8, data=bytes([0, 10, 200, 255]))
    np.testing.assert_array_equal(decode_image(eight, name="x")[..., 0], [[255, 245], [55, 0]])


def test_twelve_bit_tiff_spans_the_range() -> None:
    # Two 12-bit values, 0xFFF and 0x800, packed into three bytes per row.
    packed = tiff(np.zeros((1, 2)), photometric=1, bits=12, data=bytes([0xFF, 0xF8, 0x00]))
    np.testing.assert_array_equal(decode_image(packed, name="x")[0, :, 0], [65535, 0x800 * 65535 // 4095])


def test_palette() -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8), mode=None)
    image = image.convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    expected = [[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [40, 50, 60]]]
    np.testing.assert_array_equal(decoded(image), expected)
    with_hole = decoded(image, transparency=1)
    np.testing.assert_array_equal(with_hole, [[[10, 20, 30], [0, 0, 0]], [[70, 80, 90], [0, 0, 0]]])


def test_bilevel() -> None:
    got = decoded(Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1"))
    np.testing.assert_array_equal(got, [[[0], [255]]])


def test_alpha_is_laid_on_black() -> None:
    opaque = np.dstack([RAMP, np.full((6, 4), 255, dtype=np.uint8)])
    np.testing.assert_array_equal(decoded(Image.fromarray(opaque)), RAMP)
    half = np.dstack([np.full((2, 2, 3), 200, dtype=np.uint8), np.full((2, 2), 51, dtype=np.uint8)])
    np.testing.assert_array_equal(decoded(Image.fromarray(half)), np.full((2, 2, 3), 40))
    grey = np.dstack([np.full((2, 2), 200, dtype=np.uint8), np.full((2, 2), 51, dtype=np.uint8)])
    np.testing.assert_array_equal(decoded(Image.fromarray(grey, mode=None)), np.full((2, 2, 1), 40))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_orientation(orientation: int, kind: str) -> None:
    # What each value means for the stored rows and columns: TIFF 6.0, tag 274.
    stored = {
        1: RAMP,
        2: RAMP[:, ::-1],
        3: RAMP[::-1, ::-1],
        4: RAMP[::-1],
        5: RAMP.transpose(1, 0, 2),
        6: RAMP[::-1].transpose(1, 0, 2)[::-1, ::-1],
        7: RAMP[::-1, ::-1].transpose(1, 0, 2),
        8: RAMP[:, ::-1].transpose(1, 0, 2)[::-1, ::-1],
    }[orientation]
    image = Image.fromarray(np.ascontiguousarray(stored))
    exif = image.getexif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decoded(image, kind, exif=exif), RAMP)


def png(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def test_size_is_checked_before_decoding() -> None:
    bomb = png(18_000, 18_000)
    tracemalloc.start()
    with pytest.raises(ReadError, match="18000 x 18000 pixels, expected at most 67,108,864"):
        decode_image(bomb, name="row 3 (x.png)")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20
    with pytest.raises(ReadError, match="6 x 6 pixels"):
        decode_image(png(6, 6, b"\0" * 42), name="x", max_pixels=35)
    assert decode_image(png(6, 6, b"\0" * 42), name="x", max_pixels=36).shape == (6, 6, 1)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
def test_truncated(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    whole = saved(Image.fromarray(noise), kind)
    with pytest.raises(ReadError, match=r"row 3 \(x\): .*(restore the file|remove its row)"):
        decode_image(whole[: len(whole) * 2 // 3], name="row 3 (x)")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "an empty file"),
        (b"GIF89a...", "GIF"),
        (b"RIFF1234WEBP", "WebP"),
        (b"hello", "another kind"),
    ],
)
def test_other_kinds_are_named(data: bytes, words: str) -> None:
    with pytest.raises(ReadError, match=f"expected PNG, JPEG, TIFF, BMP, DICOM or NIfTI, got {words}.*convert"):
        decode_image(data, name="x")


def test_several_pages_are_refused() -> None:
    pages = [Image.fromarray(RAMP[..., 0]), Image.fromarray(RAMP[..., 1])]
    with pytest.raises(ReadError, match="holds 2 images"):
        decoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])


def test_read_image_verifies_the_hash(tmp_path: Path) -> None:
    path = files.write_image(tmp_path / "x.png", RAMP)
    right = sha256(path.read_bytes()).hexdigest()
    np.testing.assert_array_equal(read_image(path, sha256=right.upper()), RAMP)
    with pytest.raises(ReadError, match="not what its recorded sha256 says"):
        read_image(path, sha256="0" * 64)
    with pytest.raises(ReadError, match="row 7: cannot be read"):
        read_image(tmp_path / "gone.png", name="row 7")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "TIFF", "BMP"]), st.data())
def test_damaged_files_decode_or_raise_read_error(kind: str, data: st.DataObject) -> None:
    whole = bytearray(saved(Image.fromarray(np.repeat(RAMP, 3, axis=0)), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    try:
        got = decode_image(bytes(whole[:cut] if data.draw(st.booleans()) else whole), name="row 1", max_pixels=1 << 16)
    except ReadError as error:
        assert "row 1: " in str(error)
    else:
        assert got.ndim == 3
        assert got.dtype in (np.uint8, np.uint16)


def test_fit_averages_when_shrinking() -> None:
    pixels = np.zeros((4, 4, 1), dtype=np.uint8)
    pixels[:, 2:] = 200
    small = fit_image(pixels, size=2, channels=1, bits=8)
    assert small[0, 0, 0] < 40
    assert small[0, 1, 0] > 160
    flat = np.full((10, 6, 3), 77, dtype=np.uint8)
    np.testing.assert_array_equal(fit_image(flat, size=4, channels=3, bits=8), np.full((4, 4, 3), 77))


def test_fit_leaves_a_fitting_image_alone() -> None:
    square = RAMP[:4, :4]
    np.testing.assert_array_equal(fit_image(square, size=4, channels=3, bits=8), square)


def test_fit_crop_and_pad() -> None:
    wide = np.zeros((2, 6, 1), dtype=np.uint8)
    wide[:, 2:4] = 100
    np.testing.assert_array_equal(fit_image(wide, size=2, channels=1, bits=8, resize="crop"), np.full((2, 2, 1), 100))
    padded = fit_image(np.full((2, 6, 1), 9, dtype=np.uint8), size=6, channels=1, bits=8, resize="pad")
    np.testing.assert_array_equal(padded[..., 0], [[0] * 6, [0] * 6, [9] * 6, [9] * 6, [0] * 6, [0] * 6])


def test_fit_depth_and_channels() -> None:
    grey = np.array([[[0], [128]], [[255], [1]]], dtype=np.uint8)
    wide = fit_image(grey, size=2, channels=1, bits=16)
    np.testing.assert_array_equal(wide[..., 0], [[0, 128 * 257], [65535, 257]])
    np.testing.assert_array_equal(fit_image(wide, size=2, channels=1, bits=8), grey)
    colour = fit_image(grey, size=2, channels=3, bits=8)
    np.testing.assert_array_equal(colour, np.repeat(grey, 3, axis=2))
    red = np.zeros((2, 2, 3), dtype=np.uint8)
    red[..., 0] = 255
    assert fit_image(red, size=2, channels=1, bits=8)[0, 0, 0] == 76  # 0.299 * 255
    shrunk = fit_image(np.full((4, 4, 1), 40_000, dtype=np.uint16), size=2, channels=1, bits=16)
    np.testing.assert_array_equal(shrunk, np.full((2, 2, 1), 40_000))


def test_two_and_four_channels_keep_their_planes() -> None:
    rng = np.random.default_rng(0)
    for channels, mode in ((2, "LA"), (4, "RGBA")):
        planes = rng.integers(0, 256, (8, 8, channels), dtype=np.uint8)
        pixels = decode_image(saved(Image.fromarray(planes), "PNG"), name=mode, keep_alpha=True)
        np.testing.assert_array_equal(pixels, planes)
        half = fit_image(pixels, size=4, channels=channels, bits=8)
        for c in range(channels):  # as if each plane were a grey image: no weighing by alpha
            np.testing.assert_array_equal(
                half[..., c : c + 1], fit_image(planes[..., c : c + 1], size=4, channels=1, bits=8)
            )


def test_fit_refuses() -> None:
    with pytest.raises(ConfigError, match="channels 1 to 4"):
        fit_image(RAMP, size=4, channels=5, bits=8)
    with pytest.raises(ConfigError, match="as many"):
        fit_image(RAMP, size=4, channels=2, bits=8)
    with pytest.raises(ConfigError, match="bits 8 or 16"):
        fit_image(RAMP, size=4, channels=3, bits=12)


def test_real_files(shared_data: Path) -> None:
    modes = set()
    for path in sorted((shared_data / "nih_cxr14_64" / "images").iterdir())[::5]:
        with Image.open(path) as image:
            modes.add(image.mode)
            grey = np.asarray(image.convert("L"))
        pixels = read_image(path)
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(fit_image(pixels, size=64, channels=1, bits=8)[..., 0], grey)
    assert "RGBA" in modes
