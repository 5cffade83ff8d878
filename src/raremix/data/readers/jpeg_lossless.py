"""Decode lossless JPEG (process 14): many radiography archives hold it, and no safe, freely licensed decoder reads it.

The one permissively licensed library that does, GDCM 3.2.6, ends the process on damaged streams (two in the first 42
mutants), and pylibjpeg-libjpeg is GPL. This one follows ITU-T T.81, annexes C, F.2.2 and H [1], in numpy. Huffman codes
end at every possible bit: the length of a code and its value is looked up for all bits of a piece of the stream at
once, and only the walk from one code to the next is a Python loop.

[1] https://www.w3.org/Graphics/JPEG/itu-t81.pdf
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64, UInt8, UInt16

# Bytes whose bits are looked up at once: enough to make numpy worth it, little enough to stay in the cache.
_PIECE = 1 << 15
_SOI, _EOI, _SOS, _DHT, _DRI, _SOF3 = 0xD8, 0xD9, 0xDA, 0xC4, 0xDD, 0xC3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """What the markers before the first scan say."""

    bits: int
    height: int
    width: int
    components: tuple[int, ...]
    tables: tuple[UInt8[np.ndarray, "65536 2"], ...]
    predictor: int
    shift: int
    restart: int


def decode_lossless(data: bytes) -> UInt8[np.ndarray, "H W C"] | UInt16[np.ndarray, "H W C"]:
    """Decode a lossless JPEG stream, whose size the caller has checked.

    Args:
        data: from the SOI marker on; one scan that holds all components.

    Returns:
        Samples as stored, without sign: 8 bit where they have up to 8, else 16.

    Raises:
        ValueError: if the stream is damaged, or of another process.
    """
    frame, start = _read_markers(data)
    count = frame.width * len(frame.components)
    rows = frame.restart // frame.width if frame.restart else frame.height
    parts = []
    for number, scan in enumerate(_intervals(data, start)):
        height = min(rows, frame.height - number * rows)
        if height <= 0:
            break
        parts.append(_rebuild(_differences(scan, frame, count * height).reshape(height, frame.width, -1), frame))
    samples = np.concatenate(parts) if parts else np.empty((0, 0, 0), dtype=np.int32)
    if len(samples) != frame.height:
        raise ValueError("the scan ends early")
    samples = (samples << frame.shift) & ((1 << frame.bits) - 1)
    return samples.astype(np.uint8 if frame.bits <= 8 else np.uint16)


def _read_markers(data: bytes) -> tuple[_Frame, int]:
    """Return the frame, and where its entropy-coded data begin."""
    if data[:2] != bytes((0xFF, _SOI)):
        raise ValueError("no SOI marker")
    tables: dict[int, np.ndarray] = {}
    head, restart = None, 0
    for marker, body, end in _markers(data):
        if marker == _DHT:
            tables |= _huffman_tables(body)
        elif marker == _DRI:
            (restart,) = struct.unpack_from(">H", body)
        elif marker == _SOF3:
            head = body
        elif marker == _SOS and head is not None:
            return _frame(head, body, tables, restart), end
        elif 0xC0 <= marker <= 0xCF and marker not in {0xC8, 0xCC}:
            raise ValueError(f"JPEG process with marker {marker:02X}, expected C3")
    raise ValueError("no scan")


def _markers(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield the marker segments: number, content, where they end."""
    place = 2
    while (place := data.find(b"\xff", place)) >= 0 and place + 4 <= len(data):
        if data[place + 1] == 0xFF:
            place += 1
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        end = place + 2 + length
        if length < 2 or end > len(data):
            raise ValueError("a marker ends early")
        yield data[place + 1], data[place + 4 : end], end
        place = end


