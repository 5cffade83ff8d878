"""Read a table as text: CSV in any encoding and with any separator, packed by gzip or not, or Parquet."""

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from raremix.core.errors import ConfigError, ManifestError, ReadError, closest
from raremix.core.tables import read_csv_bytes
from raremix.data.manifest import listed, read_frame

_LONGEST_HEADER = 1 << 16
_SECOND = re.compile(r"_duplicated_\d+$")
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_table(path: Path, *, encoding: str | None = None, separator: str = ",") -> pl.DataFrame:
    """Read a table whose every column is text; spaces around column names are removed.

    Args:
        path: the table; the suffix .parquet means Parquet, .gz a packed CSV, anything else CSV.
        encoding: of a CSV, as Python names them; UTF-8 by default.
        separator: between the columns of a CSV.

    Raises:
        ManifestError: if the file is missing, is no table, or is in another encoding (which the message names).
        ConfigError: if there is no such encoding.

    Example:
        ``read_table(Path("labels.csv"), encoding="cp1252")["diagnosis"]``
    """
    if path.suffix.lower() == ".parquet":
        return read_frame(path, as_text=True)
    if encoding is not None:
        try:
            codecs.lookup(encoding)
        except LookupError:
            raise ConfigError(f'encoding = "{encoding}" is unknown: try "utf-8", "cp1252" or "utf-16"') from None
    data = _bytes(path)
    try:
        text = data if encoding is None else data.decode(encoding).removeprefix("\ufeff").encode()
        frame = pl.read_csv(io.BytesIO(text), infer_schema_length=0, separator=separator)
    except UnicodeError as error:
        raise ManifestError(
            f"{path.name} is not {encoding} ({_words(error)}): {_advice(data, other_than=encoding)}"
        ) from None
    except pl.exceptions.PolarsError as error:
        if encoding is None and not _is_utf8(data):
            raise ManifestError(f"{path.name} is not UTF-8{_first_bad_line(data)}: {_advice(data)}") from None
        raise ManifestError(f"{path.name} is not a table that polars can read: {error}") from None
    if encoding is None and any("\ufffd" in name for name in frame.columns):
        raise ManifestError(f"{path.name} is not UTF-8{_first_bad_line(data)}: {_advice(data)}")
    names = [name.strip() for name in frame.columns]
    # Polars renames the second of two equal columns; columns without a name are common, and harmless.
    origin = [_SECOND.sub("", name) if _SECOND.sub("", name) in names else name for name in names]
    twice = sorted({name for name in origin if origin.count(name) > 1 and name})
    if twice:
        raise ManifestError(f"{path.name} has two columns called {twice[0]!r}: rename one")
    return frame.rename(dict(zip(frame.columns, names, strict=True)))


def read_header(path: Path) -> list[str]:
    """Return the names of a CSV's columns, separated by comma or semicolon, without reading its rows.

    Raises:
        ManifestError: if the file cannot be read.

    Example:
        ``read_header(Path("train.csv"))[0]``
    """
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            first = file.readline(_LONGEST_HEADER)
    except (OSError, EOFError, zlib.error) as error:
        raise ManifestError(f"{path.name} cannot be read ({error}): restore the file") from None
    line = first.decode("utf-8-sig", errors="replace").strip()
    names = next(csv.reader([line], delimiter=";" if line.count(";") > line.count(",") else ","), [])
    return [name.strip() for name in names]


def need_columns(frame: pl.DataFrame, names: Sequence[str], *, table: str) -> None:
    """Refuse a table that lacks a column.

    Raises:
        ManifestError: naming what is missing, the nearest name, and what there is.
    """
    for name in names:
        if name not in frame.columns:
            guess = closest(name, frame.columns)
            hint = f"did you mean {guess!r}? " if guess else ""
            raise ManifestError(f"{table} has no column {name!r}: {hint}it has {listed(frame.columns, limit=30)}")


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise ManifestError(f"{path}: no such table")
    try:
        return read_csv_bytes(path)
    except ReadError as error:
        raise ManifestError(str(error)) from None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _first_bad_line(data: bytes) -> str:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return f" in line {line}"
    return ""


def _advice(data: bytes, *, other_than: str | None = None) -> str:
    found = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    if found is None:
        # Every byte is a letter in Latin-1, so it cannot fail; what Excel writes in the West is cp1252.
        found = "utf-8" if _is_utf8(data) else "cp1252"
    if found == other_than:
        found = "latin-1"
    return f'set encoding = "{found}", or save it as UTF-8'


def _words(error: UnicodeError) -> str:
    return " ".join(str(error).split())[:120]
