"""What every source does last: order the rows, number them, hash their files, and put the result before the guards."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from raremix.core.errors import ManifestError, TargetError
from raremix.core.types import Progress
from raremix.data.digests import with_digests
from raremix.data.guards import check
from raremix.data.manifest import RESERVED, TARGET, Card, Manifest, listed

SPLIT_NAMES: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
_AGE_STARTS = (18, 40, 60, 80)
_AGE_BANDS = ("0-17", "18-39", "40-59", "60-79", "80+")


def assemble(
    *,
    card: Card,
    root: Path,
    paths: Sequence[str],
    targets: Float[np.ndarray, "n K"],
    groups: Sequence[str | None] | None = None,
    splits: Sequence[str | None] | None = None,
    attributes: pl.DataFrame | None = None,
) -> Manifest:
    """Make a manifest of columns, its rows ordered by path, so that the same data gives the same ids.

    Args:
        card: the facts of the data set.
        root: the folder that paths start from.
        paths: one file per row, relative to the root.
        targets: labels, NaN where not labelled.
        groups: patient or lesion of each row; empty means a group of its own.
        splits: split of each row; empty means still to be split.
        attributes: one column per attribute; a numeric one called age becomes `age_band`.

    Raises:
        ManifestError: if there is no row, or an attribute has a reserved name.
    """
    if not paths:
        raise ManifestError(f"{card.name!r} has no images: expected at least one row")
    taken = [
        name
        for name in ([] if attributes is None else attributes.columns)
        if name in RESERVED or name.startswith(TARGET)
    ]
    if taken:
        raise ManifestError(f"an attribute cannot be called {listed(taken)}: rename the column")
    columns: dict[str, Any] = {"path": pl.Series(list(paths), dtype=pl.Utf8)}
    columns["group"] = pl.Series(list(groups) if groups is not None else [None] * len(paths), dtype=pl.Utf8)
    columns["split"] = pl.Series(list(splits) if splits is not None else [None] * len(paths), dtype=pl.Utf8)
    columns |= {TARGET + name: targets[:, k] for k, name in enumerate(card.classes)}
    frame = pl.DataFrame(columns)
    if attributes is not None and attributes.width:
        frame = frame.hstack(_with_age_bands(attributes).get_columns())
    frame = frame.sort("path", maintain_order=True)
    return Manifest(frame=frame, card=card, root=root)


def admit(manifest: Manifest, *, cache: Path, progress: Progress | None = None) -> Manifest:
    """Hash the files of a manifest, and return it if the guards let it pass.

    Raises:
        ManifestError: for missing files.
        LeakageError, GuardError: see `raremix.data.guards`.
    """
    check(manifest)
    hashed = with_digests(manifest, cache=cache, progress=progress)
    check(hashed, check_files=False)
    return hashed


def one_hot(numbers: np.ndarray, *, count: int) -> Float[np.ndarray, "n K"]:
    """Return one row per class number, with a single 1.

    Raises:
        TargetError: if a number is outside 0 .. count - 1.
    """
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= count):
        raise TargetError(
            f"class numbers {int(numbers.min())} to {int(numbers.max())} given, expected 0 to {count - 1}"
        )
    rows = np.zeros((len(numbers), count))
    rows[np.arange(len(numbers)), numbers.astype(np.int64)] = 1.0
    return rows


def natural_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """Turn text columns whose every value is a number into numbers; empty text is null."""
    columns = []
    for column in frame:
        text = column.cast(pl.Utf8).str.strip_chars()
        text = pl.select(pl.when(text != "").then(text)).to_series().alias(column.name)
        whole, real = text.cast(pl.Int64, strict=False), text.cast(pl.Float64, strict=False)
        if text.null_count() == len(text) or real.null_count() > text.null_count():
            columns.append(text)
        else:
            columns.append(whole if whole.null_count() == text.null_count() else real)
    return pl.DataFrame(columns)


def _with_age_bands(attributes: pl.DataFrame) -> pl.DataFrame:
    columns = []
    for column in attributes:
        if column.name.lower() == "age" and column.dtype.is_numeric():
            ages = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
            bands = np.searchsorted(_AGE_STARTS, ages, side="right")
            names = [None if np.isnan(age) else _AGE_BANDS[band] for age, band in zip(ages, bands, strict=True)]
            columns.append(pl.Series("age_band", names, dtype=pl.Utf8))
        else:
            columns.append(column)
    return pl.DataFrame(columns)
