"""The only code of raremix that writes files.

Every write is atomic and durable: a temporary file beside the target, flush, fsync, replace, fsync of the folder.
Whatever is found under its final name is therefore whole. Folders are committed by one rename. The few calls that
change the disk go through `DISK`, so that tests can drop unsynced writes, fill the disk or pull the plug.
"""

import errno
import io
import json
import os
import shutil
import socket
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

from raremix.core.errors import BusyError, CorruptError, ReadError, StorageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

TEMP_MARK = ".raremix-tmp"
MANIFEST = "manifest.json"
BEAT = 10.0
"""Seconds between two signs of life of a claim."""
TORN = b"#torn"
"""Ends a line of a JSON-lines file that a kill cut short."""


class Disk:
    """The operations through which everything reaches the disk."""

    def make_folder(self, path: Path) -> None:
        """Make one folder in a folder that exists."""
        path.mkdir()

    def write(self, file: BinaryIO, data: bytes | memoryview) -> None:
        """Write all bytes; an unbuffered file may take them in several pieces."""
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]

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
        except OSError as error:
            # Some network file systems have no fsync of folders; there it cannot be asked for.
            if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
                raise
        finally:
            os.close(handle)

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""
        path.unlink(missing_ok=True)

    def remove_tree(self, path: Path) -> None:
        """Remove a folder with all that is in it, as far as that is possible."""
        shutil.rmtree(path, ignore_errors=True)


DISK = Disk()
_in_use: set[str] = set()
"""Names of this process's own temporary files: its number may have belonged to a dead process before."""


def folder(path: Path) -> Path:
    """Make a folder with its parents, durably, and return it.

    Raises:
        StorageError: if it cannot be made.
    """
    with _storage(path):
        missing = []
        here = path
        while not here.exists():
            missing.append(here)
            here = here.parent
        for new in reversed(missing):
            try:
                DISK.make_folder(new)
            except FileExistsError:
                if not new.is_dir():
                    raise
            DISK.sync_folder(new.parent)
    return path


def write_with(path: Path, writer: Callable[[BinaryIO], None], *, need: int | None = None) -> Path:
    """Write a file atomically and durably; its mode is what the umask says.

    Args:
        path: the target; its folder is made, a symbolic link is followed.
        writer: writes into an open binary file.
        need: size in bytes, for the message of a full disk.

    Raises:
        StorageError: naming the path, and the free space where the disk is full.
    """
    path = path.resolve() if path.is_symlink() else path
    folder(path.parent)
    with _storage(path, need=need), _temporary(path) as temporary:
        try:
            with temporary.open("xb") as file:
                writer(file)
                DISK.sync(file)
            DISK.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                DISK.remove(temporary)
            raise
        DISK.sync_folder(path.parent)
    return path


def write_resumable(path: Path, append: Callable[[BinaryIO], None], *, verify: Callable[[Path], None]) -> Path:
    """Write a file in as many attempts as it takes: what one attempt wrote stays beside the target as `<name>.part`.

    Args:
        path: the target; it appears whole, or not at all.
        append: writes what is missing to an open binary file, whose position says how much is there; it may truncate.
        verify: raises `ReadError` if the whole file is not what it should be; the part is then removed.

    Raises:
        StorageError: naming the path, and the free space where the disk is full.
        ReadError: from `verify`.
    """
    part = path.with_name(f"{path.name}.part")
    folder(path.parent)
    with _storage(path):
        with part.open("ab") as file:
            try:
                append(file)
            finally:
                DISK.sync(file)
        try:
            verify(part)
        except ReadError:
            DISK.remove(part)
            raise
        DISK.replace(part, path)
        DISK.sync_folder(path.parent)
    return path


def write_bytes(path: Path, data: bytes) -> Path:
    """Write bytes atomically."""
    return write_with(path, lambda file: DISK.write(file, data), need=len(data))


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text atomically."""
    return write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> Path:
    """Write JSON atomically; NaN and infinity are refused, since JSON has none."""
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_parquet(path: Path, frame: pl.DataFrame) -> Path:
    """Write a table as Parquet, atomically."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return write_bytes(path, buffer.getvalue())


def write_csv(path: Path, frame: pl.DataFrame) -> Path:
    """Write a table as CSV, atomically."""
    buffer = io.BytesIO()
    frame.write_csv(buffer)
    return write_bytes(path, buffer.getvalue())


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    """Write tensors as safetensors, atomically; tensors that share their memory are written once each."""
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        if value.untyped_storage().data_ptr() in seen:
            value = value.clone()
        seen.add(value.untyped_storage().data_ptr())
        plain[name] = value
    return write_bytes(path, safetensors.torch.save(plain, dict(metadata or {})))


