"""BUSI: breast ultrasound, normal, benign or malignant, with the outline of every lesion.

Al-Dhabyani et al., "Dataset of breast ultrasound images", Data in Brief 28:104863 (2020),
https://doi.org/10.1016/j.dib.2019.104863. What is wrong with it (images that occur twice, eight lesions in both the
benign and the malignant folder): Pawłowska et al., Data in Brief 48:109247 (2023),
https://doi.org/10.1016/j.dib.2023.109247.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import UInt8

from raremix.core import files
from raremix.core.errors import ManifestError, ReadError, TargetError
from raremix.core.types import Progress
from raremix.data.manifest import Card, Manifest, listed
from raremix.data.readers import has_image_suffix, read_image
from raremix.data.sources.about import About
from raremix.data.sources.assemble import admit, assemble, one_hot
from raremix.data.sources.drawn_masks import write_masks
from raremix.data.sources.layout import data_folder, files_below
from raremix.data.sources.text_table import need_columns, read_table

ABOUT = About(
    name="busi",
    title="BUSI, breast ultrasound images",
    task="multiclass",
    classes=("normal", "benign", "malignant"),
    images=780,
    modality="ultrasound",
    licence="not stated with the images: check at the download site",
    citation="Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 28:104863 (2020)",
    url="https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
    access="open",
    layout="""\
Dataset_BUSI_with_GT/
  benign/benign (1).png, benign (1)_mask.png, benign (4)_mask_1.png ...
  malignant/malignant (1).png, malignant (1)_mask.png ...
  normal/normal (1).png, normal (1)_mask.png ...        (empty masks)""",
    study="""\
