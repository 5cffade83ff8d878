"""How good and how private synthetic images are: on phantoms, with copies planted among honest ones."""

import base64
import io
import shutil
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
from raremix.core.errors import ConfigError
from raremix.core.types import Progress
from raremix.data import Manifest
from raremix.data.split import apply_split
from raremix.evaluate.generative import MemorisationAudit, Sight
from raremix.report.quality import render_quality, written
from raremix.study.audit.representation import Representation, representation_of
from raremix.study.generators.quality import judge as synthetic_quality
from raremix.study.generators.quality import record as quality_record
from raremix.study.generators.quality.copies import Look, copies_by_class
from raremix.study.generators.quality.judge import judge_synthetic
from raremix.study.generators.quality.record import facts_of, record_of
from raremix.study.generators.quality.words import warnings_of
from raremix.train import TrainSpec


@pytest.fixture(autouse=True)
def _plain_features(monkeypatch: pytest.MonkeyPatch) -> None:
    plain_features(monkeypatch)


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 honest images and 15 copies."""
    return synthetic_set(tmp_path_factory.mktemp("quality") / "set", honest=80, copies=15)


def test_copies_are_found_named_and_shown(copied: Path, tmp_path: Path) -> None:
    data = prepared(copied, tmp_path / "cache")
    found = judge_synthetic(data, weights="plain", cache=tmp_path / "cache")
    assert found.audit is not None
    assert found.audit.has_copies
    train = data.manifest.ids[(data.manifest.frame["split"] == "train").to_numpy()]
    flagged = [pair for pair in found.pairs if pair.is_flagged]
    expected = {(int(len(data.manifest) - 15 + k), int(source)) for k, source in enumerate(train[:15])}
    assert expected <= {(pair.made, pair.source) for pair in flagged}
    assert len(flagged) <= 15 + 5
    every = found.classes[0]
    assert every.copies is not None
    assert (every.name, every.synthetic, every.copies.flagged) == ("all classes", 95, len(flagged))
    assert sum(one.synthetic for one in found.classes[1:]) == 95
    assert {one.name for one in found.classes[1:]} == set(data.manifest.card.classes)
    record = record_of(found, data, created="2026-01-01T00:00+00:00")
    for (made, source), pair in zip(record.pairs.sets, found.pairs, strict=False):
        for shown, row in ((made, pair.made), (source, pair.source)):
            drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown.picture))))
            assert np.array_equal(np.atleast_3d(drawn).transpose(2, 0, 1), data.cache.take(np.array([row]))[0])
    page = render_quality(record)
    assert every.figures is not None
    distance, shown_as = every.figures["kernel"], record.rows[0].figures["kernel"]
    assert shown_as == (1000 * distance.value, 1000 * distance.low, 1000 * distance.high)
    assert "Kernel distance × 1000" in page
    assert written(shown_as) in page
    assert "Memorised" in page
    assert "<script" not in page
    assert page.count("data:image/png") > 30
    facts = facts_of(found, data.manifest.card.classes)
    assert facts["memorisation"]["flagged"] == [pair.made for pair in flagged]
    assert set(facts["provenance"]) == {"encoder", "fit rows", "hold-out rows", "size", "seed"}


def test_all_flagged_pairs_are_drawn_up_to_a_limit_that_is_said(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepared(copied, tmp_path / "cache")
    found = judge_synthetic(data, weights="plain", cache=tmp_path / "cache")
    found = replace(found, pairs=tuple(replace(pair, is_flagged=place < 40) for place, pair in enumerate(found.pairs)))
    record = record_of(found, data, created="")
    assert (len(record.pairs.sets), record.not_drawn) == (40, 0)
    assert "not drawn here" not in render_quality(record)
    assert len(facts_of(found, data.manifest.card.classes)["memorisation"]["flagged_pairs"]) == 40
    monkeypatch.setattr(quality_record, "MOST_PAIRS", 30)
    record = record_of(found, data, created="")
    assert (len(record.pairs.sets), record.not_drawn) == (30, 10)
    assert "10 further images are flagged and not drawn here" in render_quality(record)
    few = replace(found, pairs=tuple(replace(pair, is_flagged=False) for pair in found.pairs))
    assert len(record_of(few, data, created="").pairs.sets) == 24


def test_copies_of_a_rare_class_are_said_where_all_images_together_pass(copied: Path, tmp_path: Path) -> None:
    data = prepared(copied, tmp_path / "cache")
    found = judge_synthetic(data, weights="plain", cache=tmp_path / "cache")
    common, rare = (one.name for one in found.classes[1:])
    is_flagged, is_rare = np.zeros(1000, dtype=bool), np.arange(1000) < 36
    is_flagged[[0, 1, 2, 3, 4, 500, 501, 502, 503]] = True
    sight = Sight(thresholds={"a": 0.5}, places=4, is_below=np.arange(500) < 3, found={"exact": 1.0})
    audit = MemorisationAudit(sight=sight, ratios={}, source=np.zeros(1000, dtype=np.int64), is_flagged=is_flagged)
    calibrating, every = np.arange(900) >= 400, np.ones(900, dtype=bool)
    parts = {
        "all classes": {"made": np.ones(1000, dtype=bool), "held": every},
        common: {"made": ~is_rare, "held": np.arange(900) < 880},
        rare: {"made": is_rare, "held": np.arange(900) >= 880},
    }
    told = copies_by_class(Look(audit=audit, calibrating=calibrating), parts)
    assert [told[name].flagged for name in parts] == [9, 4, 5]
    assert [told[name].is_memorised for name in parts] == [False, False, True]
    assert [(told[name].below, told[name].calibration) for name in parts] == [(3, 500), (3, 480), (0, 20)]
    assert told[rare].p_holm == pytest.approx(2 * told[rare].p)
    assert told["all classes"].p_holm == told["all classes"].p
    counts = {"all classes": 1000, common: 964, rare: 36}
    changed = tuple(replace(one, copies=told[one.name], synthetic=counts[one.name]) for one in found.classes)
    found = replace(found, classes=changed, audit=replace(audit, ratios={}))
    (words,) = warnings_of(found)
    assert words.startswith(f"Memorised in {rare}: 5 of 36 images")
    assert "of 20 held-out images of this class, 0 are" in words
    facts = facts_of(found, data.manifest.card.classes)
    assert facts["warnings"] == [words]
    assert facts["classes"][2]["copies"]["p_holm"] == told[rare].p_holm
    assert facts["classes"][2]["copies"]["most"] == told[rare].most
    page = render_quality(record_of(found, data, created=""))
    assert f"Memorised in {rare}" in page
    assert "0 of 20" in page


def test_honest_images_pass_and_are_as_good_as_held_out_ones(tmp_path: Path) -> None:
    data = prepared(synthetic_set(tmp_path / "set", honest=120, copies=0), tmp_path / "cache")
    found = judge_synthetic(data, weights="plain", cache=tmp_path / "cache")
    assert found.audit is not None
    assert not found.audit.has_copies
    every = found.classes[0]
    assert every.figures is not None
    assert every.floor is not None
    assert every.figures["kernel"].low <= every.floor["kernel"].high
    assert every.figures["coverage"].value > 0.5
    assert found.probe is not None
    assert found.probe_real is not None
    assert found.probe.accuracy.value > 0.5
    for probe, other in ((found.probe, "probe"), (found.probe_real, "probe_real")):
        facts = facts_of(found, data.manifest.card.classes)[other]
        assert set(facts["recall"]) == set(data.manifest.card.classes)
        assert "frozen features" in facts["what"]
        assert probe.accuracy.value == pytest.approx(np.mean([one["value"] for one in facts["recall"].values()]))
        assert all(one["low"] <= one["value"] <= one["high"] for one in [facts["accuracy"], *facts["recall"].values()])
    record = record_of(found, data, created="")
    assert [row.name for row in record.probe] == list(data.manifest.card.classes)
    assert sum(row.images for row in record.probe) == len(found.ids["held"])
    page = render_quality(record)
    assert "What they teach" in page
    assert written(record.probe[0].synthetic) in page


def test_an_encoder_of_their_own_sees_real_training_images_alone_and_is_the_same_for_every_generator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = TrainSpec(steps=2, batch_size=16, average=None, validations=0, precision="32", workers=0)
    shown: list[pl.DataFrame] = []

    def brief(weights: str, manifest: Manifest, *, cache: Path, progress: Progress | None) -> Representation:
        shown.append(manifest.frame)
        return representation_of(weights, manifest, cache=cache, training=short, size=16, progress=progress)

    monkeypatch.setattr(synthetic_quality, "representation_of", brief)
    cache = tmp_path / "cache"
    keys = set()
    for honest, copies in ((20, 0), (5, 9)):
        data = prepared(synthetic_set(tmp_path / f"{honest}", honest=honest, copies=copies, images=60), cache)
        found = judge_synthetic(data, weights="self", cache=cache)
        keys.add(found.provenance["encoder"])
        assert set(shown[-1]["id"]) == set(found.ids["real"].tolist())
        assert str(found.provenance["encoder"]) in render_quality(record_of(found, data, created=""))
    for frame in shown:
        assert set(frame["origin"]) == {"real"}
        assert set(frame["split"]) == {"train"}
    assert len(keys) == len(list((cache / "encoders").iterdir())) == 1


def test_a_generator_that_draws_one_image_again_and_again_is_said_in_words(tmp_path: Path) -> None:
    """The same image, slightly moved in brightness, in one class; the other class is honest."""
    path = synthetic_set(tmp_path / "set", honest=80, copies=0, images=220)
    manifest = Manifest.read(path)
    made = manifest.frame.filter(pl.col("origin") == "synthetic")
    target = f"target:{manifest.card.classes[1]}"
    rare = made.filter(pl.col(target) == 1.0)["path"].to_list()
    assert 15 < len(rare) < 60
    first = np.asarray(Image.open(manifest.root / rare[0])).astype(int)
    for number, name in enumerate(rare):
        Image.fromarray((first + number % 3).clip(0, 255).astype(np.uint8)).save(manifest.root / name)
    data = prepared(path, tmp_path / "cache")
    found = judge_synthetic(data, weights="plain", cache=tmp_path / "cache")
    assert [one.name for one in found.classes if one.few_kinds is not None][-1] == manifest.card.classes[1]
    assert found.classes[1].few_kinds is None
    collapsed = found.classes[2]
    assert collapsed.few_kinds is not None
    assert collapsed.figures is not None
    real, count = collapsed.few_kinds
    assert count == min(collapsed.synthetic, collapsed.held_out)
    assert collapsed.figures["coverage"].high < real.low
    words = warnings_of(found)[-1]
    assert words.startswith(f"Few kinds of images in {collapsed.name}: the {len(rare)} generated ones cover 0.")
    assert words in facts_of(found, data.manifest.card.classes)["warnings"]
    assert f"Few kinds of images in {collapsed.name}" in render_quality(record_of(found, data, created=""))
    # Where a class was not to be drawn, that not all real images are covered is no fault.
    others = pl.col(f"target:{manifest.card.classes[0]}") == 1.0
    alone = replace(manifest, frame=manifest.frame.filter(~((pl.col("origin") == "synthetic") & others)))
    alone.write(path)
    every, *rest = judge_synthetic(
        prepared(path, tmp_path / "cache"), weights="plain", cache=tmp_path / "cache"
    ).classes
    assert every.few_kinds is None
    assert [one.few_kinds is not None for one in rest] == [True]


def test_few_images_are_compared_with_as_few_held_out_ones(tmp_path: Path) -> None:
    """Nine honest images cover less than a hundred real ones do; that is no sign of a collapse."""
    data = prepared(synthetic_set(tmp_path / "set", honest=9, copies=0, images=220), tmp_path / "cache")
    found = judge_synthetic(data, weights="plain", cache=tmp_path / "cache").classes[0]
    assert found.figures is not None
    assert found.floor is not None
    assert found.figures["coverage"].high < found.floor["coverage"].low
    assert found.few_kinds is None


def test_without_enough_held_out_patients_it_says_that_it_cannot_tell(tmp_path: Path) -> None:
    data = prepared(synthetic_set(tmp_path / "set", honest=30, copies=0, images=120), tmp_path / "cache")
    found = judge_synthetic(data, weights="plain", cache=tmp_path / "cache")
    assert found.audit is None
    assert "held-out patients" in found.why_not
    assert "the data have 120 patients in all, too few" in found.why_not
    assert found.classes[0].copies is None
    page = render_quality(record_of(found, data, created=""))
    assert "could not be told" in page
    assert "No copies" not in page


def test_with_more_patients_it_says_which_share_would_do(tmp_path: Path) -> None:
    """The share that it advises does hold out enough, in the split that follows it."""
    place = synthetic_set(tmp_path / "set", honest=30, copies=0, images=300, validation=0.2)
    data = prepared(place, tmp_path / "cache")
    told = judge_synthetic(data, weights="plain", cache=tmp_path / "cache").why_not
    assert "the data have 300 patients, so [split] validation = 0.35" in told
    assert "--set split.validation=0.35" in told
    real = data.manifest.frame.filter(pl.col("origin") == "real").with_columns(pl.lit(None, pl.Utf8).alias("split"))
    shares = {"train": 0.45, "validation": 0.35, "test": 0.2}
    for seed in range(3):
        dealt = apply_split(replace(data.manifest, frame=real), fractions=shares, seed=seed)
        assert dealt.frame.filter(pl.col("split") == "validation")["group"].n_unique() >= 100


def test_data_without_synthetic_rows_are_refused(tmp_path: Path) -> None:
    data = prepared(synthetic_set(tmp_path / "set", honest=0, copies=0, images=60), tmp_path / "cache")
    with pytest.raises(ConfigError, match="raremix synthesize"):
        judge_synthetic(data, weights="plain", cache=tmp_path / "cache")


def test_the_verb_writes_page_and_figures(copied: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(copied.parent, folder)
    arguments = ["quality", str(folder), "--set", "data.size=32", "--cache", str(tmp_path / "cache")]
    dry = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert not (folder / "quality.html").exists()
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "Memorised" in done.output
    assert (folder / "quality.html").stat().st_size < 5_000_000
    assert files.read_json(folder / "quality.json")["memorisation"]["p"] < 0.05
