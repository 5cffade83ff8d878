"""S2: what unpacks, or claims, to be far larger than it is, is refused within a second and 64 MB."""

import gzip
import io
import os
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from tests.data.dicoms import dicom
from tests.security.damage import arrays, cards

from raremix.core import tables
from raremix.core.archive import unpack_zip
from raremix.core.errors import RaremixError
from raremix.data.manifest import Manifest
from raremix.data.readers import Reading, decode_image, kind_of, limits
from raremix.data.readers.thumbnail import draft_thumbnail
from raremix.data.sources import Folder, MedMNIST, Table
from raremix.models.classifier import _read_weights
from raremix.models.label_embedding import read_label_vectors
from raremix.study.spec import read_study

ZEROS = bytes(1 << 20)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def nothing(megabytes: int) -> bytes:
    """Deflate so many megabytes of zeros; after a full flush a block knows nothing of those before it."""
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = pack.compress(ZEROS) + pack.flush(zlib.Z_FULL_FLUSH)
    return block * megabytes + pack.flush()


def zip_of(body: bytes, *, size: int) -> bytes:
    """A zip file of one member, deflated, that claims to be of a size."""
    facts = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, 0, len(body), size, 5, 0)
    entry = b"PK\1\2" + struct.pack("<H", 20) + facts + struct.pack("<HHHII", 0, 0, 0, 0o100644 << 16, 0) + b"zeros"
    start = b"PK\3\4" + facts + b"zeros" + body
    return start + entry + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), len(start), 0)


def deflated(megabytes: int) -> bytes:
    """A DICOM file of the deflated transfer syntax whose data set unpacks to so many megabytes of nothing."""
    syntax = b"1.2.840.10008.1.2.1.99"
    element = struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax
    body = nothing(megabytes)
    return b"\0" * 128 + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(element)) + element + body


def header(shape: str, *, kind: str = "|u1") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()


def tiff_chain(count: int) -> bytes:
    """A TIFF of many pictures that are all the same four by four pixels."""
    tags = [(256, 4), (257, 4), (258, 8), (259, 1), (262, 1), (273, 4), (277, 1), (278, 4), (279, 16)]
    entries = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    length = len(entries) + 4
    places = [8 + length * number for number in range(1, count)] + [0]
    return b"II*\0" + struct.pack("<I", 8) + b"".join(entries + struct.pack("<I", place) for place in places)


def many_scans(count: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (64, 64)).save(file, format="JPEG", progressive=True)
    whole = file.getvalue()
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * count + whole[-2:]


def picture(data: bytes) -> Callable[[Path], object]:
    return lambda folder: decode_image(data, name="row 1", reading=Reading(frames="first"))


def written(name: str, data: bytes, use: Callable[[Path], object]) -> Callable[[Path], object]:
    def run(folder: Path) -> object:
        (folder / name).write_bytes(data)
        return use(folder / name)

    return run


def npz(**changed: bytes) -> Callable[[Path], object]:
    return written("x.npz", arrays(**changed), lambda path: MedMNIST(path=path).load(cache=path.parent / "cache"))


def table(name: str, data: bytes) -> Callable[[Path], object]:
    return written(name, data, lambda path: Table(path=path, label="dx").load(cache=path.parent / "cache"))


def sparse_table(size: int) -> Callable[[Path], object]:
    """A CSV table whose second line is a cell of so many bytes, which take no room on the disk."""

    def run(folder: Path) -> object:
        (folder / "t.csv").write_bytes(b"file,dx\n")
        os.truncate(folder / "t.csv", size)
        return Table(path=folder / "t.csv", label="dx").load(cache=folder / "cache")

    return run


def study(text: str) -> Callable[[Path], object]:
    return written("s.toml", text.encode(), read_study)


BOMBS: dict[str, tuple[Callable[[Path], object], str]] = {
    "PNG": (picture(png(18_000, 18_000)), "18000 x 18000 pixels"),
    "BMP": (picture(b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 60_000, 60_000, 1, 24, *[0] * 6)), "60000 x"),
    "deflated DICOM": (picture(deflated(960)), "unpacks to more than 33,554,432 bytes"),
    "DICOM frames": (picture(dicom(np.zeros((4, 4), np.uint8), NumberOfFrames=2_000_000_000)), "claims 2,000,000,000"),
    "DICOM size": (picture(dicom(np.zeros((4, 4), np.uint8), Rows=60_000, Columns=60_000)), "60000 x 60000 pixels"),
    "TIFF of many pictures": (picture(tiff_chain(20_000)), "holds more than 64 images"),
    "JPEG of many scans": (picture(many_scans(5_000)), "a JPEG of 5,0.* scans, expected at most 64"),
    "npz shape": (npz(train_images=header("(1000000000000, 8, 8)")), "its header says 64,000,000,000,128"),
    "npz of nothing": (npz(train_images=header("(1000000000000, 0, 0)")), "expected uint8 of shape"),
    "npz negative": (npz(train_labels=header("(-1,)") + ZEROS), r"an array of shape \(-1,\)"),
    "npz long header": (npz(train_labels=b"\x93NUMPY\2\0" + struct.pack("<I", 1 << 31) + ZEROS), "a header of 2,147,4"),
    "npz shrunk": (npz(train_labels=header(f"({32 << 20},)") + ZEROS * 32), "unpacks more than 200-fold"),
    "npz wide": (npz(train_labels=header("(6, 100000)") + bytes(600_000)), "expected whole numbers"),
    "TOML nested": (study("[data]\nx = " + "[" * 100_000 + "]" * 100_000), "nested too deeply"),
    "TOML tables": (study("".join(f"[{'.'.join('a' * 90)}.b{i}]\n" for i in range(20_000))), "more than 1,024 KiB"),
    "TOML dotted": (study("a" + ".a" * 100_000 + " = 1"), "line 1 has more than 100 dots"),
    "CSV cell": (sparse_table(1 << 30), "a line of more than 1,024 KiB"),
    "packed CSV cell": (
        table("t.csv.gz", gzip.compress(b"file,dx\n") + gzip.compress(ZEROS) * 1024),
        "a line of more than 1,024 KiB",
    ),
    "packed CSV": (table("t.csv.gz", gzip.compress(b"file,dx\n" + b"x.png,a\n" * (6 << 20))), "unpacks to more than"),
    "safetensors header": (
        written("x.safetensors", struct.pack("<Q", 100 << 20) + b"{" + ZEROS, _read_weights),
        "claims a header of 104,857,600 bytes",
    ),
    "npy shape": (
        written("x.npy", header("(1000000000, 1000)", kind="<f4"), lambda p: read_label_vectors(p, ["a"], names=["a"])),
        "is no plain .npy file",
    ),
}


