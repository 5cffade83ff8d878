"""Find copies: the same file twice, the same pixels in another file, and pictures that are nearly the same."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8, UInt64
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from raremix.core.errors import ReadError
from raremix.core.types import Progress
from raremix.data.audit.look import PLATE, SIDE, correlation, look_closely, standardise
from raremix.data.audit.looks import Looks
from raremix.data.audit.near import near_pairs, perceptual_hashes, radius_for
from raremix.data.manifest import Manifest
from raremix.data.readers import Reading

# Correlation beyond the average image of the data set. Measured (docs/audit.md): pictures of different patients whose
# hashes are near reach .81 on Kermany, .94 on PneumoniaMNIST and .95 on HAM10000; copies in other contrast, brightness
# or compression rarely stay below .93.
THUMBNAILS_ALIKE, PLATES_ALIKE = 0.88, 0.93
# With few images their mean says little about what all have in common: it counts n / (n + this).
PRIOR = 50.0
# Below this deviation of grey values (of 255) there is nothing in a picture that could be compared.
FLATTEST = 2.0
MOST_COMPARED = 20_000
PAIRS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Copies:
    """Which images are copies of which, as rows of the manifest (not ids).

    Attributes:
        identical: sets of images with the same pixels, each in ascending order.
        same_file: of each set, whether all its files are the same to the byte.
        near: pairs of pictures that are nearly the same, the most similar first; of identical images only the first.
        similarity: of each pair, the correlation of its pixels beyond the average image.
        radius: bits in which perceptual hashes were let differ; -1 where the images are too many and too alike for it.
        left_out: how many pairs with similar thumbnails were not compared closely, because there were too many.
    """

    identical: tuple[Int[np.ndarray, " _"], ...]
    same_file: tuple[bool, ...]
    near: Int[np.ndarray, "p 2"]
    similarity: Float[np.ndarray, " p"]
    radius: int
    left_out: int


def find_copies(
    manifest: Manifest,
    looks: Looks,
    *,
    reading: Reading | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Copies:
    """Find identical and nearly identical images.

    Files with the same hash are the same. Other images are candidates if their perceptual hashes differ in at most 7
    of 64 bits and their thumbnails correlate by .88; candidates are decoded whole: either all their pixels are the
    same, or at 64 x 64 pixels they correlate by at least .93, or they are dropped. What correlates is how each image
    differs from the average image of the data set, since all X-rays of a chest, or all round fundus images, are alike.

    Args:
        manifest: the images.
        looks: what was seen in them.
        reading: which frame and range of values of DICOM and NIfTI files.
        workers: threads that decode; one per processor by default.
        progress: called as candidates are compared.
    """
    content = looks.frame["sha256"].to_numpy()
    readable = np.flatnonzero(looks.is_readable)
    # Of files with one content only the first is searched: a thousand equal ones would make half a million pairs.
    _, first = np.unique(content[readable].astype(str), return_index=True)
    searched = readable[np.sort(first)]
    searched = searched[_spread(looks.thumbnails, searched) >= FLATTEST]
    thumbnails = looks.thumbnails[searched]
    average = average_image(thumbnails)
    pairs, radius, left_out = _candidates(thumbnails, average)
    pairs = searched[pairs]
    pixels, plates = _closely(manifest, np.unique(pairs), reading, workers=workers, progress=progress)
    known = np.array([i in pixels and j in pixels for i, j in pairs.tolist()], dtype=bool)
    pairs = pairs[known]
    same = np.array([pixels[i] == pixels[j] for i, j in pairs.tolist()], dtype=bool)
    identical = _linked(_same_content(content, readable), pairs[same])
    similarity = _similarity(pairs, plates, average)
    near = (similarity >= PLATES_ALIKE) & ~same
    order = np.argsort(-similarity[near], kind="stable")
    near_ones = _first_of_each(pairs[near][order], similarity[near][order], identical)
    return Copies(
        identical=identical,
        same_file=tuple(len(set(content[rows].tolist())) == 1 for rows in identical),
        near=near_ones[0],
        similarity=near_ones[1],
        radius=radius,
        left_out=left_out,
    )


def _spread(thumbnails: UInt8[np.ndarray, "n 32 32"], rows: Int[np.ndarray, " s"]) -> Float[np.ndarray, " s"]:
    """Return the standard deviation of the grey values of some thumbnails, in the memory of a few."""
    parts = [np.zeros(0, dtype=np.float32)]
    for start in range(0, len(rows), 8192):
        parts.append(thumbnails[rows[start : start + 8192]].std(axis=(1, 2), dtype=np.float32))
    return np.concatenate(parts)


def average_image(thumbnails: UInt8[np.ndarray, "s 32 32"]) -> Float[np.ndarray, "32 32"]:
    """Return the mean of the standardised thumbnails, shrunk towards nothing where they are few."""
    total = np.zeros(SIDE * SIDE, dtype=np.float64)
    for start in range(0, len(thumbnails), 8192):
        part = thumbnails[start : start + 8192]
        total += standardise(part.reshape(len(part), -1)).sum(axis=0, dtype=np.float64)
    return (total / (len(thumbnails) + PRIOR)).reshape(SIDE, SIDE).astype(np.float32)


def _candidates(
    thumbnails: UInt8[np.ndarray, "s 32 32"], average: Float[np.ndarray, "32 32"]
) -> tuple[Int[np.ndarray, "p 2"], int, int]:
    """Return pairs with near hashes and similar thumbnails, the radius, and how many similar ones were too many."""
    hashes = perceptual_hashes(thumbnails)
    radius = radius_for(hashes)
    flat = thumbnails.reshape(len(thumbnails), -1)
    found, how = [np.zeros((0, 2), dtype=np.int64)], [np.zeros(0)]
    for block in near_pairs(hashes, radius=radius) if radius >= 0 else _equal_hashes(hashes):
        for start in range(0, len(block), PAIRS_AT_ONCE):
            pairs = block[start : start + PAIRS_AT_ONCE]
            similar = correlation(flat[pairs[:, 0]], flat[pairs[:, 1]], average=average.ravel())
            kept = similar >= THUMBNAILS_ALIKE
            found.append(pairs[kept])
            how.append(similar[kept])
    pairs, similar = np.concatenate(found), np.concatenate(how)
    best = np.argsort(-similar, kind="stable")[:MOST_COMPARED]
    chosen = pairs[best]
    return chosen[np.lexsort((chosen[:, 1], chosen[:, 0]))], radius, len(pairs) - len(chosen)


def _equal_hashes(hashes: UInt64[np.ndarray, " s"]) -> list[Int[np.ndarray, "m 2"]]:
    """Chain images with the very same hash, where there are too many to compare them all."""
    order = np.argsort(hashes, kind="stable").astype(np.int64)
    same = hashes[order][1:] == hashes[order][:-1]
    return [np.sort(np.stack([order[:-1][same], order[1:][same]], axis=1), axis=1)]


def _closely(
    manifest: Manifest,
    rows: Int[np.ndarray, " m"],
    reading: Reading | None,
    *,
    workers: int | None,
    progress: Progress | None,
) -> tuple[dict[int, str], dict[int, UInt8[np.ndarray, "64 64"]]]:
    """Return a hash of the pixels, and a plate, of each image that can be decoded."""
    paths = manifest.paths(manifest.ids[rows])

    def look(path: Path) -> tuple[str, UInt8[np.ndarray, "64 64"]] | None:
        try:
            return look_closely(path, reading=reading)
        except ReadError:
            return None

    pixels: dict[int, str] = {}
    plates: dict[int, UInt8[np.ndarray, "64 64"]] = {}
    with ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="look") as pool:
        for start in range(0, len(paths), 256):
            part = slice(start, start + 256)
            for row, seen in zip(rows[part].tolist(), pool.map(look, paths[part]), strict=True):
                if seen is not None:
                    pixels[row], plates[row] = seen
            if progress is not None:
                progress("compare images", min(start + 256, len(paths)), len(paths))
    return pixels, plates


def compare(
    manifest: Manifest, pairs: Int[np.ndarray, "p 2"], average: Float[np.ndarray, "32 32"]
) -> Float[np.ndarray, " p"]:
    """Return how alike pairs of images are at 64 x 64 pixels, beyond an average image; all must be readable.

    Args:
        manifest: the images.
        pairs: rows of the manifest (not ids).
        average: see `average_image`; zeros for plain correlation.
    """
    _, plates = _closely(manifest, np.unique(pairs), None, workers=None, progress=None)
    return _similarity(pairs, plates, average)


def _similarity(
    pairs: Int[np.ndarray, "p 2"],
    plates: dict[int, UInt8[np.ndarray, "64 64"]],
    average: Float[np.ndarray, "32 32"],
) -> Float[np.ndarray, " p"]:
    # Standardised images have length 1: four times the pixels, each half as large.
    scaled = np.asarray(Image.fromarray(average).resize((PLATE, PLATE), Image.Resampling.BILINEAR)).ravel() / 2
    parts = [np.zeros(0)]
    for start in range(0, len(pairs), 1024):
        part = pairs[start : start + 1024].tolist()
        first, second = (np.stack([plates[pair[side]].ravel() for pair in part]) for side in (0, 1))
        parts.append(correlation(first, second, average=scaled))
    return np.concatenate(parts)


def _same_content(content: np.ndarray, readable: Int[np.ndarray, " r"]) -> Int[np.ndarray, "m 2"]:
    """Chain rows with the same file content."""
    order = readable[np.argsort(content[readable].astype(str), kind="stable")]
    same = content[order][1:] == content[order][:-1]
    return np.stack([order[:-1][same], order[1:][same]], axis=1)


def _linked(*links: Int[np.ndarray, "_ 2"]) -> tuple[Int[np.ndarray, " _"], ...]:
    """Return the sets of at least two rows that links hold together, by their first row."""
    pairs = np.concatenate([*links, np.zeros((0, 2), dtype=np.int64)]).astype(np.int64)
    rows, numbers = np.unique(pairs, return_inverse=True)
    if not len(rows):
        return ()
    numbers = numbers.reshape(pairs.shape)
    graph = coo_matrix((np.ones(len(pairs)), (numbers[:, 0], numbers[:, 1])), shape=(len(rows), len(rows)))
    _, part = connected_components(graph, directed=False)
    order = np.argsort(part, kind="stable")
    sets: Sequence[np.ndarray] = np.split(rows[order], np.flatnonzero(np.diff(part[order])) + 1)
    return tuple(sorted((np.sort(rows) for rows in sets), key=lambda rows: int(rows[0])))


def _first_of_each(
    pairs: Int[np.ndarray, "p 2"], similarity: Float[np.ndarray, " p"], identical: tuple[Int[np.ndarray, " _"], ...]
) -> tuple[Int[np.ndarray, "q 2"], Float[np.ndarray, " q"]]:
    """Let the first image of each identical set stand for all, so that a pair of sets is one pair."""
    stands = {int(row): int(rows[0]) for rows in identical for row in rows}
    seen: set[tuple[int, int]] = set()
    kept = []
    for number, (i, j) in enumerate(pairs.tolist()):
        first, second = stands.get(int(i), int(i)), stands.get(int(j), int(j))
        a, b = min(first, second), max(first, second)
        if a != b and (a, b) not in seen:
            seen.add((a, b))
            kept.append((a, b, number))
    if not kept:
        return np.zeros((0, 2), dtype=np.int64), np.zeros(0)
    table = np.array(kept, dtype=np.int64)
    return table[:, :2], similarity[table[:, 2]]
