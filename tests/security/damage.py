"""Files to damage: small whole ones of every kind that raremix reads, and what chance makes of them."""

import io
import json
import zipfile
from collections.abc import Iterator

import nibabel
import numpy as np
import polars as pl
import pydicom
import safetensors.numpy
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import compress
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, RLELossless
from tests.data.dicoms import dicom, saved
from tests.data.test_jpeg_lossless import encode


def images() -> dict[str, bytes]:
    """Small whole images of every kind and encoding."""
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


def arrays(**changed: bytes) -> bytes:
    """A small .npz as MedMNIST has it; members may be changed by name."""
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, count in (("train", 6), ("val", 3), ("test", 3)):
            parts = {
                "images": rng.integers(0, 255, (count, 8, 8), dtype=np.uint8),
                "labels": (np.arange(count) % 2).astype(np.uint8)[:, None],
            }
            for kind, values in parts.items():
                name, body = f"{part}_{kind}", io.BytesIO()
                np.save(body, values)
                archive.writestr(f"{name}.npy", changed.get(name, body.getvalue()))
    return file.getvalue()


def manifest() -> pl.DataFrame:
    """A small manifest with every column."""
    return pl.DataFrame(
        {
            "id": range(6),
            "path": [f"{i}.png" for i in range(6)],
            "group": list("aabbcd"),
            "split": ["train"] * 4 + ["test"] * 2,
            "target:a": [1.0, 0, 1, 0, 1, 0],
            "target:b": [0.0, 1, 0, 1, 0, 1],
            "origin": ["real"] * 5 + ["synthetic"],
            "parents": [[], [], [], [], [], [0]],
            "recipe": [None] * 5 + ["{}"],
            "sha256": [f"{i:064x}" for i in range(6)],
            "age": [1, 2, 3, 4, 5, 6],
        }
    )


def manifests(kind: str) -> dict[str, bytes]:
    """The small manifest as CSV, or as Parquet in several encodings."""
    if kind == "csv":
        joined = pl.col("parents").list.eval(pl.element().cast(pl.Utf8)).list.join(";")
        return {"csv": manifest().with_columns(joined).write_csv().encode()}
    found = {}
    for compression in ("uncompressed", "zstd", "snappy", "gzip"):
        file = io.BytesIO()
        manifest().write_parquet(file, compression=compression)  # pyright: ignore[reportArgumentType]
        found[compression] = file.getvalue()
    return found


def cards() -> dict[str, bytes]:
    """The card of the small manifest."""
    facts = {"name": "t", "task": "binary", "classes": ["a", "b"], "root": ".", "attributes": {"age": "Int64"}}
    toml = b'name = "t"\ntask = "binary"\nclasses = ["a", "b"]\n[attributes]\nage = "Int64"\n'
    return {"json": json.dumps(facts).encode(), "toml": toml}


def vectors() -> dict[str, bytes]:
    """Label vectors as safetensors and as .npy."""
    file = io.BytesIO()
    np.save(file, np.ones((2, 4), dtype=np.float32))
    named = {"a": np.ones(4, dtype=np.float32), "b": np.zeros(4, dtype=np.float16).astype(np.float32)}
    return {"safetensors": safetensors.numpy.save(named, {"made": "by hand"}), "npy": file.getvalue()}


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
