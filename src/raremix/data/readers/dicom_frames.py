"""Take frames out of a DICOM file: the compressed stream is checked before a decoder sees it, and the decoder is named.

Which decoder reads a transfer syntax is fixed here, so that the same file gives the same pixels whatever else is
installed: Pillow for JPEG, pyjpegls for JPEG-LS, pylibjpeg-openjpeg for JPEG 2000 and its high-throughput form, pydicom
for RLE and uncompressed data, `jpeg_lossless` for lossless JPEG. All have permissive licences (HPND, MIT, MIT, MIT).
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import ExplicitVRLittleEndian

from raremix.core.errors import ReadError
from raremix.data.readers.jpeg_lossless import decode_lossless
from raremix.data.readers.limits import damaged, inflate, require_few_scans

_JPEG = "1.2.840.10008.1.2.4."
_LOSSLESS = {_JPEG + "57", _JPEG + "70"}
_DEFLATED_FRAMES, _RLE = "1.2.840.10008.1.2.8.1", "1.2.840.10008.1.2.5"
PLUGINS: Mapping[str, str] = {
    **{_JPEG + ending: "pillow" for ending in ("50", "51")},
    **{_JPEG + ending: "pyjpegls" for ending in ("80", "81")},
    **{_JPEG + ending: "pylibjpeg" for ending in ("90", "91", "201", "202", "203")},
    _RLE: "pydicom",
}
"""Which of pydicom's plug-ins decodes a transfer syntax."""

SYNTAXES: Mapping[str, str] = {_DEFLATED_FRAMES: "Deflated Image Frame Compression"}
"""Names of transfer syntaxes that are newer than pydicom 3.0."""

_IMAGE = [
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
]


def read_frames(dataset: Any, numbers: Sequence[int], *, name: str) -> Iterator[np.ndarray]:
    """Yield frames, (rows, columns) or (rows, columns, 3), one at a time; YBR colours are turned into RGB.

    Args:
        dataset: of pydicom, with a checked header.
        numbers: which frames, ascending.
        name: what to call the file in errors.

    Raises:
        ReadError: for a transfer syntax without decoder, and a stream that is not what the header says.
        Exception: whatever a decoder raises.
    """

    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.name == syntax and str(syntax) not in SYNTAXES:
        raise ReadError(name, "has an unknown transfer syntax: convert it, for example with dcmconv")
    if str(syntax) not in SYNTAXES and not syntax.is_encapsulated:
        decoder = get_decoder(syntax)
        for number in numbers:
            yield decoder.as_array(dataset, index=number, raw=False)[0]
        return
    if str(syntax) not in {*PLUGINS, *_LOSSLESS, _DEFLATED_FRAMES}:
        raise ReadError(name, f"is encoded as {syntax.name}, which cannot be decoded here: convert it to JPEG 2000")
    offsets = None
    if "ExtendedOffsetTable" in dataset and "ExtendedOffsetTableLengths" in dataset:
        offsets = dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths
    count = int(dataset.get("NumberOfFrames") or 1)
    streams = generate_frames(dataset.PixelData, number_of_frames=count, extended_offsets=offsets)
    wanted = set(numbers)
    seen = 0
    for number, stream in enumerate(islice(streams, numbers[-1] + 1)):
        if number in wanted:
            seen += 1
            yield _decode(bytes(stream), dataset, name=name)
    if seen < len(wanted):
        raise damaged(name, ValueError(f"{seen} of {len(wanted)} frames are there"))


