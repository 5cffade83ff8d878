"""Look at all files of a manifest, each once: what was seen is kept, so that an audit resumes and repeats quickly.

What is kept is keyed by content: a file that was only renamed or touched is read and hashed again, and not decoded. A
file whose name, size and time are those of the last audit is not even read.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Int, UInt8

from raremix.core import files
from raremix.core.errors import ReadError
from raremix.core.tables import read_parquet, try_parquet
from raremix.core.types import Progress
from raremix.data.audit.look import SIDE, Look, look_at
from raremix.data.manifest import Manifest
from raremix.data.readers import Reading, content_hash, read_bytes

# Raise when what is seen in a file would change.
CODE_VERSION = 1
CHUNK, PART = 32, 4096
"""Files that a thread looks at in one go, and files after which what was seen is written."""

_TYPES: dict[str, Any] = {
    "sha256": pl.Utf8,
    "width": pl.Int64,
    "height": pl.Int64,
    "kind": pl.Utf8,
    "reason": pl.Utf8,
    "brightness": pl.Float64,
    "contrast": pl.Float64,
}
_NAMES = tuple(field.name for field in fields(Look) if field.name != "thumbnail")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Looks:
    """What was seen in the files of a manifest, in the order of its rows.

    Attributes:
        frame: one row per file with the fields of `raremix.data.audit.look.Look`.
        thumbnails: grey; black where a file cannot be read.
        reused: how many files were known from an audit before.
    """

    frame: pl.DataFrame
    thumbnails: UInt8[np.ndarray, "n 32 32"]
    reused: int

    @property
    def is_readable(self) -> Bool[np.ndarray, " n"]:
        """Which files can be read."""
        return (self.frame["reason"] == "").to_numpy()


def look_at_all(
    manifest: Manifest,
    *,
    cache: Path,
    reading: Reading | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Looks:
    """Look at every file of a manifest.

    Threads read and decode; the files that wait are few, and of each only the thumbnail and a few numbers are kept, so
    memory grows by about 1.5 KiB per image.

    Args:
        manifest: the images.
        cache: folder in which what was seen is kept, without any file name.
        reading: which frame and range of values of DICOM and NIfTI files.
        workers: threads; one per processor by default.
        progress: called as blocks of files are done.

    Raises:
        StorageError: if what was seen cannot be written.
    """
    root = manifest.root.resolve()
    paths = [f"{root}/{path}" for path in manifest.frame["path"]]
    stamps = [_stamp(path) for path in paths]
    key = {"root": str(root), "code_version": CODE_VERSION, "reading": {} if reading is None else reading.key()}
    folder = cache / "audit" / files.hash_value(key)
    known = _read(folder)
    place = _places(known["stamp"], stamps)
    thumbnails = np.zeros((len(paths), SIDE, SIDE), dtype=np.uint8)
    columns: dict[str, np.ndarray] = {name: np.empty(len(paths), dtype=object) for name in _NAMES}
    _fill(columns, thumbnails, known, to=np.flatnonzero(place >= 0), rows=place[place >= 0])
    todo = np.flatnonzero(place < 0)
    seen = dict(zip(known["sha256"], range(known.height), strict=True)) if len(todo) else {}
    fresh: list[int] = []

    def keep(rows: Sequence[int]) -> None:
        if rows:
            _write(folder, [stamps[row] for row in rows], columns, thumbnails, rows)

    stream = _looked(paths, todo, seen, reading, workers=workers or os.cpu_count() or 1)
    for done, (row, look) in enumerate(stream, start=1):
        if isinstance(look, int):
            _fill(columns, thumbnails, known, to=np.array([row]), rows=np.array([look]))
        else:
            for name in _NAMES:
                columns[name][row] = getattr(look, name)
            if look.thumbnail is not None:
                thumbnails[row] = look.thumbnail
        fresh.append(row)
        if len(fresh) == PART:
            keep(fresh)
            fresh = []
        if progress is not None and (done % 128 == 0 or done == len(todo)):
            progress("look at files", done, len(todo))
    keep(fresh)
    frame = pl.DataFrame({name: pl.Series(list(columns[name]), dtype=_TYPES[name]) for name in _NAMES})
    return Looks(frame=frame, thumbnails=thumbnails, reused=int((place >= 0).sum()))


def _looked(
    paths: list[str], rows: Int[np.ndarray, " m"], seen: dict[str, int], reading: Reading | None, *, workers: int
) -> Iterator[tuple[int, Look | int]]:
    """Yield, in order, each row with what was seen in its file, or with the place of a known file of this content."""

    def look(chunk: Int[np.ndarray, " c"]) -> list[tuple[int, Look | int]]:
        return [(int(row), _one(paths[row], seen, reading)) for row in chunk]

    chunks = iter(np.split(rows, range(CHUNK, len(rows), CHUNK)) if len(rows) else [])
    with ThreadPoolExecutor(workers, thread_name_prefix="look") as pool:
        ahead: deque[Future[list[tuple[int, Look | int]]]] = deque(
            pool.submit(look, chunk) for chunk in islice(chunks, 2 * workers)
        )
        while ahead:
            found = ahead.popleft().result()
            chunk = next(chunks, None)
            if chunk is not None:
                ahead.append(pool.submit(look, chunk))
            yield from found


def _one(path: str, seen: dict[str, int], reading: Reading | None) -> Look | int:
    try:
        data = read_bytes(Path(path), name="")
    except ReadError as error:
        return Look(reason=error.reason)
    sha256 = content_hash(data)
    return seen[sha256] if sha256 in seen else look_at(data, sha256=sha256, reading=reading)


def _stamp(path: str) -> str:
    try:
        status = os.stat(path)  # noqa: PTH116 - for 100,000 files, making a Path of each takes longer than asking
        size, time = status.st_size, status.st_mtime_ns
    except OSError:
        size, time = -1, -1
    return blake2b(f"{path}\0{size}\0{time}".encode(), digest_size=16).hexdigest()


def _places(known: pl.Series, stamps: list[str]) -> Int[np.ndarray, " n"]:
    """Return where each stamp stands among the known ones, or -1."""
    index = pl.DataFrame({"stamp": known, "place": np.arange(len(known))}).unique("stamp", keep="last")
    joined = pl.DataFrame({"stamp": pl.Series(stamps, dtype=pl.Utf8)}).join(
        index, on="stamp", how="left", maintain_order="left"
    )
    return joined["place"].fill_null(-1).to_numpy().astype(np.int64)


def _fill(
    columns: dict[str, np.ndarray],
    thumbnails: UInt8[np.ndarray, "n 32 32"],
    known: pl.DataFrame,
    *,
    to: Int[np.ndarray, " m"],
    rows: Int[np.ndarray, " m"],
) -> None:
    """Copy what is known into what is collected."""
    if not len(to):
        return
    chosen = known[rows]
    for name in _NAMES:
        columns[name][to] = chosen[name].to_list()
    thumbnails[to] = np.frombuffer(b"".join(chosen["thumbnail"]), dtype=np.uint8).reshape(-1, SIDE, SIDE)


def _write(
    folder: Path,
    stamps: list[str],
    columns: dict[str, np.ndarray],
    thumbnails: UInt8[np.ndarray, "n 32 32"],
    rows: Sequence[int],
) -> None:
    parts = {name: pl.Series([columns[name][row] for row in rows], dtype=_TYPES[name]) for name in _NAMES}
    bits = pl.Series([thumbnails[row].tobytes() for row in rows], dtype=pl.Binary)
    frame = pl.DataFrame({"stamp": stamps, **parts, "thumbnail": bits})
    # A file that could not be opened has no content by which it could be known again.
    frame = frame.filter(pl.col("sha256") != "")
    if frame.height:
        files.folder(folder)
        files.write_parquet(folder / f"{files.hash_value(stamps)}.parquet", frame)


def _read(folder: Path) -> pl.DataFrame:
    types = {"stamp": pl.Utf8, **_TYPES, "thumbnail": pl.Binary}
    parts = [pl.DataFrame(schema=types)]
    paths = sorted(folder.glob("*.parquet"))
    try_parquet(paths)  # all at once: a process for each would take longer than to look again
    for path in paths:
        # What is kept only saves time: a part that cannot be read is looked at again.
        try:
            part = read_parquet(path, columns=list(types))
        except ReadError:
            continue
        if part.schema == types and (part["thumbnail"].bin.size() == SIDE * SIDE).all():
            parts.append(part)
    return pl.concat(parts)
