"""Fetch a file over HTTP: resumed where it broke off, checked against its checksum, whole or not at all."""

import hashlib
import http.client
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from raremix import __version__
from raremix.core import files
from raremix.core.errors import ConfigError, ReadError, StorageError
from raremix.core.types import Progress

ATTEMPTS = 5
PAUSE = 2.0
"""Seconds before the second attempt; each further one waits twice as long."""
_BLOCK = 1 << 20
_BROKEN = (ConnectionError, TimeoutError, http.client.HTTPException)


def download(
    url: str,
    target: Path,
    *,
    checksum: str | None,
    progress: Progress | None = None,
    pause: float | None = None,
) -> Path:
    """Fetch a file unless it is there.

    What was fetched stays as `<name>.part` when the connection breaks; the next attempt, in this call or a later one,
    asks for the rest (https://www.rfc-editor.org/rfc/rfc9110#section-14.2) and begins anew where the server does not
    know how.

    Args:
        url: http or https.
        target: where the file goes.
        checksum: such as "md5:0744..." or "sha256:..."; None where none is published.
        progress: called with the MiB that are there and their number.
        pause: seconds before the second attempt; `PAUSE` by default.

    Raises:
        StorageError: if the server cannot be reached or refuses, or the disk is full.
        ReadError: if the file is not what its checksum says.
        ConfigError: for another kind of checksum.

    Example:
        ``download("https://example.org/a.zip", Path("a.zip"), checksum="md5:d41d8cd98f00b204e9800998ecf8427e")``
    """
    if target.is_file():
        verify(target, checksum, name=target.name)
        return target

    def append(file: BinaryIO) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _rest(url, file, progress=progress, target=target)
            except urllib.error.HTTPError as error:
                raise StorageError(
                    f"{url} answers {error.code} {error.reason}: look whether it has moved, or fetch it elsewhere"
                ) from None
            except (urllib.error.URLError, *_BROKEN) as error:
                files.DISK.sync(file)
                if attempt == ATTEMPTS or (isinstance(error, urllib.error.URLError) and file.tell() == 0):
                    raise StorageError(
                        f"{url} cannot be reached ({_reason(error)}): try again later, which goes on where it broke "
                        "off, or fetch it elsewhere and give its path"
                    ) from None
                time.sleep((PAUSE if pause is None else pause) * 2 ** (attempt - 1))
            else:
                return

    return files.write_resumable(target, append, verify=lambda part: verify(part, checksum, name=target.name))


def verify(path: Path, checksum: str | None, *, name: str) -> None:
    """Compare a file with its checksum.

    Args:
        path: the file.
        checksum: see `download`.
        name: what to call it.

    Raises:
        ReadError: if it is another file.
        ConfigError: for another kind of checksum.
    """
    if checksum is None:
        return
    kind, _, expected = checksum.partition(":")
    if kind not in {"md5", "sha256"}:
        raise ConfigError(f"checksum {checksum!r}: expected md5:... or sha256:...")
    with path.open("rb") as file:
        # MD5 is what the archives publish; it finds damage, and the connection is encrypted.
        digest = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
    if digest != expected.lower():
        raise ReadError(name, f"{kind} {digest}, expected {expected}: the download is damaged, try again")


def _rest(url: str, file: BinaryIO, *, progress: Progress | None, target: Path) -> None:
    """Append what is missing of a file."""
    have = file.seek(0, 2)
    headers = {"User-Agent": f"raremix/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    if urlsplit(url).scheme not in {"http", "https"}:
        raise ConfigError(f"{url}: expected an address that begins with https://")
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)
    except urllib.error.HTTPError as error:
        # 416: nothing is left to send, or the part is longer than the file.
        if error.code == 416 and have:
            if error.headers.get("Content-Range", "").strip() != f"bytes */{have}":
                file.truncate(0)
                _rest(url, file, progress=progress, target=target)
            return
        raise
    with answer:
        if urlsplit(url).scheme == "https" and urlsplit(answer.geturl()).scheme != "https":
            raise StorageError(f"{url} leads to {answer.geturl()}, which is not encrypted: fetch it yourself")
        status = getattr(answer, "status", 200)
        begins = answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if have and not (status == 206 and begins):
            file.truncate(0)
            have = 0
        length = answer.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        if total is not None and total - have > (free := shutil.disk_usage(target.parent).free):
            raise StorageError(
                f"{target}: {(total - have) >> 20:,} MiB needed, {free >> 20:,} MiB free: choose another folder"
            )
        while block := answer.read(_BLOCK):
            files.DISK.write(file, block)
            have += len(block)
            if progress is not None and total:
                progress(f"fetch {target.name} (MiB)", have >> 20, total >> 20)
        if total is not None and have < total:
            raise http.client.IncompleteRead(b"", total - have)


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return str(reason or error) or type(error).__name__
