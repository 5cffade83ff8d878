"""Whole studies, tiny: folds with several labels, a run that is stopped and resumed, a job that fails, two at once."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from raremix.core import files
from raremix.core.errors import BusyError, ConfigError, RunError, StoppedError, UnknownNameError
from raremix.study import parse_study, run_study
from raremix.study import run as running
from raremix.study.run import plan_study
from raremix.study.spec import StudySpec

MODEL = {"name": "resnet10t", "stem": "standard"}
TRAIN = {"steps": 4, "batch_size": 8, "validations": 2, "checkpoints": 2, "workers": 0}


def tiny(**tables: Any) -> StudySpec:
    table = {
        "study": {"name": "s", "seeds": [0], "resamples": 100},
        "data": {"source": "phantom", "images": 120, "classes": 2, "imbalance_ratio": 3, "size": 28},
        "model": MODEL,
        "train": TRAIN,
        "arm": [{"name": "plain"}],
    }
    return parse_study({**table, **tables}, base=Path())


def test_several_labels_and_folds(tmp_path: Path) -> None:
    data = {"source": "phantom", "modality": "chest_xray", "multilabel": True, "images": 120, "classes": 3, "size": 28}
    study = {"name": "s", "seeds": [0], "folds": 2, "resamples": 100}
    arms = [{"name": "plain"}, {"name": "cutmix", "mix": "cutmix", "augment": "classical"}]
    spec = tiny(study=study, data={**data, "imbalance_ratio": 3}, arm=arms)
    result = run_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache")
    said = pl.read_parquet(result.folder / "predictions.parquet").filter(pl.col("split") == "test")
    for _, rows in said.group_by("arm"):
        assert sorted(rows["id"]) == list(range(120)), "every image is tested once, by the fold that did not see it"
    record = files.read_json(result.folder / "record.json")
    assert record["study"]["status"] == "complete"
    assert record["confusion"] == []
    images = files.read_json(result.folder / "images.json")
    assert len(images["errors"]) > 0
    assert result.report.stat().st_size < 5e6


def test_a_stopped_study_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    whole = run_study(tiny(), runs=tmp_path / "a", cache=tmp_path / "cache")
    asked = iter([False, False, True])
    with pytest.raises(StoppedError, match="after step 3 of 4"):
        run_study(tiny(), runs=tmp_path / "b", cache=tmp_path / "cache", should_stop=lambda: next(asked))
    again = run_study(tiny(), runs=tmp_path / "b", cache=tmp_path / "cache")
    for name in ("metrics.csv", "predictions.parquet"):
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    job = next((again.folder / "jobs").iterdir())
    twin = next((whole.folder / "jobs").iterdir())
    assert files.read_records(job / "log.jsonl") == files.read_records(twin / "log.jsonl")
    assert not (job / "checkpoints").exists()


def test_a_failed_job_leaves_the_others_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = running.run_job

    def poisoned(spec: Any, prepared: Any, job: Any, **options: Any) -> Path:
        if job.arm == "bad":
            raise RunError("loss is nan at step 1")
        return real(spec, prepared, job, **options)

    monkeypatch.setattr(running, "run_job", poisoned)
    said: list[str] = []
    spec = tiny(arm=[{"name": "plain"}, {"name": "bad", "mix": "mixup"}, {"name": "good", "mix": "cutmix"}])
    result = run_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache", say=said.append)
    assert list(result.failed.values()) == ["loss is nan at step 1"]
    study = files.read_json(result.folder / "record.json")["study"]
    assert study["status"] == "incomplete"
    assert "loss is nan" in study["missing"][0]
    assert "incomplete" in result.report.read_text().lower()
    assert any("bad" in line for line in said)
    monkeypatch.setattr(running, "run_job", real)
    assert run_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache").failed == {}


def test_a_network_that_does_not_take_the_images_is_refused_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="inception_v3 does not take images of 28 px"):
        plan_study(tiny(model={"name": "inception_v3"}), runs=tmp_path / "runs", cache=tmp_path / "cache")
    with pytest.raises(ConfigError, match="inception_v3"):
        run_study(tiny(model={"name": "inception_v3"}), runs=tmp_path / "runs", cache=tmp_path / "cache")
    assert not list((tmp_path / "runs").rglob("log.jsonl")), "nothing was trained or fitted"


def test_two_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "s"
    with files.claim(folder / ".claim", what="study s"), pytest.raises(BusyError, match="study s"):
        run_study(tiny(), runs=tmp_path / "runs", cache=tmp_path / "cache")
    assert not (folder / "record.json").exists()


def test_a_mixer_that_learns_is_trained_beside_its_classifier(tmp_path: Path) -> None:
    mix = {"name": "automix", "at": "stage2", "clean": 0.0, "alpha": 1.0}
    spec = tiny(arm=[{"name": "automix", "mix": mix}])
    asked = iter([False, True])
    with pytest.raises(StoppedError, match="after step 2 of 4"):
        run_study(spec, runs=tmp_path / "cut", cache=tmp_path / "cache", should_stop=lambda: next(asked))
    again = run_study(spec, runs=tmp_path / "cut", cache=tmp_path / "cache")
    whole = run_study(spec, runs=tmp_path / "whole", cache=tmp_path / "cache")
    assert (again.folder / "predictions.parquet").read_bytes() == (whole.folder / "predictions.parquet").read_bytes()
    log = files.read_records(next((whole.folder / "jobs").iterdir()) / "log.jsonl")
    assert {"classifier/loss", "mask/loss", "mask/gap"} <= set(log[0])
    with pytest.raises(UnknownNameError, match="did you mean 'margin'"):
        tiny(arm=[{"name": "automix", "mix": {"name": "automix", "margn": 0.1}}])
