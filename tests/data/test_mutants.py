"""Damaged and hostile files: a reader returns a picture or raises ReadError, quickly and without eating memory."""

import ast
import io
import resource
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import compress
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, RLELossless
from tests.data.dicoms import dicom, saved
from tests.data.test_jpeg_lossless import encode

import raremix
from raremix.core.errors import ReadError
from raremix.data import decoding
from raremix.data.readers import Reading, decode_image, read_image

READINGS = (
    Reading(),
    Reading(frames="max", window="range"),
    Reading(frames="middle", window=(40.0, 400.0), plane="coronal"),
)


def seeds() -> dict[str, bytes]:
    """Small whole files of every kind and encoding."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (32, 32), dtype=np.uint8)
    colour = rng.integers(0, 255, (24, 20, 3), dtype=np.uint8)
    found = {}
    for kind in ("PNG", "JPEG", "TIFF", "BMP"):
        file = io.BytesIO()
        Image.fromarray(colour).save(file, format=kind)
        found[kind] = file.getvalue()
    file = io.BytesIO()
    Image.fromarray(grey).save(file, format="TIFF", compression="tiff_lzw")
    found["TIFF LZW"] = file.getvalue()
    file = io.BytesIO()
    Image.fromarray(colour).quantize(16).save(file, format="PNG", transparency=3)
    found["PNG palette"] = file.getvalue()
    deep = rng.integers(0, 4000, (3, 12, 10), dtype=np.uint16)
    found["DICOM"] = dicom(deep, WindowCenter=400, WindowWidth=900, RescaleSlope=2, RescaleIntercept=-1024)
    found["DICOM colour"] = dicom(colour, PlanarConfiguration=0)
    for name, syntax in (("RLE", RLELossless), ("J2K", JPEG2000Lossless), ("JPEG-LS", JPEGLSLossless)):
        dataset = pydicom.dcmread(io.BytesIO(dicom(grey)))
        compress(dataset, syntax, generate_instance_uid=False)
        found[f"DICOM {name}"] = saved(dataset)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, format="JPEG")
    streams = {
        "JPEG": (JPEGBaseline8Bit, file.getvalue()),
        "lossless": (JPEGLosslessSV1, encode(grey[..., None], bits=8)),
    }
    for name, (syntax, stream) in streams.items():
        dataset = pydicom.dcmread(io.BytesIO(dicom(grey)))
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([stream])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        found[f"DICOM {name}"] = saved(dataset)
    found["NIfTI"] = nibabel.Nifti1Image(deep.astype(np.int16), np.eye(4)).to_bytes()
    return found


def mutants(files: dict[str, bytes], count: int, *, seed: int) -> Iterator[tuple[str, bytes]]:
    """Change, cut, repeat and insert bytes, in the header more often than elsewhere."""
    rng = np.random.default_rng(seed)
    names = list(files)
    for number in range(count):
        name = names[number % len(names)]
        data = bytearray(files[name])
        for _ in range(int(rng.choice([1, 2, 4, 12]))):
            reach = len(data) if rng.random() < 0.5 else min(len(data), 512)
            place = int(rng.integers(reach))
            kind = rng.random()
            if kind < 0.6:
                data[place] = int(rng.integers(256))
            elif kind < 0.75:
                data[place : place + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f"])
            elif kind < 0.9:
                data[place:place] = rng.bytes(int(rng.integers(1, 9)))
            else:
                del data[place : place + int(rng.integers(1, 9))]
        if rng.random() < 0.15:
            del data[int(rng.integers(len(data))) :]
        yield name, bytes(data)


def survive(files: dict[str, bytes], count: int, *, seed: int) -> Counter[str]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: Counter[str] = Counter()
    for number, (name, data) in enumerate(mutants(files, count, seed=seed)):
        start = time.process_time()
        try:
            pixels = decode_image(data, name=f"row {number}", reading=READINGS[number % len(READINGS)])
        except ReadError as error:
            outcomes["refused"] += 1
            assert str(error).startswith(f"row {number}: "), name
        else:
            outcomes["read"] += 1
            assert pixels.ndim == 3
        assert time.process_time() - start < 5, f"{name}, mutant {number}"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 << 10  # KiB
    return outcomes


def test_two_thousand_mutants() -> None:
    outcomes = survive(seeds(), 2000, seed=0)
    assert outcomes["read"] > 100
    assert outcomes["refused"] > 500


@pytest.mark.slow
def test_twenty_thousand_mutants() -> None:
    survive(seeds(), 20_000, seed=1)


@pytest.mark.slow
def test_mutants_of_real_dicom(shared_data: Path) -> None:
    files = {path.name: path.read_bytes() for path in sorted((shared_data / "dicom").rglob("*.dcm"))}
    survive({name: data for name, data in files.items() if len(data) < 200_000}, 4000, seed=2)


@pytest.mark.parametrize("kind", sorted(seeds()))
def test_every_cut_is_refused_or_read(kind: str) -> None:
    whole = seeds()[kind]
    for end in [*range(0, min(len(whole), 400), 7), *np.linspace(400, len(whole) - 1, 15).astype(int).tolist()]:
        try:
            decode_image(whole[:end], name="x", reading=READINGS[2])
        except ReadError:
            continue


CANARY = "raremix-canary"


def pickled(target: Path) -> bytes:
    """A pickle that makes a file when it is loaded, written by hand."""
    return f"cpathlib\nPath\n(V{target}\ntR.".encode() + b"c__builtin__\ngetattr\n(g0\nVtouch\ntR(tR."


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    target = tmp_path / CANARY
    payload = pickled(target)
    array = b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(128) + payload
    for name, data in (
        ("a.pkl", payload),
        ("a.pt", b"PK\x03\x04" + payload),
        ("a.npy", array),
        ("a.png", payload),
        ("a.dcm", b"\0" * 128 + b"DICM" + payload),
        ("a.nii", payload.ljust(400)),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ReadError, match=name):
            read_image(path, reading=READINGS[2])
    assert not target.exists()


def test_no_code_loads_pickles() -> None:
    banned = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
    for path in Path(str(raremix.__file__)).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not banned & {name.split(".")[0] for name in names}, path
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                assert call not in {"torch.load", "torch.save", "yaml.load", "eval", "exec"}, path
                allows = [word for word in node.keywords if word.arg == "allow_pickle"]
                assert all(isinstance(word.value, ast.Constant) and word.value.value is False for word in allows), path


def test_the_wrong_ending_does_not_matter(tmp_path: Path) -> None:
    for name, data in seeds().items():
        path = tmp_path / f"{name}.jpg"
        path.write_bytes(data)
        assert read_image(path, reading=READINGS[1]).ndim == 3


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    import os

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
    source = str(Path(str(raremix.__file__)).parents[1])
    done = subprocess.run([sys.executable, "-c", code, source], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout
    assert "pip install 'raremix[dicom]'" in done.stdout
    assert "pip install 'raremix[nifti]'" in done.stdout


def test_warnings_of_decoders_stay_with_them() -> None:
    """Filters of warnings are as they were after a file that pydicom complains about."""
    before = list(warnings.filters)
    with pytest.raises(ReadError):
        decode_image(seeds()["DICOM"][:700], name="x")
    assert list(warnings.filters) == before
