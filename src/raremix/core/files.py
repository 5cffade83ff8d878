"""The only code of raremix that writes files.

Every write is atomic and durable: a temporary file beside the target, flush, fsync, chmod by the umask, replace, fsync
of the folder. Whatever is found under its final name is therefore whole. Folders are committed by one rename. The few
calls that touch the disk go through `DISK`, so that tests can drop unsynced writes, fill the disk or pull the plug.
"""

import errno
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import blake2b, sha256
from pathlib import Path
from threading import Event, Thread
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import safetensors.torch
from PIL import Image
from torch import Tensor

from raremix.core.errors import BusyError, CorruptError, StorageError

TEMP_MARK = ".raremix-tmp"
BEAT = 10.0
"""Seconds between two signs of life of a claim."""


class Disk:
    """The operations through which everything reaches the disk."""

    def write(self, file: BinaryIO, data: bytes | memoryview) -> None:
        """Write all bytes."""
        file.write(data)

    def sync(self, file: BinaryIO) -> None:
        """Flush and fsync a file."""
        file.flush()
        os.fsync(file.fileno())

    def replace(self, source: Path, target: Path) -> None:
        """Rename, replacing what is there."""
        source.replace(target)

    def sync_folder(self, path: Path) -> None:
        """Fsync a folder, so that a rename in it survives a power cut."""
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


DISK = Disk()