def write_image(path: Path, image: np.ndarray) -> Path:
    """Write an image as PNG, atomically.

    Args:
        path: the target.
        image: uint8 of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or uint16 of shape (H, W).
    """
    plain = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(plain)).save(buffer, format="PNG")
    return write_bytes(path, buffer.getvalue())


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
    with _temporary(path) as temporary:
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
            if temporary.exists():
                DISK.remove_tree(temporary)


def remove_folder(path: Path) -> None:
    """Remove a folder: renamed away first, so that nobody finds half of it."""
    if not path.exists():
        return
    with _temporary(path) as away:
        with _storage(path):
            DISK.replace(path, away)
        DISK.remove_tree(away)


def remove_file(path: Path) -> None:
    """Remove a file, if it is there."""
    with _storage(path):
        DISK.remove(path)


def secret(path: Path, *, size: int = 32) -> bytes:
    """Return a file's secret bytes; the first call makes them, readable by their owner alone.

    Of several processes that make them at once, one wins and all return the same.

    Args:
        path: the file.
        size: number of bytes.

    Raises:
        StorageError: if it can be neither read nor made.
        CorruptError: if it is of another size, or others may read it.
    """
    if not path.exists():
        folder(path.parent)
        with _storage(path), _temporary(path) as draft:
            try:
                with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    DISK.write(file, os.urandom(size))
                    DISK.sync(file)
                with suppress(FileExistsError):
                    _appear(draft, path)
                    path.chmod(0o600)
            finally:
                DISK.remove(draft)
            DISK.sync_folder(path.parent)
    with _storage(path):
        mode, value = path.stat().st_mode, path.read_bytes()
    if os.name == "posix" and mode & 0o077:
        raise CorruptError(f"{path} is a secret that others may read: run chmod 600 on it")
    if len(value) != size:
        raise CorruptError(f"{path} holds {len(value)} bytes, expected {size}: delete it; a new secret is made")
    return value


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
    with _storage(path):
        is_new = not path.exists()
        torn = not is_new and path.stat().st_size > 0 and not _ends_with_newline(path)
        with path.open("ab", buffering=0) as file:
            DISK.write(file, (TORN + b"\n" if torn else b"") + _line(record))
            if durable:
                DISK.sync(file)
        if is_new and durable:
            DISK.sync_folder(path.parent)


def sync(path: Path) -> None:
    """Wait until what was appended to a file is on the disk.

    Raises:
        StorageError: if the disk reports an error.
    """
    with _storage(path):
        with path.open("ab", buffering=0) as file:
            DISK.sync(file)
        DISK.sync_folder(path.parent)


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
    with _storage(path):
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


def seal(path: Path, names: Iterable[str]) -> Path:
    """Write a folder's `manifest.json`, which names files in it with their SHA-256; the last thing to be written.

    Args:
        path: the folder.
        names: the files that are vouched for.
    """
    hashes = {name: hash_file(path / name) for name in names}
    return write_json(path / MANIFEST, {"files": hashes, "check": hash_value(hashes)})


def verify(path: Path, *, advice: str) -> list[str]:
    """Check a folder's files against the manifest that `seal` wrote, and return their names.

    Args:
        path: the folder.
        advice: what to do if a file is damaged.

    Raises:
        CorruptError: naming the file that is missing or damaged.
    """
    manifest = path / MANIFEST
    hashes = read_json(manifest) if manifest.is_file() else None
    if not isinstance(hashes, dict) or hash_value(hashes.get("files")) != hashes.get("check"):
        raise CorruptError(f"{manifest} is missing or damaged: {advice}")
    for name, digest in hashes["files"].items():
        if not (path / name).is_file() or hash_file(path / name) != digest:
            raise CorruptError(f"{path / name} is missing or damaged: {advice}")
    return list(hashes["files"])


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
    # Listed first: what is removed must not be walked through.
    for stray in list(path.rglob(f".*{TEMP_MARK}") if recursive else path.glob(f".*{TEMP_MARK}")):
        parts = stray.name.removesuffix(TEMP_MARK).rsplit("~", 3)
        if len(parts) != 4 or parts[1] != _host() or stray.name in _in_use or not stray.exists():
            continue
        if parts[2] != str(os.getpid()) and _is_alive(parts[2]):
            continue
        if stray.is_dir():
            DISK.remove_tree(stray)
        else:
            DISK.remove(stray)
        removed += 1
    return removed


