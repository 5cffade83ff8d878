"""What loading refuses, because the result would mislead; every refusal names the rows."""

import os
from collections.abc import Collection

import numpy as np
import polars as pl

from raremix.core.errors import GuardError, LeakageError, ManifestError, UnknownNameError
from raremix.core.types import SPLITS
from raremix.data.manifest import NAMED, TARGET, Manifest, listed, named_rows


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

    Example:
        >>> from pathlib import Path
        >>> from raremix.data.manifest import Card
        >>> columns = {"path": ["a.png", "b.png"], "group": ["p", "p"], "split": ["train", "test"], "target:x": [1, 1]}
        >>> card = Card(name="toy", task="multilabel", classes=("x",))
        >>> check(Manifest(frame=pl.DataFrame(columns), card=card, root=Path()), check_files=False)
        Traceback (most recent call last):
        raremix.core.errors.LeakageError: 1 group is in two splits: p (row 0 in train, row 1 in test): ...
    """
    if check_files:
        refuse_missing_files(manifest)
    refuse_split_groups(manifest)
    refuse_split_files(manifest)
    refuse_synthetic_rows(manifest, allow=allow_synthetic)
    refuse_held_out_parents(manifest)
    refuse_test_only_classes(manifest)


def refuse_missing_files(manifest: Manifest) -> None:
    """Refuse rows whose image, or mask, is not there.

    Raises:
        ManifestError: naming the rows.
    """
    root = str(manifest.root)
    for column in [c for c in ("path", "mask") if c in manifest.frame.columns]:
        paths = manifest.frame[column].to_list()
        missing = [path is not None and not os.path.isfile(f"{root}/{path}") for path in paths]  # noqa: PTH113
        bad = manifest.frame.filter(pl.Series(missing, dtype=pl.Boolean))
        if bad.height:
            raise ManifestError(
                f"{bad.height} of {len(paths)} files are missing below {root}: {named_rows(bad, column=column)}: "
                "correct the folder, or remove the rows"
            )


def refuse_split_groups(manifest: Manifest) -> None:
    """Refuse a group (patient, lesion) with rows in two splits.

    Raises:
        LeakageError: naming the groups and rows.
    """
    found = _in_two_splits(manifest.frame, "group")
    if found.height:
        raise LeakageError(
            f"{_count(found, 'group')} in two splits: {_described(found, 'group')}: "
            "split by group (leave the split column out), or correct the groups"
        )


def refuse_split_files(manifest: Manifest) -> None:
    """Refuse a file whose very content appears in two splits.

    Raises:
        LeakageError: naming the rows.
    """
    found = _in_two_splits(manifest.frame.filter(pl.col("sha256").is_not_null()), "sha256")
    if found.height:
        short = found.with_columns(pl.col("sha256").str.slice(0, 8))
        raise LeakageError(
            f"{_count(found, 'file')} in two splits, by content: {_described(short, 'sha256')}: "
            "remove one row of each, or leave the split column out"
        )


def refuse_synthetic_rows(manifest: Manifest, *, allow: Collection[str] = ()) -> None:
    """Refuse synthetic rows outside train, but in the splits that are allowed by name.

    Raises:
        UnknownNameError: if `allow` names a split that there is not.
        LeakageError: naming the rows.
    """
    for name in allow:
        if name not in SPLITS:
            raise UnknownNameError("split", name, SPLITS)
    synthetic = manifest.frame.filter((pl.col("origin") == "synthetic") & pl.col("split").is_not_null())
    bad = synthetic.filter(~pl.col("split").is_in(["train", *allow]))
    if bad.height:
        raise LeakageError(
            f"{_count(bad, 'synthetic row', 'is', 'are')} outside train: "
            f"{named_rows(bad, column='split')}: move them to train, or allow the split by name"
        )


def refuse_held_out_parents(manifest: Manifest) -> None:
    """Refuse synthetic rows made from rows that are not in train, or that the manifest does not hold.

    Raises:
        LeakageError: naming the rows and parents.
    """
    frame = manifest.frame.filter(pl.col("parents").list.len() > 0)
    if not frame.height:
        return
    links = frame.select("id", pl.col("parents").alias("parent")).explode("parent")
    splits = manifest.frame.select(pl.col("id").alias("parent"), pl.col("split").alias("parent_split"), known=True)
    joined = links.join(splits, on="parent", how="left", maintain_order="left")
    # A parent without a split is judged once it has one; a parent that is not there can never be.
    bad = joined.filter(
        pl.col("known").is_null() | (pl.col("parent_split").is_not_null() & (pl.col("parent_split") != "train"))
    )
    if bad.height:
        shown = [
            f"row {row['id']} from row {row['parent']} ({row['parent_split'] or 'not in the manifest'})"
            for row in bad.head(NAMED).iter_rows(named=True)
        ]
        rest = f" and {bad.height - NAMED} more" if bad.height > NAMED else ""
        raise LeakageError(
            f"synthetic rows have parents outside train: {', '.join(shown)}{rest}: "
            "remove these rows, or make them again from train only"
        )


def refuse_test_only_classes(manifest: Manifest) -> None:
    """Refuse a class with images in test and none in train.

    Raises:
        GuardError: naming the classes and rows.
    """
    train, test = manifest.class_counts("train"), manifest.class_counts("test")
    absent = [manifest.card.classes[k] for k in np.flatnonzero((test > 0) & (train == 0))]
    if not absent or not len(manifest.rows("test")):
        return
    where = pl.any_horizontal(pl.col(TARGET + name) == 1 for name in absent)
    bad = manifest.frame.filter((pl.col("split") == "test") & where)
    raise GuardError(
        f"class {listed(absent)} is present in test only: {named_rows(bad, column='split')}: "
        "no classifier can learn it; give train some of its groups, or leave the class out"
    )


def _in_two_splits(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    placed = frame.filter(pl.col("split").is_not_null())
    counts = placed.group_by(column, maintain_order=True).agg(pl.col("split").n_unique().alias("splits"), "id", "split")
    return counts.filter(pl.col("splits") > 1)


def _described(found: pl.DataFrame, column: str) -> str:
    parts = []
    for row in found.head(NAMED).iter_rows(named=True):
        first = {split: number for number, split in reversed(list(zip(row["id"], row["split"], strict=True)))}
        rows = ", ".join(f"row {first[split]} in {split}" for split in SPLITS if split in first)
        parts.append(f"{row[column]} ({rows})")
    rest = found.height - len(parts)
    return ", ".join(parts) + (f" and {rest} more" if rest else "")


def _count(found: pl.DataFrame, noun: str, one: str = "is", many: str = "are") -> str:
    return f"1 {noun} {one}" if found.height == 1 else f"{found.height} {noun}s {many}"
