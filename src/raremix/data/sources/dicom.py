"""DICOM files with a table of labels, or in one folder per class; patients are told apart by a keyed hash."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from raremix.core.errors import ConfigError, ManifestError, UnknownNameError
from raremix.core.types import Progress
from raremix.data.manifest import Card, Manifest, listed
from raremix.data.readers import is_dicom, read_start
from raremix.data.sources.assemble import admit, assemble, natural_columns, one_hot, refuse_spellings
from raremix.data.sources.dicom_headers import ATTRIBUTES, Header, group_key, keyed_hash, read_headers
from raremix.data.sources.layout import data_folder, files_below, folders_in
from raremix.data.sources.table import Table
from raremix.data.sources.text_table import need_columns, read_table

PATIENT, EACH = "PatientID", "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dicom:
    """DICOM files.

    Without a table, the folders at the top of `path` are the classes. Files without an ending are fine: what is DICOM
    is known by its first bytes, other files and DICOMDIR are passed over.

    Args:
        path: the folder, or a text file that lists files, one per line, relative to its own folder.
        table: labels, one row per image (.csv or .parquet), relative to the folder that `path` lies in.
        image: the table's column that names the image: by its SOPInstanceUID, its path, or its file name with or
            without the ending.
        label, labels, classes, rename, uncertain, split, split_values: see `raremix.data.sources.Table`.
        group: "PatientID" takes a keyed hash of it, "image" makes every image its own group, and anything else names a
            column of the table, whose values are kept as they are.
        attributes: columns of the table to keep for subgroups.
        header: what to keep of the headers for subgroups: modality, view, laterality, sex, age (as `age_band`),
            manufacturer, model.
        encoding, separator: of the table; see `raremix.data.sources.Table`.
        name: of the data set; the folder's name by default.
        modality, licence, source, citation, notes: see `raremix.data.manifest.Card`.

    Example:
        ``Dicom(path="xrays", table="labels.csv", image="image_id", label="diagnosis").load(cache=Path("cache"))``
    """

    path: str | Path
    table: str | Path | None = None
    image: str = "image"
    label: str | None = None
    labels: Sequence[str] | None = None
    classes: Sequence[str] | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    uncertain: Any = None
    split: str | None = None
    split_values: Mapping[str, str] = field(default_factory=dict)
    group: str = PATIENT
    attributes: Sequence[str] = ()
    header: Sequence[str] = ()
    encoding: str | None = None
    separator: str = ","
    name: str | None = None
    modality: str = "other"
    licence: str = ""
    source: str = ""
    citation: str = ""
    notes: str = ""

    def __post_init__(self) -> None:
        for key in ("header", "attributes", "labels", "classes"):
            if isinstance(getattr(self, key), str):
                raise ConfigError(f"{key} must be a list of names, got the text {getattr(self, key)!r}: write [...]")
        for name in self.header:
            if name not in ATTRIBUTES:
                raise UnknownNameError("header attribute", name, ATTRIBUTES)
        if self.table is not None:
            self._labels()
            return
        needless = [key for key in ("label", "labels", "split", "attributes", "rename") if getattr(self, key)]
        if needless:
            raise ConfigError(f"{listed(needless)} name columns: give the table too, or leave them out")
        if self.group not in {PATIENT, EACH}:
            raise ConfigError(f'group = "{self.group}" is a column, and there is no table: use "PatientID" or "image"')

    def load(self, *, cache: Path, progress: Progress | None = None) -> Manifest:
        """Return the manifest of the files.

        Args:
            cache: folder for hashes and what is kept of the headers. The key of the hashes lies beside it.
            progress: called while headers and files are read.

        Raises:
            ManifestError: for missing files, rows without a file, and files without PatientID where that is the group.
            TargetError: naming rows whose label does not fit.
            ReadError: for a damaged file.
            LeakageError, GuardError: see `raremix.data.guards`.
        """
        root, found = self._files()
        key = group_key(cache)
        if self.table is None:
            paths, parts = self._by_folder(found, root)
            headers = read_headers(root, paths, cache=cache, key=key, progress=progress)
        else:
            every = read_headers(root, found, cache=cache, key=key, progress=progress)
            paths, headers, parts = self._by_table(root, found, every, key)
        groups = parts.pop("groups", None) or self._groups(paths, headers)
        card = {key: getattr(self, key) for key in ("modality", "licence", "source", "citation", "notes")}
        attributes = pl.concat([parts.pop("attributes"), self._kept(headers)], how="horizontal")
        manifest = assemble(
            card=Card(
                name=root.resolve().name if self.name is None else self.name,
                task=parts.pop("task"),
                classes=parts.pop("classes"),
                **card,
            ),
            root=root,
            paths=paths,
            groups=groups,
            attributes=attributes if attributes.width else None,
            **parts,
        )
        return admit(manifest, cache=cache, progress=progress)

    def _files(self) -> tuple[Path, list[str]]:
        """Return the root and the DICOM files below it."""
        path = Path(self.path).expanduser()
        if path.is_file():
            try:
                lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
            except (OSError, UnicodeError):
                raise ManifestError(f"{path.name} is no list of files in UTF-8: write one path per line") from None
            return path.parent, [line for line in lines if line and not line.startswith("#")]
        root = data_folder(path, expected="DICOM files")
        names = [name for name in files_below(root, root=root) if Path(name).name.upper() != "DICOMDIR"]
        found = [name for name in names if is_dicom(read_start(root / name))]
        if not found:
            raise ManifestError(f'{root} holds no DICOM files among {len(names)}: use source = "folder" for others')
        return root, found

    def _by_folder(self, found: list[str], root: Path) -> tuple[list[str], dict[str, Any]]:
        top = [name.split("/", 1)[0] for name in found]
        loose = [name for name in found if "/" not in name]
        if loose:
            raise ManifestError(
                f"{len(loose)} files lie in no class folder: {listed(loose)}: give a table of labels, or sort them "
                "into one folder per class"
            )
        names = sorted(set(top))
        if self.classes is None:
            refuse_spellings(names, what=f"the folders below {root}: give them one name")
        classes = tuple(names if self.classes is None else self.classes)
        for name in names:
            if name not in classes:
                raise UnknownNameError("class folder", name, classes)
        empty = sorted({folder.name for folder in folders_in(root)} - set(names) | set(classes) - set(names))
        if empty:
            raise ManifestError(f"no DICOM files of class {listed(empty)} below {root}: add some, or remove the folder")
        if len(classes) < 2:
            raise ManifestError(f"{root} holds one class only ({listed(classes)}): expected at least two folders")
        numbers = np.array([classes.index(name) for name in top], dtype=np.int64)
        task = "binary" if len(classes) == 2 else "multiclass"
        targets = one_hot(numbers, count=len(classes))
        return found, {"classes": classes, "task": task, "targets": targets, "attributes": pl.DataFrame()}

    def _by_table(
        self, root: Path, found: list[str], headers: list[Header], key: bytes
    ) -> tuple[list[str], list[Header], dict[str, Any]]:
        where = Path(self.path).expanduser().parent / str(self.table)
        frame = read_table(where, encoding=self.encoding, separator=self.separator)
        labels = self._labels()
        column = None if self.group in {PATIENT, EACH} else self.group
        named = [self.image, self.label, *(self.labels or ()), *self.attributes, column, self.split]
        need_columns(frame, [name for name in named if name is not None], table=where.name)
        places = _match(frame[self.image], found, headers, key=key, table=where.name)
        classes, task, targets = labels.labels_of(frame)
        parts: dict[str, Any] = {"classes": classes, "task": task, "targets": targets}
        parts["splits"] = labels.splits_of(frame)
        parts["attributes"] = natural_columns(frame.select(self.attributes)) if self.attributes else pl.DataFrame()
        if column is not None:
            parts["groups"] = frame[column].str.strip_chars().to_list()
        return [found[place] for place in places], [headers[place] for place in places], parts

    def _labels(self) -> Table:
        keys = [
            "label",
            "labels",
            "classes",
            "rename",
            "uncertain",
            "split",
            "split_values",
            "encoding",
            "separator",
            "attributes",
        ]
        return Table(path=str(self.table), image=self.image, **{key: getattr(self, key) for key in keys})

    def _groups(self, paths: list[str], headers: list[Header]) -> list[str | None] | None:
        if self.group == EACH:
            return None
        without = [path for path, header in zip(paths, headers, strict=True) if header.patient is None]
        if without:
            raise ManifestError(
                f"{len(without)} of {len(paths)} files have no PatientID: {listed(without)}: one patient's images "
                'could be in training and test. Give group = "column" of a table that knows the patients; or, if each '
                'image is another patient, group = "image"'
            )
        return [header.patient for header in headers]

    def _kept(self, headers: list[Header]) -> pl.DataFrame:
        return pl.DataFrame({name: [getattr(header, name) for header in headers] for name in self.header})


def _match(column: pl.Series, found: list[str], headers: list[Header], *, key: bytes, table: str) -> list[int]:
    """Return, for each row, the place of the file that it names."""
    names: dict[str, set[int]] = {}
    for place, (path, header) in enumerate(zip(found, headers, strict=True)):
        file = Path(path)
        for name in (path, file.name, file.stem, f"\0{header.image}"):
            names.setdefault(name, set()).add(place)
    wanted = [("" if value is None else value).strip() for value in column]
    # Nothing that a file is called begins with NUL: these are the hashed numbers.
    hits = [names.get(value) or names.get(f"\0{keyed_hash(value, key=key)}") or set() for value in wanted]
    for problem, advice in (
        ([i for i, hit in enumerate(hits) if not hit], "no file for the image in"),
        ([i for i, hit in enumerate(hits) if len(hit) > 1], "several files for the image in"),
    ):
        if problem:
            lines = listed([f"line {i + 2}" for i in problem])
            raise ManifestError(
                f"{table}, column {column.name!r}: {advice} {lines}; expected SOPInstanceUID, path or file name"
            )
    places = [next(iter(hit)) for hit in hits]
    twice = sorted(found[place] for place, count in Counter(places).items() if count > 1)
    if twice:
        raise ManifestError(f"{table} has two rows for one file: {listed(twice)}: keep one of them")
    return places
