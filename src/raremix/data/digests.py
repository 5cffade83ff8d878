"""Hash the files of a manifest, each once: a later run looks unchanged files up by their size and time."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import polars as pl

from raremix.core import files
from raremix.core.errors import ReadError
from raremix.core.tables import read_parquet
from raremix.core.types import Progress
from raremix.data.manifest import Manifest
from raremix.data.quarantine import Reasons, refuse_unreadable
from raremix.data.readers import content_hash, read_bytes

INDEX = "digests"


def with_digests(manifest: Manifest, *, cache: Path, workers: int = 4, progress: Progress | None = None) -> Manifest:
    """Fill in the SHA-256 of every file whose row has none.

    Args:
        manifest: the data set.
        cache: folder for the index of known hashes; it holds no file names, only hashes of name, size and time.
        workers: threads that read.
        progress: called after each block of files.

    Raises:
        ReadError: if files cannot be read.
        StorageError: if the index cannot be written.
    """
    hashed, reasons = try_digests(manifest, cache=cache, workers=workers, progress=progress)
    refuse_unreadable(manifest, reasons)
    return hashed


def try_digests(
    manifest: Manifest, *, cache: Path, workers: int = 4, progress: Progress | None = None
) -> tuple[Manifest, Reasons]:
    """Fill in the SHA-256 of every file whose row has none, as far as they can be read.

    The arguments are those of `with_digests`.

    Returns:
        The manifest, and why the files of the rows that still have no hash cannot be read.

    Raises:
        StorageError: if the index cannot be written.
    """
    frame = manifest.frame
    if not frame["sha256"].null_count():
        return manifest, {}
    asked = frame.select("id", "path", "sha256").filter(pl.col("sha256").is_null())
    root = manifest.root.resolve()
    index = cache / INDEX / f"{blake2b(str(root).encode(), digest_size=12).hexdigest()}.parquet"
    known = _read_index(index)
    paths, rows = asked["path"].to_list(), asked["id"].to_list()
    stamps = [_stamp(root / path) for path in paths]
    unseen = [i for i, stamp in enumerate(stamps) if stamp not in known]
    fresh: dict[str, str] = {}
    reasons: dict[int, str] = {}

    def hashed(i: int) -> str | ReadError:
        try:
            return content_hash(read_bytes(root / paths[i], name=f"row {rows[i]} ({paths[i]})"))
        except ReadError as error:
            return error

    if unseen:
        with ThreadPoolExecutor(max(1, workers)) as pool:
            for done, (i, digest) in enumerate(zip(unseen, pool.map(hashed, unseen), strict=True), start=1):
                if isinstance(digest, ReadError):
                    reasons[rows[i]] = digest.reason
                else:
                    fresh[stamps[i]] = digest
                if progress is not None and (done % 256 == 0 or done == len(unseen)):
                    progress("hash files", done, len(unseen))
        if fresh:
            _write_index(index, {**known, **fresh})
    all_known = {**known, **fresh}
    found = pl.DataFrame({"id": asked["id"], "found": pl.Series([all_known.get(s) for s in stamps], dtype=pl.Utf8)})
    joined = frame.join(found, on="id", how="left", maintain_order="left")
    filled = joined.with_columns(pl.coalesce("sha256", "found").alias("sha256")).drop("found")
    return replace(manifest, frame=filled), reasons


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
        size, time = status.st_size, status.st_mtime_ns
    except OSError:
        size, time = -1, -1
    return blake2b(f"{path}\0{size}\0{time}".encode(), digest_size=16).hexdigest()


def _read_index(path: Path) -> dict[str, str]:
    # The index only saves time: one that cannot be read is made again.
    try:
        frame = read_parquet(path, columns=["stamp", "sha256"])
    except ReadError:
        return {}
    return dict(zip(frame["stamp"].to_list(), frame["sha256"].to_list(), strict=True))


def _write_index(path: Path, entries: dict[str, str]) -> None:
    columns: dict[str, Iterable[str]] = {"stamp": list(entries), "sha256": list(entries.values())}
    files.write_parquet(path, pl.DataFrame(columns))
