"""raremix.data.readers.jpeg_lossless: what a small encoder writes comes back, for every predictor and layout."""

import struct

import numpy as np
import pytest
from jaxtyping import Int

from raremix.data.readers.jpeg_lossless import decode_lossless


def encode(
    samples: Int[np.ndarray, "H W C"], *, bits: int, predictor: int = 1, shift: int = 0, restart: int = 0
) -> bytes:
    """Write samples as lossless JPEG: sample by sample, as ITU-T T.81, annex H describes it."""
    height, width, count = samples.shape
    small = samples.astype(np.int64) >> shift
    segments, code = [], ""
    for y in range(height):
        first = restart and y % restart == 0
        if first and y:
            segments.append(code)
            code = ""
        for x in range(width):
            for c in range(count):
                left, above = small[y, x - 1, c], small[y - 1, x, c]
                corner = small[y - 1, x - 1, c]
                if (y == 0 or first) and x == 0:
                    guess = 1 << (bits - shift - 1)
                elif y == 0 or first:
                    guess = left
                elif x == 0:
                    guess = above
                else:
                    guess = {
                        1: left,
                        2: above,
                        3: corner,
                        4: left + above - corner,
                        5: left + ((above - corner) >> 1),
                        6: above + ((left - corner) >> 1),
                        7: (left + above) >> 1,
                    }[predictor]
                code += symbol(int(small[y, x, c] - guess), table=c)
    segments.append(code)
    markers = b"\xff\xd8"
    for table in range(count):
        markers += segment(0xC4, bytes([table]) + huffman(table))
    markers += segment(
        0xC3, struct.pack(">BHHB", bits, height, width, count) + b"".join(bytes([c, 0x11, 0]) for c in range(count))
    )
    if restart:
        markers += segment(0xDD, struct.pack(">H", restart * width))
    markers += segment(
        0xDA, bytes([count]) + b"".join(bytes([c, c << 4]) for c in range(count)) + bytes([predictor, 0, shift])
    )
    for number, text in enumerate(segments):
        padded = text + "1" * (-len(text) % 8)
        data = int("1" + padded, 2).to_bytes(len(padded) // 8 + 1, "big")[1:]
        markers += data.replace(b"\xff", b"\xff\x00")
        if number < len(segments) - 1:
            markers += bytes([0xFF, 0xD0 + number % 8])
    return markers + b"\xff\xd9"


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def lengths(table: int) -> list[int]:
    """Code lengths of the categories 0 to 16: five bits each; in the second table 4 for some and 6 for others."""
    return [5] * 17 if table != 1 else [4] * 8 + [6] * 9


def huffman(table: int) -> bytes:
    counts = [lengths(table).count(length) for length in range(1, 17)]
    return bytes(counts) + bytes(range(17))


def symbol(difference: int, *, table: int) -> str:
    difference = (difference + (1 << 15)) % (1 << 16) - (1 << 15)
    category = 16 if difference == -(1 << 15) else abs(difference).bit_length()
    value, codes = 0, []
    for previous, length in zip([lengths(table)[0], *lengths(table)], lengths(table), strict=False):
        value <<= length - previous
        codes.append(f"{value:0{length}b}")
        value += 1
    extra = difference if difference > 0 else difference + (1 << category) - 1
    return codes[category] + (f"{extra:0{category}b}" if 0 < category < 16 else "")


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize(("bits", "count"), [(8, 1), (8, 3), (12, 1), (16, 1)])
def test_every_predictor(predictor: int, bits: int, count: int) -> None:
    rng = np.random.default_rng(predictor)
    samples = rng.integers(0, 1 << bits, (7, 9, count))
    decoded = decode_lossless(encode(samples, bits=bits, predictor=predictor))
    assert decoded.dtype == (np.uint8 if bits == 8 else np.uint16)
    np.testing.assert_array_equal(decoded, samples)


def test_the_largest_difference() -> None:
    samples = np.array([[[0], [32768], [0], [65535]]])
    np.testing.assert_array_equal(decode_lossless(encode(samples, bits=16)), samples)


def test_restarts_and_point_transform() -> None:
    samples = np.random.default_rng(1).integers(0, 4096, (11, 6, 1))
    np.testing.assert_array_equal(decode_lossless(encode(samples, bits=12, restart=2, predictor=4)), samples)
    shifted = decode_lossless(encode(samples, bits=12, shift=3, predictor=7))
    np.testing.assert_array_equal(shifted, samples >> 3 << 3)


def test_a_stream_of_several_pieces() -> None:
    samples = np.random.default_rng(2).integers(0, 65536, (40, 700, 1))  # 70 KB; the pieces have 32
    np.testing.assert_array_equal(decode_lossless(encode(samples, bits=16, predictor=2)), samples)


def test_damage_is_an_error() -> None:
    whole = encode(np.random.default_rng(3).integers(0, 256, (8, 8, 1)), bits=8)
    for data, words in (
        (whole[: len(whole) - 30], "ends early"),
        (whole[:60], "no scan|ends early"),
        (b"\xff\xd9", "no SOI"),
        (whole.replace(b"\xff\xc3", b"\xff\xc0"), "marker C0, expected C3"),
        (whole.replace(b"\xff\xda\x00\x08\x01\x00\x00\x01", b"\xff\xda\x00\x08\x01\x00\x00\x09"), "predictor 9"),
    ):
        with pytest.raises(ValueError, match=words):
            decode_lossless(data)