def _frame(head: bytes, scan: bytes, tables: Mapping[int, np.ndarray], restart: int) -> _Frame:
    """Put together what the frame and scan headers say (T.81, B.2.2 and B.2.3)."""
    bits, height, width, count = struct.unpack_from(">BHHB", head)
    components = tuple(head[6 + 3 * i] for i in range(count))
    if not 2 <= bits <= 16 or {head[7 + 3 * i] for i in range(count)} != {0x11} or not width * height:
        raise ValueError("samples of a depth or layout that is not known")
    if scan[0] != count or len(scan) != 4 + 2 * count:
        raise ValueError("more than one scan")
    if restart % width:
        raise ValueError("restart intervals that are no whole lines")
    chosen = {scan[1 + 2 * i]: scan[2 + 2 * i] >> 4 for i in range(count)}
    predictor, shift = scan[-3], scan[-1] & 15
    if not 1 <= predictor <= 7 or shift >= bits:
        raise ValueError(f"predictor {predictor} with point transform {shift}")
    return _Frame(
        bits=bits,
        height=height,
        width=width,
        components=components,
        tables=tuple(tables[chosen[name]] for name in components),
        predictor=predictor,
        shift=shift,
        restart=restart,
    )


def _huffman_tables(body: bytes) -> dict[int, UInt8[np.ndarray, "65536 2"]]:
    """Return, by table number, the length of the code at the front of any 16 bits, and the category it stands for."""
    found, place = {}, 0
    while place + 17 <= len(body):
        number, counts = body[place] & 15, body[place + 1 : place + 17]
        symbols = body[place + 17 : place + 17 + sum(counts)]
        place += 17 + sum(counts)
        if len(symbols) != sum(counts) or any(symbol > 16 for symbol in symbols):
            raise ValueError("Bogus Huffman table")
        lengths = np.repeat(np.arange(1, 17), list(counts))
        spans = 1 << (16 - lengths)
        if spans.sum() > 1 << 16:
            raise ValueError("Bogus Huffman table")
        table = np.zeros((1 << 16, 2), dtype=np.uint8)
        filled = int(spans.sum())
        table[:filled, 0] = np.repeat(lengths, spans)
        table[:filled, 1] = np.repeat(np.frombuffer(symbols, dtype=np.uint8), spans)
        found[number] = table
    return found


def _intervals(data: bytes, start: int) -> Iterator[bytes]:
    """Yield the entropy-coded data between restart markers, without the zeros stuffed after 255."""
    place = start
    while True:
        place = data.find(b"\xff", place)
        following = data[place + 1] if 0 <= place < len(data) - 1 else _EOI
        if following in {0x00, 0xFF}:
            place += 2 if following == 0 else 1
            continue
        end = len(data) if place < 0 else place
        yield data[start:end].replace(b"\xff\x00", b"\xff")
        if not 0xD0 <= following <= 0xD7:
            return
        start = place = end + 2


def _differences(scan: bytes, frame: _Frame, count: int) -> Int32[np.ndarray, " n"]:
    """Return `count` differences, walking from code to code through pieces of the stream."""
    steps = [table[:, 0] + np.where(table[:, 1] == 16, 0, table[:, 1]) for table in frame.tables]
    # The last code may be looked up with bits beyond the end; more than its own are never used.
    padded = np.frombuffer(scan + b"\xff" * 8, dtype=np.uint8)
    out = np.empty(count, dtype=np.int32)
    done, bit, total = 0, 0, len(scan) * 8
    while done < count:
        if bit >= total:
            raise ValueError("the scan ends early")
        first = bit >> 3
        piece = padded[first : first + _PIECE + 8]
        limit = (len(piece) - 8) * 8
        windows = _windows(piece)
        starts, moved = _walk([step[windows].tolist() for step in steps], done, count, at=bit - 8 * first, limit=limit)
        out[done : done + len(starts)] = _values(piece, windows, starts, frame.tables, done)
        done, bit = done + len(starts), 8 * first + moved
    if bit > total:
        raise ValueError("the scan ends early")
    return out


