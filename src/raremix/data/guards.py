"""What loading refuses, because the result would mislead. Every guard returns what it found, with the rows named.

The guards look at the table and never change it. `check` raises the first finding; `findings` returns them all, for an
audit. A group's value often is the number of a patient, and messages end in logs and mails: rows stand for it.
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import polars as pl

from raremix.core.errors import GuardError, LeakageError, ManifestError, RaremixError, UnknownNameError
from raremix.core.types import SPLITS
from raremix.data.manifest import NAMED, TARGET, Manifest, listed, named_rows
from raremix.data.quarantine import WAY_OUT

Kind = Literal["missing_file", "split_group", "split_file", "synthetic_row", "held_out_parent", "test_only_class"]

_suspended: ContextVar[bool] = ContextVar("suspended", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong with a data set.

    Attributes:
        kind: which guard found it.
        rows: ids of all rows that it concerns, in ascending order.
        words: what is wrong, with the first rows named.
        advice: what to do about it; the override, where there is a legitimate one.

    Example:
        >>> Finding(kind="missing_file", rows=(3,), words="1 of 9 files is missing", advice="restore it").error()
        ManifestError('1 of 9 files is missing: restore it')
    """

    kind: Kind
    rows: tuple[int, ...]
    words: str
    advice: str

    def error(self) -> RaremixError:
        """Return the error that refuses a data set for this."""
        return _ERRORS[self.kind](f"{self.words}: {self.advice}")


@contextmanager
def suspended() -> Iterator[None]:
    """Let sources load data as they are while the block runs: for an audit, which reports what `check` refuses.

    Nothing that was loaded so may be trained or measured on before it has passed `check`.
    """
    token = _suspended.set(True)
    try:
        yield
    finally:
        _suspended.reset(token)


def are_suspended() -> bool:
    """Whether the guards are suspended where this is called."""
    return _suspended.get()


def check(manifest: Manifest, *, allow_synthetic: Collection[str] = (), check_files: bool = True) -> None:
    """Refuse a data set whose splits leak, or whose files or classes are not there.

    Rows that have no split yet are not judged; check again when they have one. (An unknown class is refused when the
    manifest is made.)

    Args:
        manifest: the data set.
        allow_synthetic: splits other than train that may hold synthetic rows.
        check_files: whether to look for every file.

    Raises:
        ManifestError: for missing files.
        LeakageError: for a group or a file in two splits, and for synthetic rows or parents outside train.
        GuardError: for a class that is present in test only.
        UnknownNameError: if `allow_synthetic` names a split that there is not.

    Example:
        >>> from pathlib import Path
        >>> from raremix.data.manifest import Card
        >>> columns = {"path": ["a.png", "b.png"], "group": ["p", "p"], "split": ["train", "test"], "target:x": [1, 1]}
        >>> card = Card(name="toy", task="multilabel", classes=("x",))
        >>> check(Manifest(frame=pl.DataFrame(columns), card=card, root=Path()), check_files=False)
        Traceback (most recent call last):
        raremix.core.errors.LeakageError: 1 group is in two splits: row 0 (a.png) in train with row 1 (b.png) in test...
    """
    if are_suspended():
        return
    found = next(_findings(manifest, allow_synthetic=allow_synthetic, check_files=check_files), None)
    if found is not None:
        raise found.error()


def findings(
    manifest: Manifest, *, allow_synthetic: Collection[str] = (), check_files: bool = True
) -> tuple[Finding, ...]:
    """Return everything that `check` would refuse, at most one finding of each kind; the arguments are the same."""
    return tuple(_findings(manifest, allow_synthetic=allow_synthetic, check_files=check_files))


def find_missing_files(manifest: Manifest) -> Finding | None:
    """Find rows whose image, or mask, is not there."""
    columns: tuple[Literal["path", "mask"], ...] = ("path", "mask")
    for column in columns:
        if column not in manifest.frame.columns:
            continue
        root = str(manifest.folder_of(column))
        paths = manifest.frame[column].to_list()
        missing = [path is not None and not os.path.isfile(f"{root}/{path}") for path in paths]  # noqa: PTH113
        bad = manifest.frame.filter(pl.Series(missing, dtype=pl.Boolean))
        if bad.height:
            return _finding(
                "missing_file",
                bad,
                f"{bad.height} of {len(paths)} files are missing below {root}: {named_rows(bad, column=column)}",
                "correct the folder, or remove the rows" + (f"; {WAY_OUT}" if column == "path" else ""),
            )
    return None


def find_split_groups(manifest: Manifest) -> Finding | None:
    """Find groups (patients, lesions) with rows in two splits."""
    bad = _in_two_splits(manifest.frame, "group")
    if not bad.height:
        return None
    return _finding(
        "split_group",
        bad,
        f"{_count(bad['group'].n_unique(), 'group')} in two splits: {_pairs(bad, 'group')}",
        "split by group (leave the split column out), or correct the groups",
    )


def find_split_files(manifest: Manifest) -> Finding | None:
    """Find files whose very content appears in two splits."""
    bad = _in_two_splits(manifest.frame, "sha256")
    if not bad.height:
        return None
    return _finding(
        "split_file",
        bad,
        f"{_count(bad['sha256'].n_unique(), 'file')} in two splits, by content: {_pairs(bad, 'sha256')}",
        "remove one row of each, or leave the split column out",
    )


