"""Look DICOM's palettes up (PS3.3, C.7.6.3.1.5 and C.7.6.3.1.6; segmented ones: C.7.9.2)."""

from typing import Any

import numpy as np
from jaxtyping import UInt8
from pydicom.pixels.processing import apply_color_lut

from raremix.data.readers.grey import table_of

_COLOURS = ("Red", "Green", "Blue")


def look_up_palette(stored: np.ndarray, dataset: Any) -> UInt8[np.ndarray, "H W 3"]:
    """Return the colours of palette indices, in 8 bit.

    pydicom 3.0.2's `apply_color_lut` reads 16-bit entries of a big-endian file in the wrong order, and counts in the
    entries' own type, so that larger indices wrap around; it is used for segmented palettes only.

    Args:
        stored: indices, (rows, columns).
        dataset: of pydicom.

    Raises:
        ValueError: if there is no palette, or one shorter than it says.
    """
    if "RedPaletteColorLookupTableData" not in dataset:
        return _segmented(stored, dataset)
    planes = []
    for colour in _COLOURS:
        descriptor = dataset[f"{colour}PaletteColorLookupTableDescriptor"].value
        data = dataset[f"{colour}PaletteColorLookupTableData"].value
        entries, first, depth = table_of(descriptor, data, dataset)
        levels = _to_bytes(entries, depth)
        planes.append(levels[np.clip(stored.astype(np.int64) - first, 0, len(levels) - 1)])
    return np.stack(planes, axis=-1)


def _segmented(stored: np.ndarray, dataset: Any) -> UInt8[np.ndarray, "H W 3"]:
    entries, first, _ = (int(part) for part in dataset.RedPaletteColorLookupTableDescriptor)
    last = first + (entries or 1 << 16) - 1
    colours = apply_color_lut(np.clip(stored.astype(np.int64), first, last), dataset)[..., :3]
    return _to_bytes(colours.astype(np.int64), 8 * colours.dtype.itemsize)


def _to_bytes(levels: np.ndarray, depth: int) -> UInt8[np.ndarray, "..."]:
    # Some writers say 8 and fill words: the largest entry decides.
    full = (1 << depth) - 1 if levels.max(initial=0) < 1 << depth else 65535
    return np.floor(levels * (255 / full) + 0.5).astype(np.uint8)
