"""MedMNIST: an .npz file of small images with its official split, by path or by name.

Yang et al., "MedMNIST v2", Scientific Data 2023, https://doi.org/10.1038/s41597-022-01721-8.
"""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Float

from raremix.core import files
from raremix.core.errors import ConfigError, LeakageError, ManifestError, ReadError, TargetError
from raremix.core.registry import look_up
from raremix.core.types import Progress, Task
from raremix.data.digests import with_digests
from raremix.data.guards import check
from raremix.data.manifest import NAMED, Card, Manifest, listed, read_frame
from raremix.data.sources.about import About
from raremix.data.sources.arrays import BROKEN, Claim, open_array
from raremix.data.sources.assemble import SPLIT_NAMES, assemble, one_hot
from raremix.data.sources.download import download
from raremix.data.sources.medmnist_sets import SETS, SIZES, Facts, refuse_volumes
from raremix.data.split import apply_split, linked_groups

# Raise when the files that are unpacked would change.
CODE_VERSION = 1
PARTS: Mapping[str, str] = {"train": "train", "val": "validation", "test": "test"}
RECORD = "https://zenodo.org/records/10519652/files"
CITATION = "Yang et al., MedMNIST v2, Scientific Data 10:41 (2023)"
ABOUT = About(
    name="medmnist",
    title="MedMNIST v2 and MedMNIST+ (two-dimensional sets)",
    task="multiclass",
    classes=(),
    images=sum(sum(facts.images) for facts in SETS.values()),
    modality="other",
    licence="CC BY 4.0; DermaMNIST CC BY-NC 4.0",
    citation=CITATION,
    url="https://zenodo.org/records/10519652",
    access="open",
    layout="""\
pathmnist.npz           28 x 28 pixels
pathmnist_64.npz        64, 128 and 224 pixels: MedMNIST+
  train_images, train_labels, val_images, val_labels, test_images, test_labels""",
    study="""\
[data]
source = "medmnist"
name = "retinamnist"         # or path = "retinamnist_64.npz"
download = true              # into the cache
size = 64                    # 28, 64, 128 or 224""",
    notes=f"Sets: {', '.join(SETS)}. The published training and validation images of some share patients; "
    "resplit = true splits them anew and leaves the test set.",
)
_MAX_SIDE = 1024
# TissueMNIST, the largest set, has 236,386 images; ChestMNIST 14 labels for each.
_MAX_IMAGES, _MAX_COLUMNS = 1 << 24, 1 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class MedMNIST:
    """A set of MedMNIST with its official split.

    The official training and validation images of some sets share patients or are even identical (PneumoniaMNIST),
    which the guards refuse; with `resplit` these two are split anew by group, training images linked to the test set
    are dropped, and the official test set stays as it is, so that results remain comparable.

    Args:
        path: an .npz with train_images, train_labels, val_images ... test_labels. Give either this or `name`.
        name: such as "retinamnist"; the file is looked for in the cache.
        download: whether the file may be fetched from Zenodo where it is not in the cache.
        size: 28, 64, 128 or 224 pixels, for `name`.
        groups: a table with columns split, index and patient_group (and label, which is then compared).
        resplit: whether to split training and validation images anew.
        seed: of that split.
        classes: class names in the order of the label numbers; the published ones where the file's name is known.

    Example:
        ``MedMNIST(path="pneumoniamnist.npz", groups="groups.csv", resplit=True).load(cache=Path("cache"))``
    """

    path: str | Path | None = None
    name: str | None = None
    download: bool = False
    size: Literal[28, 64, 128, 224] = 28
    groups: str | Path | None = None
    resplit: bool = False
    seed: int = 0
    classes: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.name is None):
            raise ConfigError('medmnist needs either path = "file.npz" or name = "retinamnist"')
        if self.name is not None:
            refuse_volumes(self.name)
            look_up(SETS, self.name, kind="MedMNIST set")
        if isinstance(self.classes, str):
            raise ConfigError(f"classes must be a list of names, got the text {self.classes!r}: write [...]")

    def load(self, *, cache: Path, progress: Progress | None = None) -> Manifest:
        """Return the manifest; the images are unpacked as PNG files into the cache.

        Args:
            cache: folder for downloads, unpacked images and hashes.
            progress: called while images are unpacked and hashed.

        Raises:
            ReadError: if the file is no such archive, or a download is damaged.
            ManifestError: if the file or its groups do not fit.
            TargetError: if the labels do not fit the class names.
            StorageError: if the download fails.
            LeakageError: if the official split shares groups or images; `resplit` resolves it.
        """
        path = Path(self.path) if self.path is not None else self._fetch(cache, progress)
        if not path.is_file():
            raise ManifestError(f"{path}: no such file; expected the .npz of a MedMNIST set")
        labels = _labels(path)
        facts = SETS.get(str(self.name)) or SETS.get(path.stem.split("_")[0])
        numbers, task, classes, targets = _read_targets(labels, facts, self.classes, path)
        root = _unpack(path, {part: len(values) for part, values in labels.items()}, cache=cache, progress=progress)
        manifest = assemble(
            card=Card(
                name=path.stem,
                task=task,
                classes=classes,
                modality="other" if facts is None else facts.modality,
                licence="" if facts is None else facts.licence,
                source=f"{RECORD}/{path.name}" if facts is not None and self.name is not None else path.name,
                citation=CITATION,
            ),
            root=root,
            paths=[f"{part}/{index:06d}.png" for part, values in labels.items() for index in range(len(values))],
            targets=targets,
            groups=None if self.groups is None else _groups(Path(self.groups), labels, numbers),
            splits=[PARTS[part] for part, values in labels.items() for _ in values],
        )
        manifest = with_digests(manifest, cache=cache, progress=progress)
        if self.resplit:
            manifest = _resplit(manifest, seed=self.seed)
        try:
            check(manifest)
        except LeakageError as error:
            if self.resplit:
                raise
            raise LeakageError(
                f"the official split of {path.stem} leaks: {error}; or set resplit = true: "
                "training and validation are split anew by group, and the official test set stays"
            ) from None
        return manifest

    def _fetch(self, cache: Path, progress: Progress | None) -> Path:
        name = str(self.name)
        file = file_name(name, self.size)
        target = cache / "downloads" / file
        if target.is_file():
            return target
        url = f"{RECORD}/{file}"
        if not self.download:
            raise ManifestError(
                f"{file} is not in the cache ({target}): set download = true to fetch {url}, "
                "or fetch it and give its path"
            )
        expected = SETS[name].md5[SIZES.index(self.size)]
        return download(f"{url}?download=1", target, checksum=f"md5:{expected}", progress=progress)