def find_synthetic_rows(manifest: Manifest, *, allow: Collection[str] = ()) -> Finding | None:
    """Find synthetic (or repeated) rows outside train, but in the splits that are allowed by name.

    Raises:
        UnknownNameError: if `allow` names a split that there is not.
    """
    for name in allow:
        if name not in SPLITS:
            raise UnknownNameError("split", name, SPLITS)
    synthetic = manifest.frame.filter((pl.col("origin") != "real") & pl.col("split").is_not_null())
    bad = synthetic.filter(~pl.col("split").is_in(["train", *allow]))
    if not bad.height:
        return None
    where = ", ".join(f'"{name}"' for name in [*allow, *(s for s in SPLITS if s in bad["split"])])
    return _finding(
        "synthetic_row",
        bad,
        f"{_count(bad.height, 'synthetic row')} outside train: {named_rows(bad, column='split')}",
        "move them to train; or, to measure on generated images on purpose, allow the split by name, "
        f"[data] allow_synthetic = [{where}]",
    )


def find_held_out_parents(manifest: Manifest) -> Finding | None:
    """Find synthetic rows made from rows that are not in train, or that the manifest does not hold."""
    frame = manifest.frame.filter(pl.col("parents").list.len() > 0)
    if not frame.height:
        return None
    links = frame.select("id", pl.col("parents").alias("parent")).explode("parent")
    splits = manifest.frame.select(pl.col("id").alias("parent"), pl.col("split").alias("parent_split"), known=True)
    joined = links.join(splits, on="parent", how="left", maintain_order="left")
    # A parent without a split is judged once it has one; a parent that is not there can never be.
    bad = joined.filter(
        pl.col("known").is_null() | (pl.col("parent_split").is_not_null() & (pl.col("parent_split") != "train"))
    )
    if not bad.height:
        return None
    shown = [
        f"row {row['id']} from row {row['parent']} ({row['parent_split'] or 'not in the manifest'})"
        for row in bad.head(NAMED).iter_rows(named=True)
    ]
    rest = f" and {bad.height - NAMED} more" if bad.height > NAMED else ""
    return _finding(
        "held_out_parent",
        bad,
        f"synthetic rows have parents outside train: {', '.join(shown)}{rest}",
        "remove these rows, or make them again from train only",
    )


def find_test_only_classes(manifest: Manifest) -> Finding | None:
    """Find classes with images in test and none in train."""
    train, test = manifest.class_counts("train"), manifest.class_counts("test")
    absent = [manifest.card.classes[k] for k in np.flatnonzero((test > 0) & (train == 0))]
    if not absent:
        return None
    where = pl.any_horizontal(pl.col(TARGET + name) == 1 for name in absent)
    bad = manifest.frame.filter((pl.col("split") == "test") & where)
    return _finding(
        "test_only_class",
        bad,
        f"class {listed(absent)} is present in test only: {named_rows(bad, column='split')}",
        "no classifier can learn it; give train some of its groups, or leave the class out",
    )


_ERRORS: Mapping[Kind, type[ManifestError] | type[LeakageError] | type[GuardError]] = {
    "missing_file": ManifestError,
    "split_group": LeakageError,
    "split_file": LeakageError,
    "synthetic_row": LeakageError,
    "held_out_parent": LeakageError,
    "test_only_class": GuardError,
}


def _findings(manifest: Manifest, *, allow_synthetic: Collection[str], check_files: bool) -> Iterator[Finding]:
    guards: list[Callable[[Manifest], Finding | None]] = [
        *([find_missing_files] if check_files else []),
        find_split_groups,
        find_split_files,
        partial(find_synthetic_rows, allow=allow_synthetic),
        find_held_out_parents,
        find_test_only_classes,
    ]
    for guard in guards:
        found = guard(manifest)
        if found is not None:
            yield found


def _finding(kind: Kind, bad: pl.DataFrame, words: str, advice: str) -> Finding:
    return Finding(kind=kind, rows=tuple(bad["id"].unique().sort().to_list()), words=words, advice=advice)


def _in_two_splits(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """Return the rows, in their order, whose value of a column stands in more than one split."""
    empty = frame[column].null_count()
    if frame["split"].null_count() == frame.height or (
        frame[column].n_unique() - (empty > 0) + empty == frame.height  # each value stands once
    ):
        return frame.clear()
    placed = frame.lazy().filter(pl.col("split").is_not_null() & pl.col(column).is_not_null())
    # Splits become one bit each: counting distinct texts per group takes several times as long.
    bits = pl.col("split").replace_strict({name: 1 << i for i, name in enumerate(SPLITS)}, return_dtype=pl.UInt8)
    spread = placed.select(column, bits.alias("bit")).group_by(column).agg(pl.col("bit").min(), top=pl.col("bit").max())
    torn = spread.filter(pl.col("bit") != pl.col("top")).select(column).collect()
    if not torn.height:
        return frame.clear()
    return frame.filter(pl.col("split").is_not_null() & pl.col(column).is_in(torn[column].implode()))


def _pairs(bad: pl.DataFrame, column: str) -> str:
    """Name one row per split of the first few values of a column."""
    firsts = bad.group_by(column, "split", maintain_order=True).agg(pl.col("id", "path").first())
    values = firsts[column].unique(maintain_order=True)
    parts = []
    for value in values[:NAMED]:
        of = {row["split"]: row for row in firsts.filter(pl.col(column) == value).iter_rows(named=True)}
        parts.append(" with ".join(f"row {of[s]['id']} ({of[s]['path']}) in {s}" for s in SPLITS if s in of))
    rest = len(values) - len(parts)
    return "; ".join(parts) + (f" and {rest} more" if rest else "")


def _count(number: int, noun: str) -> str:
    return f"1 {noun} is" if number == 1 else f"{number} {noun}s are"
