"""What curation leaves out, and why: on phantoms with copies, foreign pictures and wrong classes among them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from tests.study.generators.synthetic_sets import plain_features, prepared, synthetic_set
from typer.testing import CliRunner

from raremix.cli import app
from raremix.core import files
from raremix.core.errors import GuardError, HeldOutError
from raremix.core.fitted import write_fitted
from raremix.data import Manifest
from raremix.data.digests import with_digests
from raremix.study.fitted import rows_of
from raremix.study.generators import curate as curating
from raremix.study.generators.curate import counts_of, curate, dropped_table, write_curated


@pytest.fixture(autouse=True)
def _plain_features(monkeypatch: pytest.MonkeyPatch) -> None:
    plain_features(monkeypatch)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 honest images, 10 copies, and 5 checkerboards."""
    path = synthetic_set(tmp_path_factory.mktemp("curate") / "set", honest=70, copies=10)
    manifest = Manifest.read(path)
    rows = manifest.frame.tail(5).with_columns(pl.col("id") + 5)
    names = [f"images/board{number}.png" for number in range(5)]
    board = (np.indices((32, 32)).sum(axis=0) // 8 % 2 * 255).astype(np.uint8)
    for number, name in enumerate(names):
        Image.fromarray(np.stack([np.roll(board, number, axis=1)] * 3, axis=2)).save(manifest.root / name)
    more = rows.with_columns(pl.Series("path", names), pl.lit(None, dtype=pl.Utf8).alias("sha256"))
    Manifest(frame=pl.concat([manifest.frame, more]), card=manifest.card, root=manifest.root).write(path)
    return path


def test_copies_and_foreign_pictures_go_and_most_others_stay(place: Path, tmp_path: Path) -> None:
    data = prepared(place, tmp_path / "cache")
    found = curate(data, weights="plain", cache=tmp_path / "cache")
    assert len(found.ids) == 85
    assert found.dropped["copy"][70:80].all()
    assert found.dropped["outlier"][80:].all()
    assert "not recognised" not in found.dropped
    assert found.kept[:70].mean() > 0.85
    counts = counts_of(found, data.manifest)["classes"]
    assert sum(row["synthetic"] for row in counts.values()) == 85
    assert sum(row["kept"] for row in counts.values()) == found.kept.sum()
    outliers = dropped_table(found, data.manifest).filter(pl.col("reason") == "outlier")
    assert len(outliers) >= 5
    assert (outliers["value"] > outliers["threshold"]).all()
    assert outliers["training_row"].is_null().all()
    near = dropped_table(found, data.manifest).filter(pl.col("reason") == "copy", pl.col("id").is_in(found.ids[70:80]))
    assert near["training_row"].to_list() == data.manifest.rows("train")[:10].tolist()
    assert not {"group", "patient"} & set(near.columns)


def test_what_is_written_is_a_manifest_without_them(place: Path, tmp_path: Path) -> None:
    data = prepared(place, tmp_path / "cache")
    before = {path: path.read_bytes() for path in place.parent.rglob("*") if path.is_file()}
    found = curate(data, weights="plain", cache=tmp_path / "cache")
    path = write_curated(found, data, tmp_path / "out")
    kept = Manifest.read(path)
    assert set(kept.ids) == set(data.manifest.ids) - set(found.ids[~found.kept])
    assert all(image.is_file() for image in kept.paths())
    assert files.read_json(tmp_path / "out" / "curation.json")["thresholds"]["copy"]
    assert {name: text for name, text in before.items() if name.read_bytes() != text} == {}
    with pytest.raises(GuardError, match="choose another"):
        write_curated(found, data, data.manifest.root)


def test_a_classifier_is_asked(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that believes nothing of the first three synthetic images, and everything of all others."""
    data = prepared(place, tmp_path / "cache")
    made = data.manifest.ids[(data.manifest.frame["origin"] == "synthetic").to_numpy()]

    def belief(prepared: object, classifier: Path, ids: np.ndarray) -> np.ndarray:
        return np.where(np.isin(ids, made[:3])[:, None], 0.01, 0.9) * np.ones((1, 2))

    monkeypatch.setattr(curating, "_belief", belief)
    monkeypatch.setattr(curating, "refuse_seen", lambda *_, **__: None)
    found = curate(data, weights="plain", cache=tmp_path / "cache", classifier=tmp_path / "classifier")
    assert np.flatnonzero(found.dropped["not recognised"]).tolist() == [0, 1, 2]
    assert set(found.not_checked) == {"classifier"}  # it does not say on what it was trained


def test_a_classifier_that_was_trained_on_these_images_is_refused(place: Path, tmp_path: Path) -> None:
    data = prepared(place, tmp_path / "cache")
    manifest = with_digests(data.manifest, cache=tmp_path / "cache")
    data = replace(data, manifest=manifest)
    made = manifest.ids[(manifest.frame["origin"] == "synthetic").to_numpy()]
    classifier = tmp_path / "classifier"
    taught = np.concatenate([manifest.rows("train")[:5], made[:7]])
    write_fitted(classifier, {"train": rows_of(manifest, taught)})
    with pytest.raises(GuardError, match=r"trained on 7 of the 85 synthetic images.*real images alone"):
        curate(data, weights="plain", cache=tmp_path / "cache", classifier=classifier)
    write_fitted(classifier, {"train": rows_of(manifest, manifest.rows("validation")[:3])})
    with pytest.raises(HeldOutError, match="3 of"):
        curate(data, weights="plain", cache=tmp_path / "cache", classifier=classifier)


def test_what_was_not_checked_is_said_everywhere(tmp_path: Path) -> None:
    """Nobody recognises, and there are too few patients to look for copies."""
    place = synthetic_set(tmp_path / "few", honest=20, copies=0, images=120)
    arguments = ["curate", str(place.parent), "-o", str(tmp_path / "out"), "--set", "data.size=32"]
    arguments += ["--cache", str(tmp_path / "cache")]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0, said.output
    assert "Copies were not looked for" in said.output
    assert "Whether images are recognised was not checked" in said.output
    told = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    for facts in (told, files.read_json(tmp_path / "out" / "curation.json")):
        assert set(facts["not_checked"]) == {"copy", "not recognised"}
        assert "held-out patients" in facts["not_checked"]["copy"]
        assert "--classifier" in facts["not_checked"]["not recognised"]


def test_the_verb(place: Path, tmp_path: Path) -> None:
    arguments = ["curate", str(place.parent), "-o", str(tmp_path / "out"), "--set", "data.size=32"]
    arguments += ["--cache", str(tmp_path / "cache")]
    dry = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "dropped.csv" in done.output
    assert (tmp_path / "out" / "dropped.csv").is_file()