def folder(path: Path) -> Path:
    """Make a folder with its parents, and return it."""
    with _storage(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def write_with(path: Path, writer: Callable[[BinaryIO], None]) -> Path:
    """Write a file atomically and durably.

    Args:
        path: the target; its folder is made, a symbolic link is followed.
        writer: writes into an open binary file.

    Raises:
        StorageError: naming the path, and the free space where the disk is full.
    """
    path = path.resolve() if path.is_symlink() else path
    folder(path.parent)
    temporary = _temporary(path)
    with _storage(path):
        try:
            with temporary.open("xb") as file:
                writer(file)
                DISK.sync(file)
            temporary.chmod(0o666 & ~_umask())
            DISK.replace(temporary, path)
            DISK.sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def write_bytes(path: Path, data: bytes) -> Path:
    """Write bytes atomically."""
    return write_with(path, lambda file: DISK.write(file, data))


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text atomically."""
    return write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> Path:
    """Write JSON atomically; NaN and infinity are refused, since JSON has none."""
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_parquet(path: Path, frame: pl.DataFrame) -> Path:
    """Write a table as Parquet, atomically."""
    return write_with(path, frame.write_parquet)


def write_csv(path: Path, frame: pl.DataFrame) -> Path:
    """Write a table as CSV, atomically."""
    return write_with(path, frame.write_csv)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    """Write tensors as safetensors, atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return write_bytes(path, safetensors.torch.save(plain, dict(metadata or {})))


def write_image(path: Path, image: np.ndarray) -> Path:
    """Write an image as PNG, atomically.

    Args:
        path: the target.
        image: uint8 of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or uint16 of shape (H, W).
    """
    plain = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    return write_with(path, lambda file: Image.fromarray(np.ascontiguousarray(plain)).save(file, format="PNG"))


def stream_array(path: Path, blocks: Iterable[np.ndarray]) -> str:
    """Write blocks one after another as raw C-ordered values, atomically, in the memory of one block.

    Returns:
        The BLAKE2b hash of what was written, in hexadecimal.
    """
    digest = blake2b(digest_size=32)

    def writer(file: BinaryIO) -> None:
        for block in blocks:
            data = np.ascontiguousarray(block).reshape(-1).view(np.uint8).data
            digest.update(data)
            DISK.write(file, data)

    write_with(path, writer)
    return digest.hexdigest()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` in one rename.

    The first writer wins: if `path` exists when the block ends, the temporary folder is discarded. If the block raises,
    nothing remains.
    """
    folder(path.parent)
    temporary = _temporary(path)
    folder(temporary)
    try:
        yield temporary
        with _storage(path):
            for inner in [*(p for p in temporary.rglob("*") if p.is_dir()), temporary]:
                DISK.sync_folder(inner)
            if not path.exists():
                try:
                    DISK.replace(temporary, path)
                except OSError as error:
                    if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                        raise
            DISK.sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder: renamed away first, so that nobody finds half of it."""
    if not path.exists():
        return
    away = _temporary(path)
    with _storage(path):
        DISK.replace(path, away)
    shutil.rmtree(away, ignore_errors=True)


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Append one record to a JSON-lines file, with a checksum, in a single write.

    Raises:
        StorageError: if the line cannot be written.
    """
    folder(path.parent)
    with _storage(path):
        torn = path.exists() and path.stat().st_size > 0 and not _ends_with_newline(path)
        with path.open("ab", buffering=0) as file:
            DISK.write(file, (b"\n" if torn else b"") + _line(record))


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    """Write a whole JSON-lines file atomically."""
    return write_bytes(path, b"".join(_line(record) for record in records))


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read a JSON-lines file; a torn last line is dropped.

    Raises:
        CorruptError: if a line before the last does not match its checksum.
    """
    if not path.exists():
        return []
    records = []
    lines = path.read_bytes().split(b"\n")
    last = max((i for i, line in enumerate(lines) if line), default=-1)
    for number, line in enumerate(lines):
        if not line:
            continue
        try:
            value = json.loads(line)
            check = value.pop("check")
            whole = check == _checksum(value)
        except (ValueError, KeyError, AttributeError):
            whole = False
            value = {}
        if whole:
            records.append(value)
        elif number != last and not _is_torn(lines, number):
            raise CorruptError(
                f"{path}: line {number + 1} does not match its checksum: delete the line, or restore the file"
            )
    return records


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        CorruptError: if it is not JSON.
        StorageError: if it cannot be read.
    """
    with _storage(path):
        text = path.read_bytes()
    try:
        return json.loads(text)
    except ValueError as error:
        raise CorruptError(f"{path} is not JSON ({error}): delete it, or restore it") from None


def hash_file(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with _storage(path), path.open("rb") as file:
        digest = sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_value(value: Any) -> str:
    """Return a short BLAKE2b hash of a JSON-like value: the key of a job or a cache entry.

    Example:
        >>> hash_value({"a": 1, "b": 2}) == hash_value({"b": 2, "a": 1})
        True
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return blake2b(text.encode(), digest_size=12).hexdigest()


def sweep(path: Path, *, recursive: bool = False) -> int:
    """Remove temporary files that dead processes of this host left behind; touch nothing else.

    Returns:
        How many were removed.
    """
    removed = 0
    for stray in path.rglob(f".*{TEMP_MARK}") if recursive else path.glob(f".*{TEMP_MARK}"):
        parts = stray.name.removesuffix(TEMP_MARK).rsplit("~", 3)
        if len(parts) != 4 or parts[1] != _host() or _is_alive(parts[2]):
            continue
        if stray.is_dir():
            shutil.rmtree(stray, ignore_errors=True)
        else:
            stray.unlink(missing_ok=True)
        removed += 1
    return removed


@contextmanager
def claim(path: Path, *, what: str) -> Iterator[None]:
    """Hold a claim file while a job is done, so that no other process does the same.

    A claim whose process of this host is dead, or of another host that has given no sign for a minute, is taken over. The
    sign of life is the file's time, renewed by a thread.

    Args:
        path: the claim file.
        what: what is being done, for the message.

    Raises:
        BusyError: naming the process that holds it.
    """
    folder(path.parent)
    mine = {"host": _host(), "pid": os.getpid(), "token": uuid.uuid4().hex}
    for _ in range(2):
        try:
            with path.open("x") as file:
                json.dump(mine, file)
            break
        except FileExistsError:
            holder = _holder(path)
            if holder is not None:
                raise BusyError(
                    f"{what} is being done by process {holder['pid']} on {holder['host']}: wait for it, or stop it "
                    f"(if there is no such process, delete {path})"
                ) from None
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(_explain(path, error)) from error
    done = Event()

    def renew() -> None:
        while not done.wait(BEAT):
            with suppress(OSError):
                os.utime(path)

    thread = Thread(target=renew, name="raremix-claim", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with suppress(OSError, ValueError):
            if json.loads(path.read_text()).get("token") == mine["token"]:
                path.unlink()


def _holder(path: Path) -> dict[str, Any] | None:
    try:
        holder = json.loads(path.read_text())
        silent = time.time() - path.stat().st_mtime
    except (OSError, ValueError):
        return None
    if not isinstance(holder, dict) or "pid" not in holder or "host" not in holder:
        return None
    dead = not _is_alive(str(holder["pid"])) if holder["host"] == _host() else silent > 6 * BEAT
    return None if dead else holder


def _temporary(path: Path) -> Path:
    return path.parent / f".{path.name}~{_host()}~{os.getpid()}~{uuid.uuid4().hex[:8]}{TEMP_MARK}"


def _host() -> str:
    return socket.gethostname().replace("~", "-").replace("/", "-")


def _is_alive(pid: str) -> bool:
    if not pid.isdigit():
        return True
    if int(pid) == os.getpid():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _umask() -> int:
    # Linux tells the umask without setting it; elsewhere it must be set for an instant to be read.
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _line(record: Mapping[str, Any]) -> bytes:
    value = dict(record)
    return json.dumps({**value, "check": _checksum(value)}, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _checksum(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return blake2b(text.encode(), digest_size=4).hexdigest()


def _is_torn(lines: list[bytes], number: int) -> bool:
    # A line torn by a kill has no closing brace; the next append ended it with a newline.
    return not lines[number].rstrip().endswith(b"}")


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


@contextmanager
def _storage(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(_explain(path, error)) from error


def _explain(path: Path, error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        parent = next((p for p in [path, *path.parents] if p.exists()), Path())
        free = shutil.disk_usage(parent).free / 2**20
        advice = "free some space, or choose another folder, and run the same command again"
        return f"{path}: {reason} ({free:,.0f} MiB free): {advice}"
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return f"{path}: {reason}: choose a folder that you may write to"
    if error.errno == errno.ENOENT:
        return f"{path}: no such file or folder"
    return f"{path}: {reason}"
