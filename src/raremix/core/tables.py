"""Read tables so that a damaged one is an error, and not the end of the program.

Polars decodes Parquet in Rust. One wrong byte can make it panic, or ask for exabytes and abort the whole process, which
nothing in Python can catch; and a file of a few kilobytes may unpack to any size. Another process therefore reads a
file first, with a limit on its memory. What it survives is read here, from the same bytes by the same code.
"""

import gzip
import io
import os
import subprocess
import sys
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from stat import S_ISREG

import polars as pl

from raremix.core.errors import ReadError

# 112,120 rows of ChestX-ray14 take 8 MB; ten million rows about 1 GB.
MAX_CSV_BYTES = 1 << 31
# Below this, what is packed may unpack to anything; above, to this many times its size. Tables shrink twentyfold.
_UNPACKED, _RATIO = 32 << 20, 100
# A line of a table is a few hundred bytes; text that has none for so long is no table, whatever it is.
_LONGEST_LINE = _STEP = 1 << 20

# Unpacking a table of ten million rows (342 MiB) takes 14 times its size; a bomb takes a thousandfold and more.
_MEMORY, _MEMORY_RATIO = 2 << 30, 48
# Reading takes less than a second for each 16 MiB, also on a busy machine.
_SECONDS, _BYTES_PER_SECOND = 60, 16 << 20
# Each file is answered by one line, so that of several the ones after a fatal one can be asked for again.
_READER = """
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, ValueError):
    pass
import polars
for path in sys.argv[2:]:
    try:
        polars.read_parquet(path)
        print("whole", flush=True)
    except (OSError, polars.exceptions.PolarsError) as error:
        print(" ".join(str(error).split())[:120] or "no reason given", flush=True)
"""
_WHOLE, _FATAL = "whole", "its decoder gave up on it"


def read_parquet(path: Path, *, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read a Parquet file that may be damaged or hostile.

    Args:
        path: the file.
        columns: which columns; all by default.

    Raises:
        ReadError: if it is missing, damaged, without one of the columns, or unpacks to far more than its size.

    Example:
        ``read_parquet(Path("manifest.parquet"), columns=["path", "split"])``
    """
    reason = why_not(path)
    if reason is None:
        try:
            return pl.read_parquet(path, columns=None if columns is None else list(columns))
        except (OSError, pl.exceptions.PolarsError) as error:
            reason = " ".join(str(error).split())[:120]
    raise ReadError(path.name, f"is not a whole Parquet table ({reason}): restore the file, or write it again")


def why_not(path: Path) -> str | None:
    """Return why a Parquet file cannot be read, or None where it can."""
    return try_parquet([path])[0]


def try_parquet(paths: Sequence[Path]) -> list[str | None]:
    """Return, for each of several Parquet files, why it cannot be read, or None where it can.

    An unchanged file is tried once per process.
    """
    stamps = [_stamp(path) for path in paths]
    unseen = list(dict.fromkeys(stamp for stamp in stamps if stamp is not None and stamp not in _known()))
    while unseen:
        said = _ask(unseen)
        _known().update(zip(unseen, said, strict=False))
        if len(said) < len(unseen):
            _known()[unseen[len(said)]] = _FATAL
        unseen = unseen[len(said) + 1 :]
    return ["no such file" if stamp is None else _known()[stamp] for stamp in stamps]


def read_csv_bytes(path: Path) -> bytes:
    """Read a CSV file whole, packed by gzip or not, giving up as soon as it is too large or no table.

    Raises:
        ReadError: if it is missing, damaged, too large, packed too tightly, or has a line without end.
    """
    name = path.name
    data, line = io.BytesIO(), 0
    try:
        if not S_ISREG((status := path.stat()).st_mode):
            raise ReadError(name, "is no regular file (a folder, pipe or device): name the table itself")
        is_packed = path.suffix.lower() == ".gz"
        limit = min(MAX_CSV_BYTES, max(_UNPACKED, _RATIO * status.st_size)) if is_packed else MAX_CSV_BYTES
        with gzip.open(path) if is_packed else path.open("rb") as file:
            while part := file.read(_STEP):
                data.write(part)
                line = line + len(part) if b"\n" not in part else len(part) - part.rindex(b"\n")
                if data.tell() > limit:
                    does = "unpacks to" if is_packed else "is"
                    raise ReadError(name, f"{does} more than {limit >> 20:,} MiB: write it as Parquet")
                if line > _LONGEST_LINE:
                    raise ReadError(name, f"has a line of more than {_LONGEST_LINE >> 10:,} KiB: this is no table")
    except (OSError, EOFError, zlib.error) as error:
        raise ReadError(name, f"cannot be read ({error}): restore the file") from None
    return data.getvalue()


Stamp = tuple[str, int, int, int]
"""Path, size, time and inode."""


@lru_cache(maxsize=1)
def _known() -> dict[Stamp, str | None]:
    return {}


def _stamp(path: Path) -> Stamp | None:
    if not path.is_file():
        return None
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino


def _ask(stamps: Sequence[Stamp]) -> list[str | None]:
    """Have another process read files; it answers for fewer where one of them ends it."""
    largest, total = max(size for _, size, _, _ in stamps), sum(size for _, size, _, _ in stamps)
    memory = _MEMORY + _MEMORY_RATIO * largest
    try:
        done = subprocess.run(
            [sys.executable, "-c", _READER, str(memory), *(path for path, *_ in stamps)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Threads reserve address space, which counts against the limit.
            env={**os.environ, "POLARS_MAX_THREADS": "2"},
            timeout=_SECONDS + total / _BYTES_PER_SECOND,
            check=False,
        )
        lines = done.stdout.decode(errors="replace").splitlines()
    except subprocess.TimeoutExpired as error:
        lines = (error.stdout or b"").decode(errors="replace").splitlines()
    return [None if line == _WHOLE else line for line in lines]