def _decode(stream: bytes, dataset: Any, *, name: str) -> np.ndarray:
    """Decode one compressed frame."""

    syntax = dataset.file_meta.TransferSyntaxUID
    if str(syntax).startswith(_JPEG):
        _check_stream(stream, dataset, name=name)
    bits, samples = int(dataset.BitsAllocated), int(dataset.SamplesPerPixel)
    length = -(-int(dataset.Rows) * int(dataset.Columns) * samples * bits // 8)
    if str(syntax) in _LOSSLESS:
        pixels = decode_lossless(stream)
        native = _native(dataset, pixels.tobytes(), bits=8 * pixels.itemsize)
    elif str(syntax) == _DEFLATED_FRAMES:
        # A frame of odd length is padded with one byte.
        native = _native(dataset, inflate(stream, name=name, limit=length + 1)[:length], bits=bits)
    elif str(syntax) == _RLE and bits == 1:
        native = _native(dataset, _unpack_bits(stream, length), bits=bits)
    else:
        decoder, plugin = get_decoder(syntax), PLUGINS[str(syntax)]
        if plugin not in decoder.available_plugins:
            raise ReadError(name, f"is {syntax.name}, which needs another decoder: pip install 'raremix[dicom]'")
        single = _single(dataset, encapsulate([stream]), syntax)
        return decoder.as_array(single, index=0, raw=False, decoding_plugin=plugin)[0]
    return get_decoder(ExplicitVRLittleEndian).as_array(native, index=0, raw=False)[0]


def _native(dataset: Any, data: bytes, *, bits: int) -> Any:

    single = _single(dataset, data + b"\0" * (len(data) % 2), ExplicitVRLittleEndian)
    single.BitsAllocated, single.PlanarConfiguration = bits, 0
    single.BitsStored = min(int(dataset.get("BitsStored") or bits), bits)
    single.HighBit = single.BitsStored - 1
    return single


def _single(dataset: Any, data: bytes, syntax: Any) -> Any:
    """Return a data set that holds one frame."""

    single = Dataset()
    for keyword in _IMAGE:
        if keyword in dataset:
            single[keyword] = dataset[keyword]
    single.NumberOfFrames = 1
    single.PixelData = data
    single["PixelData"].VR = "OB"
    single.file_meta = FileMetaDataset()
    single.file_meta.TransferSyntaxUID = syntax
    return single


def _check_stream(stream: bytes, dataset: Any, *, name: str) -> None:
    """Refuse a stream that claims another size than the header: decoders reserve memory by what the stream says."""
    found = _jpeg_2000_size(stream) if stream[:2] == b"\xff\x4f" or stream[4:6] == b"jP" else _jpeg_size(stream)
    if found is None:
        raise damaged(name, ValueError("a compressed frame without a size"))
    width, height, samples, bits = found
    expected = int(dataset.Columns), int(dataset.Rows), int(dataset.SamplesPerPixel)
    if (width, height, samples) != expected:
        raise damaged(
            name,
            ValueError(
                f"a compressed frame of {width} x {height} x {samples}, the header says "
                f"{' x '.join(map(str, expected))}"
            ),
        )
    is_lossy = PLUGINS.get(str(dataset.file_meta.TransferSyntaxUID)) == "pillow"
    if is_lossy:
        require_few_scans(stream, name=name)
    if is_lossy and bits > 8:
        raise ReadError(name, f"is lossy JPEG with {bits} bits, which cannot be decoded here: convert it to JPEG 2000")


def _jpeg_size(stream: bytes) -> tuple[int, int, int, int] | None:
    """Return width, height, components and bits from the frame marker of JPEG or JPEG-LS."""
    place = 2
    while place + 10 <= len(stream):
        if stream[place] != 0xFF or stream[place + 1] == 0xFF:
            place += 1
            continue
        marker = stream[place + 1]
        if (0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}) or marker == 0xF7:
            bits, height, width, samples = struct.unpack_from(">BHHB", stream, place + 4)
            return width, height, samples, bits
        place += 2 + struct.unpack_from(">H", stream, place + 2)[0]
    return None


def _jpeg_2000_size(stream: bytes) -> tuple[int, int, int, int] | None:
    """Return width, height, components and bits from the SIZ marker of JPEG 2000 (ITU-T T.800, A.5.1)."""
    place = stream.find(b"\xff\x4f\xff\x51")
    if place < 0 or place + 43 > len(stream):
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", stream, place + 8)
    tile_width, tile_height = struct.unpack_from(">II", stream, place + 24)
    (samples,) = struct.unpack_from(">H", stream, place + 40)
    bits = (stream[place + 42] & 0x7F) + 1
    # Each tile is allocated; the format allows 65,535 of them.
    if not tile_width or not tile_height or (right // tile_width + 1) * (bottom // tile_height + 1) > 1 << 16:
        return None
    return right - left, bottom - top, samples, bits


def _unpack_bits(stream: bytes, length: int) -> bytes:
    """Decode one segment of RLE (PackBits; DICOM PS3.5, annex G), for bits that are packed eight to a byte."""
    count, start = struct.unpack_from("<II", stream)
    if count != 1:
        raise ValueError("expected one RLE segment")
    out, place = bytearray(), start
    while len(out) < length and place < len(stream) - 1:
        head = stream[place]
        if head < 128:
            out += stream[place + 1 : place + 2 + head]
            place += 2 + head
        else:
            out += stream[place + 1 : place + 2] * (257 - head if head > 128 else 0)
            place += 2 if head > 128 else 1
    if len(out) < length:
        raise ValueError("an RLE segment ends early")
    return bytes(out[:length])