[data]
source = "busi"
path = "Dataset_BUSI_with_GT"
duplicates = "link"          # or "first", "keep"
# groups = "busi_groups.csv" # file,group: near-duplicates that an audit found
size = 224
channels = 1""",
    notes="780 images of 600 women without patient numbers; many lesions were photographed more than once.",
)
_MASK = re.compile(r"^(?P<image>.+)_mask(_\d+)?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class BUSI:
    """Breast ultrasound with lesion masks; several masks of one image are merged.

    Args:
        path: the folder with benign, malignant and normal.
        duplicates: what becomes of images with identical pixels. "link" keeps all and puts them into one group, so
            that no split separates them; images in two classes are refused by name. "first" keeps the first of each
            set, and none where the classes differ. "keep" leaves the data as published.
        groups: a table with the columns file (as benign/benign (1).png) and group, for near-duplicates and patients
            that pixels do not give away.

    Example:
        ``BUSI(path="Dataset_BUSI_with_GT", duplicates="first").load(cache=Path("cache")).class_counts()``
    """

    path: str | Path
    duplicates: Literal["link", "first", "keep"] = "link"
    groups: str | Path | None = None

    def load(self, *, cache: Path, progress: Progress | None = None) -> Manifest:
        """Return the manifest of the images; merged masks are written into the cache.

        Args:
            cache: folder for masks and hashes of the files.
            progress: called while masks are written and files are hashed.

        Raises:
            ManifestError: if folders or images are missing.
            ReadError: if a mask cannot be read, or has another size than its fellow.
            TargetError: for one picture in two classes.
            LeakageError, GuardError: see `raremix.data.guards`.
        """
        root = data_folder(self.path, expected="benign, malignant and normal of BUSI")
        if not (root / "benign").is_dir() and (root / "Dataset_BUSI_with_GT").is_dir():
            root = root / "Dataset_BUSI_with_GT"
        masks: dict[str, list[str]] = {}
        for name in ABOUT.classes:
            if not (root / name).is_dir():
                raise ManifestError(f"no folder {name} below {root}: expected benign, malignant and normal")
            _collect(masks, files_below(root / name, root=root))
        alone = masks.pop("", [])
        if alone:
            raise ManifestError(f"masks without an image: {listed(alone)}: restore the image, or remove the mask")
        paths = sorted(masks)
        linked = self._linked(root, paths)
        kept = [path for path in paths if linked.get(path, path) is not None]
        if self.groups is not None:
            linked = _joined(linked, _given_groups(Path(self.groups), paths))
        labels = np.array([ABOUT.classes.index(path.split("/")[0]) for path in kept], dtype=np.int64)
        mask_root = _merge_all(
            root, {path: masks[path] for path in kept if masks[path]}, cache=cache, progress=progress
        )
        manifest = assemble(
            card=Card(
                name="busi",
                task="multiclass",
                classes=ABOUT.classes,
                modality=ABOUT.modality,
                licence=ABOUT.licence,
                source=ABOUT.url,
                citation=ABOUT.citation,
                notes=ABOUT.notes,
            ),
            root=root,
            paths=kept,
            targets=one_hot(labels, count=len(ABOUT.classes)),
            groups=[linked.get(path) for path in kept],
            masks=[_mask_name(path) if masks[path] else None for path in kept],
            mask_root=mask_root,
        )
        return admit(manifest, cache=cache, progress=progress)

    def _linked(self, root: Path, paths: Sequence[str]) -> dict[str, str | None]:
        """Return a group for each image that has a twin, and None for those that are left out."""
        if self.duplicates == "keep":
            return {}
        same: dict[str, list[str]] = {}
        for path in paths:
            pixels = read_image(root / path, name=path)
            # Grey images are stored with one channel or with three equal ones.
            plain = pixels[..., :1] if (pixels == pixels[..., :1]).all() else pixels
            key = sha256(repr(plain.shape).encode() + np.ascontiguousarray(plain).tobytes()).hexdigest()
            same.setdefault(key, []).append(path)
        linked: dict[str, str | None] = {}
        for twins in (group for group in same.values() if len(group) > 1):
            classes = {path.split("/")[0] for path in twins}
            if self.duplicates == "first":
                keep = twins[0] if len(classes) == 1 else None
                linked |= {path: None for path in twins if path != keep}
            elif len(classes) > 1:
                raise TargetError(
                    f"one picture in two classes: {listed(twins)}: "
                    'decide which is right and remove the other, or set duplicates = "first" to leave both out'
                )
            else:
                linked |= dict.fromkeys(twins, f"twins of {twins[0]}")
        return linked


def merge_masks(paths: Sequence[Path], names: Sequence[str]) -> UInt8[np.ndarray, "H W"]:
    """Return 255 where any of some masks is not black, else 0.

    Args:
        paths: the mask files.
        names: what to call them in messages.

    Raises:
        ReadError: if one cannot be read, or their sizes differ.
    """
    merged = None
    for path, name in zip(paths, names, strict=True):
        inside = (read_image(path, name=name) > 0).any(axis=2)
        if merged is not None and inside.shape != merged.shape:
            raise ReadError(name, f"{inside.shape} pixels, but the image's first mask has {merged.shape}: restore it")
        merged = inside if merged is None else merged | inside
    if merged is None:
        raise ReadError("mask", "no file given")
    return np.where(merged, np.uint8(255), np.uint8(0))


def _collect(masks: dict[str, list[str]], found: Sequence[str]) -> None:
    """Sort files into images and their masks; masks without an image are collected under an empty name."""
    pictures = [path for path in found if has_image_suffix(Path(path))]
    by_stem = {path.rpartition(".")[0]: path for path in pictures if _MASK.match(Path(path).stem) is None}
    for path in by_stem.values():
        masks.setdefault(path, [])
    for path in pictures:
        match = _MASK.match(path.rpartition(".")[0])
        if match is not None:
            masks.setdefault(by_stem.get(match["image"], ""), []).append(path)


def _merge_all(root: Path, masks: Mapping[str, Sequence[str]], *, cache: Path, progress: Progress | None) -> Path:
    makers = {
        _mask_name(path): partial(merge_masks, [root / part for part in parts], parts) for path, parts in masks.items()
    }
    key = {path: [files.hash_file(root / part) for part in parts] for path, parts in masks.items()}
    return write_masks(makers, key={"busi": key}, cache=cache, progress=progress)


def _mask_name(path: str) -> str:
    return f"{path.rpartition('.')[0]}.png"


def _joined(twins: Mapping[str, str | None], given: Mapping[str, str]) -> dict[str, str | None]:
    """Join groups from pixels with groups from a table: images that share either belong together."""
    same = {name: given[path] for path, name in twins.items() if name is not None and path in given}
    renamed = {group: same[name] for path, group in given.items() if (name := twins.get(path)) is not None}
    found: dict[str, str | None] = {path: renamed.get(group, group) for path, group in given.items()}
    return {**found, **{path: None if name is None else same.get(name, name) for path, name in twins.items()}}


def _given_groups(table: Path, paths: Sequence[str]) -> dict[str, str]:
    frame = read_table(table)
    need_columns(frame, ["file", "group"], table=table.name)
    rows = frame.filter(pl.col("group").is_not_null())
    unknown = [name for name in rows["file"] if name not in set(paths)]
    if unknown:
        raise ManifestError(f"{table.name}: no such images: {listed(unknown)}: expected names as {paths[0]}")
    return dict(zip(rows["file"].to_list(), rows["group"].to_list(), strict=True))
