"""From a study's [data] table to a manifest with splits and decoded images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raremix.core.errors import ConfigError, ManifestError
from raremix.core.types import Progress
from raremix.data.cache import ImageCache, build_cache
from raremix.data.guards import check
from raremix.data.manifest import Manifest
from raremix.data.readers import read_image
from raremix.data.split import apply_split, fold_split
from raremix.data.subset import thin, thin_to_long_tail, thin_to_ratio
from raremix.study.spec import DataSpec, StudySpec, ThinSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A study's data, ready to train on.

    Attributes:
        manifest: all rows, with their splits.
        cache: decoded images of all rows.
        channels: of the images.
        thinned: what was left out of the training split, in words, or None.
        grouped: whether rows share groups (patients), or every image is on its own.
    """

    manifest: Manifest
    cache: ImageCache
    channels: int
    thinned: str | None
    grouped: bool


def prepare(spec: StudySpec, *, cache: Path, fold: int | None = None, progress: Progress | None = None) -> Prepared:
    """Load, check, split, thin and decode a study's data; everything after the first time comes from the cache.

    Args:
        spec: the study.
        cache: the cache folder.
        fold: which fold is held out, or None for the split.
        progress: called while files are read.

    Raises:
        GuardError: if the data would mislead (a patient in two splits, ...).
        DataError: if files or tables do not fit.
    """
    loaded = spec.source.load(cache=cache, progress=progress)
    for name in spec.data.subgroups:
        if name not in loaded.attributes:
            raise ConfigError(
                f"data.subgroups: the data have no column {name!r}; they have {', '.join(loaded.attributes) or 'none'}"
            )
    split = split_manifest(loaded, spec, fold=fold)
    check(split)
    channels = spec.data.channels or common_channels(split)
    images = build_cache(
        split,
        size=spec.data.size,
        channels=channels,
        root=cache,
        bits=spec.data.bits,
        resize=spec.data.resize,
        progress=progress,
    )
    thinned, words = split, None
    if spec.data.thin is not None:
        thinned = thin_manifest(split, spec.data.thin)
        before, after = split.class_counts("train"), thinned.class_counts("train")
        words = ", ".join(
            f"{name} {b} to {a}" for name, b, a in zip(split.card.classes, before, after, strict=True) if a != b
        )
    grouped = thinned.frame["group"].n_unique() < len(thinned)
    return Prepared(manifest=thinned, cache=images, channels=channels, thinned=words, grouped=grouped)


def split_manifest(manifest: Manifest, spec: StudySpec, *, fold: int | None) -> Manifest:
    """Give every row a split: by fold, or by the [split] table where the data bring none.

    Raises:
        ManifestError: if a split stays empty.
    """
    if spec.folds is not None:
        split = fold_split(
            manifest, folds=spec.folds, fold=fold or 0, validation=spec.split.validation, seed=spec.split.seed
        )
    else:
        shares = {"validation": spec.split.validation, "test": spec.split.test}
        split = apply_split(manifest, fractions={"train": 1 - sum(shares.values()), **shares}, seed=spec.split.seed)
    for name in ("train", "validation", "test"):
        if not len(split.rows(name)):
            raise ManifestError(
                f"the {name} split is empty: {len(manifest)} images in {manifest.frame['group'].n_unique()} groups "
                "are too few for these shares; change [split], or use [study] folds"
            )
    return split


def thin_manifest(manifest: Manifest, spec: ThinSpec) -> Manifest:
    """Make classes rare in the training split, as the [data.thin] table says.

    Raises:
        ConfigError: if the table does not say exactly one thing.
    """
    ways = [bool(spec.counts), bool(spec.classes), spec.imbalance_ratio is not None]
    if sum(ways) != 1:
        raise ConfigError(
            "data.thin needs one of: counts = {class = n}, classes = [...] with ratio, imbalance_ratio = r"
        )
    if spec.counts:
        return thin(manifest, counts=spec.counts, seed=spec.seed)
    if spec.imbalance_ratio is not None:
        return thin_to_long_tail(manifest, imbalance_ratio=spec.imbalance_ratio, seed=spec.seed)
    return thin_to_ratio(manifest, classes=spec.classes, ratio=spec.ratio, seed=spec.seed)


def common_channels(manifest: Manifest, *, samples: int = 24) -> int:
    """Return 1 if all of some evenly spaced images are grey, else 3."""
    rows = np.unique(np.linspace(0, len(manifest) - 1, min(samples, len(manifest))).astype(int))
    paths = manifest.paths()
    return 1 if all(read_image(paths[row]).shape[2] == 1 for row in rows) else 3


def default_cache() -> Path:
    """Return the user's cache folder for raremix."""
    return Path.home() / ".cache" / "raremix"


def cache_of(data: DataSpec, override: Path | None) -> Path:
    """Return the cache folder: the command line's, the study's, or the user's."""
    return (override or data.cache or default_cache()).expanduser()
