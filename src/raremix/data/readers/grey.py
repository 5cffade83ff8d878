"""From stored values to grey: modality transform, VOI transform, inversion (DICOM PS3.3, C.11.1, C.11.2, C.11.6 [1]).

[1] https://dicom.nema.org/medical/dicom/current/output/chtml/part03/sect_C.11.html
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8, UInt16

from raremix.core.errors import ReadError
from raremix.data.readers.reading import Window

Grey = UInt8[np.ndarray, "H W 1"] | UInt16[np.ndarray, "H W 1"]


class Shown(NamedTuple):
    """Values between 0 (black) and 1, and what was done to get them."""

    values: Float64[np.ndarray, "..."]
    words: str


def render(
    frames: Iterator[np.ndarray], dataset: Any, *, number: int, window: Window | tuple[float, float], name: str
) -> tuple[Grey, list[str]]:
    """Return the picture of one grey frame, or the largest value along several, and what was done.

    Args:
        frames: stored values, (rows, columns).
        dataset: of pydicom; the groups of an enhanced multi-frame file are looked into as well.
        number: the first frame.
        window: see `raremix.data.readers.Reading`.
        name: what to call the file in errors.

    Raises:
        ReadError: if no value is finite.
        ValueError: for a table that the standard does not allow.
    """
    stored = next(frames)
    distinct, place = _distinct(stored)
    values, words = modality(distinct, dataset, number)
    padding = _is_padding(distinct, dataset)
    for offset, frame in enumerate(frames, start=1):
        # Values of several frames are compared as measured: each frame may have a rescale of its own.
        values = values if place is None else values[place]
        padding, place = np.zeros_like(values, dtype=bool), None
        # The largest that is known: NaN in one frame says nothing about the others.
        values = np.fmax(values, modality(frame, dataset, number + offset)[0])
    shown, said = voi(values, np.isfinite(values) & ~padding, dataset, number, window)
    words = [*words, said]
    if not np.isfinite(shown).any():
        raise ReadError(name, "holds no finite value: remove its row")
    if dataset.PhotometricInterpretation == "MONOCHROME1" or dataset.get("PresentationLUTShape") == "INVERSE":
        shown = 1 - shown
        words.append("inverted")
    full, dtype = (255, np.uint8) if _bits(dataset) <= 8 else (65535, np.uint16)
    levels = np.floor(np.nan_to_num(shown, nan=0.0) * full + 0.5).astype(dtype)
    picture = levels if place is None else levels[place]
    return np.ascontiguousarray(picture[..., None]), words


def modality(stored: np.ndarray, dataset: Any, number: int = 0) -> tuple[Float64[np.ndarray, "..."], list[str]]:
    """Turn stored values into measured ones, for example Hounsfield units; by table, or by slope and intercept."""
    tables = _find(dataset, "ModalityLUTSequence", number)
    if tables:
        return _look_up(stored, tables[0], dataset)[0], ["modality table"]
    slope, intercept = (_find(dataset, keyword, number) for keyword in ("RescaleSlope", "RescaleIntercept"))
    if slope is None or intercept is None:
        return stored.astype(np.float64), []
    words = [] if (slope, intercept) == (1, 0) else [f"rescale {float(slope):g} {float(intercept):+g}"]
    return stored.astype(np.float64) * float(slope) + float(intercept), words


def voi(
    values: Float64[np.ndarray, "..."],
    known: Bool[np.ndarray, "..."],
    dataset: Any,
    number: int,
    window: Window | tuple[float, float],
) -> Shown:
    """Choose which values become black and white.

    Args:
        values: measured values.
        known: those that count for the smallest and largest value (neither padding nor NaN).
        dataset: of pydicom.
        number: the frame.
        window: see `raremix.data.readers.Reading`.
    """
    if isinstance(window, tuple):
        return _windowed(values, *window, "LINEAR")
    if window == "file":
        tables = _find(dataset, "VOILUTSequence", number)
        if tables:
            found, depth = _look_up(values, tables[0], dataset)
            return Shown((found / ((1 << depth) - 1)).clip(0, 1), "VOI table")
        centre, width = (_first(_find(dataset, keyword, number)) for keyword in ("WindowCenter", "WindowWidth"))
        function = str(_find(dataset, "VOILUTFunction", number) or "LINEAR")
        # Files with a width of 0 exist; what they mean is not known, so they count as files without a window.
        if centre is not None and width is not None and (width >= 1 or (width > 0 and function != "LINEAR")):
            return _windowed(values, centre, width, function)
        window = "stored" if _bits(dataset) <= 8 else "range"
    if window == "stored" and "PixelData" in dataset:
        bits, is_signed = _bits(dataset), bool(dataset.get("PixelRepresentation", 0))
        ends = np.array([-(1 << (bits - 1)), (1 << (bits - 1)) - 1] if is_signed else [0, (1 << bits) - 1])
        low, high = np.sort(modality(ends, dataset, number)[0])
        return Shown(((values - low) / max(high - low, 1e-300)).clip(0, 1), "all stored values")
    if not known.any():
        return Shown(np.full_like(values, np.nan), "no value")
    low, high = values[known].min(), values[known].max()
    # Where all values are the same, the picture is black.
    return Shown(((values - low) / max(high - low, 1e-300)).clip(0, 1), f"values {low:g} to {high:g}")


def _windowed(values: Float64[np.ndarray, "..."], centre: float, width: float, function: str) -> Shown:
    """Apply a window: C.11.2.1.2 (LINEAR) and C.11.2.1.3 (SIGMOID, LINEAR_EXACT)."""
    words = f"window {centre:g}/{width:g}" + ("" if function == "LINEAR" else f" {function}")
    if function == "SIGMOID":
        return Shown(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700))), words)
    if function not in {"LINEAR", "LINEAR_EXACT"}:
        raise ValueError("a VOI function that the standard does not have")
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return Shown(np.where(np.isnan(values), np.nan, values > centre), words)
    return Shown(((values - centre) / width + 0.5).clip(0, 1), words)


def _look_up(values: np.ndarray, item: Any, dataset: Any) -> tuple[Float64[np.ndarray, "..."], int]:
    """Apply a table of C.11.1.1 or C.11.2.1.1; return its entries' depth too."""
    entries, first, depth = table_of(item.LUTDescriptor, item["LUTData"].value, dataset)
    count = len(entries)
    place = np.clip(np.nan_to_num(np.floor(values + 0.5)) - first, 0, count - 1).astype(np.int64)
    found = entries[place].astype(np.float64)
    return np.where(np.isnan(values), np.nan, found), depth


