"""Masks that a data set does not hold as one file per image: drawn or merged once, into the cache."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt16

from raremix.core import files
from raremix.core.types import Progress

# Raise when the masks that are written would change.
CODE_VERSION = 1
Mask = UInt8[np.ndarray, "H W"] | UInt16[np.ndarray, "H W"]


def write_masks(
    makers: Mapping[str, Callable[[], Mask]], *, key: Any, cache: Path, progress: Progress | None = None
) -> Path:
    """Write one PNG per mask, unless an earlier run did, and return their folder.

    Args:
        makers: what makes the mask of each file name.
        key: everything the masks depend on; the same key means the same masks.
        cache: the cache folder.
        progress: called after each block of masks.

    Raises:
        StorageError: if the cache cannot be written.
        ReadError: from a maker that cannot read a file.
    """
    name = files.hash_value({"masks": key, "code_version": CODE_VERSION})
    root = cache / "masks" / name
    if root.exists():
        return root
    files.folder(root.parent)
    files.sweep(root.parent)
    with files.atomic_folder(root) as draft, ThreadPoolExecutor(4) as pool:

        def write(item: tuple[str, Callable[[], Mask]]) -> None:
            files.write_image(draft / item[0], item[1]())

        for done, _ in enumerate(pool.map(write, makers.items()), start=1):
            if progress is not None and (done % 64 == 0 or done == len(makers)):
                progress("write masks", done, len(makers))
    return root
