"""Find images that look alike: a perceptual hash of 64 bits, and all pairs of hashes that differ in few bits.

The hash is Zauner's DCT hash: the thumbnail's 8 x 8 lowest frequencies, each above or below their median [1]. Pairs are
found by multi-index hashing [2]: cut into four bands of 16 bits, two hashes that differ in at most 7 bits differ in at
most one bit of some band, so only such bands are looked up. Memory is linear in the number of images.

[1] Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010, https://phash.org/docs/pubs/thesis_zauner.pdf
[2] Norouzi, Punjani and Fleet, "Fast search in Hamming space with multi-index hashing", CVPR 2012, https://arxiv.org/abs/1307.2982
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int, UInt8, UInt64

from raremix.data.audit.look import SIDE

LOW = 8
"""Frequencies per axis that the hash is made of."""

BANDS, WIDTH = 4, 16
RADII = (7, 3)
"""Bits in which two hashes may differ so that none is missed: with one bit changed in a band, and with none."""

MOST = 400_000_000
"""Pairs of hashes that are compared at most: some ten seconds."""

BLOCK = 1 << 20


def perceptual_hashes(thumbnails: UInt8[np.ndarray, "n 32 32"]) -> UInt64[np.ndarray, " n"]:
    """Return a 64-bit hash per thumbnail, which small changes of size, contrast or compression hardly change.

    Bit 8 v + u says whether the coefficient of frequency (v, u) of the DCT-II lies above the median of all but the
    mean.

    Example:
        >>> ramp = np.tile(np.arange(32, dtype=np.uint8) * 8, (1, 32, 1))
        >>> int(np.bitwise_count(perceptual_hashes(ramp) ^ perceptual_hashes(ramp // 2))[0])
        0
    """
    k = np.arange(SIDE)
    waves = np.cos(np.pi / SIDE * (k[None] + 0.5) * np.arange(LOW)[:, None]).astype(np.float32)
    hashes = np.empty(len(thumbnails), dtype=np.uint64)
    for start in range(0, len(thumbnails), 4096):
        part = thumbnails[start : start + 4096].astype(np.float32)
        # Rounded, so that frequencies that are not there do not become bits by the last digit of a sum.
        low = np.round((waves @ part @ waves.T).reshape(len(part), LOW * LOW), 1)
        bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
        hashes[start : start + len(part)] = np.packbits(bits, axis=1, bitorder="little").view("<u8")[:, 0]
    return hashes


def radius_for(hashes: UInt64[np.ndarray, " n"], *, most: int = MOST) -> int:
    """Return in how many bits hashes can be let differ without comparing more than `most` pairs; -1: not even in none.

    Images that are nearly all alike crowd into the same bands, and then the search must be narrower.
    """
    sizes = [_pairs_to_compare(hashes, flips=radius == RADII[0]) for radius in RADII]
    return next((radius for radius, size in zip(RADII, sizes, strict=True) if size <= most), -1)


def near_pairs(hashes: UInt64[np.ndarray, " n"], *, radius: int) -> Iterator[Int[np.ndarray, "m 2"]]:
    """Yield, in blocks, each pair i < j whose hashes differ in at most `radius` bits, once.

    Args:
        hashes: one per image.
        radius: 0 to 7; up to 3 is faster.

    Example:
        >>> hashes = np.array([0, 1, 2**63, 2**9 - 1], dtype=np.uint64)
        >>> np.concatenate(list(near_pairs(hashes, radius=2))).tolist()
        [[0, 2], [0, 1], [1, 2]]
    """
    bands = np.stack([_band(hashes, b) for b in range(BANDS)])
    flips = _flips(radius > RADII[1])
    for b in range(BANDS):
        order = np.argsort(bands[b], kind="stable").astype(np.int64)
        keys, sorted_hashes = bands[b][order], hashes[order]
        edges = np.searchsorted(keys, np.arange((1 << WIDTH) + 1))
        for flip in flips:
            # Of two keys that differ in this bit, the one without it looks for the other.
            first = np.arange(len(keys)) if flip == 0 else np.flatnonzero((keys & flip) == 0)
            other = keys[first] ^ flip
            start = first + 1 if flip == 0 else edges[other]
            for left, right in _expanded(first, start, edges[other + 1]):
                close = np.flatnonzero(np.bitwise_count(sorted_hashes[left] ^ sorted_hashes[right]) <= radius)
                i, j = order[left[close]], order[right[close]]
                for earlier in bands[:b]:
                    is_new = np.bitwise_count(earlier[i] ^ earlier[j]) > int(len(flips) > 1)
                    i, j = i[is_new], j[is_new]
                if len(i):
                    yield np.stack([np.minimum(i, j), np.maximum(i, j)], axis=1)


def _band(hashes: UInt64[np.ndarray, " n"], number: int) -> Int[np.ndarray, " n"]:
    return ((hashes >> np.uint64(WIDTH * number)) & np.uint64((1 << WIDTH) - 1)).astype(np.int64)


def _flips(is_wide: bool) -> list[int]:
    return [0, *(1 << bit for bit in range(WIDTH))] if is_wide else [0]


def _pairs_to_compare(hashes: UInt64[np.ndarray, " n"], *, flips: bool) -> int:
    total = 0
    keys = np.arange(1 << WIDTH)
    for number in range(BANDS):
        sizes = np.bincount(_band(hashes, number), minlength=1 << WIDTH)
        total += int((sizes * (sizes - 1) // 2).sum())
        for flip in _flips(flips)[1:]:
            total += int((sizes * sizes[keys ^ flip]).sum()) // 2
    return total


def _expanded(
    first: Int[np.ndarray, " m"], start: Int[np.ndarray, " m"], stop: Int[np.ndarray, " m"]
) -> Iterator[tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]]:
    """Yield, in blocks, all pairs of first[p] with each of start[p] .. stop[p] - 1."""
    lengths = np.maximum(stop - start, 0)
    ends = np.cumsum(lengths)
    low = 0
    while low < len(ends):
        done = int(ends[low - 1]) if low else 0
        high = max(low + 1, int(np.searchsorted(ends, done + BLOCK, side="right")))
        many = lengths[low:high]
        offset = np.repeat(start[low:high] - (ends[low:high] - many) + done, many)
        yield np.repeat(first[low:high], many), offset + np.arange(len(offset))
        low = high
