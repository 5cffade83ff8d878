"""Decode DICOM files: one picture of a file, and nothing else of it.

Grey values go through the standard's chain: stored values, modality transform (rescale or table), VOI transform (table
or window), inversion where the smallest value is white. Only the elements named in `PICTURE` are read; no name, date
or number of a patient enters any object, and what pydicom says about a damaged file is not repeated, because its
messages quote the file.

Needs the extra `raremix[dicom]`.
"""

import io
import logging
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from pydicom import dcmread
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from raremix.core.errors import ReadError
from raremix.data.readers.dicom_frames import SYNTAXES, read_frames
from raremix.data.readers.fit import Pixels
from raremix.data.readers.grey import render
from raremix.data.readers.limits import MAX_FRAMES, damaged, inflate, read_bytes, require_size
from raremix.data.readers.palette import look_up_palette
from raremix.data.readers.reading import Reading

PICTURE = [
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "PresentationLUTShape",
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "PixelData",
    "FloatPixelData",
    "DoubleFloatPixelData",
]
"""The elements that are read."""

DEFLATED = b"1.2.840.10008.1.2.1.99"
_EXPLICIT = b"1.2.840.10008.1.2.1\0\0\0"
_PREAMBLE = 132
# More than the file meta information of any real file.
_META = 1 << 14
_COLOURS = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
_GREYS = {"MONOCHROME1", "MONOCHROME2"}
_quiet_lock = threading.Lock()
# Those that pydicom 3.0 writes to; disabling the first does not silence the others.
_LOGGERS = tuple(map(logging.getLogger, ("pydicom", "pydicom.pixels.decoders.base", "pydicom.pixels.utils")))


def decode_dicom(data: bytes, *, name: str, max_pixels: int, reading: Reading) -> tuple[Pixels, tuple[str, ...]]:
    """Decode the picture of a DICOM file.

    Args:
        data: the file's bytes.
        name: what to call it in errors.
        max_pixels: rows times columns that are still decoded.
        reading: which frame, and which values become black and white.

    Returns:
        The picture, (H, W, 1) with 8 bit for up to 8 stored bits and 16 bit for more, or (H, W, 3) with 8 bit; and what
        was done, in words.

    Raises:
        ReadError: if the file is damaged or too large, holds no picture or several, or needs a decoder that there is
            not. It never quotes the file.
    """
    dataset = read_dataset(data, name=name, elements=PICTURE)
    try:
        count, colour = _check_header(dataset, name=name, max_pixels=max_pixels)
        number = reading.number(count, name=name)
        notes = [_encoding(dataset), colour]
        if count > 1:
            notes.append(f"largest of {count} frames" if number is None else f"frame {number} of {count}")
        with quiet():
            frames = read_frames(dataset, range(count) if number is None else [number], name=name)
            if colour in _GREYS:
                pixels, words = render(frames, dataset, number=number or 0, window=reading.window, name=name)
                return pixels, (*notes, *words)
            bring = look_up_palette if colour == "PALETTE COLOR" else _to_bytes
            picture = reduce(np.maximum, (bring(frame, dataset) for frame in frames))
        return np.ascontiguousarray(picture), (*notes, *_colour_words(colour))
    except ReadError:
        raise
    except Exception as error:  # noqa: BLE001
        raise undecodable(name, error) from None


def read_dataset(data: bytes, *, name: str, elements: tuple[str, ...] | list[str], pixels: bool = True) -> Any:
    """Return a pydicom data set that holds these elements only.

    Args:
        data: the file's bytes.
        name: what to call it in errors.
        elements: keywords of the elements.
        pixels: whether to read on after the header.

    Raises:
        ReadError: if the file is damaged.
    """
    try:
        data = _unpack(data, name=name)
        with quiet():
            found = dcmread(io.BytesIO(data), specific_tags=list(elements), stop_before_pixels=not pixels, force=True)
            if "TransferSyntaxUID" not in found.file_meta:
                implicit, little = found.original_encoding
                kinds = ImplicitVRLittleEndian, ExplicitVRLittleEndian
                found.file_meta.TransferSyntaxUID = kinds[not implicit] if little else ExplicitVRBigEndian
            return found
    except ReadError:
        raise
    except Exception as error:  # noqa: BLE001
        raise undecodable(name, error) from None


def read_header(path: Path, *, name: str, elements: list[str]) -> dict[str, str]:
    """Return elements of a header as text, without reading the pixels; those that a file does not have are left out.

    Raises:
        ReadError: if the file is damaged.
    """
    try:
        with path.open("rb") as file:
            if DEFLATED in file.read(_META):
                found = read_dataset(read_bytes(path, name=name), name=name, elements=elements, pixels=False)
            else:
                file.seek(0)
                with quiet():
                    found = dcmread(file, specific_tags=elements, stop_before_pixels=True, force=True)
        with quiet():
            return {key: str(found.get(key)).strip() for key in elements if found.get(key) not in {None, ""}}
    except ReadError:
        raise
    except Exception as error:  # noqa: BLE001
        raise undecodable(name, error) from None


