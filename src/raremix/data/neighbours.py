"""The nearest neighbours of every row of a representation, by cosine distance: exactly, or by an index of many rows."""

from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Float, Int
from usearch.index import BatchMatches, Index

from raremix.core.errors import DataError

EXACT_ROWS = 100_000
"""Rows up to which all distances are computed. For 20,000 rows of 1,280 numbers that took 14 s of processor time and an
index of usearch 142 s; of 128 numbers 5.9 and 8.5 s. The first grows with the square, so they meet between 30,000 and
200,000 rows; and what is computed exactly does not depend on the order of the rows."""

BLOCK_BYTES = 64 << 20
"""Size of a block of distances: bounds the memory, whatever the number of rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """The nearest rows of every row, of other groups.

    Attributes:
        rows: row numbers, the nearest first; -1 where there are no more.
        distances: cosine distances in [0, 2]; infinity where there are no more.
    """

    rows: Int[np.ndarray, "n k"]
    distances: Float[np.ndarray, "n k"]


def unit(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Return rows of length one, as float32; rows of zeros stay zeros.

    Raises:
        DataError: if a number is not finite.
    """
    if not np.isfinite(features).all():
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))[:5].tolist()
        raise DataError(f"features must be finite, but rows {bad} are not: look at the network or at its weights")
    rows = features.astype(np.float32)
    length = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))[:, None].astype(np.float32)
    return rows / np.where(length > 0, length, 1)


def nearest(
    features: Float[np.ndarray, "n d"],
    *,
    count: int,
    groups: Int[np.ndarray, " n"] | None = None,
    exact_rows: int = EXACT_ROWS,
) -> Neighbours:
    """Find the nearest neighbours of every row among the rows of other groups.

    Up to `exact_rows` rows every distance is computed, in blocks. Beyond that an index of usearch finds most of them:
    hierarchical navigable small worlds, Malkov & Yashunin 2018 (https://arxiv.org/abs/1603.09320).

    Args:
        features: one row per image, of length one (see `unit`).
        count: neighbours per row; fewer where there are not so many.
        groups: number of each row's group; every row is a group of its own by default.
        exact_rows: rows up to which all distances are computed.

    Example:
        >>> nearest(unit(np.array([[1.0, 0], [0, 1], [1, 0.1]])), count=1).rows[:, 0].tolist()
        [2, 2, 0]
    """
    own = np.arange(len(features)) if groups is None else groups
    if len(features) <= exact_rows:
        return _all_distances(features, features, own, own, count=count)
    return _by_index(features, own, count=count)


def nearest_outside(
    features: Float[np.ndarray, "n d"], rows: Int[np.ndarray, " m"], parts: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Find, exactly, the nearest row of another part for some rows, and how far it is."""
    found = _all_distances(features[rows], features, parts[rows], parts, count=1)
    return found.rows[:, 0], found.distances[:, 0]


def _all_distances(
    asked: Float[np.ndarray, "m d"],
    features: Float[np.ndarray, "n d"],
    own: Int[np.ndarray, " m"],
    groups: Int[np.ndarray, " n"],
    *,
    count: int,
) -> Neighbours:
    count = max(1, min(count, len(features)))
    rows = np.full((len(asked), count), -1, dtype=np.int64)
    distances = np.full((len(asked), count), np.inf, dtype=np.float32)
    length = max(1, BLOCK_BYTES // (4 * max(len(features), 1)))
    for start in range(0, len(asked), length):
        block = slice(start, start + length)
        apart = np.maximum(1 - asked[block] @ features.T, 0)
        apart[own[block, None] == groups] = np.inf
        near = np.argpartition(apart, count - 1, axis=1)[:, :count] if count < len(features) else _every(apart)
        rows[block], distances[block] = _sorted(near, np.take_along_axis(apart, near, axis=1))
    return Neighbours(rows=np.where(np.isinf(distances), -1, rows), distances=distances)


def _by_index(features: Float[np.ndarray, "n d"], groups: Int[np.ndarray, " n"], *, count: int) -> Neighbours:
    index = Index(ndim=features.shape[1], metric="cos", dtype="f32")
    # One thread: an index that several build at once differs from run to run.
    index.add(np.arange(len(features), dtype=np.uint64), features, threads=1)
    largest = int(np.bincount(np.unique(groups, return_inverse=True)[1]).max())
    # Enough that a row's own group does not use up all its neighbours, unless that group is very large.
    asked = min(len(features), count + min(largest, 4 * count))
    rows = np.full((len(features), count), -1, dtype=np.int64)
    distances = np.full((len(features), count), np.inf, dtype=np.float32)
    for start in range(0, len(features), 4096):
        block = slice(start, start + 4096)
        found = cast(BatchMatches, index.search(features[block], asked))
        near = np.asarray(found.keys).astype(np.int64).clip(0, len(features) - 1)
        apart = np.maximum(np.asarray(found.distances, dtype=np.float32), 0)
        missing = np.arange(asked) >= np.asarray(found.counts)[:, None]
        apart[missing | (groups[near] == groups[block, None])] = np.inf
        near, apart = _sorted(near, apart)
        rows[block], distances[block] = near[:, :count], apart[:, :count]
    return Neighbours(rows=np.where(np.isinf(distances), -1, rows), distances=distances)


def _every(apart: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.arange(apart.shape[1]), apart.shape)


def _sorted(near: np.ndarray, apart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(apart, axis=1, kind="stable")
    return np.take_along_axis(near, order, axis=1), np.take_along_axis(apart, order, axis=1)
