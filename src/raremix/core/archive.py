"""Unpack zip archives; the only code that does.

Nothing leaves the target folder: absolute paths, "..", links, devices and names that differ only in case are refused
before anything is written, and so is an archive that claims, or turns out, to unpack to more than it may. Every member
is checked against its CRC-32. The folder appears whole, or not at all.
"""

import re
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from raremix.core import files
from raremix.core.errors import ReadError
from raremix.core.types import Progress

# HAM10000 holds 10,015 files and 2.8 GB, FETAL_PLANES_DB 12,400 files and 2.1 GB.
MAX_BYTES = 1 << 36
MAX_FILES = 1 << 20
# JPEG and PNG do not shrink; tables of numbers shrink twentyfold. Deflate cannot exceed 1032.
MAX_RATIO = 200
_BLOCK = 1 << 20
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]|^/|^~|^[A-Za-z]:|(^|/)\.\.(/|$)")
_DAMAGE = (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, ValueError)


def unpack_zip(archive: Path, target: Path, *, max_bytes: int = MAX_BYTES, progress: Progress | None = None) -> Path:
    """Unpack a zip archive into a new folder.

    Args:
        archive: the .zip.
        target: the folder; if it exists, nothing is done.
        max_bytes: what the files may take in all.
        progress: called with the files done and their number.

    Raises:
        ReadError: if the archive is damaged, too large, or would write elsewhere.
        StorageError: if the disk is full, or cannot be written.

    Example:
        ``unpack_zip(Path("FETAL_PLANES_ZENODO.zip"), Path("FETAL_PLANES_DB"))``
    """
    if target.exists():
        return target
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _members(opened, archive.name, max_bytes=max_bytes)
            with files.atomic_folder(target) as draft:
                for done, member in enumerate(members, start=1):
                    _write(opened, member, draft, archive.name)
                    if progress is not None and (done % 64 == 0 or done == len(members)):
                        progress("unpack", done, len(members))
    except _DAMAGE as error:
        raise ReadError(archive.name, f"is not a whole zip archive ({error}): fetch it again") from None
    return target


def _members(opened: zipfile.ZipFile, name: str, *, max_bytes: int) -> list[zipfile.ZipInfo]:
    members = [m for m in opened.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
    if len(members) > MAX_FILES:
        raise ReadError(name, f"holds {len(members):,} files, expected at most {MAX_FILES:,}: unpack it yourself")
    seen: set[str] = set()
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if _UNSAFE.search(member.filename) or kind not in {0, stat.S_IFREG}:
            raise ReadError(name, f"holds {member.filename!a}, which would leave its folder: do not use it")
        if member.filename.casefold() in seen:
            raise ReadError(name, f"holds {member.filename!a} twice: do not use it")
        if member.flag_bits & 1:
            raise ReadError(name, "is encrypted: unpack it yourself")
        if member.file_size > _BLOCK and member.file_size > MAX_RATIO * max(1, member.compress_size):
            raise ReadError(name, f"holds {member.filename!a}, which unpacks more than {MAX_RATIO}-fold: a bomb")
        seen.add(member.filename.casefold())
    for member in members:
        if any(parent.as_posix() in seen for parent in PurePosixPath(member.filename.casefold()).parents):
            raise ReadError(name, f"holds {member.filename!a} within a file of that name: do not use it")
    total = sum(member.file_size for member in members)
    if total > max_bytes:
        raise ReadError(name, f"unpacks to {total:,} bytes, expected at most {max_bytes:,}: unpack it yourself")
    return members


def _write(opened: zipfile.ZipFile, member: zipfile.ZipInfo, draft: Path, name: str) -> None:
    def unpack(file: BinaryIO) -> None:
        written = 0
        with opened.open(member) as source:
            while block := source.read(_BLOCK):
                written += len(block)
                if written > member.file_size:
                    raise ReadError(name, f"{member.filename!a} is larger than the archive says: do not use it")
                file.write(block)

    files.write_with(draft / member.filename, unpack)