def undecodable(name: str, error: Exception) -> ReadError:
    """Return the error for what pydicom raised, without the message: it may quote names, numbers and dates."""
    return damaged(name, ValueError(f"the DICOM decoder gave up with {type(error).__name__}"))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's warnings and log records, which quote the file, from being shown.

    Warning filters belong to the whole process: one thread at a time. pydicom works under Python's lock anyway.
    """
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = [logger.disabled for logger in _LOGGERS]
        try:
            for logger in _LOGGERS:
                logger.disabled = True
            yield
        finally:
            for logger, was in zip(_LOGGERS, before, strict=True):
                logger.disabled = was


def _unpack(data: bytes, *, name: str) -> bytes:
    """Return a file of the deflated transfer syntax unpacked, up to a limit: pydicom would unpack it without one."""
    begin = _PREAMBLE if data[_PREAMBLE - 4 : _PREAMBLE] == b"DICM" else 0
    place, end = begin, len(data)
    while place + 8 <= end:
        group, element, kind, short = struct.unpack_from("<HH2sH", data, place)
        if group != 2:
            return data
        long = kind in {b"OB", b"OW", b"UN", b"SQ", b"UT", b"UC", b"UR", b"OF", b"OD", b"OL", b"OV", b"SV", b"UV"}
        value = place + (12 if long else 8)
        length = struct.unpack_from("<I", data, place + 8)[0] if long and value <= end else short
        if element == 0x10 and data[value : value + length].rstrip(b"\0 ") == DEFLATED:
            return _unpack_after_meta(data, begin, value, name=name)
        place = value + length
    return data


def _unpack_after_meta(data: bytes, begin: int, syntax: int, *, name: str) -> bytes:
    group_length = struct.unpack_from("<HH2sHI", data, begin)
    if group_length[:2] != (2, 0):
        raise damaged(name, ValueError("no length of the file meta information"), header=True)
    body = begin + 12 + group_length[4]
    if not syntax < body <= len(data):
        raise damaged(name, ValueError("a wrong length of the file meta information"), header=True)
    head = data[:syntax] + _EXPLICIT + data[syntax + len(_EXPLICIT) : body]
    return head + inflate(memoryview(data)[body:], name=name)


def _check_header(dataset: Any, *, name: str, max_pixels: int) -> tuple[int, str]:
    """Return the number of frames and the photometric interpretation, if the header says what can be decoded."""
    if not any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ReadError(name, "is DICOM without a picture (a report, a plan, or cut short): remove its row")
    missing = [
        keyword
        for keyword in ("Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "PhotometricInterpretation")
        if dataset.get(keyword) in {None, ""}
    ]
    if missing:
        raise damaged(name, ValueError(f"no {', '.join(missing)}"), header=True)
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    require_size(name, width=columns, height=rows, max_pixels=max_pixels)
    count = int(dataset.get("NumberOfFrames") or 1)
    if not 1 <= count <= MAX_FRAMES:
        raise ReadError(name, f"claims {count:,} frames, expected 1 to {MAX_FRAMES:,}: restore the file")
    colour, samples = str(dataset.PhotometricInterpretation), int(dataset.SamplesPerPixel)
    expected = 1 if colour in _GREYS or colour == "PALETTE COLOR" else 3
    if expected == 3 and colour not in _COLOURS:
        known = ", ".join(sorted(_GREYS | _COLOURS | {"PALETTE COLOR"}))
        raise ReadError(name, f"a photometric interpretation that is not known; expected {known}: convert the file")
    if samples != expected:
        raise damaged(name, ValueError(f"{samples} samples per pixel, {colour} has {expected}"), header=True)
    if int(dataset.BitsAllocated) not in {1, 8, 16, 32, 64}:
        raise damaged(name, ValueError(f"{int(dataset.BitsAllocated)} bits allocated"), header=True)
    return count, colour


def _encoding(dataset: Any) -> str:
    syntax = dataset.file_meta.TransferSyntaxUID
    return str(syntax.name) if syntax.name != syntax else SYNTAXES.get(str(syntax), "unknown transfer syntax")


def _to_bytes(frame: np.ndarray, dataset: Any) -> UInt8[np.ndarray, "H W 3"]:
    """Return a colour frame in 8 bit."""
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    if bits == 8:
        return frame.astype(np.uint8)
    full = (1 << bits) - 1
    return np.floor(frame.clip(0, full) * (255 / full) + 0.5).astype(np.uint8)


def _colour_words(colour: str) -> tuple[str, ...]:
    if colour == "PALETTE COLOR":
        return ("palette looked up",)
    return () if colour == "RGB" else ("turned into RGB",)
