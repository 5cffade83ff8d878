"""What the data are, guessed from a path: which column is which, which split can be trusted. Every guess is told."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import polars as pl

from raremix.config import Table, override
from raremix.core.errors import ManifestError, UsageError
from raremix.data.manifest import listed, read_frame
from raremix.data.readers import SUFFIXES, has_image_suffix
from raremix.data.sources.assemble import SPLIT_NAMES
from raremix.data.sources.catalogue import CATALOGUE
from raremix.study.defaults import data_table
from raremix.study.recommend.guess_public import introduce, keys_of

LABELS = ("label", "labels", "class", "dx", "diagnosis", "target", "category", "finding", "disease", "y")
"""Names of a column with one class per image, the likeliest first."""

GROUPS = ("patient", "subject", "person", "mrn", "group", "lesion", "case", "study", "exam")
"""Words in the name of a column that says which images belong together, the widest unit first."""

SUBGROUPS = ("sex", "gender", "age", "age_band", "view", "ethnicity", "race", "skin_type", "fitzpatrick")
"""Columns by which results are broken down."""

ACQUISITION = ("device", "site", "scanner", "hospital", "centre", "center", "camera", "vendor", "manufacturer")
"""Columns that say where or with what an image was taken; broken down by, and looked at for shortcuts."""

NEGATIVES = frozenset({"normal", "negative", "no", "none", "healthy", "benign", "control", "0", "false", "no finding"})
"""Class names that mean that nothing is there: the first class of a binary task."""

MODALITIES = (
    ("mammography", ("mammo", "cbis", "inbreast")),
    ("fundus", ("retina", "fundus", "aptos", "eyepacs", "odir")),
    ("dermatoscopy", ("ham10000", "isic", "derm", "skin", "lesion", "melanoma")),
    ("histology", ("histo", "patho", "camelyon", "pcam")),
    ("chest_xray", ("cxr", "chest", "xray", "x-ray", "kermany", "nih", "chexpert", "padchest", "pneumonia")),
)
"""Words in a name that tell the modality."""

_TRUE_FALSE = frozenset({"0", "1", "0.0", "1.0", "-1", "-1.0", "true", "false", "yes", "no"})
_FEWEST_FINDINGS = 2
_MOST_CLASSES = 200
_MOST_VALUES = 20
_LOOKED_AT = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """The [data] table of a place, with why each key is what it is.

    Attributes:
        table: keys of [data].
        reasons: by key, what it was taken from.
        notes: what a reader should know about the data before anything else.
        split_key: keys that only a study without folds wants: the data's own split.
    """

    table: Table
    reasons: dict[str, str]
    notes: tuple[str, ...] = ()
    split_keys: tuple[str, ...] = ()


@dataclass(slots=True)
class _Draft:
    table: Table
    reasons: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    split_keys: list[str] = field(default_factory=list)

    def put(self, key: str, value: object, why: str) -> None:
        if key not in self.table:
            self.table[key] = value
            self.reasons[key] = why

    def done(self) -> Guess:
        return Guess(table=self.table, reasons=self.reasons, notes=tuple(self.notes), split_keys=tuple(self.split_keys))


def guess_data(place: str, *, settings: Sequence[str] = ()) -> Guess:
    """Compose the [data] table of a folder, a table, an .npz or the phantoms.

    Args:
        place: as typed; a folder may also hold a table and the images that it names.
        settings: overrides as `data.key=value`; what is given is not guessed.

    Raises:
        UsageError: if the place is nothing that raremix reads.
        ManifestError: if no column of a table can be the image or the label.

    Example:
        >>> guess_data("phantom").table
        {'source': 'phantom'}
    """
    table = data_table(place, settings=settings)
    if table["source"] == "folder":
        place = _table_within(place)
        table = data_table(place, settings=settings)
    given = override({}, [text for text in settings if text.startswith("data.")]).get("data", {})
    draft = _Draft(table={**table, **given}, reasons=dict.fromkeys([*table, *given], "given"))
    match draft.table["source"]:
        case "table":
            _guess_table(draft)
        case "medmnist":
            _guess_medmnist(draft)
        case source if source in CATALOGUE and "source" not in given:
            draft.reasons["source"], note = introduce(source)
            draft.notes.append(note)
            for key, value, why in keys_of(draft.table):
                draft.put(key, value, why)
    path = Path(str(draft.table.get("path", place)))
    if draft.table["source"] == "table" and path.stem in {"labels", "label", "metadata", "train"}:
        draft.put("name", path.resolve().parent.name, "the folder's name")
    if draft.table["source"] in {"table", "folder"}:
        words = f"{path.parent.name} {path.stem} {draft.table.get('name', '')}".lower()
        found = next((name for name, hints in MODALITIES if any(hint in words for hint in hints)), None)
        if found is not None:
            draft.put("modality", found, "guessed from the name; it decides about flips")
        else:
            draft.notes.append("The modality is not known (it decides about flips): set it by --set data.modality=...")
    return draft.done()


def group_pattern(
    names: Sequence[str], *, least: float | int, most: float | int, groups: int
) -> tuple[str, float] | None:
    """Return a regular expression whose bracket looks like a patient in file names, with its images per group.

    Args:
        names: file names.
        least, most: mean number of images per group that is believable.
        groups: fewest groups.

    Example:
        >>> names = [f"person{i // 3:03d}_virus_{i}.jpeg" for i in range(90)]
        >>> group_pattern(names, least=1.05, most=60, groups=10)
        ('^([A-Za-z-]*\\\\d+)[_-]', 3.0)
    """
    for pattern in (r"(?i)((?:patient|person|subject|pat|sub|case|p)[_-]?\d+)", r"^([A-Za-z-]*\d+)[_-]"):
        found = [re.search(pattern, name) for name in names]
        whole = [match[1] for match in found if match is not None]
        if len(whole) < len(names) or not whole:
            continue
        count = len(set(whole))
        if count >= groups and least <= len(whole) / count <= most:
            return pattern, len(whole) / count
    return None


def _table_within(place: str) -> str:
    """Return the table in a folder that names the images below it, where the folder is no tree of classes."""
    path = Path(place).expanduser()
    if not path.is_dir() or len([p for p in path.iterdir() if p.is_dir() and _holds_images(p)]) > 1:
        return place
    tables = sorted(p for p in path.iterdir() if p.suffix in {".csv", ".parquet"})
    tables.sort(key=lambda p: p.stem not in {"labels", "label", "metadata", "train"})
    for table in tables:
        if _image_columns(read_frame(table, as_text=True), table.parent):
            return str(table)
    return place


def _holds_images(folder: Path) -> bool:
    """Whether an image lies in a folder, or in one right below it."""
    if folder.name.startswith("."):
        return False
    inner = [folder, *(p for p in islice(folder.iterdir(), _LOOKED_AT) if p.is_dir())]
    return any(has_image_suffix(p) for one in inner for p in islice(one.iterdir(), _LOOKED_AT))


def _guess_table(draft: _Draft) -> None:
    path = Path(str(draft.table["path"]))
    frame = read_frame(path, as_text=True)
    if not frame.height:
        raise ManifestError(f"{path.name} has no rows: expected one per image")
    if "image" not in draft.table:
        found = _image_columns(frame, path.parent, root=draft.table.get("images_root"))
        if not found:
            raise ManifestError(
                f"no column of {path.name} names images that are there (it has {listed(frame.columns, limit=30)}): "
                "say which with --set data.image=COLUMN --set data.images_root=FOLDER"
            )
        column, root = found[0]
        draft.put("image", column, "guessed: its values are files that are there")
        if root:
            draft.put("images_root", root, "guessed: the files are in this folder")
    group = _group_column(frame, path)
    if group is not None:
        draft.put("group", group, "guessed from its name: images of one value stay on one side of a split")
    _guess_labels(draft, frame, path)
    _guess_split(draft, frame)
    _guess_subgroups(draft, frame)


def _image_columns(frame: pl.DataFrame, folder: Path, *, root: object = None) -> list[tuple[str, str]]:
    """Return columns whose values are image files that exist, with the folder that they start from."""
    roots = [str(root)] if root is not None else ["", *(p.name for p in sorted(folder.iterdir()) if p.is_dir())]
    found = []
    for name in frame.columns:
        values = [value for value in frame[name].head(_LOOKED_AT).to_list() if value]
        if not values or not all(Path(value).suffix.lower() in SUFFIXES for value in values):
            continue
        found += [(name, start) for start in roots if all((folder / start / value).is_file() for value in values)][:1]
    return found


def _group_column(frame: pl.DataFrame, path: Path) -> str | None:
    for word in GROUPS:
        for name in frame.columns:
            parts = re.split(r"[ _.-]|(?<=[a-z])(?=[A-Z])", name)
            if word in [part.lower() for part in parts] and frame[name].n_unique() > _FEWEST_FINDINGS:
                return name
    return None


def _guess_labels(draft: _Draft, frame: pl.DataFrame, path: Path) -> None:
    if "label" not in draft.table and "labels" not in draft.table:
        lower = {name.lower(): name for name in frame.columns}
        named = next((lower[name] for name in LABELS if name in lower), None)
        taken = {draft.table.get("image"), draft.table.get("group")}
        findings = [
            name
            for name in frame.columns
            if name not in taken and set(frame[name].drop_nulls().str.strip_chars().str.to_lowercase()) <= _TRUE_FALSE
        ]
        findings = [name for name in findings if name.lower() not in {*SUBGROUPS, *ACQUISITION}]
        if named is not None and frame[named].n_unique() > 1:
            draft.put("label", named, "guessed from its name: one class per image")
        elif len(findings) >= _FEWEST_FINDINGS:
            draft.put("labels", findings, "guessed: columns of 1, 0 or empty, one per finding")
            if any((frame[name].str.strip_chars().is_in(["-1", "-1.0"])).any() for name in findings):
                draft.put("uncertain", "empty", "guessed: -1 means uncertain, and is taken as not labelled")
        else:
            raise UsageError(
                f"no column of {path.name} looks like a label (it has {listed(frame.columns, limit=30)}): "
                "say which with --label COLUMN"
            )
    label = draft.table.get("label")
    if label is None or str(label) not in frame.columns:
        return
    counts = frame[str(label)].str.strip_chars().value_counts(sort=True)
    if counts.height > _MOST_CLASSES:
        raise UsageError(
            f"column {label!r} has {counts.height} values, which are no classes: say which column with --label COLUMN"
        )
    if counts.height == 2 and "classes" not in draft.table:
        names = [str(value) for value in counts[str(label)].to_list()]
        names.sort(key=lambda name: name.lower() not in NEGATIVES)
        draft.put("classes", names, "guessed: the last one is the positive class, the rarer or the sick one")


def _guess_split(draft: _Draft, frame: pl.DataFrame) -> None:
    if "split" in draft.table:
        draft.split_keys += [key for key in ("split", "split_values") if key in draft.table]
        return
    candidates = [
        name
        for name in frame.columns
        if {"train"} <= {SPLIT_NAMES.get(v.strip().lower(), "") for v in frame[name].drop_nulls().unique()} <= _SPLITS
    ]
    group = draft.table.get("group")
    honest = []
    for name in candidates:
        shared = 0
        if group is not None:
            meaning = pl.col(name).str.strip_chars().str.to_lowercase().replace_strict(SPLIT_NAMES, default=None)
            sides = frame.group_by(str(group)).agg(meaning.drop_nulls().n_unique().alias("sides"))
            shared = int((sides["sides"] > 1).sum())
        if shared:
            draft.notes.append(
                f"Column {name!r} puts {shared} values of {group!r} on two sides of a split: it leaks, and is not used."
            )
        else:
            honest.append(name)
    if honest:
        honest.sort(key=lambda name: "official" not in name.lower())
        note = "" if group is None else f"; no {group} is on two sides of it"
        draft.put("split", honest[0], f"guessed: its values are train, val or test{note}")
        draft.split_keys.append("split")


_SPLITS = {"train", "validation", "test"}


def _guess_subgroups(draft: _Draft, frame: pl.DataFrame) -> None:
    taken = {draft.table.get(key) for key in ("image", "label", "group", "split")}
    chosen = []
    for name in frame.columns:
        if name in taken or name.lower() not in {*SUBGROUPS, *ACQUISITION}:
            continue
        if name.lower() == "age":
            chosen.append("age_band")
        elif 1 < frame[name].n_unique() <= _MOST_VALUES:
            chosen.append(name)
    if chosen:
        draft.put("subgroups", chosen, "guessed from the names: results are broken down by these")


def _guess_medmnist(draft: _Draft) -> None:
    path = Path(str(draft.table["path"]))
    if "groups" in draft.table:
        return
    for table in sorted(path.parent.glob(f"{path.stem.split('_')[0]}*.csv")):
        if {"split", "index", "patient_group"} <= set(read_frame(table, as_text=True).columns):
            draft.put("groups", str(table), "found beside the file: it says which images are of one patient")
            return