@pytest.mark.parametrize("what", BOMBS)
def test_bombs(what: str, tmp_path: Path) -> None:
    use, words = BOMBS[what]
    error, peak, seconds = refused(use, words, tmp_path)
    assert error.exit_code == 2
    assert peak < 64 << 20
    assert seconds < 1


def refused(use: Callable[[Path], object], words: str, folder: Path) -> tuple[RaremixError, int, float]:
    """Return the refusal, the memory that it took, and its processor time: apart, since watching memory takes time."""
    tracemalloc.start()
    try:
        with pytest.raises(RaremixError, match=words) as caught:
            use(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    start = time.process_time()
    with pytest.raises(RaremixError, match=words):
        use(folder)
    return caught.value, peak, time.process_time() - start


@pytest.mark.parametrize("is_honest", [True, False])
def test_zip_of_4_gigabytes_of_zeros(is_honest: bool, tmp_path: Path) -> None:
    """Said by the archive's own list of members, or found while they are unpacked."""
    size = 4095 << 20 if is_honest else 1 << 20
    (tmp_path / "x.zip").write_bytes(zip_of(nothing(4095), size=size))
    words = "unpacks more than 200-fold: a bomb" if is_honest else "is not a whole zip archive"
    _, peak, seconds = refused(lambda folder: unpack_zip(folder / "x.zip", folder / "out"), words, tmp_path)
    assert not (tmp_path / "out").exists()
    assert peak < 64 << 20
    assert seconds < 1


def test_parquet_that_unpacks_to_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the reading process the limit holds; here, nothing is unpacked at all."""
    monkeypatch.setattr(tables, "_MEMORY", 700 << 20)
    (tmp_path / "card.json").write_bytes(cards()["json"])
    pl.select(pl.repeat(0, 120_000_000, dtype=pl.Int64).alias("a")).write_parquet(tmp_path / "m.parquet")
    assert (tmp_path / "m.parquet").stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(RaremixError, match=r"m\.parquet: is not a whole Parquet table \(its decoder gave up"):
            Manifest.read(tmp_path / "m.parquet")
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_a_reader_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "x.parquet")
    monkeypatch.setattr(tables, "_READER", "import time; time.sleep(60)")
    monkeypatch.setattr(tables, "_SECONDS", 0.5)
    assert tables.why_not(tmp_path / "x.parquet") == "its decoder gave up on it"


def test_of_several_files_only_the_fatal_one_is_refused(tmp_path: Path) -> None:
    """A decoder that dies over one file is asked again for those after it."""
    paths = [tmp_path / f"{number}.parquet" for number in range(5)]
    for path in paths:
        pl.DataFrame({"a": [1]}).write_parquet(path)
    paths[1].write_bytes(b"PAR1")
    reader = tables._READER.replace(
        "    try:\n        polars", f"    if path == {str(paths[3])!r}: sys.exit(134)\n    try:\n        polars"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_READER", reader)
        why = tables.try_parquet([*paths, tmp_path / "gone.parquet"])
    assert [reason is None for reason in why] == [True, False, True, False, True, False]
    assert why[3] == "its decoder gave up on it"
    assert why[5] == "no such file"
    # An unchanged file is not tried again; a changed one is.
    assert tables.why_not(paths[3]) == "its decoder gave up on it"
    pl.DataFrame({"a": [1, 2]}).write_parquet(paths[3])
    assert tables.read_parquet(paths[3])["a"].to_list() == [1, 2]


def test_few_scans_are_read() -> None:
    data = many_scans(20)
    assert decode_image(data, name="x").shape == (64, 64, 1)
    assert draft_thumbnail(data, side=8) is not None
    assert draft_thumbnail(many_scans(limits.MAX_SCANS), side=8) is None


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), int(name[2]) + ord(name[0]), dtype=np.uint8)).save(tmp_path / "set" / name)
    os.mkfifo(tmp_path / "set" / "b" / "3.png")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(RaremixError, match=r"1 of 5 files are missing .*b/3\.png"):
        Folder(path=tmp_path / "set").load(cache=tmp_path / "cache")
    assert limits.read_start(tmp_path / "set" / "b" / "3.png") == b""
    assert kind_of(limits.read_start(tmp_path / "pipe.csv")) == "an empty file"
    with pytest.raises(RaremixError, match="no such table"):
        Table(path=tmp_path / "pipe.csv", label="dx").load(cache=tmp_path / "cache")
    os.mkfifo(tmp_path / "x.safetensors")
    with pytest.raises(RaremixError, match="no regular file"):
        _read_weights(tmp_path / "x.safetensors")
