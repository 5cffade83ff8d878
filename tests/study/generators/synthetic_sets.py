"""Data sets with images that are said to be generated: real phantoms, other phantoms, and copies."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from torch import Tensor
from torch.nn import functional

from raremix.data import Manifest, Phantom
from raremix.data.readers import Reading
from raremix.data.readers.block import Form
from raremix.study.audit.representation import Representation
from raremix.study.defaults import study_of
from raremix.study.generators.quality import judge as synthetic_quality
from raremix.study.prepare import Prepared, prepare


def grey_16(images: Tensor) -> Tensor:
    return functional.interpolate(images.mean(1, keepdim=True), size=(16, 16), mode="area").flatten(1) + 0.01


def plain_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small grey pictures stand for features: encoders have tests of their own."""
    form = Form(size=32, channels=3, bits=8, resize="stretch", reading=Reading())
    plain = Representation(key="plain", form=form, encode=grey_16, name="plain")
    monkeypatch.setattr(synthetic_quality, "representation_of", lambda *_, **__: plain)


def synthetic_set(folder: Path, *, honest: int, copies: int, images: int = 440, validation: float = 0.5) -> Path:
    """Write real phantoms, others as if they were generated, and copies of training images."""
    cache = folder / "cache"
    real = Phantom(images=images, size=32, classes=2, imbalance_ratio=2.0, seed=0, images_per_group=1.0, test=0.1,
                   validation=validation).load(cache=cache)  # fmt: skip
    others = Phantom(images=max(honest, 40), size=32, classes=2, imbalance_ratio=2.0, seed=9).load(cache=cache)
    (folder / "images").mkdir(parents=True)
    rows = []

    def add(source: Manifest, place: int, **changes: object) -> None:
        row = source.frame.row(place, named=True)
        name = f"{len(rows)}.png"
        shutil.copyfile(source.root / row["path"], folder / "images" / name)
        targets = {key: value for key, value in row.items() if key.startswith("target:")}
        base = {"id": len(rows), "path": f"images/{name}", "group": row["group"], "split": row["split"]}
        rows.append({**base, **targets, "origin": "real", "parents": [], "recipe": None, **changes})

    for place in range(len(real)):
        add(real, place)
    train = np.flatnonzero((real.frame["split"] == "train").to_numpy())
    made = {"split": "train", "origin": "synthetic", "group": None, "recipe": "by hand"}
    for place in range(honest):
        add(others, place, **made)
    for place in train[:copies].tolist():
        add(real, place, **made)
    frame = pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.col("parents").cast(pl.List(pl.Int64)))
    return Manifest(frame=frame, card=real.card, root=folder).write(folder / "manifest.parquet")


def prepared(path: Path, cache: Path) -> Prepared:
    return prepare(study_of(str(path.parent), settings=["data.size=32"]), cache=cache)