def file_name(name: str, size: int) -> str:
    """Return what Zenodo calls the file of a set at a size.

    Example:
        >>> file_name("retinamnist", 28), file_name("retinamnist", 224)
        ('retinamnist.npz', 'retinamnist_224.npz')
    """
    return f"{name}.npz" if size == 28 else f"{name}_{size}.npz"


def _labels(path: Path) -> dict[str, np.ndarray]:
    """Return the labels of every part, of which there is one row for each of its images."""
    labels = {}
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            missing = [
                f"{part}_{kind}" for part in PARTS for kind in ("images", "labels") if f"{part}_{kind}.npy" not in names
            ]
            if missing:
                raise ManifestError(
                    f"{path.name} has no array {listed(missing)}: expected the arrays of a MedMNIST file"
                )
            for part in PARTS:
                with open_array(archive, f"{part}_images") as (claim, _):
                    count = _count_images(claim, path=path, part=part)
                with open_array(archive, f"{part}_labels") as ((shape, kind), file):
                    is_table = 1 <= len(shape) <= 2 and prod(shape) <= _MAX_COLUMNS * max(count, 1)
                    if kind.kind not in "iu" or not is_table:
                        raise ManifestError(
                            f"{path.name}: {part}_labels holds {kind} of shape {shape}, expected whole numbers"
                        )
                    if shape[0] != count:
                        raise ManifestError(
                            f"{path.name}: {count} {part} images and {shape[0]} {part} labels, expected one each"
                        )
                    flat = np.frombuffer(file.read(prod(shape) * kind.itemsize), dtype=kind)
                    labels[part] = flat.reshape(shape[0], -1 if shape[0] else 1).astype(np.int64)
    except BROKEN as error:
        raise ReadError(path.name, f"is not a readable .npz ({error}): fetch it again") from None
    return labels


def _count_images(claim: Claim, *, path: Path, part: str) -> int:
    """Return how many images a part claims, if it can be unpacked."""
    shape, kind = claim
    if (len(shape) == 4 and shape[1] == shape[2] == shape[3]) or len(shape) == 5:
        raise ManifestError(
            f"{path.name}: {part}_images holds volumes of shape {shape[1:]}, expected images: "
            f"raremix reads the two-dimensional sets of MedMNIST"
        )
    is_picture = len(shape) == 3 or (len(shape) == 4 and shape[3] in {1, 3})
    if kind != np.uint8 or not is_picture or not 1 <= min(shape[1:3]) <= max(shape[1:3]) <= _MAX_SIDE:
        raise ManifestError(
            f"{path.name}: {part}_images holds {kind} of shape {shape}, "
            "expected uint8 of shape (n, H, W) or (n, H, W, 3)"
        )
    if shape[0] > _MAX_IMAGES:
        raise ManifestError(f"{path.name}: {shape[0]:,} {part} images, expected at most {_MAX_IMAGES:,}")
    return shape[0]


