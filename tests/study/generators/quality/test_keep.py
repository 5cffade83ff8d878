"""What is kept of a look for copies beside the generator."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tests.study.generators.synthetic_sets import plain_features, prepared, synthetic_set
from typer.testing import CliRunner

from raremix.cli import app
from raremix.core import files
from raremix.core.errors import ConfigError, CorruptError
from raremix.core.fitted import FittedOn
from raremix.data import Manifest
from raremix.generate import DCGAN, Form, GeneratorCard, generator_hash, save_generator
from raremix.study.generators.quality.judge import judge_synthetic
from raremix.study.generators.quality.keep import find_generator, keep_audit, read_audits


@pytest.fixture(autouse=True)
def _plain_features(monkeypatch: pytest.MonkeyPatch) -> None:
    plain_features(monkeypatch)


def generator(folder: Path, *, seed: int) -> Path:
    """Write a generator that was not fitted."""
    form = Form(size=32, channels=3, classes=2)
    method = DCGAN(width=2, latent=4)
    networks = method.networks(form, seed=seed)
    card = GeneratorCard(
        method="dcgan", settings={"width": 2, "latent": 4}, form=form, classes=("nevus", "keratosis"),
        task="multiclass", modality="generic", data="phantom", bits=8, resize="stretch", fitted_on="", held_out="",
        images=(1, 1), seed=seed, steps=0, batch_size=1,
    )  # fmt: skip
    weights = {name: dict(networks[name].state_dict()) for name in method.kept}
    return save_generator(folder, card=card, weights=weights, rows=FittedOn(keys=np.array([1])))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two generators, and a set with copies by the second."""
    place = tmp_path_factory.mktemp("runs")
    with torch.random.fork_rng():
        for number in range(2):
            generator(place / "generators" / f"g{number}", seed=number)
    path = synthetic_set(place / "synthetic" / "set", honest=20, copies=15)
    recipe = json.dumps({"generator": generator_hash(place / "generators" / "g1")})
    said_by(path, pl.lit(recipe))
    return place


def said_by(path: Path, recipe: pl.Expr) -> None:
    manifest = Manifest.read(path)
    is_made = pl.col("origin") == "synthetic"
    frame = manifest.frame.with_columns(pl.when(is_made).then(recipe).otherwise(None).alias("recipe"))
    Manifest(frame=frame, card=manifest.card, root=manifest.root).write(path)


def test_thresholds_and_planted_copies_stay_beside_the_generator_and_are_shown(runs: Path, tmp_path: Path) -> None:
    data, own = runs / "synthetic" / "set", runs / "generators" / "g1"
    before = generator_hash(own)
    none = CliRunner().invoke(app, ["generator", "inspect", str(own)])
    assert "not looked at for copies" in none.output, none.output
    arguments = ["quality", str(data), "--set", "data.size=32", "--cache", str(tmp_path / "cache")]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0, said.output
    assert not (runs / "generators" / "g0" / "audit.json").exists()
    (kept,) = read_audits(own)
    assert kept["has_copies"]
    assert set(kept["thresholds"]) == {"pixels", "features"}
    assert kept["planted_found"]["exact"] == 1.0
    other = CliRunner().invoke(app, [*arguments, "--dry-run", "--generator", str(runs / "generators" / "g0")])
    assert isinstance(other.exception, ConfigError)
    assert (kept["images"], kept["encoder"], kept["features"]) == (35, "plain", "plain")
    told = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(told.stdout)["audit"] == str(own.resolve() / "audit.json")
    assert len(read_audits(own)) == 1  # the same set again
    assert generator_hash(own) == before
    shown = CliRunner().invoke(app, ["generator", "inspect", str(own)])
    assert shown.exit_code == 0, shown.output
    assert "Audit of 35 images" in shown.output
    assert "Memorised" in shown.output


def test_another_set_does_not_hide_what_one_showed_and_others_images_are_refused(runs: Path, tmp_path: Path) -> None:
    own = tmp_path / "generators" / "g"
    shutil.copytree(runs / "generators" / "g1", own, ignore=shutil.ignore_patterns("audit.json"))
    shutil.copytree(runs / "synthetic" / "set", tmp_path / "synthetic" / "set")
    path = tmp_path / "synthetic" / "set" / "manifest.parquet"
    data = prepared(path, tmp_path / "cache")
    assert find_generator(path.parent, data.manifest) == own
    found = judge_synthetic(data, weights="plain", cache=tmp_path / "cache")
    keep_audit(own, found, data.manifest, created="2026-01-01")
    fewer = Manifest(frame=data.manifest.frame.head(-5), card=data.manifest.card, root=data.manifest.root).write(path)
    data = prepared(fewer, tmp_path / "cache")
    found = judge_synthetic(data, weights="plain", cache=tmp_path / "cache")
    keep_audit(own, found, data.manifest, created="2026-01-02")
    assert [one["created"] for one in read_audits(own)] == ["2026-01-01", "2026-01-02"]
    with pytest.raises(ConfigError, match="not the generator"):
        keep_audit(runs / "generators" / "g0", found, data.manifest, created="")
    said_by(path, pl.when(pl.col("id") % 2 == 0).then(pl.lit("by hand")).otherwise(pl.col("recipe")))
    mixed = Manifest.read(path)
    assert find_generator(path.parent, mixed) is None
    with pytest.raises(ConfigError, match="not the generator"):
        keep_audit(own, found, mixed, created="")
    files.write_json(own / "audit.json", {"audits": [{}]})
    with pytest.raises(CorruptError, match="not what raremix quality writes"):
        read_audits(own)
