"""What every source does last: order the rows, number them, hash their files, and put the result before the guards."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from raremix.core.errors import ManifestError, TargetError
from raremix.core.types import Progress
from raremix.data.digests import with_digests
from raremix.data.guards import are_suspended, check
from raremix.data.manifest import RESERVED, TARGET, Card, Manifest, listed, named_rows

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
# Control characters, and those that make text run backwards: a terminal or a page would show another name.
_UNPRINTABLE = r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
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
    masks: Sequence[str | None] | None = None,
    mask_root: Path | None = None,
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
        masks: the mask of each row, where it has one.
        mask_root: the folder that masks start from; the root by default.

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
    if masks is not None:
        frame = frame.with_columns(pl.Series("mask", list(masks), dtype=pl.Utf8))
    if attributes is not None and attributes.width:
        frame = frame.hstack(_with_age_bands(attributes).get_columns())
    frame = frame.sort("path", maintain_order=True)
    return Manifest(frame=frame, card=card, root=root, mask_root=mask_root)


def admit(manifest: Manifest, *, cache: Path, progress: Progress | None = None) -> Manifest:
    """Hash the files of a manifest, and return it if the guards let it pass.

    Raises:
        ManifestError: for missing files, links that lead out of the folder, and names with control characters.
        LeakageError, GuardError: see `raremix.data.guards`.
    """
    _refuse_odd_names(manifest)
    _refuse_outside(manifest)
    if are_suspended():
        return manifest
    check(manifest)
    hashed = with_digests(manifest, cache=cache, progress=progress)
    check(hashed, check_files=False)
    return hashed


def refuse_spellings(names: Sequence[str], *, what: str) -> None:
    """Refuse class names that differ only in case, spaces, hyphens or underscores.

    Args:
        names: distinct class names.
        what: where they stand and what to do, for the message.

    Raises:
        TargetError: naming the spellings.

    Example:
        >>> refuse_spellings(["Melanoma", "melanoma", "nevus"], what="column dx: use one")
        Traceback (most recent call last):
        raremix.core.errors.TargetError: one class is spelled in two ways, 'Melanoma', 'melanoma', in column dx: ...
    """
    spelled: dict[str, list[str]] = {}
    for name in names:
        spelled.setdefault(re.sub(r"[\s_-]+", " ", name).strip().casefold(), []).append(name)
    for same in spelled.values():
        if len(same) > 1:
            raise TargetError(
                f"one class is spelled in two ways, {listed([repr(name) for name in sorted(same)])}, in {what}; "
                "or name both in classes if they are two classes"
            )


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


def _refuse_odd_names(manifest: Manifest) -> None:
    bad = manifest.frame.filter(pl.col("path").str.contains(_UNPRINTABLE))
    odd = [name for name in manifest.card.classes if re.search(_UNPRINTABLE, name)]
    if bad.height:
        shown = bad.with_columns(pl.col("path").map_elements(ascii, return_dtype=pl.Utf8))
        raise ManifestError(f"file names with control characters: {named_rows(shown)}: rename the files")
    if odd:
        raise ManifestError(f"class names with control characters: {listed([ascii(n) for n in odd])}: rename them")


def _refuse_outside(manifest: Manifest) -> None:
    """Refuse files that a symbolic link takes out of the root."""
    root = os.path.realpath(manifest.root)
    inside: dict[str, bool] = {}
    wrong = []
    for path in manifest.frame["path"]:
        full = f"{root}/{path}"
        above = full.rpartition("/")[0]
        if above not in inside:
            inside[above] = _is_below(os.path.realpath(above), root)
        leaves = not inside[above] or (os.path.islink(full) and not _is_below(os.path.realpath(full), root))  # noqa: PTH114
        wrong.append(leaves)
    bad = manifest.frame.filter(pl.Series(wrong, dtype=pl.Boolean))
    if bad.height:
        raise ManifestError(
            f"{bad.height} files are links that lead out of {manifest.root}: {named_rows(bad)}: "
            "copy the files, or name the folder where they lie"
        )


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")
