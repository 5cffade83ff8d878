"""The choice: the simplest arm within one standard error of the best; and that test images stay closed until then."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from raremix.core import files
from raremix.core.errors import RunError, StoppedError
from raremix.models import load_classifier
from raremix.study import parse_study, run_study
from raremix.study import run as running
from raremix.study.best.choice import Candidate, choose, ingredients, simplest, standard_error
from raremix.study.best.openings import is_test_closed
from raremix.study.best.readme import chance_note, choice_words
from raremix.study.best.run import run_best
from raremix.study.spec import StudySpec

ARMS = [
    {"name": "rich", "augment": "classical", "mix": "cutmix"},
    {"name": "plain"},
    {"name": "classical", "augment": "classical"},
]


def tiny(**tables: Any) -> StudySpec:
    table = {
        "study": {"name": "s", "seeds": [0, 1], "resamples": 100},
        "data": {"source": "phantom", "images": 120, "classes": 2, "imbalance_ratio": 3, "size": 28},
        "model": {"name": "resnet10t", "stem": "standard"},
        "train": {"steps": 3, "batch_size": 8, "validations": 1, "checkpoints": 0, "workers": 0},
        "arm": ARMS,
    }
    return parse_study({**table, **tables}, base=Path())


def candidate(arm: str, ingredients: int, value: float, error: float = 0.02) -> Candidate:
    return Candidate(arm=arm, ingredients=ingredients, value=value, error=error, seeds=3)


@pytest.mark.parametrize(
    ("table", "count"),
    [
        ({}, 0),
        ({"augment": "classical"}, 1),
        ({"train": {"learning_rate": 0.1}}, 0),
        ({"loss": "cross_entropy"}, 0),
        ({"loss": {"name": "cross_entropy", "class_weights": "sqrt"}}, 1),
        ({"sampler": "balanced", "augment": "classical"}, 1),
        ({"mix": "cutmix"}, 1),
        ({"mix": {"name": "scheduled", "stop": 0.9, "mixer": {"name": "remix"}}}, 1),
        ({"mix": {"name": "saliencymix", "importance": {"name": "fine_grained"}}}, 2),
        ({"model": {"drop_rate": 0.1}}, 1),
    ],
)
def test_an_arm_is_as_simple_as_it_has_few_ingredients(table: dict[str, Any], count: int) -> None:
    arm = tiny(arm=[{"name": "a", **table}]).arm("a")
    assert ingredients(arm) == count


def test_the_simplest_within_one_standard_error_is_chosen() -> None:
    rich, plain, middle = candidate("rich", 3, 0.80), candidate("plain", 0, 0.77), candidate("middle", 1, 0.78)
    assert simplest([rich, plain, middle]) == ("middle", "rich", pytest.approx(0.78))
    assert simplest([rich, plain])[0] == "rich", "0.77 is more than one standard error below"
    assert simplest([rich, candidate("twin", 3, 0.79)])[0] == "rich", "of equally simple ones the better"
    assert simplest([candidate("first", 1, 0.8), candidate("second", 1, 0.8)])[0] == "first"


def test_for_an_error_less_is_better() -> None:
    assert simplest([candidate("rich", 2, 0.30), candidate("plain", 0, 0.31)], sign=-1.0) == (
        "plain",
        "rich",
        pytest.approx(0.32),
    )
    assert simplest([candidate("rich", 2, 0.30), candidate("plain", 0, 0.33)], sign=-1.0)[0] == "rich"


def test_the_standard_error_is_that_of_patients_and_seeds() -> None:
    # Seeds .7 and .9: variance .02, over two seeds .01; patients .6 and 1.0 by turns: variance .04.
    drawn = np.tile([0.6, 1.0], 50)
    assert standard_error(np.array([0.7, 0.9]), np.stack([drawn, drawn])) == pytest.approx(0.05**0.5)
    assert standard_error(np.array([0.8]), drawn[None]) == pytest.approx(0.2)


def noisy(targets: np.ndarray, *, noise: float, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=targets.shape) * noise + targets
    return np.exp(drawn) / np.exp(drawn).sum(axis=1, keepdims=True)


def test_the_patients_decide_what_one_standard_error_is() -> None:
    targets = np.tile(np.eye(2), (150, 1))
    arms = tiny().arms
    good = np.stack([noisy(targets, noise=0.45, seed=s) for s in range(3)])
    near = np.stack([noisy(targets, noise=0.46, seed=10 + s) for s in range(3)])
    poor = np.stack([noisy(targets, noise=3.0, seed=20 + s) for s in range(3)])
    half = np.full_like(good, 0.5)
    options: dict[str, Any] = {"groups": np.arange(300), "task": "binary", "metric": "balanced_accuracy"}
    thresholds = dict.fromkeys(("rich", "plain", "classical"), half)
    close = choose(arms, {"rich": good, "plain": near, "classical": poor}, thresholds, targets, **options)
    assert (close.arm, close.corrected) == ("plain", None)
    far = choose(arms, {"rich": good, "plain": poor, "classical": poor}, thresholds, targets, **options)
    assert (far.arm, far.best) == ("rich", "rich")
    assert "nothing simpler" in choice_words(far)
    one = choose(arms, {"classical": poor}, {"classical": half}, targets, **options)
    assert one.arm == "classical"
    assert "no other arm" in choice_words(one)
    guess = np.stack([noisy(np.zeros_like(targets), noise=1.0, seed=30 + s) for s in range(3)])
    unlearnt = choose(arms, {"classical": guess}, {"classical": half}, targets, **options)
    assert "cannot be told from guessing" in chance_note(unlearnt, classes=2)[0]
    assert chance_note(far, classes=2) == []
    assert chance_note(replace(unlearnt, metric="brier"), classes=2) == []


def test_choosing_among_equals_gains_nothing_and_the_correction_takes_it_back() -> None:
    # Twelve arms of pure noise: the best of them looks better than chance, and is not.
    targets = np.tile(np.eye(2), (60, 1))
    spec = tiny(arm=[{"name": f"a{k}", "augment": "classical"} for k in range(12)])
    scores = {arm.name: noisy(np.zeros_like(targets), noise=1.0, seed=k)[None] for k, arm in enumerate(spec.arms)}
    limits = {name: np.full_like(values, 0.5) for name, values in scores.items()}
    found = choose(
        spec.arms, scores, limits, targets, groups=np.arange(120), task="binary", metric="auroc", rows="out-of-fold"
    )
    assert found.chosen.value > 0.55
    assert found.corrected is not None
    assert abs(found.corrected - 0.5) < 0.04


def test_no_value_no_choice() -> None:
    targets = np.tile([[0.0, 1.0]], (20, 1))
    scores = np.full((1, 20, 2), 0.5)
    with pytest.raises(RunError, match="none can be chosen"):
        choose(
            tiny().arms,
            {"plain": scores},
            {"plain": scores},
            targets,
            groups=np.arange(20),
            task="binary",
            metric="auroc",
        )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a tiny study chose, first with the test images closed, then open."""
    place = tmp_path_factory.mktemp("best")
    closed = run_best(tiny(), runs=place / "runs", cache=place / "cache", keep_test_closed=True)
    assert closed.classifier is None
    assert not (closed.folder / "best").exists()
    assert not (closed.folder / "test_openings.jsonl").exists()
    assert files.read_json(closed.folder / "choice.json")["arm"] == closed.choice.arm
    for job in (closed.folder / "jobs").iterdir():
        assert is_test_closed(job)
        assert set(pl.read_parquet(job / "result" / "predictions.parquet")["split"]) == {"validation"}
    opened = run_best(tiny(), runs=place / "runs", cache=place / "cache")
    assert opened.choice == closed.choice
    return place


