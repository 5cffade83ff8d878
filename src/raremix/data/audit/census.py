"""Count what is in a data set: classes, groups, labels that go together, sizes, kinds of files, brightness, borders."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int, UInt8

from raremix.core.types import SPLITS
from raremix.data.audit.look import SIDE
from raremix.data.audit.looks import Looks
from raremix.data.manifest import Manifest

# Grey values up to here (of 255) count as black: JPEG leaves some noise in what was black.
BLACK = 8
# Share of the picture that black borders take before they are worth a word: about two of the 32 rows at either end.
WIDE_BORDER = 0.1
DARK, BRIGHT = 0.05, 0.95
"""Mean grey value, as a share of full scale, below and above which hardly anything is to be seen."""

FLAT = 0.01
"""Standard deviation of the grey values, as a share of full scale, below which there is nothing in the picture."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Census:
    """What is in a data set.

    Attributes:
        splits: the splits that have rows, in the usual order, and "" for rows without one.
        images, groups: positive images, and groups with one, by split and class.
        split_images, split_groups: all images and groups of each split.
        together: images that carry both of two labels; on the diagonal those that carry one (multi-label only).
        without: images that carry no label (multi-label), or whose label is empty.
        sizes: width, height and number of images, the commonest first.
        kinds: format and mode, and number of images, the commonest first.
        brightness: of each readable image, in [0, 1].
        has_borders, is_dark, is_bright, is_flat: which rows are.
    """

    splits: tuple[str, ...]
    images: Int[np.ndarray, "S K"]
    groups: Int[np.ndarray, "S K"]
    split_images: Int[np.ndarray, " S"]
    split_groups: Int[np.ndarray, " S"]
    together: Int[np.ndarray, "K K"]
    without: int
    sizes: tuple[tuple[int, int, int], ...]
    kinds: tuple[tuple[str, int], ...]
    brightness: Float[np.ndarray, " r"]
    has_borders: Bool[np.ndarray, " n"]
    is_dark: Bool[np.ndarray, " n"]
    is_bright: Bool[np.ndarray, " n"]
    is_flat: Bool[np.ndarray, " n"]

    @property
    def image_ratio(self) -> float | None:
        """Images of the commonest class over those of the rarest, in train where there is one; None without images."""
        return _ratio(self._base(self.images))

    @property
    def group_ratio(self) -> float | None:
        """As `image_ratio`, counting groups."""
        return _ratio(self._base(self.groups))

    def _base(self, counts: Int[np.ndarray, "S K"]) -> Int[np.ndarray, " K"]:
        return counts[self.splits.index("train")] if "train" in self.splits else counts.sum(axis=0)


def take_census(manifest: Manifest, looks: Looks) -> Census:
    """Count what is in a data set.

    Args:
        manifest: the images.
        looks: what was seen in them.
    """
    split = manifest.frame["split"].fill_null("").to_numpy().astype(str)
    group = (manifest.frame["group"].rank("dense") - 1).to_numpy().astype(np.int64)
    positive = manifest.targets() == 1
    splits = tuple(name for name in (*SPLITS, "") if (split == name).any())
    inside = [split == name for name in splits]
    readable = looks.is_readable
    seen = looks.frame.filter(readable)
    by_size = seen.group_by("width", "height").len().sort("len", "width", "height", descending=[True, False, False])
    by_kind = seen.group_by("kind").len().sort("len", "kind", descending=[True, False])
    light, spread = looks.frame["brightness"].to_numpy(), looks.frame["contrast"].to_numpy()
    is_flat = readable & (spread < FLAT)
    return Census(
        splits=splits,
        images=np.stack([positive[rows].sum(axis=0) for rows in inside]).astype(np.int64),
        groups=np.stack([_groups_with(group[rows], positive[rows]) for rows in inside]),
        split_images=np.array([rows.sum() for rows in inside], dtype=np.int64),
        split_groups=np.array([len(np.unique(group[rows])) for rows in inside], dtype=np.int64),
        together=(positive.T.astype(np.float64) @ positive.astype(np.float64)).astype(np.int64),
        without=int((~positive.any(axis=1)).sum()),
        sizes=tuple(by_size.rows()),
        kinds=tuple(by_kind.rows()),
        brightness=light[readable],
        has_borders=readable & ~is_flat & (border_shares(looks.thumbnails) >= WIDE_BORDER),
        is_dark=readable & ~is_flat & (light < DARK),
        is_bright=readable & ~is_flat & (light > BRIGHT),
        is_flat=is_flat,
    )


def names_groups(manifest: Manifest) -> bool:
    """Whether the data say which images belong together, for at least half of them.

    A manifest calls the group of a row that was given none after the row; that says nothing about patients.
    """
    own = manifest.frame["group"] == pl.select(pl.format("row:{}", manifest.frame["id"])).to_series()
    return bool(2 * own.sum() <= len(manifest))


def border_shares(thumbnails: UInt8[np.ndarray, "n 32 32"]) -> Float[np.ndarray, " n"]:
    """Return the share of each picture that is black border: whole rows and columns at its edges.

    Example:
        >>> framed = np.zeros((1, 32, 32), dtype=np.uint8)
        >>> framed[:, 8:24] = 100
        >>> border_shares(framed).tolist()
        [0.5]
    """
    shares = np.empty(len(thumbnails))
    for start in range(0, len(thumbnails), 8192):
        part = thumbnails[start : start + 8192]
        rows, columns = _extent(part.max(axis=2) > BLACK), _extent(part.max(axis=1) > BLACK)
        shares[start : start + len(part)] = 1 - rows * columns / SIDE**2
    return shares


def association(mark: Bool[np.ndarray, " n"], targets: Float[np.ndarray, "n K"]) -> tuple[int, float, float] | None:
    """Find the class that a mark of the pictures goes with most: its number, and the mark's share in it and elsewhere.

    Args:
        mark: which rows bear it, such as black borders.
        targets: labels; NaN where not labelled.

    Returns:
        None where no class differs from the others by more than chance would: by 10 points and 4 standard errors.
    """
    best: tuple[int, float, float] | None = None
    for k in range(targets.shape[1]):
        inside, outside = mark[targets[:, k] == 1], mark[targets[:, k] == 0]
        if not len(inside) or not len(outside):
            continue
        a, b = float(inside.mean()), float(outside.mean())
        both = float(mark.mean())
        error = np.sqrt(both * (1 - both) * (1 / len(inside) + 1 / len(outside)))
        differs = abs(a - b) > max(0.1, 4 * error)
        if differs and (best is None or abs(a - b) > abs(best[1] - best[2])):
            best = (k, a, b)
    return best


def _extent(is_lit: Bool[np.ndarray, "n 32"]) -> Int[np.ndarray, " n"]:
    """Return how many places lie between the first and the last lit one, both included."""
    first = is_lit.argmax(axis=1)
    last = SIDE - is_lit[:, ::-1].argmax(axis=1)
    return np.where(is_lit.any(axis=1), last - first, 0)


def _groups_with(group: Int[np.ndarray, " m"], positive: Bool[np.ndarray, "m K"]) -> Int[np.ndarray, " K"]:
    return np.array([len(np.unique(group[column])) for column in positive.T], dtype=np.int64)


def _ratio(counts: Int[np.ndarray, " K"]) -> float | None:
    present = counts[counts > 0]
    return float(present.max() / present.min()) if len(present) else None
