"""Perceptual hashes, and the search for near ones, against comparing every pair."""

import numpy as np
import pytest

from raremix.data.audit import near
from raremix.data.audit.near import MOST, near_pairs, perceptual_hashes, radius_for


def every_pair(hashes: np.ndarray, radius: int) -> list[tuple[int, int]]:
    return [
        (i, j)
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if bin(int(hashes[i]) ^ int(hashes[j])).count("1") <= radius
    ]


@pytest.mark.parametrize("radius", [0, 1, 3, 4, 7])
@pytest.mark.parametrize("block", [7, 1 << 20])
def test_the_same_pairs_as_comparing_all(radius: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "BLOCK", block)
    stream = np.random.default_rng(radius)
    base = stream.integers(0, 2**63, 12, dtype=np.uint64)
    flips = np.uint64(1) << stream.integers(0, 64, (160, 6), dtype=np.uint64)
    hashes = base[np.arange(160) % 12] ^ np.bitwise_xor.reduce(flips, axis=1)
    hashes = np.concatenate([hashes, hashes[:9]])
    found = [tuple(pair) for part in near_pairs(hashes, radius=radius) for pair in part.tolist()]
    expected = every_pair(hashes, radius)
    assert len(expected) > 8
    assert sorted(found) == expected


def test_few_images_and_none() -> None:
    assert list(near_pairs(np.zeros(0, dtype=np.uint64), radius=7)) == []
    assert list(near_pairs(np.zeros(1, dtype=np.uint64), radius=7)) == []
    assert np.concatenate(list(near_pairs(np.zeros(3, dtype=np.uint64), radius=7))).tolist() == [[0, 1], [0, 2], [1, 2]]


def test_the_search_is_narrowed_where_images_are_too_alike() -> None:
    spread = np.random.default_rng(0).integers(0, 2**63, 1000, dtype=np.uint64)
    assert radius_for(spread) == 7
    alike = np.zeros(1000, dtype=np.uint64)
    pairs = 1000 * 999 // 2
    assert radius_for(alike, most=4 * pairs) == 7
    assert radius_for(alike, most=4 * pairs - 1) == -1
    # Sixteen values of one band: 31,000 equal pairs, and four times twice as many that differ in one bit.
    crowded = (spread & ~np.uint64(0xFFFF)) | (np.arange(1000, dtype=np.uint64) % np.uint64(16))
    assert radius_for(crowded, most=60_000) == 3
    assert radius_for(crowded, most=MOST) == 7


def test_the_hash_by_hand() -> None:
    # A wave of frequency (0, 1) alone: of the 63 coefficients beside the mean only that one is above the median 0.
    wave = np.cos(np.pi / 32 * (np.arange(32) + 0.5))
    thumbnail = np.round(128 + 100 * wave).astype(np.uint8)
    across = np.tile(thumbnail, (32, 1))[None]
    assert int(perceptual_hashes(across)[0]) & 0b10
    assert int(perceptual_hashes(across.transpose(0, 2, 1).copy())[0]) >> 8 & 1
    assert not int(perceptual_hashes(255 - across)[0]) & 0b10


def test_brightness_and_contrast_hardly_change_it_and_another_image_does() -> None:
    stream = np.random.default_rng(1)
    coarse = stream.integers(40, 160, (50, 8, 8)).repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
    hashes = perceptual_hashes(coarse)
    brighter = perceptual_hashes((coarse * 1.3).astype(np.uint8))
    assert np.bitwise_count(hashes ^ brighter).max() <= 4
    assert np.bitwise_count(hashes[1:] ^ hashes[:-1]).min() > 7