def test_only_the_chosen_arm_sees_the_test_images_once(run: Path) -> None:
    folder = run / "runs" / "s"
    chosen = files.read_json(folder / "best" / "choice.json")["arm"]
    for job in (folder / "jobs").iterdir():
        assert is_test_closed(job) is not job.name.startswith(f"{chosen}-"), job.name
    assert len(files.read_records(folder / "test_openings.jsonl")) == 1
    record = files.read_json(folder / "best" / "record.json")
    assert [arm["name"] for arm in record["arms"]] == [chosen]
    assert {row["arm"] for row in record["metrics"]} == {chosen}
    assert record["study"]["test_openings"] == 1
    again = run_best(tiny(), runs=run / "runs", cache=run / "cache")
    assert again.choice.arm == chosen
    assert len(files.read_records(folder / "test_openings.jsonl")) == 1, "the same classifiers are no new look"


def test_what_is_left_can_be_used(run: Path) -> None:
    best = run / "runs" / "s" / "best"
    model, card = load_classifier(best / "classifier")
    assert not model.training
    text = (best / "README.md").read_text()
    assert f"raremix predict {best / 'classifier'}" in text
    words = " ".join(text.split())
    assert all(name in words for name in (*card.classes, "standard error", "opened 1 time.", "no medical device"))
    assert "with it | sensitivity |" in words
    assert ", which decided | " in words
    assert (best / "report.html").stat().st_size > 1000
    said = {arm["name"] for arm in ARMS} - {files.read_json(best / "choice.json")["arm"]}
    shown = pl.read_parquet(best / "predictions.parquet")["arm"].unique().to_list()
    assert not said & set(shown)


