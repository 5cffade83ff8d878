"""Files that cannot be read: refused with the first of them and their number, or left out because the user said so."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from raremix.core.errors import ManifestError, ReadError
from raremix.core.types import SPLITS, Split
from raremix.data.manifest import TARGET, Manifest
from raremix.data.naming import NAMED, listed

WAY_OUT = 'or leave them out on purpose with --on-unreadable skip, in a study file [data] on_unreadable = "skip"'

Reasons = Mapping[int, str]
"""Why the file of a row cannot be read, by the row's id."""


def refuse_unreadable(manifest: Manifest, reasons: Reasons) -> None:
    """Refuse a data set with files that cannot be read.

    Args:
        manifest: the data set.
        reasons: what was found, by row.

    Raises:
        ReadError: with the first rows, the number of all, and the way out.
    """
    if not reasons:
        return
    rows = sorted(reasons)
    paths = manifest.frame["path"].gather(manifest.positions(np.array(rows[:NAMED], dtype=np.int64)))
    first, *others = [f"row {row} ({path})" for row, path in zip(rows, paths, strict=False)]
    reason = reasons[rows[0]]
    if others:
        rest = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
        reason += f"; look also at {', '.join(others)}{rest}"
    raise ReadError(first, f"{reason} ({len(rows):,} of {len(manifest):,} files cannot be read); {WAY_OUT}")


def leave_out(manifest: Manifest, reasons: Reasons) -> Manifest:
    """Return the manifest without the rows whose file cannot be read.

    Args:
        manifest: the data set, with or without splits.
        reasons: what was found, by row; rows that the manifest does not hold do not matter.

    Raises:
        ManifestError: if nothing remains of the data, of a split, or of a class (at all, or in train).
    """
    bad = manifest.frame["id"].is_in(list(reasons)).to_numpy()
    if not bad.any():
        return manifest
    lost = f"leaving out {int(bad.sum()):,} of {len(manifest):,} files that cannot be read"
    advice = "restore some of these files; `quarantine.csv`, or the audit, lists them"
    if bad.all():
        raise ManifestError(f"{lost} leaves no image at all: look at the folder, and at what kind of files these are")
    rest = manifest.select(manifest.ids[~bad])
    for name in SPLITS:
        if len(manifest.rows(name)) and not len(rest.rows(name)):
            raise ManifestError(f"{lost} leaves the {name} split empty: {advice}")
    both: tuple[tuple[Split | None, str], ...] = ((None, ""), ("train", " in train"))
    for split, words in both:
        before, after = manifest.class_counts(split), rest.class_counts(split)
        gone = [manifest.card.classes[k] for k in np.flatnonzero((before > 0) & (after == 0))]
        if gone:
            raise ManifestError(f"{lost} leaves no image of class {listed(gone)}{words}: {advice}, or drop the class")
    return rest


def quarantine_table(manifest: Manifest, reasons: Reasons) -> pl.DataFrame:
    """Return the table of files that were left out: id, path, split, classes, and the reason.

    Args:
        manifest: the data set, with these rows.
        reasons: what was found, by row.
    """
    names = manifest.card.classes
    positive = pl.concat_list(pl.when(pl.col(TARGET + name) == 1).then(pl.lit(name)) for name in names)
    bad = manifest.frame.filter(pl.col("id").is_in(list(reasons))).sort("id")
    return bad.select(
        "id",
        "path",
        "split",
        positive.list.drop_nulls().list.join("; ").alias("classes"),
        pl.Series("reason", [reasons[row] for row in bad["id"]], dtype=pl.Utf8),
    )
