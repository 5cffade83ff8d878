"""Find the files of a published data set below a folder, and say what was expected where they are not."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from raremix.core.errors import ManifestError
from raremix.data.manifest import listed
from raremix.data.readers import has_image_suffix


def data_folder(path: str | Path, *, expected: str) -> Path:
    """Return a folder that can be listed.

    Args:
        path: the folder.
        expected: what it should hold, for the message.

    Raises:
        ManifestError: if it is missing or cannot be read.
    """
    folder = Path(path).expanduser()
    try:
        os.scandir(folder).close()
    except FileNotFoundError:
        raise ManifestError(f"{folder}: no such folder; expected {expected}") from None
    except NotADirectoryError:
        raise ManifestError(f"{folder} is a file; expected a folder with {expected}") from None
    except OSError as error:
        raise _unreadable(folder, error) from None
    return folder


def folders_in(top: Path) -> list[Path]:
    """Return the visible folders in a folder, by name.

    Raises:
        ManifestError: if the folder cannot be listed.
    """
    try:
        with os.scandir(top) as entries:
            return sorted(top / entry.name for entry in entries if _is_visible(entry.name) and entry.is_dir())
    except OSError as error:
        raise _unreadable(top, error) from None


def files_below(folder: Path, *, root: Path) -> list[str]:
    """List the visible files below a folder, by path, relative to the root.

    Files and folders whose name begins with a dot are passed over, and so is `__MACOSX`, which archives made on a Mac
    carry. Linked folders are not entered.

    Raises:
        ManifestError: for a folder that cannot be listed (leaving it out in silence would lose images), and for names
            that are not UTF-8.
    """

    def refuse(error: OSError) -> None:
        raise _unreadable(Path(error.filename), error) from None

    found = []
    for here, inner, names in os.walk(folder, onerror=refuse):
        inner[:] = [name for name in inner if _is_visible(name)]
        below = Path(here).relative_to(root)
        found += [(below / name).as_posix() for name in names if _is_visible(name)]
    odd = [path for path in found if not path.isascii() and not _is_text(path)]
    if odd:
        raise ManifestError(f"file names that are not UTF-8: {listed([ascii(p) for p in odd])}: rename the files")
    return sorted(found)


def published_file(root: Path, names: Sequence[str], *, what: str) -> Path:
    """Return the first file that matches one of some patterns, in the order of the patterns.

    Args:
        root: the data set's folder.
        names: glob patterns relative to the root.
        what: what the file is, for the message.

    Raises:
        ManifestError: naming what was looked for.
    """
    found = maybe_file(root, names)
    if found is None:
        raise ManifestError(f"no {what} below {root}: expected {' or '.join(names)}")
    return found


def maybe_file(root: Path, names: Sequence[str]) -> Path | None:
    """Return the first file that matches one of some patterns, or None."""
    for name in names:
        found = next((path for path in sorted(root.glob(name)) if path.is_file()), None)
        if found is not None:
            return found
    return None


def images_by_name(root: Path, folders: Iterable[Path], *, stems: bool = True) -> dict[str, str]:
    """Map the name of each image below some folders to its path relative to the root.

    Args:
        root: the data set's folder.
        folders: where to look; those that are not there are passed over.
        stems: whether the ending is left out of the name.

    Raises:
        ManifestError: if one name lies in two places.
    """
    found: dict[str, str] = {}
    twice: list[str] = []
    for folder in folders:
        if not folder.is_dir():
            continue
        for path in files_below(folder, root=root):
            file = Path(path)
            if not has_image_suffix(file):
                continue
            name = file.stem if stems else file.name
            if name in found:
                twice += [found[name], path]
            found[name] = path
    if twice:
        raise ManifestError(f"one image lies in two places: {listed(twice)}: keep one of them")
    return found


def paths_of(names: Sequence[str], images: dict[str, str], *, table: str, root: Path) -> list[str]:
    """Return the path of each named image.

    Args:
        names: as in the table.
        images: see `images_by_name`.
        table: file name of the table, for the message.
        root: the data set's folder, for the message.

    Raises:
        ManifestError: for names that the table holds twice, and for images that are not there.
    """
    seen: set[str] = set()
    twice = [name for name in names if name in seen or seen.add(name)]
    if twice:
        raise ManifestError(f"{table} lists an image twice: {listed(twice)}: keep one row per image")
    missing = [name for name in names if name not in images]
    if missing:
        raise ManifestError(
            f"{len(missing)} of {len(names)} images of {table} are missing below {root}: {listed(missing)}: "
            "unpack all parts, or set subset = true to take those that are there"
        )
    return [images[name] for name in names]


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unreadable(folder: Path, error: OSError) -> ManifestError:
    return ManifestError(
        f"{folder} cannot be listed ({error.strerror or error}): give yourself the right to read it, or move it away"
    )