def test_a_whole_study_afterwards_is_the_same_as_one_from_the_start(run: Path, tmp_path: Path) -> None:
    later = run_study(tiny(), runs=run / "runs", cache=run / "cache")
    whole = run_study(tiny(), runs=tmp_path / "runs", cache=run / "cache")
    first, second = (
        pl.read_parquet(one.folder / "predictions.parquet").sort("arm", "seed", "split", "id") for one in (later, whole)
    )
    assert first.equals(second)
    assert files.read_json(later.folder / "record.json")["study"]["test_openings"] == 2


def test_with_folds_the_choice_is_out_of_fold_and_says_that_no_image_is_left(tmp_path: Path) -> None:
    spec = tiny(study={"name": "s", "seeds": [0], "folds": 2, "resamples": 100}, arm=ARMS[1:])
    found = run_best(spec, runs=tmp_path / "runs", cache=tmp_path / "cache")
    assert found.choice.rows == "out-of-fold"
    assert found.choice.corrected is not None
    assert any("no image is left" in note for note in found.notes)
    text = (found.folder / "best" / "README.md").read_text()
    assert "out-of-fold" in text
    assert f"{found.choice.corrected:.3f}" in text
    assert "opened" not in text


def test_an_arm_with_a_missing_run_is_no_candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = running.run_job

    def poisoned(spec: Any, prepared: Any, job: Any, **options: Any) -> Path:
        if job.arm == "plain" and job.seed == 1:
            raise RunError("loss is nan at step 1")
        return real(spec, prepared, job, **options)

    monkeypatch.setattr(running, "run_job", poisoned)
    found = run_best(tiny(arm=ARMS[1:]), runs=tmp_path / "runs", cache=tmp_path / "cache", keep_test_closed=True)
    assert [one.arm for one in found.choice.candidates] == ["classical"]
    assert "plain" in found.notes[0]
    assert list(found.failed.values()) == ["loss is nan at step 1"]


def test_a_stopped_choice_goes_on(tmp_path: Path) -> None:
    asked = iter([False, True])
    with pytest.raises(StoppedError):
        run_best(tiny(), runs=tmp_path / "runs", cache=tmp_path / "cache", should_stop=lambda: next(asked))
    assert not (tmp_path / "runs" / "s" / "best").exists()
    found = run_best(tiny(arm=ARMS[1:2]), runs=tmp_path / "runs", cache=tmp_path / "cache", keep_test_closed=True)
    assert found.choice.arm == "plain"


def test_figures_seen_before_the_choice_are_told(tmp_path: Path) -> None:
    spec = tiny(study={"name": "s", "seeds": [0], "resamples": 100}, arm=ARMS[1:2])
    run_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache")
    found = run_best(spec, runs=tmp_path / "runs", cache=tmp_path / "cache")
    assert any("had been opened 1 times" in note for note in found.notes)