def table_of(descriptor: Any, data: Any, dataset: Any) -> tuple[Int64[np.ndarray, " n"], int, int]:
    """Return a table's entries, the value that its first one stands for, and the entries' depth in bits.

    Args:
        descriptor: number of entries (0 means 65536), first value, depth.
        data: entries, as numbers or as bytes in the file's order.
        dataset: of pydicom.

    Raises:
        ValueError: if there are fewer entries than the descriptor says.
    """
    count, first, depth = (int(part) for part in descriptor)
    count = count or 1 << 16
    if isinstance(data, bytes):
        syntax = dataset.file_meta.TransferSyntaxUID
        wide = ">u2" if syntax.name != syntax and not syntax.is_little_endian else "<u2"
        entries = np.frombuffer(data, dtype=np.uint8 if len(data) < 2 * count else wide, count=count)
    else:
        entries = np.atleast_1d(np.asarray(data))[:count]
    if len(entries) < count or not 1 <= depth <= 16:
        raise ValueError("a table shorter than it says")
    return entries.astype(np.int64), first, depth


def _find(dataset: Any, keyword: str, number: int) -> Any:
    """Return an element of the file, or of its functional groups for a frame, or None."""
    if keyword in dataset and dataset[keyword].value not in (None, ""):
        return dataset[keyword].value
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    groups = [frames[number]] if number < len(frames) else []
    groups += dataset.get("SharedFunctionalGroupsSequence") or []
    for group in groups:
        for macro in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in group.get(macro) or []:
                if item.get(keyword) is not None:
                    return item.get(keyword)
    return None


def _first(value: Any) -> float | None:
    """Return the first of one or several numbers: the first window is the one to show."""
    if value is None or isinstance(value, str | bytes):
        return None
    try:
        return float(value)
    except TypeError:
        return float(value[0]) if len(value) else None


def _bits(dataset: Any) -> int:
    return int(dataset.get("BitsStored") or dataset.BitsAllocated)


def _distinct(stored: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the values that occur and each pixel's place among them, where few can: the chain runs once per value."""
    if stored.dtype.kind not in "ui" or stored.dtype.itemsize > 2:
        return stored, None
    lowest = int(stored.min())
    offsets = stored.astype(np.int32) - lowest
    present = np.bincount(offsets.ravel()) > 0
    return np.flatnonzero(present) + lowest, (np.cumsum(present) - 1)[offsets]


def _is_padding(stored: np.ndarray, dataset: Any) -> Bool[np.ndarray, "..."]:
    """Mark values that stand for no measurement (C.7.5.1.1.2)."""
    value, limit = (_first(dataset.get(keyword)) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if value is None:
        return np.zeros(stored.shape, dtype=bool)
    limit = value if limit is None else limit
    return (stored >= min(value, limit)) & (stored <= max(value, limit))
