"""The manifest: one row per image, with labels, group, split and origin."""

import io
import json
import re
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from raremix.core import files
from raremix.core.errors import ManifestError, ReadError, TargetError, UnknownNameError
from raremix.core.tables import read_csv_bytes, read_parquet
from raremix.core.types import SPLITS, Split
from raremix.data.card import Card, make_card, read_facts
from raremix.data.naming import NAMED, listed, named_rows

__all__ = ["NAMED", "ORIGINS", "RESERVED", "TARGET", "Card", "Manifest", "listed", "named_rows", "read_frame"]

TARGET = "target:"
RESERVED = ("id", "path", "group", "split", "origin", "parents", "recipe", "sha256", "mask")
ORIGINS = ("real", "synthetic", "repeated")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Manifest:
    """A data set as a table with one row per image.

    Columns that are left out are filled in: `id` by the row number, `group` by the row itself, `split` by null,
    `origin` by "real". Every column that is neither a target nor one of `RESERVED` is an attribute of the patient or
    the device.

    Attributes:
        frame: columns `id` (unique, >= 0), `path` (relative to `root`, unique), `group` (patient or lesion), `split`
            (null: still to be split), `target:<class>` (1, 0, or null for not labelled), `origin`, `parents` (ids),
            `recipe`, `sha256`, and `mask` (path of the true lesion mask) where there is one.
        card: the facts that no row holds.
        root: the folder that paths start from.
        mask_root: the folder that masks start from, where it is another (masks drawn or merged into the cache).

    Raises:
        ManifestError: naming the rows whose id, path, split or origin does not fit.
        TargetError: naming the rows whose labels do not fit the task.

    Example:
        >>> frame = pl.DataFrame({"path": ["a.png", "b.png"], "target:no": [1, 0], "target:yes": [0, 1]})
        >>> manifest = Manifest(frame=frame, card=Card(name="toy", task="binary", classes=("no", "yes")), root=Path())
        >>> manifest.class_counts().tolist()
        [1, 1]
    """

    frame: pl.DataFrame
    card: Card
    root: Path
    mask_root: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame", _complete(self.frame, self.card))
        _check_rows(self.frame)
        _check_targets(self.frame, self.card)

    def __len__(self) -> int:
        return self.frame.height

    @property
    def ids(self) -> Int[np.ndarray, " n"]:
        """The ids in the order of the rows."""
        return self.frame["id"].to_numpy()

    @property
    def attributes(self) -> list[str]:
        """Names of the columns that describe the patient or the device."""
        return [c for c in self.frame.columns if c not in RESERVED and not c.startswith(TARGET)]

    def targets(self, ids: Int[np.ndarray, " m"] | None = None) -> Float[np.ndarray, "m K"]:
        """Return labels as (rows, classes) in the order of the card; NaN means not labelled.

        Args:
            ids: which rows, in which order; all rows in the manifest's order by default.
        """
        columns = self.frame.select(pl.col(TARGET + name).fill_null(float("nan")) for name in self.card.classes)
        values = np.ascontiguousarray(columns.to_numpy())
        return values if ids is None else values[self.positions(ids)]

    def rows(self, split: Split | None = None) -> Int[np.ndarray, " m"]:
        """Return the ids of a split's rows, in the manifest's order; those still without a split for None."""
        wanted = pl.col("split").is_null() if split is None else pl.col("split") == split
        return self.frame.filter(wanted)["id"].to_numpy()

    def rows_of(self, split: str) -> Int[np.ndarray, " m"]:
        """Return the ids of the rows that a person means by a split's name, or by "all".

        Raises:
            UnknownNameError: if there is no such split.
            ManifestError: if it has no rows.
        """
        if split not in {*SPLITS, "all"}:
            raise UnknownNameError("split", split, [*SPLITS, "all"])
        ids = self.ids if split == "all" else self.frame.filter(pl.col("split") == split)["id"].to_numpy()
        if not len(ids):
            raise ManifestError(f"the data have no rows in split {split!r}: use another one, or all")
        return ids

    def splits(self, ids: Int[np.ndarray, " m"]) -> list[str]:
        """Return the split of rows, in their order; "none" where it is still to be decided."""
        return self.frame["split"].gather(self.positions(ids)).fill_null("none").to_list()

    def positions(self, ids: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Return where ids stand in the frame (a manifest whose rows were selected keeps their ids).

        Raises:
            ManifestError: naming ids that the manifest does not hold.
        """
        own = self.ids
        is_numbered = len(own) > 0 and own[0] == 0 and own[-1] == len(own) - 1 and bool((np.diff(own) == 1).all())
        if is_numbered and len(ids) and ids.min() >= 0 and ids.max() < len(own):
            return ids.astype(np.int64)
        order = np.argsort(own, kind="stable")
        place = np.searchsorted(own, ids, sorter=order).clip(max=max(len(own) - 1, 0))
        found = order[place] if len(own) else np.zeros(len(ids), dtype=np.int64)
        wrong = ids[own[found] != ids] if len(own) else ids
        if len(wrong):
            raise ManifestError(f"no rows with id {listed(wrong.tolist())} in {self.card.name!r}")
        return found

    def paths(self, ids: Int[np.ndarray, " m"] | None = None) -> list[Path]:
        """Return the files of rows, in their order."""
        column = self.frame["path"] if ids is None else self.frame["path"].gather(self.positions(ids))
        return [self.root / path for path in column]

    def masks(self, ids: Int[np.ndarray, " m"] | None = None) -> list[Path | None]:
        """Return the mask files of rows, in their order; None for a row that has none."""
        if "mask" not in self.frame.columns:
            return [None] * (len(self) if ids is None else len(ids))
        column = self.frame["mask"] if ids is None else self.frame["mask"].gather(self.positions(ids))
        return [None if mask is None else self.folder_of("mask") / mask for mask in column]

    def folder_of(self, column: Literal["path", "mask"]) -> Path:
        """Return the folder that the files of a column start from."""
        return self.mask_root if column == "mask" and self.mask_root is not None else self.root

    def class_counts(self, split: Split | None = None) -> Int[np.ndarray, " K"]:
        """Count the positive rows of each class, over all rows or those of a split."""
        frame = self.frame if split is None else self.frame.filter(pl.col("split") == split)
        return np.array([int((frame[TARGET + name] == 1).sum()) for name in self.card.classes], dtype=np.int64)

    def select(self, ids: Int[np.ndarray, " m"]) -> "Manifest":
        """Return a manifest of these rows only, in this order; rows keep their ids."""
        return replace(self, frame=self.frame[self.positions(ids)])

    def with_split(self, split: Sequence[str | None] | pl.Series) -> "Manifest":
        """Return the manifest with another split column."""
        values = split if isinstance(split, pl.Series) else pl.Series(list(split), dtype=pl.Utf8)
        frame = self.frame.with_columns(values.cast(pl.Utf8).alias("split"))
        _check_names(frame, "split", SPLITS)
        # The other columns were checked when this manifest was made.
        made = copy(self)
        object.__setattr__(made, "frame", frame)
        return made

    def hash(self) -> str:
        """Return a hash of all rows, the task and the classes; it does not depend on the root or the order of rows."""
        digest = blake2b(json.dumps([self.card.task, self.card.classes]).encode(), digest_size=16)
        frame = self.frame.sort("id")
        for name in sorted(frame.columns):
            digest.update(name.encode() + b"\0")
            for part in _content(frame[name]):
                digest.update(part)
        return digest.hexdigest()

    def write(self, path: Path) -> Path:
        """Write the table as Parquet or CSV, by the suffix, and `card.json` beside it.

        Raises:
            ManifestError: for another suffix.
        """
        frame = self.frame
        if path.suffix == ".csv":
            frame = frame.with_columns(pl.col("parents").list.eval(pl.element().cast(pl.Utf8)).list.join(";"))
        elif path.suffix != ".parquet":
            raise ManifestError(f"{path.name}: a manifest is written as .parquet or .csv")
        types = {name: str(self.frame[name].dtype) for name in self.attributes}
        extra = {"root": _seen_from(path.parent, self.root), "attributes": types}
        if self.mask_root is not None:
            extra["mask_root"] = _seen_from(path.parent, self.mask_root)
        write = files.write_csv if path.suffix == ".csv" else files.write_parquet
        write(path, frame)
        files.write_json(path.parent / "card.json", {**asdict(self.card), **extra})
        return path

    @classmethod
    def read(cls, path: Path, *, root: Path | None = None) -> "Manifest":
        """Read a manifest that was written as Parquet or CSV, with its `card.json` (or `card.toml`) beside it.

        Args:
            path: the table.
            root: the folder that image paths start from; the card's by default, else the table's own folder.

        Raises:
            ManifestError: if the card or the table is missing, or does not fit.
        """
        card_path = next((p for p in (path.parent / "card.json", path.parent / "card.toml") if p.exists()), None)
        if card_path is None:
            raise ManifestError(
                f"expected card.json or card.toml beside {path.name}: write one with name, task and classes"
            )
        facts = read_facts(card_path)
        written, masks, kinds = facts.pop("root", "."), facts.pop("mask_root", None), facts.pop("attributes", {})
        texts = (written, "" if masks is None else masks, *(kinds if isinstance(kinds, dict) else [kinds]))
        if not all(isinstance(part, str) and "\0" not in part for part in texts):
            raise ManifestError(f"{card_path}: expected text as root and mask_root, and a table of attributes")
        types = {name: _DTYPES[str(kind)] for name, kind in kinds.items() if str(kind) in _DTYPES}
        made = cls(
            frame=read_frame(path, types={**_TYPES, **types}),
            card=make_card(facts, card_path),
            root=path.parent / written if root is None else root,
            mask_root=None if masks is None else path.parent / masks,
        )
        # Arrays with a place for every id are made, so that a wild number would ask for all memory.
        bad = made.frame.filter(pl.col("id") > max(_MOST, 64 * len(made)))
        if bad.height:
            raise ManifestError(f"{path.name}: ids are far larger than the {len(made)} rows: look at {named_rows(bad)}")
        return made


def read_frame(path: Path, *, types: Mapping[str, Any] | None = None, as_text: bool = False) -> pl.DataFrame:
    """Read a table from CSV or Parquet.

    Args:
        path: the table; the suffix .parquet means Parquet, anything else CSV.
        types: polars types of columns, where CSV should not guess.
        as_text: read every column as text, so that "007" stays "007".

    Raises:
        ManifestError: if the file is missing or is not such a table.
    """
    if not path.is_file():
        raise ManifestError(f"{path}: no such table")
    try:
        if path.suffix.lower() == ".parquet":
            frame = read_parquet(path)
            return frame.with_columns(pl.exclude(pl.Utf8).cast(pl.Utf8)) if as_text else frame
        data = io.BytesIO(read_csv_bytes(path))
        header = pl.read_csv(data, n_rows=0, infer_schema_length=0).columns
        known = {name: kind for name, kind in (types or {}).items() if name in header}
        data.seek(0)
        return pl.read_csv(data, infer_schema_length=0 if as_text else None, schema_overrides=known or None)
    except ReadError as error:
        raise ManifestError(str(error)) from None
    except (pl.exceptions.PolarsError, OSError, UnicodeError) as error:
        raise ManifestError(f"{path.name} is not a table that polars can read: {error}") from None


def _seen_from(folder: Path, place: Path) -> str:
    place, folder = place.resolve(), folder.resolve()
    return (place.relative_to(folder) if place.is_relative_to(folder) else place).as_posix()


_MOST = 1 << 24
_TYPES: dict[str, Any] = {name: pl.Utf8 for name in RESERVED if name != "id"} | {"id": pl.Int64}
_DTYPES: dict[str, Any] = {str(kind): kind for kind in (pl.Utf8(), pl.Int64(), pl.Float64(), pl.Boolean())}


def _complete(frame: pl.DataFrame, card: Card) -> pl.DataFrame:
    expected = [TARGET + name for name in card.classes]
    unknown = [c.removeprefix(TARGET) for c in frame.columns if c.startswith(TARGET) and c not in expected]
    if unknown:
        raise UnknownNameError("class", unknown[0], card.classes)
    missing = [c for c in ["path", *expected] if c not in frame.columns]
    if missing:
        raise ManifestError(
            f"the manifest of {card.name!r} has no column {listed(missing)}: one column per class is needed"
        )
    if "id" not in frame.columns:
        frame = frame.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("id"))
    defaults: dict[str, Any] = {
        "group": None,
        "split": None,
        "origin": "real",
        "parents": None,
        "recipe": None,
        "sha256": None,
    }
    frame = frame.with_columns(pl.lit(value).alias(c) for c, value in defaults.items() if c not in frame.columns)
    try:
        parents = frame["parents"]
        if parents.dtype == pl.Utf8:
            parents = parents.fill_null("").str.extract_all(r"\d+")
        text = ["path", "group", "split", "origin", "recipe", "sha256", *(["mask"] if "mask" in frame.columns else [])]
        frame = frame.with_columns(
            pl.col("id").cast(pl.Int64),
            *(pl.col(c).cast(pl.Utf8) for c in text),
            *(pl.col(c).cast(pl.Float64) for c in expected),
            parents.cast(pl.List(pl.Int64)).alias("parents"),
        )
    except pl.exceptions.PolarsError as error:
        raise ManifestError(f"the manifest of {card.name!r} has a column of another type: {error}") from None
    frame = frame.with_columns(
        pl.col("group").fill_null(pl.format("row:{}", pl.col("id"))),
        pl.col("origin").fill_null("real"),
        pl.col("sha256").str.to_lowercase(),
        pl.col("parents").fill_null(pl.lit([], dtype=pl.List(pl.Int64))),
        *(pl.col(c).fill_nan(None) for c in expected),
    )
    front = ["id", "path", "group", "split", *expected, "origin", "parents", "recipe", "sha256"]
    return frame.select(*front, pl.exclude(front)).rechunk()


def _check_rows(frame: pl.DataFrame) -> None:
    # Counting distinct values takes a third of the time of marking those that come twice.
    is_once = frame["id"].n_unique() == frame.height
    bad = frame.filter(pl.col("id").is_null() | (pl.col("id") < 0) | (not is_once and pl.col("id").is_duplicated()))
    if bad.height:
        raise ManifestError(f"ids must be unique and >= 0: look at {named_rows(bad)}")
    bad = frame.filter(pl.col("path").is_null() | (pl.col("path") == ""))
    if bad.height:
        raise ManifestError(f"no path in {named_rows(bad)}: every row needs an image file")
    bad, once = frame.clear(), frame.filter(pl.col("origin") != "repeated")
    if once["path"].n_unique() < once.height:
        bad = once.filter(pl.col("path").is_duplicated())
    if bad.height:
        raise ManifestError(f"one file in several rows: {named_rows(bad)}: keep one row per image")
    for column in [c for c in ("path", "mask") if c in frame.columns]:
        odd = frame.filter(pl.col(column).str.contains(_SUSPICIOUS))
        bad = odd.filter(pl.Series([_leaves_root(path) for path in odd[column]], dtype=pl.Boolean))
        if bad.height:
            raise ManifestError(
                f"a {column} must be relative and stay below the root: {named_rows(bad, column=column)}"
            )
    _check_names(frame, "split", SPLITS)
    _check_names(frame, "origin", ORIGINS)


def _check_names(frame: pl.DataFrame, column: str, known: Sequence[str]) -> None:
    bad = frame.filter(pl.col(column).is_not_null() & ~pl.col(column).is_in(known))
    if bad.height:
        values = bad[column].unique(maintain_order=True).to_list()
        raise ManifestError(f"unknown {column} {listed(values)} in {named_rows(bad)}: expected {', '.join(known)}")


def _check_targets(frame: pl.DataFrame, card: Card) -> None:
    columns = [pl.col(TARGET + name) for name in card.classes]
    bad = frame.filter(pl.any_horizontal(~c.is_in([0.0, 1.0]) for c in columns))
    if bad.height:
        raise TargetError(f"labels must be 1, 0 or empty: look at {named_rows(bad)}")
    if card.task != "multilabel":
        labelled = pl.any_horizontal(c.is_not_null() for c in columns)
        bad = frame.filter(labelled & (pl.sum_horizontal(columns) != 1))
        if bad.height:
            raise TargetError(
                f"a {card.task} image has exactly one class: look at {named_rows(bad)}; "
                "for several findings use 'multilabel'"
            )


# Only paths with one of these can leave the root; the exact check is slower.
_SUSPICIOUS = r"^[/\\~]|\.\.|^[A-Za-z]:|\x00"


def _leaves_root(path: str) -> bool:
    windows = PureWindowsPath(path)
    outside = PurePosixPath(path).is_absolute() or bool(windows.drive) or bool(windows.root)
    return outside or ".." in re.split(r"[/\\]", path) or "\0" in path


def _content(column: pl.Series) -> list[bytes]:
    """Return a column as bytes that depend on its values only."""
    kind: Literal["text", "number"] = "number" if column.dtype.is_numeric() else "text"
    if isinstance(column.dtype, pl.List):
        lengths = column.list.len().cast(pl.Int64).to_numpy().astype("<i8").tobytes()
        return [lengths, *_content(column.explode().drop_nulls())]
    empty = np.packbits(column.is_null().to_numpy()).tobytes()
    if kind == "number":
        wide = column.cast(pl.Float64 if column.dtype.is_float() else pl.Int64).fill_null(0).to_numpy()
        return [empty, np.ascontiguousarray(wide, dtype="<f8" if column.dtype.is_float() else "<i8").tobytes()]
    text = column.cast(pl.Utf8).fill_null("")
    return [empty, text.str.len_bytes().cast(pl.Int64).to_numpy().astype("<i8").tobytes(), "".join(text).encode()]
