"""The operations through which everything reaches the disk, and what is said when one of them fails."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from raremix.core.errors import StorageError


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


@contextmanager
def storage(path: Path, *, need: int | None = None) -> Iterator[None]:
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
