"""A table of images: CSV or Parquet, with labels in one column or one column per label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np
import polars as pl
from jaxtyping import Float

from raremix.core.errors import ConfigError, ManifestError, TargetError, UnknownNameError, closest
from raremix.core.types import Progress, Task
from raremix.data.manifest import NAMED, Card, Manifest, listed
from raremix.data.sources.assemble import SPLIT_NAMES, admit, assemble, natural_columns, one_hot, refuse_spellings
from raremix.data.sources.text_table import need_columns, read_table
from raremix.data.sources.uncertain import Uncertain, uncertain_values

# The first line of a table holds its names, so the first row of values is line 2.
_FIRST_LINE = 2
_TRUE, _FALSE = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
_UNCERTAIN = ("-1", "-1.0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Images listed in a table.

    Args:
        path: the table, .csv (.gz) or .parquet.
        encoding: of a CSV, where it is not UTF-8: "cp1252", "utf-16" ...
        separator: between the columns of a CSV.
        image: column with the image file.
        images_root: folder that image files start from, relative to the table's folder; that folder itself by default.
        label: column with one class name per image (binary, multiclass). Give either this or `labels`.
        labels: one column per finding, with 1, 0 or empty for not labelled (multilabel).
        classes: class names in order, the positive one last for a binary task; sorted names by default.
        rename: class names that replace values of the label column; two values may share one name.
        uncertain: what -1 in a finding's column counts as: "empty" (not labelled), "positive" or "negative", which may
            also be called "ignore", "ones" and "zeros"; or a table with one of these per finding. Refused by default.
        group: column with the patient or lesion; every image is its own group by default.
        split: column with the split; rows are split later where it is empty or left out.
        split_values: what the values of the split column mean, where they are not train, val, valid, validation or
            test.
        only: the rows that count, by the values of columns: `{ subtype = ["normal", "virus"] }`; all by default.
        attributes: columns to keep for subgroups; a numeric `age` becomes `age_band`.
        name: of the data set; the table's file name by default.
        modality, licence, source, citation, notes: see `raremix.data.manifest.Card`.

    Example:
        ``Table(path="labels.csv", images_root="images", label="dx", group="lesion_id").load(cache=Path("cache"))``
    """

    path: str | Path
    encoding: str | None = None
    separator: str = ","
    image: str = "file"
    images_root: str | Path | None = None
    label: str | None = None
    labels: Sequence[str] | None = None
    classes: Sequence[str] | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    uncertain: Uncertain = None
    group: str | None = None
    split: str | None = None
    split_values: Mapping[str, str] = field(default_factory=dict)
    only: Mapping[str, Sequence[str]] = field(default_factory=dict)
    attributes: Sequence[str] = ()
    name: str | None = None
    modality: str = "other"
    licence: str = ""
    source: str = ""
    citation: str = ""
    notes: str = ""

    def __post_init__(self) -> None:
        if (self.label is None) == (self.labels is None):
            raise ConfigError(
                'a table needs either label = "column" (one class per image) or labels = ["column", ...] (findings)'
            )
        for key in ("labels", "classes", "attributes"):
            if isinstance(getattr(self, key), str):
                raise ConfigError(f"{key} must be a list of names, got the text {getattr(self, key)!r}: write [...]")
        if len(self.separator.encode()) != 1:
            raise ConfigError(f"separator must be one character, got {self.separator!r}")
        uncertain_values(self.uncertain, self.labels or ())
        if self.labels is not None and (self.classes is not None or self.rename):
            raise ConfigError("classes and rename go with label; with labels, the columns are the classes")

    def load(self, *, cache: Path, progress: Progress | None = None) -> Manifest:
        """Return the manifest of the table.

        Args:
            cache: folder for hashes of the files.
            progress: called while files are hashed.

        Raises:
            ManifestError: naming missing columns, rows and files.
            TargetError: naming rows whose label is empty, unknown or uncertain.
            LeakageError, GuardError: see `raremix.data.guards`.
        """
        path = Path(self.path)
        frame = read_table(path, encoding=self.encoding, separator=self.separator)
        named = [self.image, self.label, *(self.labels or ()), self.group, self.split, *self.attributes, *self.only]
        need_columns(frame, [name for name in named if name is not None], table=path.name)
        frame = self._chosen(frame)
        if not frame.height:
            raise ManifestError(f"{path.name} has no rows: expected one per image")
        classes, task, targets = self.labels_of(frame)
        root = path.parent if self.images_root is None else path.parent / self.images_root
        manifest = assemble(
            card=Card(
                name=path.stem if self.name is None else self.name,
                task=task,
                classes=classes,
                modality=self.modality,
                licence=self.licence,
                source=self.source,
                citation=self.citation,
                notes=self.notes,
            ),
            root=root,
            paths=_relative(frame[self.image], root),
            targets=targets,
            groups=None if self.group is None else _text(frame[self.group]).to_list(),
            splits=self.splits_of(frame),
            attributes=natural_columns(frame.select(self.attributes)) if self.attributes else None,
        )
        return admit(manifest, cache=cache, progress=progress)

    def _chosen(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the rows that `only` asks for."""
        for column, values in self.only.items():
            text = _text(frame[column])
            known = text.unique().drop_nulls().to_list()
            for value in values:
                if value not in known:
                    raise UnknownNameError(f"value of column {column!r} in only", value, known)
            frame = frame.filter(text.is_in(list(values)))
        return frame

    def labels_of(self, frame: pl.DataFrame) -> tuple[tuple[str, ...], Task, Float[np.ndarray, "n K"]]:
        """Return the classes, the task, and the labels of a table's rows.

        Raises:
            TargetError: naming rows whose label is empty, unknown or uncertain.
        """
        return self._single(frame) if self.label is not None else self._findings(frame)

    def splits_of(self, frame: pl.DataFrame) -> list[str | None] | None:
        """Return the split of a table's rows, or None where the table has no such column.

        Raises:
            ManifestError: naming rows whose split is unknown.
        """
        return None if self.split is None else self._splits(frame[self.split])

    def _single(self, frame: pl.DataFrame) -> tuple[tuple[str, ...], Task, Float[np.ndarray, "n K"]]:
        values = _text(frame[str(self.label)])
        _refuse(values.is_null(), f"no label in column {self.label!r}", "fill it in, or remove the rows")
        values = values.replace(dict(self.rename))
        found = sorted(values.unique().to_list())
        if self.classes is None:
            refuse_spellings(found, what=f"column {self.label!r}: map one to the other with rename")
        classes = tuple(found if self.classes is None else self.classes)
        unknown = [name for name in found if name not in classes]
        if unknown:
            guess = closest(unknown[0], classes)
            hint = f"did you mean {guess!r}? " if guess else ""
            _refuse(
                values.is_in(unknown),
                f"unknown class {listed([repr(name) for name in unknown])} in column {self.label!r}",
                f"{hint}known: {', '.join(classes)}; add it to classes, or map it with rename",
            )
        numbers = np.array([classes.index(name) for name in values], dtype=np.int64)
        return classes, "binary" if len(classes) == 2 else "multiclass", one_hot(numbers, count=len(classes))

    def _findings(self, frame: pl.DataFrame) -> tuple[tuple[str, ...], Task, Float[np.ndarray, "n K"]]:
        names = tuple(self.labels or ())
        meaning = uncertain_values(self.uncertain, names)
        columns = []
        for name in names:
            text = _text(frame[name]).str.to_lowercase()
            uncertain = text.is_in(_UNCERTAIN)
            counts_as = meaning[name]
            if counts_as is None:
                _refuse(
                    uncertain,
                    f"-1 in column {name!r}",
                    'say what it means: uncertain = "empty" (not labelled), "positive" or "negative"',
                    error=TargetError,
                )
            _refuse(
                text.is_not_null() & ~text.is_in([*_TRUE, *_FALSE, *_UNCERTAIN]),
                f"labels in column {name!r} other than 1, 0 or empty",
                "correct them; for class names in one column use label instead of labels",
                error=TargetError,
            )
            value = np.full(frame.height, np.nan)
            value[text.is_in(_TRUE).fill_null(False).to_numpy()] = 1.0
            value[text.is_in(_FALSE).fill_null(False).to_numpy()] = 0.0
            if counts_as is not None:
                value[uncertain.fill_null(False).to_numpy()] = counts_as
            if np.isnan(value).all():
                raise TargetError(f"column {name!r} has no label in any row: leave it out of labels, or fill it in")
            columns.append(value)
        return names, "multilabel", np.stack(columns, axis=1)

    def _splits(self, column: pl.Series) -> list[str | None]:
        meaning = {
            **SPLIT_NAMES,
            **{key.lower(): SPLIT_NAMES.get(value.lower(), value) for key, value in self.split_values.items()},
        }
        wrong = sorted(set(meaning.values()) - set(SPLIT_NAMES.values()))
        if wrong:
            raise ConfigError(f"split_values maps to {listed(wrong)}: expected train, validation or test")
        values = _text(column).str.to_lowercase()
        _refuse(
            values.is_not_null() & ~values.is_in(list(meaning)),
            f"unknown values in the split column {self.split!r}",
            'map them, for example split_values = { fold0 = "test" }',
            error=ManifestError,
        )
        return [None if value is None else meaning[value] for value in values]


def _text(column: pl.Series) -> pl.Series:
    stripped = column.cast(pl.Utf8).str.strip_chars()
    return stripped.set(stripped == "", None)


def _refuse(
    bad: pl.Series, what: str, advice: str, *, error: type[ManifestError] | type[TargetError] = TargetError
) -> None:
    lines = np.flatnonzero(bad.fill_null(False).to_numpy()) + _FIRST_LINE
    if len(lines):
        rest = f" and {len(lines) - NAMED} more" if len(lines) > NAMED else ""
        raise error(f"{what}, in line {', '.join(str(n) for n in lines[:NAMED])}{rest}: {advice}")


def _relative(column: pl.Series, root: Path) -> list[str]:
    values = _text(column)
    _refuse(
        values.is_null(), f"no file in column {column.name!r}", "fill it in, or remove the rows", error=ManifestError
    )
    paths = []
    for value in values:
        path = PurePath(value)
        inside = path.is_absolute() and path.is_relative_to(root.resolve())
        paths.append(path.relative_to(root.resolve()).as_posix() if inside else path.as_posix())
    return paths