def _windows(piece: UInt8[np.ndarray, " m"]) -> Int64[np.ndarray, " bits"]:
    """Return the 16 bits that begin at each bit."""
    wide = piece.astype(np.uint32)
    three = (wide[:-2] << 16) | (wide[1:-1] << 8) | wide[2:]
    return ((three[:, None] >> np.arange(8, 0, -1, dtype=np.uint32)) & 0xFFFF).reshape(-1).astype(np.int64)


def _walk(
    lengths: list[list[int]], done: int, count: int, *, at: int, limit: int
) -> tuple[Int64[np.ndarray, " k"], int]:
    """Return where codes start, until the piece or the count ends, and where the next one would."""
    places: list[int] = []
    note, left, kinds = places.append, count - done, len(lengths)
    kind = done % kinds
    while at < limit and left:
        step = lengths[kind][at]
        if not step:
            raise ValueError("a code that no table holds")
        note(at)
        at += step
        left -= 1
        kind = kind + 1 if kind + 1 < kinds else 0
    return np.array(places, dtype=np.int64), at


def _values(
    piece: UInt8[np.ndarray, " m"],
    windows: Int64[np.ndarray, " bits"],
    starts: Int64[np.ndarray, " k"],
    tables: tuple[UInt8[np.ndarray, "65536 2"], ...],
    done: int,
) -> Int64[np.ndarray, " k"]:
    """Read the code and the extra bits at each start (T.81, F.2.2.1: EXTEND)."""
    codes = windows[starts]
    kinds = (np.arange(len(starts)) + done) % len(tables)
    length, category = np.stack(tables)[kinds, codes].astype(np.int64).T
    # 16 stands for 32768 and has no extra bits.
    extra_bits = np.where(category == 16, 0, category)
    at = starts + length
    three = sum(piece[np.minimum((at >> 3) + i, len(piece) - 1)].astype(np.int64) << (8 * (2 - i)) for i in range(3))
    extra = (three >> (24 - (at & 7) - extra_bits)) & ((1 << extra_bits) - 1)
    value = np.where(extra < (1 << np.maximum(category - 1, 0)), extra - (1 << category) + 1, extra)
    return np.where(category == 0, 0, np.where(category == 16, 1 << 15, value))


def _rebuild(differences: Int32[np.ndarray, "H W C"], frame: _Frame) -> Int32[np.ndarray, "H W C"]:
    """Undo the prediction (T.81, H.1.2) modulo 2^16; the first line is predicted from the left."""
    out = np.empty_like(differences)
    differences = differences.copy()
    differences[0, 0] += 1 << (frame.bits - frame.shift - 1)
    out[0] = np.cumsum(differences[0], axis=0) & 0xFFFF
    for row in range(1, len(out)):
        above, line = out[row - 1], differences[row]
        line[0] += above[0]
        out[row] = _predicted(line, above, frame.predictor) & 0xFFFF
    return out


def _predicted(line: Int32[np.ndarray, "W C"], above: Int32[np.ndarray, "W C"], predictor: int) -> np.ndarray:
    """Return a line from its differences (the first one already a sample) and the line above."""
    if predictor in {2, 3}:
        return np.concatenate([line[:1], line[1:] + (above[1:] if predictor == 2 else above[:-1])])
    if predictor in {1, 4, 5}:
        # Ra alone, Ra + (Rb - Rc), Ra + (Rb - Rc) / 2: what is added to the left neighbour is known before the line is.
        gain = np.diff(above, axis=0)
        gain = {1: np.zeros_like(gain), 4: gain, 5: gain >> 1}[predictor]
        return np.cumsum(np.concatenate([line[:1], line[1:] + gain]), axis=0)
    samples = line.copy()
    for x in range(1, len(line)):
        left, up, corner = samples[x - 1] & 0xFFFF, above[x], above[x - 1]
        samples[x] += up + ((left - corner) >> 1) if predictor == 6 else (left + up) >> 1
    return samples
