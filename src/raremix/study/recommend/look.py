"""A look at a bounded sample of the images: how large, how deep, how dark at the rim, how large the lesion."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from raremix.core.errors import ReadError
from raremix.core.types import Progress
from raremix.data.manifest import Manifest
from raremix.data.readers import read_image

SAMPLE = 192
"""Images that are decoded, spread over the classes."""

MOST_PIXELS = 400_000_000
"""Decoding stops here, so that a set of 50-megapixel images is looked at in a minute as well."""

DARK = 10 / 255
"""Below this share of full scale a pixel counts as black border."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Look:
    """What a sample of the images looks like, one entry per image that could be read.

    Attributes:
        ids: manifest ids.
        width, height: in pixels.
        colour: whether its channels differ.
        deep: whether it holds 16 bit.
        border: share of the area outside the box of what is not black.
        brightness: mean, as a share of full scale.
        lesion_ids: the images whose mask was read.
        lesion_area: share of the image that their mask covers, > 0.
        unreadable: what was wrong with the images that could not be read.
    """

    ids: Int[np.ndarray, " n"]
    width: Int[np.ndarray, " n"]
    height: Int[np.ndarray, " n"]
    colour: np.ndarray
    deep: np.ndarray
    border: Float[np.ndarray, " n"]
    brightness: Float[np.ndarray, " n"]
    lesion_area: Float[np.ndarray, " m"]
    unreadable: tuple[str, ...] = ()

    @property
    def side(self) -> int:
        """Median of the longer side in pixels; 0 where nothing could be read."""
        return int(np.median(np.maximum(self.width, self.height))) if len(self.ids) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _One:
    id: int
    width: int
    height: int
    colour: bool
    deep: bool
    border: float
    brightness: float


def look_at(
    manifest: Manifest, *, sample: int = SAMPLE, most_pixels: int = MOST_PIXELS, progress: Progress | None = None
) -> Look:
    """Decode a sample of the images, spread evenly over classes and rows; the same data give the same sample.

    Args:
        manifest: the data set.
        sample: how many images at most.
        most_pixels: decoding stops once so many were decoded.
        progress: called as images are decoded.
    """
    ids = sampled_ids(manifest, sample=sample)
    names = manifest.frame["path"].gather(manifest.positions(ids)).to_list()
    found: list[_One] = []
    unreadable: list[str] = []
    pixels = 0
    with ThreadPoolExecutor(4) as pool:
        for start in range(0, len(ids), 16):
            part = slice(start, start + 16)
            for one in pool.map(partial(_look, manifest.root), ids[part].tolist(), names[part]):
                if isinstance(one, _One):
                    found.append(one)
                    pixels += one.width * one.height
                else:
                    unreadable.append(one)
            if progress is not None:
                progress("looking at images", min(start + 16, len(ids)), len(ids))
            if pixels > most_pixels:
                break
    return Look(
        ids=np.array([one.id for one in found], dtype=np.int64),
        width=np.array([one.width for one in found], dtype=np.int64),
        height=np.array([one.height for one in found], dtype=np.int64),
        colour=np.array([one.colour for one in found], dtype=bool),
        deep=np.array([one.deep for one in found], dtype=bool),
        border=np.array([one.border for one in found], dtype=np.float64),
        brightness=np.array([one.brightness for one in found], dtype=np.float64),
        lesion_area=np.array(list(_lesions(manifest, [one.id for one in found])), dtype=np.float64),
        unreadable=tuple(unreadable),
    )


def sampled_ids(manifest: Manifest, *, sample: int) -> Int[np.ndarray, " n"]:
    """Choose ids evenly over the rows of each class, and of the rows without any; a row is chosen once.

    Example:
        ``sampled_ids(manifest, sample=192)``
    """
    targets = np.nan_to_num(manifest.targets())
    positive = targets > 0.5
    strata = [np.flatnonzero(positive[:, k]) for k in range(targets.shape[1])]
    strata.append(np.flatnonzero(~positive.any(axis=1)))
    strata = sorted((rows for rows in strata if len(rows)), key=len)
    chosen: set[int] = set()
    for left, rows in zip(range(len(strata), 0, -1), strata, strict=True):
        share = max(0, -(-(sample - len(chosen)) // left))
        chosen.update(rows[np.linspace(0, len(rows) - 1, min(share, len(rows))).astype(np.int64)].tolist())
    return np.sort(manifest.ids[sorted(chosen)])


def _look(root: Path, number: int, name: str) -> _One | str:
    try:
        pixels = read_image(root / name, name=name)
    except ReadError as error:
        return str(error)
    deep = pixels.dtype == np.uint16
    full = 65535.0 if deep else 255.0
    grey = pixels.max(axis=2)
    lit = grey > DARK * full
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1) if len(rows) else 0
    height, width = grey.shape
    # Compression moves the channels of a grey image stored in colour by a level or two.
    spread = int(np.abs(pixels[..., :1].astype(np.int64) - pixels).max()) if pixels.shape[2] > 1 else 0
    return _One(
        id=number,
        width=width,
        height=height,
        colour=spread > 0.02 * full,
        deep=deep,
        border=1 - box / (height * width),
        brightness=float(pixels.mean()) / full,
    )


def _lesions(manifest: Manifest, ids: list[int]) -> Iterator[float]:
    if "mask" not in manifest.frame.columns:
        return
    places = manifest.frame["mask"].gather(manifest.positions(np.array(ids, dtype=np.int64))).to_list()
    for place in places:
        if place is None:
            continue
        try:
            share = float((read_image(manifest.root / place, name=place) > 0).any(axis=2).mean())
        except ReadError:
            continue
        if share > 0:
            yield share
