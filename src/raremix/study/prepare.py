"""From a study's [data] table to a manifest with splits and decoded images."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl

from raremix.core.errors import ConfigError, ManifestError, ReadError
from raremix.core.types import Progress
from raremix.data.cache import ImageCache, build_cache
from raremix.data.digests import try_digests
from raremix.data.guards import check, suspended
from raremix.data.imbalance import Imbalance, make_imbalanced
from raremix.data.joined import JoinedImages
from raremix.data.manifest import Manifest
from raremix.data.quarantine import leave_out, quarantine_table
from raremix.data.readers import Reading, read_image
from raremix.data.split import apply_split, fold_split
from raremix.data.subset import thin, thin_to_ratio
from raremix.study.arm_table import ArmSpec
from raremix.study.data_tables import DataSpec, ThinSpec
from raremix.study.generators.guard import refuse_leaking_rows
from raremix.study.spec import StudySpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A study's data, ready to train on.

    Attributes:
        manifest: all rows, with their splits.
        cache: decoded images of all rows.
        channels: of the images.
        thinned: what was left out of the training split, in words, or None.
        grouped: whether rows share groups (patients), or every image is on its own.
        whole: the rows before classes were made rare, where they were.
        quarantine: the files that could not be read and were left out; see `raremix.data.quarantine.quarantine_table`.
        arms: the data of arms that add images to their training split, once these are there; see
            `raremix.study.arm_images`.
        generators: folders of the study's own generators, by name, once they are fitted.
    """

    manifest: Manifest
    cache: ImageCache | JoinedImages
    channels: int
    thinned: str | None
    grouped: bool
    whole: Manifest | None = None
    quarantine: pl.DataFrame | None = None
    arms: Mapping[str, "Prepared"] = field(default_factory=dict, repr=False)
    generators: Mapping[str, Path] = field(default_factory=dict, repr=False)

    @property
    def untouched(self) -> Manifest:
        """The rows before classes were made rare: what is rare in one fold's training is tested in another."""
        return self.manifest if self.whole is None else self.whole


def prepare(spec: StudySpec, *, cache: Path, fold: int | None = None, progress: Progress | None = None) -> Prepared:
    """Load, check, split, thin and decode a study's data; everything after the first time comes from the cache.

    Files that cannot be read are left out after the split, where the study says so: a file that breaks, or is mended,
    moves no other file from one split to another.

    Args:
        spec: the study.
        cache: the cache folder.
        fold: which fold is held out, or None for the split.
        progress: called while files are read.

    Raises:
        GuardError: if the data would mislead (a patient in two splits, ...).
        DataError: if files or tables do not fit.
    """
    loaded, reasons = load(spec, cache=cache, progress=progress)
    for name in spec.data.subgroups:
        if name not in loaded.attributes:
            raise ConfigError(
                f"data.subgroups: the data have no column {name!r}; they have {', '.join(loaded.attributes) or 'none'}"
            )
    split = split_manifest(loaded, spec, fold=fold)
    readable = leave_out(split, reasons)
    check(readable, allow_synthetic=spec.data.allow_synthetic)
    channels = spec.data.channels or common_channels(readable, reading=spec.data.reading)
    images = build_cache(
        readable,
        size=spec.data.size,
        channels=channels,
        root=cache,
        bits=spec.data.bits,
        resize=spec.data.resize,
        reading=spec.data.reading,
        on_unreadable=spec.data.on_unreadable,
        progress=progress,
    )
    reasons = {**reasons, **images.unreadable}
    whole = leave_out(split, reasons)
    check(whole, allow_synthetic=spec.data.allow_synthetic, check_files=False)
    refuse_leaking_rows(whole)
    prepared = Prepared(
        manifest=whole,
        cache=images,
        channels=channels,
        thinned=None,
        grouped=False,
        quarantine=quarantine_table(split, reasons) if reasons else None,
    )
    return make_rare(prepared, thinning=spec.data.thin, imbalance=spec.data.imbalance)


def load(spec: StudySpec, *, cache: Path, progress: Progress | None = None) -> tuple[Manifest, dict[int, str]]:
    """Load a study's manifest, and find the files that cannot be read, where the study leaves them out.

    Returns:
        The manifest with all rows, and by row why its file cannot be read.

    Raises:
        ReadError, ManifestError: for files that cannot be read or are missing, unless the study leaves them out.
        GuardError: if the data would mislead.
    """
    if spec.data.on_unreadable == "refuse":
        return spec.source.load(cache=cache, progress=progress), {}
    with suspended():
        raw = spec.source.load(cache=cache, progress=progress)
    hashed, reasons = try_digests(raw, cache=cache, progress=progress)
    return hashed, dict(reasons)


def make_rare(prepared: Prepared, *, thinning: ThinSpec | None, imbalance: Imbalance | None) -> Prepared:
    """Make classes of the training split rare, starting from all its rows; with neither table, return it whole.

    Args:
        prepared: a study's data, whether its classes were made rare already or not.
        thinning: the [data.thin] table.
        imbalance: the `imbalance` table of [data] or of an arm.

    Raises:
        ConfigError, TargetError: if the table does not fit the data.
    """
    made = whole = prepared.untouched
    if imbalance is not None:
        made = make_imbalanced(whole, imbalance)
    elif thinning is not None:
        made = thin_manifest(whole, thinning)
    before, after = whole.class_counts("train"), made.class_counts("train")
    words = ", ".join(
        f"{name} {b} to {a}" for name, b, a in zip(whole.card.classes, before, after, strict=True) if a != b
    )
    return replace(
        prepared,
        manifest=made,
        thinned=None if made is whole else words,
        whole=None if made is whole else whole,
        grouped=made.frame["group"].n_unique() < len(made),
    )


def of_arm(prepared: Prepared, arm: ArmSpec) -> Prepared:
    """Return the data that an arm is trained on: the study's, unless it adds images or has a long tail of its own.

    Before the images that it adds are there, these are the study's data.
    """
    if arm.name in prepared.arms:
        return prepared.arms[arm.name]
    return prepared if arm.imbalance is None else make_rare(prepared, thinning=None, imbalance=arm.imbalance)


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
    """Make single classes rare in the training split, as the [data.thin] table says.

    Raises:
        ConfigError: if the table does not say exactly one thing.
    """
    if bool(spec.counts) == bool(spec.classes):
        raise ConfigError(
            "data.thin needs one of: counts = {class = n}, or classes = [...] with ratio; for a long tail over all "
            "classes there is data.imbalance = {ratio = r}"
        )
    if spec.counts:
        return thin(manifest, counts=spec.counts, seed=spec.seed)
    return thin_to_ratio(manifest, classes=spec.classes, ratio=spec.ratio, seed=spec.seed)


def common_channels(manifest: Manifest, *, reading: Reading | None = None, samples: int = 24) -> int:
    """Return 1 if all of some evenly spaced images are grey, else 3; those that cannot be read are found later."""
    rows = np.unique(np.linspace(0, len(manifest) - 1, min(samples, len(manifest))).astype(int))
    channels = []
    for path in manifest.paths(manifest.ids[rows]):
        with suppress(ReadError):
            channels.append(read_image(path, reading=reading).shape[2])
    return 1 if channels and all(count == 1 for count in channels) else 3


def default_cache() -> Path:
    """Return the user's cache folder for raremix."""
    return Path.home() / ".cache" / "raremix"


def cache_of(data: DataSpec, override: Path | None) -> Path:
    """Return the cache folder: the command line's, the study's, or the user's."""
    return (override or data.cache or default_cache()).expanduser()
