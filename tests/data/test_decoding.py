"""Reduced JPEG decoding, odd images, and decoding by processes of their own."""

import io
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from raremix.core.errors import ReadError
from raremix.data import decoding
from raremix.data.decoding import decoded_blocks
from raremix.data.readers import Reading, content_hash, decode_fitted, decode_image, fit_image
from raremix.data.readers.block import Form, decode_block
from raremix.data.readers.raster import reduce_jpeg

FORM = Form(size=16, channels=1, bits=8, resize="stretch", reading=Reading())


def picture(width: int, height: int) -> np.ndarray:
    """Smooth structure with edges, as a photograph has."""
    y, x = np.mgrid[:height, :width]
    red = 127 + 100 * np.sin(x / width * 12) * np.cos(y / height * 9)
    green = np.where((x // (width // 5 + 1) + y // (height // 5 + 1)) % 2, 200, 60)
    return np.stack([red, green, 255 * y / height], axis=-1).astype(np.uint8)


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=92, **options)
    return file.getvalue()


def fitted(data: bytes, *, draft: bool, size: int = 64, resize: str = "stretch") -> np.ndarray:
    options = {"name": "x", "size": size, "channels": 3, "bits": 8, "resize": resize}
    return decode_fitted(data, **options, reading=Reading(draft=draft)).astype(np.int64)


@pytest.mark.parametrize(("width", "height", "factor"), [(255, 255, 1), (256, 300, 2), (515, 777, 4), (1030, 1500, 8)])
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_a_reduced_jpeg_is_close(width: int, height: int, factor: int, resize: str) -> None:
    data = jpeg(picture(width, height))
    image = JpegImageFile(io.BytesIO(data))
    assert reduce_jpeg(image, size=64, to_grey=False) == (None if factor == 1 else (height / factor, width / factor))
    assert image.size == (-(-width // factor), -(-height // factor))
    whole, reduced = fitted(data, draft=False, resize=resize), fitted(data, draft=True, resize=resize)
    # Two filters one after the other are not one wide one: edges differ, on average less than a level in 255.
    assert np.abs(whole - reduced).mean() < 1.0
    assert np.abs(whole - reduced).max() < 24
    assert (np.abs((whole - reduced).mean(axis=(0, 1))) < 0.25).all()
    if factor == 1:
        np.testing.assert_array_equal(whole, reduced)


def test_stored_brightness_is_close_to_that_of_the_colours() -> None:
    """What is skipped is the way through red, green and blue, where saturated colours are clipped."""
    options = {"name": "x", "size": 64, "channels": 1, "bits": 8}
    for side in (64, 200, 1000):
        data = jpeg(picture(side, side))
        stored = decode_fitted(data, **options).astype(np.int64)
        by_colours = decode_fitted(data, **options, reading=Reading(draft=False)).astype(np.int64)
        assert np.abs(stored - by_colours).mean() < 1.2
        assert np.abs(stored - by_colours).max() < 24
    grey = picture(200, 200)[..., :1].repeat(3, axis=2)  # as most radiographs in RGB: no colour, nothing clipped
    stored = decode_fitted(jpeg(grey), **options).astype(np.int64)
    assert np.abs(stored - decode_fitted(jpeg(grey), **options, reading=Reading(draft=False))).max() <= 1


def test_a_reduced_jpeg_does_not_shift() -> None:
    """At 1/8, 1031 columns become 129, the last covered to 7/8: ignoring that would shift by half a pixel."""
    ramp = np.repeat(np.linspace(0, 255, 1031)[None].round().astype(np.uint8), 1031, axis=0)
    data = jpeg(np.repeat(ramp[..., None], 3, axis=-1), subsampling=0)
    whole, reduced = fitted(data, draft=False), fitted(data, draft=True)
    assert np.abs(whole - reduced)[2:-2, 2:-2].max() <= 1


def test_turned_and_lossless_files_are_decoded_in_full() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = jpeg(picture(600, 500), exif=exif)
    np.testing.assert_array_equal(fitted(turned, draft=True), fitted(turned, draft=False))
    file = io.BytesIO()
    Image.fromarray(picture(600, 500)).save(file, format="PNG")
    np.testing.assert_array_equal(fitted(file.getvalue(), draft=True), fitted(file.getvalue(), draft=False))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (60_000, 10), (10, 60_000), (1, 5000)])
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_odd_shapes(width: int, height: int, resize: str) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((height, width), 7, dtype=np.uint8)).save(file, format="PNG")
    got = decode_fitted(file.getvalue(), name="x", size=8, channels=1, bits=8, resize=resize)
    assert got.shape == (8, 8, 1)
    assert got.max() == 7
    np.testing.assert_array_equal(
        got, fit_image(decode_image(file.getvalue(), name="x"), size=8, channels=1, bits=8, resize=resize)
    )


