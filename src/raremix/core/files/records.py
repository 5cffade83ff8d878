"""JSON: records that are appended with a checksum each, values that are read whole, and their hash."""

import json
import os
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from raremix.core import files
from raremix.core.errors import CorruptError
from raremix.core.files.disk import storage
from raremix.core.files.writing import folder, write_bytes

TORN = b"#torn"
"""Ends a line of a JSON-lines file that a kill cut short."""


def append_record(path: Path, record: Mapping[str, Any], *, durable: bool = True) -> None:
    """Append one record to a JSON-lines file, with a checksum, in a single write.

    Args:
        path: the file; its folder is made.
        record: any JSON-like table without NaN.
        durable: whether to wait until the line is on the disk; otherwise `sync` does so later for many lines.

    Raises:
        StorageError: if the line cannot be written.
    """
    folder(path.parent)
    with storage(path):
        is_new = not path.exists()
        torn = not is_new and path.stat().st_size > 0 and not _ends_with_newline(path)
        with path.open("ab", buffering=0) as file:
            files.DISK.write(file, (TORN + b"\n" if torn else b"") + _line(record))
            if durable:
                files.DISK.sync(file)
        if is_new and durable:
            files.DISK.sync_folder(path.parent)


def sync(path: Path) -> None:
    """Wait until what was appended to a file is on the disk.

    Raises:
        StorageError: if the disk reports an error.
    """
    with storage(path):
        with path.open("ab", buffering=0) as file:
            files.DISK.sync(file)
        files.DISK.sync_folder(path.parent)


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    """Write a whole JSON-lines file atomically."""
    return write_bytes(path, b"".join(_line(record) for record in records))


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read a JSON-lines file; a line that a kill cut short is dropped.

    Raises:
        CorruptError: if a whole line does not match its checksum.
        StorageError: if the file cannot be read.
    """
    if not path.exists():
        return []
    with storage(path):
        # What follows the last newline was never finished.
        lines = path.read_bytes().split(b"\n")[:-1]
    records = []
    for number, line in enumerate(lines, start=1):
        if line.endswith(TORN):
            continue
        try:
            value = json.loads(line)
            is_whole = value.pop("check") == _checksum(value)
        except (ValueError, KeyError, AttributeError):
            is_whole, value = False, {}
        if not is_whole:
            raise CorruptError(f"{path}: line {number} does not match its checksum: delete it, or restore the file")
        records.append(value)
    return records


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        CorruptError: if it is not JSON.
        StorageError: if it cannot be read.
    """
    with storage(path):
        text = path.read_bytes()
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{path} is not JSON ({error}): delete it, or restore it") from None


def hash_value(value: Any) -> str:
    """Return a short BLAKE2b hash of a JSON-like value: the key of a job or a cache entry.

    Example:
        >>> hash_value({"a": 1, "b": 2}) == hash_value({"b": 2, "a": 1})
        True
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return blake2b(text.encode(), digest_size=12).hexdigest()


def _line(record: Mapping[str, Any]) -> bytes:
    value = dict(record)
    return json.dumps({**value, "check": _checksum(value)}, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _checksum(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return blake2b(text.encode(), digest_size=4).hexdigest()


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