@contextmanager
def claim(path: Path, *, what: str) -> Iterator[None]:
    """Hold a claim file while a job is done, so that no other process does the same.

    A claim whose process of this host is dead, or of another host that has given no sign for a minute, is taken over.
    The sign of life is the file's time, renewed by a thread.

    Args:
        path: the claim file.
        what: what is being done, for the message.

    Raises:
        BusyError: naming the process that holds it.
        StorageError: if the claim cannot be written.
    """
    folder(path.parent)
    mine = {"host": _host(), "pid": os.getpid(), "born": _birth(os.getpid()), "token": uuid.uuid4().hex}
    with _storage(path), _temporary(path) as draft:
        draft.write_text(json.dumps(mine))
        try:
            _take(path, draft, what=what)
        finally:
            draft.unlink(missing_ok=True)
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
        if _read_claim(path).get("token") == mine["token"]:
            path.unlink(missing_ok=True)


def _take(path: Path, draft: Path, *, what: str) -> None:
    with _locked(path.parent):
        if path.exists():
            holder = _read_claim(path)
            # Both times are the file server's, whatever the clocks of the hosts say.
            if not _is_stale(path, holder, now=draft.stat().st_mtime):
                raise _busy(path, holder, what=what)
            path.unlink(missing_ok=True)
        try:
            _appear(draft, path)
        except FileExistsError:
            raise _busy(path, _read_claim(path), what=what) from None


def _busy(path: Path, holder: Mapping[str, Any], *, what: str) -> BusyError:
    return BusyError(
        f"{what} is being done by process {holder.get('pid', 'unknown')} on {holder.get('host', 'an unknown host')}: "
        f"wait for it, or stop it (if there is no such process, delete {path})"
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep others of this host from looking at a folder's claims at the same time, where the system has such locks."""
    if fcntl is None:
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _appear(draft: Path, path: Path) -> None:
    """Put a claim in its place, unless there is one."""
    try:
        # A link appears with its content, so that nobody ever reads half a claim.
        os.link(draft, path)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.ENOSYS}:
            raise
        # A file system without links. A half-written claim looks fresh, so it is respected.
        with path.open("xb") as file:
            file.write(draft.read_bytes())


def _is_stale(path: Path, holder: Mapping[str, Any], *, now: float) -> bool:
    pid = str(holder.get("pid", ""))
    if holder.get("host") == _host() and pid:
        return not _is_alive(pid) or holder.get("born") not in {None, _birth(int(pid))}
    try:
        return now - path.stat().st_mtime > 6 * BEAT
    except FileNotFoundError:
        return True


def _read_claim(path: Path) -> dict[str, Any]:
    try:
        holder = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Name a temporary file beside a path; while the block runs, `sweep` leaves it alone."""
    temporary = path.parent / f".{path.name}~{_host()}~{os.getpid()}~{uuid.uuid4().hex[:8]}{TEMP_MARK}"
    _in_use.add(temporary.name)
    try:
        yield temporary
    finally:
        _in_use.discard(temporary.name)


def _host() -> str:
    return socket.gethostname().replace("~", "-").replace("/", "-")


def _is_alive(pid: str) -> bool:
    if not pid.isdigit():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _birth(pid: int) -> str | None:
    """Return when a process of this host began, since its number may be given again; None where that is not told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # The name in brackets may hold spaces; the start time is the 20th field after it.
        return f"{boot}:{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        return None


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


@contextmanager
def _storage(path: Path, *, need: int | None = None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(_explain(path, error, need=need)) from error


def _explain(path: Path, error: OSError, *, need: int | None) -> str:
    reason = error.strerror or str(error)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        parent = next((p for p in [path, *path.parents] if p.exists()), Path())
        free = f"{shutil.disk_usage(parent).free / 2**20:,.1f} MiB free"
        room = free if need is None else f"{need / 2**20:,.1f} MiB needed, {free}"
        advice = "free some space, or choose another folder, and run the same command again"
        return f"{path}: {reason} ({room}): {advice}"
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return f"{path}: {reason}: choose a folder that you may write to"
    if error.errno == errno.ENOENT:
        return f"{path}: no such file or folder"
    return f"{path}: {reason}: look at the disk, or choose another folder"
