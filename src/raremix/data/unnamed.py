"""Groups without names: a manifest that is written elsewhere says who belongs together, and not who they are."""

from dataclasses import replace

import polars as pl

from raremix.data.manifest import Manifest


def unnamed_groups(manifest: Manifest) -> Manifest:
    """Return a manifest whose groups are numbered in the order of their first rows; rows without one stay without.

    What depends on groups (guards, folds, intervals) asks only which are equal. Numbering again changes nothing.

    Example:
        ``unnamed_groups(manifest).write(Path("elsewhere/manifest.parquet"))``
    """
    frame = manifest.frame
    # A row without a group is a group of its own, called after its id.
    own = pl.format("row:{}", pl.col("id"))
    names = frame.filter(pl.col("group") != own)["group"].unique(maintain_order=True)
    numbers = pl.Series([f"group-{number:06d}" for number in range(len(names))], dtype=pl.Utf8)
    return replace(manifest, frame=frame.with_columns(pl.col("group").replace(names, numbers)))
