"""Odd files, and readers on their own: without their extras, with warnings, with endings that lie."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.security.damage import images as seeds

import raremix
from raremix.core.errors import ReadError
from raremix.data import decoding
from raremix.data.readers import Reading, decode_image, read_image

ANY_FRAME = Reading(frames="max", window="range")


def test_the_wrong_ending_does_not_matter(tmp_path: Path) -> None:
    for name, data in seeds().items():
        path = tmp_path / f"{name}.jpg"
        path.write_bytes(data)
        assert read_image(path, reading=ANY_FRAME).ndim == 3


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "empty.png").touch()
    for name, words in (
        ("folder.png", "no regular file"),
        ("pipe.png", "no regular file"),
        ("empty.png", "an empty file"),
    ):
        with pytest.raises(ReadError, match=words):
            read_image(tmp_path / name)
    with pytest.raises(ReadError, match="cannot be read"):
        read_image(Path("nul\0byte.png"), name="row 3")


def test_names_in_exif_and_text_are_not_kept(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    from raremix.core import files

    text = PngInfo()
    text.add_text("Patient", "Canary^Person")
    exif = Image.Exif()
    exif[0x010E] = "Canary^Person"
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(tmp_path / "in.png", pnginfo=text, exif=exif)
    assert b"Canary^Person" in (tmp_path / "in.png").read_bytes()
    out = files.write_image(tmp_path / "out.png", read_image(tmp_path / "in.png"))
    assert b"Canary" not in out.read_bytes()


def test_readers_run_without_their_extras() -> None:
    """Without pydicom and nibabel, other files are read, and theirs are refused with what to install."""
    # The readers alone, as the decoding processes load them: the rest of the package takes seconds to import.
    code = (
        decoding._WORKER.replace("serve()\n", "")
        + """
sys.modules["pydicom"] = sys.modules["nibabel"] = None
from raremix.core.errors import ReadError
from raremix.data.readers import decode_image
for data in (b"\\0" * 128 + b"DICM", b"\\x5c\\x01\\0\\0" + b"\\0" * 340 + b"n+1\\0" + b"\\0" * 8):
    try:
        decode_image(data, name="x")
    except ReadError as error:
        print(error)
print(*sys.modules)
"""
    )
    paths = json.dumps([str(Path(str(raremix.__file__)).parents[1]), *sys.path])
    done = subprocess.run([sys.executable, "-S", "-c", code, paths], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout
    assert "pip install 'raremix[dicom]'" in done.stdout
    assert "pip install 'raremix[nifti]'" in done.stdout


def test_warnings_of_decoders_stay_with_them() -> None:
    """Filters of warnings are as they were after a file that pydicom complains about."""
    before = list(warnings.filters)
    with pytest.raises(ReadError):
        decode_image(seeds()["DICOM"][:700], name="x")
    assert list(warnings.filters) == before
