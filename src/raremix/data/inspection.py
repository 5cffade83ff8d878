"""Say of each file how it is read, or why it is not."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import UInt8

from raremix.core.errors import ReadError
from raremix.core.markdown import literal
from raremix.core.types import Progress
from raremix.data.readers import Reading, decode, fit_image, has_image_suffix, is_dicom, kind_of, read_bytes, read_start
from raremix.data.sources.layout import files_below

COLUMNS = ("file", "kind", "picture", "how", "why not")
_SIDE, _GAP = 128, 4


def find_files(places: Sequence[Path]) -> list[Path]:
    """List files, and below folders those that end like images or begin like DICOM.

    Raises:
        ReadError: for a place that does not exist, or where no image is found at all.
        ManifestError: for a folder that cannot be listed.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            files = [place / name for name in files_below(place, root=place)]
            found += [path for path in files if has_image_suffix(path) or is_dicom(read_start(path))]
        elif place.exists():
            found.append(place)
        else:
            raise ReadError(str(place), "no such file or folder: look at the spelling")
    if not found:
        raise ReadError(", ".join(map(str, places)), "holds no images: name a folder with PNG, JPEG, TIFF or DICOM")
    return found


def inspect_files(
    paths: Sequence[Path], *, reading: Reading | None = None, thumbnails: bool = False, progress: Progress | None = None
) -> tuple[pl.DataFrame, list[UInt8[np.ndarray, "S S 3"]]]:
    """Decode files and say what came of it.

    Args:
        paths: the files.
        reading: which frame and range of values.
        thumbnails: whether to return small pictures too.
        progress: called after every file.

    Returns:
        One row per file: its name (relative to the folder that all share), kind, the picture's width, height and
        depth, what was done, and why it could not be read; and a thumbnail of each that could.
    """
    shared = _shared(paths)
    rows, pictures = [], []
    for done, path in enumerate(paths, start=1):
        row = dict.fromkeys(COLUMNS, "") | {"file": path.relative_to(shared).as_posix()}
        try:
            data = read_bytes(path)
            row["kind"] = kind_of(data)
            image = decode(data, name=path.name, reading=reading)
            height, width, channels = image.pixels.shape
            colour = "colour" if channels == 3 else "grey"
            row["picture"] = f"{width} x {height} {colour}, {8 * image.pixels.itemsize} bit"
            row["how"] = "; ".join(image.notes)
            if thumbnails:
                pictures.append(fit_image(image.pixels, size=_SIDE, channels=3, bits=8, resize="pad"))
        except ReadError as error:
            row["why not"] = error.reason
        rows.append(row)
        if progress is not None:
            progress("read files", done, len(paths))
    return pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS, pl.Utf8)), pictures


def sheet(pictures: Sequence[UInt8[np.ndarray, "S S 3"]], *, columns: int = 9) -> UInt8[np.ndarray, "H W 3"]:
    """Lay small pictures out in rows on one sheet.

    Example:
        >>> sheet([np.zeros((128, 128, 3), dtype=np.uint8)] * 10).shape
        (264, 1188, 3)
    """
    cell = _SIDE + _GAP
    rows = -(-len(pictures) // columns)
    page = np.full((rows * cell, columns * cell, 3), 255, dtype=np.uint8)
    for place, picture in enumerate(pictures):
        top, left = place // columns * cell, place % columns * cell
        page[top : top + _SIDE, left : left + _SIDE] = picture
    return page


def to_markdown(table: pl.DataFrame) -> str:
    """Write the table of `inspect_files` as Markdown, with a line that counts what was read."""
    read = int((table["why not"] == "").sum())
    lines = [
        f"{read} of {table.height} files were read.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "| --- " * len(COLUMNS) + "|",
    ]
    for row in table.iter_rows():
        lines.append("| " + " | ".join(literal(cell) for cell in row) + " |")
    return "\n".join(lines) + "\n"


def _shared(paths: Sequence[Path]) -> Path:
    first = paths[0].parent
    return next(folder for folder in (first, *first.parents) if all(path.is_relative_to(folder) for path in paths))
