"""Small data sets for the tests of the data package."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from raremix.core import files
from raremix.data.manifest import Card, Manifest


def toy_manifest(
    labels: Sequence[int],
    *,
    groups: Sequence[str | None] | None = None,
    splits: Sequence[str | None] | None = None,
    root: Path = Path(),
    num_classes: int | None = None,
    **columns: object,
) -> Manifest:
    """Return a manifest of one class number per row, without files."""
    count = max(labels) + 1 if num_classes is None else num_classes
    names = tuple(f"c{k}" for k in range(max(2, count)))
    frame = pl.DataFrame(
        {
            "path": [f"{i:03d}.png" for i in range(len(labels))],
            "group": pl.Series(list(groups) if groups else [None] * len(labels), dtype=pl.Utf8),
            "split": pl.Series(list(splits) if splits else [None] * len(labels), dtype=pl.Utf8),
            **{f"target:{name}": [float(label == k) for label in labels] for k, name in enumerate(names)},
            **columns,
        }
    )
    card = Card(name="toy", task="binary" if len(names) == 2 else "multiclass", classes=names)
    return Manifest(frame=frame, card=card, root=root)


def multilabel_manifest(targets: np.ndarray, *, groups: Sequence[str] | None = None) -> Manifest:
    """Return a multilabel manifest, without files."""
    columns: dict[str, object] = {"path": [f"{i:05d}.png" for i in range(len(targets))]}
    if groups is not None:
        columns["group"] = list(groups)
    columns |= {f"target:f{k}": targets[:, k] for k in range(targets.shape[1])}
    card = Card(name="toy", task="multilabel", classes=tuple(f"f{k}" for k in range(targets.shape[1])))
    return Manifest(frame=pl.DataFrame(columns), card=card, root=Path())


def pictures(root: Path, count: int, *, size: int = 8, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Write `count` PNG files 000.png, 001.png ... of noise below `root`, and return their pixels."""
    shape = (count, size, size, channels)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    for i, image in enumerate(pixels):
        files.write_image(root / f"{i:03d}.png", image)
    return pixels
