"""Probabilities of a study: which arms are shifted, that nothing else moves by it, what a stated prevalence does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import logit

from raremix.core import files
from raremix.core.errors import ConfigError
from raremix.data.manifest import Manifest
from raremix.models import load_classifier
from raremix.study import parse_study
from raremix.study.apply import predict_images, probabilities_of
from raremix.study.data_tables import EvaluateSpec
from raremix.study.probabilities import needs_shifts
from raremix.study.run import finish_study, plan_study, run_study
from raremix.study.spec import StudySpec

DATA = {"source": "phantom", "images": 160, "classes": 2, "imbalance_ratio": 3, "size": 28}


def tiny(*arms: dict[str, Any], **tables: Any) -> StudySpec:
    table: dict[str, Any] = {
        "study": {"name": "s", "seeds": [0], "resamples": 100},
        "data": DATA,
        "model": {"name": "resnet10t", "stem": "standard"},
        "train": {"steps": 6, "batch_size": 8, "validations": 1, "checkpoints": 0, "workers": 0},
        "arm": list(arms),
    }
    return parse_study({**table, **tables}, base=Path())


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return tiny({"name": "a"}).source.load(cache=tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        ({}, False),
        ({"augment": "classical"}, False),
        ({"loss": "cross_entropy"}, False),
        ({"loss": {"name": "cross_entropy", "class_weights": "sqrt"}}, True),
        ({"loss": "focal"}, True),
        ({"mix": "mixup"}, True),
        ({"sampler": "balanced"}, True),
        ({"recipe": "crt"}, True),
        ({"recipe": "deferred_reweighting"}, True),
        ({"imbalance": {"ratio": 9}}, True),
    ],
)
def test_who_needs_shifts(arm: dict[str, Any], expected: bool, manifest: Manifest) -> None:
    spec = tiny({"name": "a", **arm})
    assert needs_shifts(spec, spec.arms[0], manifest) == expected
    for told, forced in (("always", True), ("never", False)):
        other = replace(spec, evaluate=EvaluateSpec(shifts=told))  # type: ignore[arg-type]
        assert needs_shifts(other, other.arms[0], manifest) == forced


def test_ranking_and_decisions_stay_and_nothing_is_trained_again(tmp_path: Path) -> None:
    arms = ({"name": "plain"}, {"name": "balanced", "sampler": "balanced"})
    spec = tiny(*arms, evaluate={"shifts": "never"})
    result = run_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache")
    before = files.read_json(result.folder / "record.json")
    told = tiny(*arms, evaluate={"shifts": "always"})
    plan = plan_study(told, runs=tmp_path / "runs", cache=tmp_path / "cache")
    assert len(plan.done) == len(plan.jobs) == 2, "keys do not depend on [evaluate]"
    finish_study(told, plan)
    after = files.read_json(result.folder / "record.json")
    for old, new in zip(before["metrics"], after["metrics"], strict=True):
        is_of_probabilities = old["metric"] in {"brier", "log_loss", "ece"} or old["metric"].startswith("calibration")
        assert is_of_probabilities or old == new
    moved = [o["metric"] for o, n in zip(before["metrics"], after["metrics"], strict=True) if o["value"] != n["value"]]
    assert {"brier", "calibration_intercept"} <= set(moved)
    assert [entry["offsets"] for entry in before["reliability"]] == [{}, {}]
    assert all(entry["offsets"] for entry in after["reliability"])

    classifier = next(result.folder.glob("jobs/balanced-*")) / "result/classifier"
    card = load_classifier(classifier)[1]
    rare = card.classes[-1]
    paths = plan.prepared[None].manifest.paths(plan.prepared[None].manifest.rows("test"))[:5]
    natural = predict_images(classifier, paths)
    scarce = predict_images(classifier, paths, prevalence={rare: 0.001})
    assert natural["decision"].to_list() == scarce["decision"].to_list()
    steps = logit(scarce[rare].to_numpy()) - logit(natural[rare].to_numpy())
    expected = logit(0.001) - logit(card.probabilities["prevalence"][-1])
    assert steps == pytest.approx(np.full(5, expected))
    with pytest.raises(ConfigError, match="prevalence of nothing"):
        predict_images(classifier, paths, prevalence={"nothing": 0.5})
    old = replace(card, probabilities={})
    with pytest.raises(ConfigError, match="older version"):
        probabilities_of(old, np.zeros((1, 2)), prevalence={rare: 0.5})
    assert probabilities_of(old, np.zeros((1, 2)), prevalence={}).tolist() == [[0.5, 0.5]]


def test_a_stated_prevalence_goes_into_the_classifier_and_a_wrong_one_is_found_first(tmp_path: Path) -> None:
    classes = tiny({"name": "a"}).source.load(cache=tmp_path / "cache").card.classes
    spec = tiny({"name": "a"}, evaluate={"prevalence": {classes[1]: 0.01}})
    result = run_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache")
    classifier = next(result.folder.glob("jobs/*")) / "result/classifier"
    assert load_classifier(classifier)[1].probabilities["deployed"] == pytest.approx([0.99, 0.01])
    assert f"{classes[1]} 0.01" in (classifier / "README.md").read_text()
    for stated, words in (({"unheard": 0.1}, "prevalence of unheard"), ({classes[0]: 1.5}, "above 0 and below 1")):
        wrong = tiny({"name": "a"}, evaluate={"prevalence": stated})
        with pytest.raises(ConfigError, match=words):
            plan_study(wrong, runs=tmp_path / "runs", cache=tmp_path / "cache")


def test_what_is_best_in_the_middle_chooses_nothing() -> None:
    for table in ({"study": {"name": "s", "metric": "calibration_slope"}}, {"train": {"metric": "calibration_slope"}}):
        with pytest.raises(ConfigError, match="cannot rank or choose"):
            tiny({"name": "a"}, **table)
