"""Folders that appear by one rename, and that vouch for what is in them."""

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from raremix.core import files
from raremix.core.errors import CorruptError
from raremix.core.files.disk import storage
from raremix.core.files.records import hash_value, read_json
from raremix.core.files.temporary import temporary_beside
from raremix.core.files.writing import folder, write_json

MANIFEST = "manifest.json"


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` in one rename.

    The first writer wins: if `path` exists when the block ends, the temporary folder is discarded. If the block raises,
    nothing remains.
    """
    folder(path.parent)
    with temporary_beside(path) as temporary:
        folder(temporary)
        try:
            yield temporary
            with storage(path):
                for inner in [*(p for p in temporary.rglob("*") if p.is_dir()), temporary]:
                    files.DISK.sync_folder(inner)
                if not path.exists():
                    try:
                        files.DISK.replace(temporary, path)
                    except OSError as error:
                        if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                            raise
                files.DISK.sync_folder(path.parent)
        finally:
            if temporary.exists():
                files.DISK.remove_tree(temporary)


def remove_folder(path: Path) -> None:
    """Remove a folder: renamed away first, so that nobody finds half of it."""
    if not path.exists():
        return
    with temporary_beside(path) as away:
        with storage(path):
            files.DISK.replace(path, away)
        files.DISK.remove_tree(away)


def hash_file(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with storage(path), path.open("rb") as file:
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
