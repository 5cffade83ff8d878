"""Temporary files: how they are named, and which of them were left behind by processes that are dead."""

import errno
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raremix.core import files

TEMP_MARK = ".raremix-tmp"
IN_USE: set[str] = set()
"""Names of this process's own temporary files: its number may have belonged to a dead process before."""


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Name a temporary file beside a path; while the block runs, `sweep` leaves it alone."""
    temporary = path.parent / f".{path.name}~{host()}~{os.getpid()}~{uuid.uuid4().hex[:8]}{TEMP_MARK}"
    IN_USE.add(temporary.name)
    try:
        yield temporary
    finally:
        IN_USE.discard(temporary.name)


def sweep(path: Path, *, recursive: bool = False) -> int:
    """Remove temporary files that dead processes of this host left behind; touch nothing else.

    Returns:
        How many were removed.
    """
    removed = 0
    # Listed first: what is removed must not be walked through.
    for stray in list(path.rglob(f".*{TEMP_MARK}") if recursive else path.glob(f".*{TEMP_MARK}")):
        parts = stray.name.removesuffix(TEMP_MARK).rsplit("~", 3)
        if len(parts) != 4 or parts[1] != host() or stray.name in IN_USE or not stray.exists():
            continue
        if parts[2] != str(os.getpid()) and is_alive(parts[2]):
            continue
        if stray.is_dir():
            files.DISK.remove_tree(stray)
        else:
            files.DISK.remove(stray)
        removed += 1
    return removed


def host() -> str:
    return socket.gethostname().replace("~", "-").replace("/", "-")


def is_alive(pid: str) -> bool:
    if not pid.isdigit():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def birth(pid: int) -> str | None:
    """Return when a process of this host began, since its number may be given again; None where that is not told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # The name in brackets may hold spaces; the start time is the 20th field after it.
        return f"{boot}:{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        return None


def appear(draft: Path, path: Path) -> None:
    """Put a draft in its place, unless there is one already.

    Raises:
        FileExistsError: if there is.
    """
    try:
        # A link appears with its content, so that nobody ever reads half a claim.
        os.link(draft, path)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.ENOSYS}:
            raise
        # A file system without links. A half-written claim looks fresh, so it is respected.
        with path.open("xb") as file:
            file.write(draft.read_bytes())
