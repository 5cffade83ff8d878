"""Public data sets in miniature: folders and tables as published, images made up."""

from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import numpy as np

from raremix.core import files


def put_images(root: Path, names: Sequence[str], *, size: int = 6, channels: int = 3) -> None:
    """Write one image of noise per name, each another one; JPEG endings hold PNG, which the readers take as it is."""
    for name in names:
        pixels = np.random.default_rng(crc32(name.encode())).integers(0, 256, (size, size, channels), dtype=np.uint8)
        files.write_image(root / name, pixels)


def put_table(path: Path, lines: Sequence[str], *, end: str = "\n", encoding: str = "utf-8") -> Path:
    """Write a table line by line."""
    return files.write_bytes(path, (end.join(lines) + end).encode(encoding))
