"""What a data set needs from DICOM headers, without whom it is about.

Patient and image numbers leave this module only as keyed hashes: without the key, which lies beside the cache and is
readable by its owner alone, nobody can tell whose they are by hashing all numbers there are. Names, dates, addresses
and free text are never read.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import polars as pl

from raremix.core import files
from raremix.core.errors import ReadError
from raremix.core.tables import read_parquet
from raremix.core.types import Progress
from raremix.data.readers import read_dicom_header

ATTRIBUTES = ("modality", "view", "laterality", "sex", "age", "manufacturer", "model")
"""What of a header may become a column."""

_ELEMENTS = {
    "modality": "Modality",
    "view": "ViewPosition",
    "laterality": "ImageLaterality",
    "sex": "PatientSex",
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
}
# Above this, an age alone can tell who it is (HIPAA Safe Harbor: ages over 89 are one category).
_OLDEST = 90
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
# Raise when the columns of the index change.
_CODE_VERSION = 1
_FLUSH = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What is kept of a header.

    Attributes:
        patient: keyed hash of PatientID, or None where the file has none.
        image: keyed hash of SOPInstanceUID, or None.
        modality, view, laterality, sex, manufacturer, model: as the file says, or None.
        age: in years, at most 90.
    """

    patient: str | None
    image: str | None
    modality: str | None = None
    view: str | None = None
    laterality: str | None = None
    sex: str | None = None
    age: int | None = None
    manufacturer: str | None = None
    model: str | None = None


_SCHEMA = {
    "stamp": pl.Utf8,
    **{name: pl.Int64 if name == "age" else pl.Utf8 for name in Header.__dataclass_fields__},
}


def group_key(cache: Path) -> bytes:
    """Return the secret of a cache folder, which lies beside it: deleting the cache does not change any group."""
    return files.secret(cache.with_name(f"{cache.name}.key"))


def keyed_hash(text: str, *, key: bytes) -> str:
    """Return a hash of a number that cannot be found again without the key.

    Example:
        >>> keyed_hash("1234", key=b"k") == keyed_hash(" 1234 ", key=b"k") != keyed_hash("1234", key=b"l")
        True
    """
    return blake2b(text.strip().encode(), key=key, digest_size=12).hexdigest()


def read_headers(
    root: Path, paths: Sequence[str], *, cache: Path, key: bytes, progress: Progress | None = None
) -> list[Header]:
    """Return what is kept of the headers of files; unchanged files are looked up in an index in the cache.

    Args:
        root: the folder that paths start from.
        paths: the files.
        cache: folder of the index, which holds no name, path or number.
        key: of the hashes.
        progress: called as files are read.

    Raises:
        ReadError: naming the file that is damaged.
    """
    where = keyed_hash(f"{_CODE_VERSION}{root.resolve()}", key=key)
    index = cache / "dicom" / f"{where}.parquet"
    known = _read_index(index)
    stamps = [_stamp(root / path, key=key) for path in paths]
    fresh = 0
    for done, (path, stamp) in enumerate(zip(paths, stamps, strict=True), start=1):
        if stamp not in known:
            known[stamp] = _read(root / path, name=path, key=key)
            fresh += 1
        if progress is not None and fresh and (done % 256 == 0 or done == len(paths)):
            progress("read headers", done, len(paths))
        if fresh and (fresh % _FLUSH == 0 or done == len(paths)):
            _write_index(index, known)
    return [known[stamp] for stamp in stamps]


def _read(path: Path, *, name: str, key: bytes) -> Header:
    elements = ["PatientID", "SOPInstanceUID", "PatientAge", *_ELEMENTS.values()]
    values = read_dicom_header(path, name=name, elements=elements)
    patient, image = values.get("PatientID"), values.get("SOPInstanceUID")
    return Header(
        patient=keyed_hash(patient, key=key) if patient else None,
        image=keyed_hash(image, key=key) if image else None,
        age=_years(values.get("PatientAge")),
        **{name: values.get(element) for name, element in _ELEMENTS.items()},
    )


def _years(age: str | None) -> int | None:
    found = re.fullmatch(r"(\d{1,3})([DWMY])", age or "")
    return None if found is None else min(_OLDEST, int(int(found[1]) * _YEARS[found[2]]))


def _stamp(path: Path, *, key: bytes) -> str:
    try:
        status = path.stat()
        size, time = status.st_size, status.st_mtime_ns
    except OSError:
        size, time = -1, -1
    return keyed_hash(f"{path.resolve()}\0{size}\0{time}", key=key)


def _read_index(path: Path) -> dict[str, Header]:
    # The index only saves time: one that cannot be read is made again.
    try:
        frame = read_parquet(path, columns=list(_SCHEMA))
    except ReadError:
        return {}
    rows: list[dict[str, Any]] = frame.to_dicts()
    return {row.pop("stamp"): Header(**row) for row in rows}


def _write_index(path: Path, headers: dict[str, Header]) -> None:
    rows = [{"stamp": stamp, **asdict(header)} for stamp, header in headers.items()]
    files.write_parquet(path, pl.DataFrame(rows, schema=_SCHEMA))
