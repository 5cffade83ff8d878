"""Claims: a file that says which process does a job, so that no other does the same."""

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from raremix.core.errors import BusyError
from raremix.core.files.disk import storage
from raremix.core.files.temporary import appear, birth, host, is_alive, temporary_beside
from raremix.core.files.writing import folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

BEAT = 10.0
"""Seconds between two signs of life of a claim."""


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
    mine = {"host": host(), "pid": os.getpid(), "born": birth(os.getpid()), "token": uuid.uuid4().hex}
    with storage(path), temporary_beside(path) as draft:
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
            appear(draft, path)
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


def _is_stale(path: Path, holder: Mapping[str, Any], *, now: float) -> bool:
    pid = str(holder.get("pid", ""))
    if holder.get("host") == host() and pid:
        return not is_alive(pid) or holder.get("born") not in {None, birth(int(pid))}
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