def _images(path: Path, part: str) -> Iterator[np.ndarray]:
    """Yield the images of a part one by one, in the memory of one."""
    try:
        with zipfile.ZipFile(path) as archive, open_array(archive, f"{part}_images") as ((shape, _), file):
            nbytes = prod(shape[1:])
            for _ in range(shape[0]):
                data = file.read(nbytes)
                if len(data) != nbytes:
                    raise ReadError(path.name, f"{part}_images is truncated: fetch it again")
                yield np.frombuffer(data, dtype=np.uint8).reshape(shape[1:])
    except BROKEN as error:
        raise ReadError(path.name, f"is not a readable .npz ({error}): fetch it again") from None


def _unpack(path: Path, counts: Mapping[str, int], *, cache: Path, progress: Progress | None) -> Path:
    key = files.hash_value({"npz": files.hash_file(path), "code_version": CODE_VERSION})
    root = cache / "medmnist" / key
    if root.exists():
        return root
    files.folder(root.parent)
    files.sweep(root.parent)
    total, done = sum(counts.values()), 0
    with files.atomic_folder(root) as draft:
        for part in counts:
            for index, image in enumerate(_images(path, part)):
                files.write_image(draft / part / f"{index:06d}.png", image)
                done += 1
                if progress is not None and (done % 256 == 0 or done == total):
                    progress("unpack images", done, total)
    return root


def _read_targets(
    labels: Mapping[str, np.ndarray], facts: Facts | None, given: Sequence[str] | None, path: Path
) -> tuple[np.ndarray, Task, tuple[str, ...], Float[np.ndarray, "n K"]]:
    widths = sorted({values.shape[1] for values in labels.values()})
    if len(widths) > 1:
        raise TargetError(f"{path.name}: labels of {listed(widths)} columns in its parts, expected the same number")
    numbers = np.concatenate(list(labels.values()))
    names = tuple(given) if given is not None else (None if facts is None else facts.classes)
    if widths[0] > 1:
        if not np.isin(numbers, (0, 1)).all():
            raise TargetError(f"{path.name}: labels in several columns must be 0 or 1")
        classes = names or tuple(str(k) for k in range(widths[0]))
        if len(classes) != widths[0]:
            raise TargetError(f"{path.name}: {widths[0]} label columns, but {len(classes)} class names")
        return numbers, "multilabel", classes, numbers.astype(np.float64)
    numbers = numbers[:, 0]
    classes = names or tuple(str(k) for k in range(int(numbers.max(initial=1)) + 1))
    targets = one_hot(numbers, count=len(classes))
    if len(classes) == 2:
        if facts is not None and facts.positive == 0 and given is None:
            classes, targets = classes[::-1], np.ascontiguousarray(targets[:, ::-1])
        return numbers, "binary", classes, targets
    return numbers, "multiclass", classes, targets


def _groups(path: Path, labels: Mapping[str, np.ndarray], numbers: np.ndarray) -> list[str | None]:
    frame = read_frame(path, as_text=True)
    missing = [name for name in ("split", "index", "patient_group") if name not in frame.columns]
    if missing:
        raise ManifestError(f"{path.name} has no column {listed(missing)}: expected split, index and patient_group")
    starts, first = {}, 0
    for part, values in labels.items():
        starts[PARTS[part]] = (first, len(values))
        first += len(values)
    groups: list[str | None] = [None] * first
    wrong, other = [], []
    table = frame.select(
        "split", "index", "patient_group", label="label" if "label" in frame.columns else pl.lit(None, dtype=pl.Utf8)
    )
    for line, (split, index, group, label) in enumerate(table.iter_rows(), start=2):
        start, count = starts.get(SPLIT_NAMES.get(str(split).strip().lower(), ""), (0, 0))
        if not str(index).strip().isdigit() or int(index) >= count:
            wrong.append(line)
            continue
        row = start + int(index)
        groups[row] = group or None
        if label is not None and numbers.ndim == 1 and label.strip() != str(numbers[row]):
            other.append(line)
    if wrong:
        raise ManifestError(f"{path.name}: no such image in line {listed(wrong, limit=NAMED)}: look at split and index")
    if other:
        raise ManifestError(
            f"{path.name}: another label than the image's in line {listed(other, limit=NAMED)}: "
            "the table belongs to another file"
        )
    return groups


def _resplit(manifest: Manifest, *, seed: int) -> Manifest:
    unit = linked_groups(manifest)
    split = manifest.frame["split"].to_numpy()
    kept = (split == "test") | ~np.isin(unit, unit[split == "test"])
    parts = {name: float((split == name).mean()) for name in PARTS.values()}
    rest = Manifest(frame=manifest.frame.filter(pl.Series(kept)).drop("id"), card=manifest.card, root=manifest.root)
    merged = rest.with_split(rest.frame["split"].replace("validation", "train"))
    return apply_split(merged, fractions=parts, seed=seed)