def test_channels_that_a_file_does_not_have_are_refused() -> None:
    with pytest.raises(ReadError, match="has 3 channels, expected 4"):
        decode_fitted(jpeg(picture(8, 8)), name="x", size=8, channels=4, bits=8)


def files_in(folder: Path, count: int = 200) -> tuple[list[Path], list[str]]:
    folder.mkdir()
    paths = []
    for i in range(count):
        path = folder / f"{i}.png"
        Image.fromarray(np.full((20, 20), i % 251, dtype=np.uint8)).save(path)
        paths.append(path)
    return paths, [content_hash(path.read_bytes()) for path in paths]


def test_processes_give_what_one_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, hashes = files_in(tmp_path / "set")
    paths[70].write_bytes(b"changed")
    paths[130].unlink()
    (tmp_path / "empty.png").touch()
    paths[180], hashes[180] = tmp_path / "empty.png", content_hash(b"")
    wide = Form(size=16, channels=1, bits=16, resize="pad", reading=Reading(window=(40.0, 400.0)))
    for form in (FORM, wide):
        results = []
        for worth in (1e9, 0.0):
            monkeypatch.setattr(decoding, "WORTH_SECONDS", worth)
            failures: dict[int, tuple[str, str]] = {}
            seen: list[int] = []
            note = lambda what, done, total, seen=seen: seen.append(done)  # noqa: E731
            blocks = decoded_blocks(paths, hashes, failures, form=form, workers=2, progress=note)
            results.append((np.concatenate(list(blocks)), failures, seen))
        np.testing.assert_array_equal(results[0][0], results[1][0])
        assert results[0][1:] == results[1][1:]
        assert seen[-1] == 200
        assert {place: kind for place, (kind, _) in failures.items()} == {70: "file", 130: "file", 180: "content"}
    assert results[1][0][7, 0, 0, 0] == 7 * 257


def test_a_file_that_ends_its_decoder_ends_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, hashes = files_in(tmp_path / "set", count=192)
    expected, _ = decode_block(paths, hashes, FORM)
    # A worker that dies as a crashing decoder does, whenever one file is among what it is asked for.
    dying = decoding._WORKER.replace(
        "serve()\n", "from raremix.data.readers import block\n"
        "inner = block.decode_block\n"
        "def decode_block(paths, hashes, form):\n"
        "    if any(path.name == '100.png' for path in paths): import os; os.kill(os.getpid(), 9)\n"
        "    return inner(paths, hashes, form)\n"
        "block.decode_block = decode_block\n"
        "serve()\n",
    )  # fmt: skip
    monkeypatch.setattr(decoding, "_WORKER", dying)
    monkeypatch.setattr(decoding, "WORTH_SECONDS", 0.0)
    failures: dict[int, tuple[str, str]] = {}
    images = np.concatenate(list(decoded_blocks(paths, hashes, failures, form=FORM, workers=2)))
    assert list(failures) == [100]
    assert "the decoder crashed on it" in failures[100][1]
    expected[100] = 0
    np.testing.assert_array_equal(images, expected)


def test_workers_end_with_whoever_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "WORTH_SECONDS", 0.0)
    started: list[int] = []
    start = decoding._Worker._start

    def note(worker: decoding._Worker) -> None:
        start(worker)
        started.append(worker._process.pid)

    monkeypatch.setattr(decoding._Worker, "_start", note)
    paths, hashes = files_in(tmp_path / "set", count=140)
    blocks = decoded_blocks(paths, hashes, {}, form=FORM, workers=2)
    next(blocks)
    next(blocks)
    blocks.close()  # as a full disk or Ctrl-C would
    assert len(started) == 2
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
