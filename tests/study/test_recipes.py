"""Recipes: what each stands for, what it trains and chooses, that it resumes exactly, and what it is refused with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from raremix.core import files
from raremix.core.errors import ConfigError, StoppedError, TargetError, UnknownNameError
from raremix.core.features import head_of
from raremix.evaluate import ValidationRows, score, scores_from_logits
from raremix.losses import LDAM
from raremix.study import job as naming
from raremix.study import parse_study, run_study, stages, training
from raremix.study.jobs import run_job
from raremix.study.recipes import (
    CRT,
    RECIPES,
    ClassThresholds,
    LogitAdjustment,
    PostHoc,
    Rewriting,
    TauNormalise,
    Trained,
    TwoStage,
)
from raremix.study.run import plan_study
from raremix.study.spec import StudySpec, loss_of, read_study
from raremix.study.stages import FIRST
from raremix.study.tasks import check_labels, label_counts

TRAIN = {"steps": 6, "batch_size": 8, "validations": 2, "checkpoints": 3, "workers": 0}
DATA = {"source": "phantom", "images": 120, "classes": 3, "imbalance_ratio": 4, "size": 28}
SEVERAL = {**DATA, "modality": "chest_xray", "multilabel": True}


def tiny(*arms: dict[str, Any], **tables: Any) -> StudySpec:
    table: dict[str, Any] = {
        "study": {"name": "s", "seeds": [0], "resamples": 100},
        "data": DATA,
        "model": {"name": "resnet10t", "stem": "standard"},
        "train": TRAIN,
        "arm": list(arms),
    }
    return parse_study({**table, **tables}, base=Path())


def test_every_recipe_is_of_one_kind() -> None:
    for name, kind in RECIPES.items():
        assert sum(isinstance(kind(), one) for one in (Rewriting, TwoStage, PostHoc)) == 1, name


def test_what_stands_for_other_tables_is_replaced_by_them(tmp_path: Path) -> None:
    spec = tiny(
        {"name": "a", "recipe": "deferred_reweighting"},
        {"name": "b", "recipe": {"name": "deferred_reweighting", "start": 0.5}, "loss": "focal"},
        {"name": "c", "recipe": {"name": "deferred_mixing", "stop": 0.7}, "mix": {"name": "mixup", "alpha": 0.2}},
        {"name": "d", "recipe": "crt", "mix": "cutmix"},
        recipe="deferred_reweighting",
    )
    weighted = {"name": "auto", "class_weights": "effective"}
    assert spec.arm("a").loss == {"name": "deferred", "first": {"name": "auto"}, "then": weighted, "start": 0.5}
    assert spec.arm("b").loss == {"name": "deferred", "first": {"name": "focal"}, "then": weighted, "start": 0.5}
    mixer = {"name": "mixup", "alpha": 0.2}
    assert spec.arm("c").mix == {"name": "scheduled", "mixer": mixer, "stop": 0.7}
    assert [arm.recipe for arm in spec.arms] == [{}, {}, {}, {"name": "crt"}]
    for task, expected in (("multilabel", "BinaryCrossEntropy"), ("multiclass", "CrossEntropy")):
        loss: Any = loss_of(spec.arm("a"), task=task, class_counts=(5.0, 2.0))  # type: ignore[arg-type]
        assert [type(part).__name__ for part in (loss.first, loss.then)] == [expected] * 2
        assert loss.then.class_weights == "effective"
    (tmp_path / "study.toml").write_text(spec.to_toml())
    assert read_study(tmp_path / "study.toml") == spec
    assert tiny({"name": "a", "recipe": "none"}, recipe="crt").arms[0].recipe == {}


@pytest.mark.parametrize(
    ("arm", "error", "words"),
    [
        ({"recipe": "crtt"}, UnknownNameError, "did you mean 'crt'"),
        ({"recipe": {"name": "crt", "share": 1.0}}, ConfigError, "above 0 and below 1"),
        ({"recipe": {"name": "crt", "shares": 0.2}}, UnknownNameError, "share"),
        ({"recipe": {"name": "tau_normalise", "tau": 2.0}}, ConfigError, r"lie in \[0, 1\]"),
        ({"recipe": {"name": "logit_adjustment", "tau": 0.0}}, ConfigError, "more than 0"),
        ({"recipe": {"name": "class_thresholds", "rounds": -1}}, ConfigError, "at least 0"),
        ({"recipe": "deferred_mixing"}, ConfigError, "mixes nothing"),
        ({"recipe": {"name": "deferred_mixing", "stop": 0.0}, "mix": "mixup"}, ConfigError, "above 0"),
        ({"recipe": {"name": "deferred_reweighting", "start": 1.1}}, ConfigError, "0 to 1"),
        (
            {"recipe": "deferred_reweighting", "loss": {"name": "deferred", "first": "focal", "then": "focal"}},
            ConfigError,
            "deferred already",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_named(arm: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        tiny({"name": "a", **arm})


@pytest.mark.parametrize(
    ("arm", "data", "words"),
    [
        ({"recipe": "crt", "model": {"head": {"name": "learnable"}}, "loss": "dual_weighted_metric"}, DATA, "has none"),
        ({"recipe": {"name": "crt", "sampler": "balancd"}}, DATA, "did you mean 'balanced'"),
        ({"recipe": "tau_normalise", "model": {"head": {"name": "cosine"}}}, DATA, "changes a linear last layer"),
        ({"recipe": "class_thresholds"}, SEVERAL, "chosen on validation images already, by .study. threshold"),
        ({"loss": "cross_entropy"}, SEVERAL, "CrossEntropy shares one probability out.* take binary_cross_entropy"),
        ({"loss": {"name": "gpaco", "queue": 8}}, SEVERAL, "take distribution_balanced"),
        ({"loss": {"name": "supervised_contrastive"}}, SEVERAL, "take binary_cross_entropy"),
        (
            {"loss": {"name": "deferred", "first": "auto", "then": "balanced_softmax"}},
            SEVERAL,
            "BalancedSoftmax .* take distribution_balanced",
        ),
        (
            {"loss": {"name": "distribution_balanced", "labelled_counts": [999.0] * 3}},
            SEVERAL,
            r"labelled_counts is \[999.0, 999.0, 999.0\], and of the training images it is",
        ),
        (
            {"model": {"head": {"name": "text", "encoder": "/nowhere"}}, "loss": "dual_weighted_metric"},
            SEVERAL,
            "the text encoder '/nowhere' cannot be had",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    arm: dict[str, Any], data: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=words):
        plan_study(tiny({"name": "a", **arm}, data=data), runs=tmp_path / "runs", cache=tmp_path / "cache")


def test_label_vectors_without_direction_are_named_before_anything_is_trained(tmp_path: Path) -> None:
    np.save(tmp_path / "same.npy", np.ones((3, 4), dtype=np.float32))
    names = tiny({"name": "a"}, data=SEVERAL).source.load(cache=tmp_path / "cache").card.classes
    head = {"name": "text", "vectors": str(tmp_path / "same.npy"), "names": list(names)}
    spec = tiny({"name": "a", "model": {"head": head}, "loss": "dual_weighted_metric"}, data=SEVERAL)
    with pytest.raises(ConfigError, match=f"label vectors of class {', '.join(names)} are the mean of all"):
        plan_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache")


def test_counts_that_are_right_may_stand_in_a_study(tmp_path: Path) -> None:
    plain = tiny({"name": "a", "loss": "distribution_balanced"}, data=SEVERAL)
    plan = plan_study(plain, runs=tmp_path / "runs", cache=tmp_path / "cache")
    (prepared,) = plan.prepared.values()
    counts, known = label_counts(prepared.manifest)
    loss = {"name": "distribution_balanced", "class_counts": list(counts), "labelled_counts": list(known)}
    plan_study(tiny({"name": "a", "loss": loss}, data=SEVERAL), runs=tmp_path / "runs", cache=tmp_path / "cache")


@pytest.mark.parametrize("task", ["multiclass", pytest.param("multilabel", marks=pytest.mark.slow)])
def test_any_recipe_goes_with_any_mixer_and_loss(task: str, tmp_path: Path) -> None:
    multi = task == "multilabel"
    arms = [
        {"name": name, "recipe": name, "mix": mix, "loss": loss}
        for name, mix, loss in [
            ("crt", "cutmix", "asymmetric" if multi else "balanced_softmax"),
            ("tau_normalise", "mixup", "auto"),
            ("logit_adjustment", "none", "distribution_balanced" if multi else "focal"),
            *([] if multi else [("class_thresholds", "remix", "auto")]),
            ("deferred_reweighting", "mixup", "binary_focal" if multi else "focal"),
            ("deferred_mixing", {"name": "spmix", "importance": {"name": "fine_grained", "grid": 7}}, "auto"),
        ]
    ]
    spec = tiny(*arms, data=SEVERAL if multi else DATA, train={**TRAIN, "steps": 3, "checkpoints": 0})
    result = run_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache")
    assert result.failed == {}
    facts = {o["arm"]: o for o in (files.read_json(p) for p in result.folder.glob("jobs/*/result/result.json"))}
    assert set(facts) == {arm["name"] for arm in arms}
    assert facts["crt"]["recipe"] == {"stages": [1, 2]}
    assert 0 <= facts["tau_normalise"]["recipe"]["tau"] <= 1
    assert len(facts["logit_adjustment"]["recipe"]["offsets"]) == 3
    assert facts["tau_normalise"]["fitted_on"]["recipe"]["split"] == "validation"
    record = files.read_json(result.folder / "record.json")
    measured = {(m["arm"], m["metric"]) for m in record["metrics"] if m["scope"] == "overall"}
    assert {(name, "calibration_slope") for name in facts} <= measured
    assert {entry["arm"] for entry in record["reliability"] if entry["offsets"]} == set(facts), "none of them is plain"
    page = result.report.read_text()
    assert "What the probabilities are worth" in page
    assert "Shifts of the classes" in page


def test_the_second_stage_trains_the_last_layer_alone(tmp_path: Path) -> None:
    recipe = {"name": "crt", "share": 0.3}
    spec = tiny({"name": "a", "recipe": recipe, "sampler": "sqrt", "mix": "mixup"}, {"name": "plain", "mix": "mixup"})
    assert CRT(share=0.3).stages(TRAIN["steps"]) == (4, 2)
    stopped = iter([False] * 4 + [True])
    with pytest.raises(StoppedError, match="step 1 of 2"):
        run_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache", should_stop=lambda: next(stopped))
    job = next((tmp_path / "runs").glob("s/jobs/a-*"))
    kept = safetensors.torch.load_file(next((job / FIRST / "kept").glob("step-*")) / "kept.classifier.safetensors")
    result = run_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache")
    last = safetensors.torch.load_file(next(result.folder.glob("jobs/a-*")) / "result/classifier/model.safetensors")
    moved = {name for name, value in last.items() if not torch.equal(value, kept[f"net.{name}"])}
    assert moved == {"fc.weight", "fc.bias"}
    record = files.read_json(result.folder / "record.json")
    steps = {arm["name"]: arm["steps"] for arm in record["arms"]}
    assert steps == {"a": 6, "plain": 6}, "both arms have one budget"
    history = next(entry for entry in record["history"] if entry["arm"] == "a")
    assert history["steps"] == [1, 2, 3, 4, 5, 6], "one log, of both stages"
    assert {entry["arm"]: entry["sampler"] for entry in record["coverage"]} == {"a": "sqrt"}
    assert "What an epoch shows" in result.report.read_text()
    assert not (job / FIRST / "kept").exists()
    assert not (job / FIRST / "checkpoints").exists()


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_the_second_stage_begins_anew(head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, bool]] = []
    real = stages.train_stage

    def watched(run: Any, arm: Any, model: Any, train: Any, **options: Any) -> Any:
        seen.append((train.learning_rate, any(bool(part.any()) for part in head_of(model).parameters())))
        return real(run, arm, model, train, **options)

    monkeypatch.setattr(stages, "train_stage", watched)
    recipe = {"name": "crt", "rate": 2.0}
    spec = tiny(
        {"name": "a", "recipe": recipe, "model": {"head": {"name": head}}}, train={**TRAIN, "learning_rate": 1e-3}
    )
    assert run_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache").failed == {}
    rates, is_drawn = zip(*seen, strict=True)
    assert rates == (1e-3, pytest.approx(2e-3))
    assert is_drawn == (True, head == "cosine"), "a linear layer from zeros, another one as it is first drawn"


def test_margins_follow_the_last_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a study, `loss = "ldam"` alone is sound with either head."""
    seen: dict[str, Any] = {}
    real = training.make_task

    def watched(arm: Any, *arguments: Any, **options: Any) -> Any:
        seen[arm.name] = options["criterion"]
        return real(arm, *arguments, **options)

    monkeypatch.setattr(training, "make_task", watched)
    arms = [{"name": head, "loss": "ldam", "model": {"head": {"name": head}}} for head in ("linear", "cosine")]
    assert run_study(tiny(*arms), runs=tmp_path / "runs", cache=tmp_path / "cache").failed == {}
    assert {name: loss.scale for name, loss in seen.items() if isinstance(loss, LDAM)} == {"linear": 4, "cosine": 30}


def test_other_weights_under_the_same_name_are_other_jobs(tmp_path: Path) -> None:
    path, keys = tmp_path / "w.safetensors", []
    for seed in (0, 1):
        torch.manual_seed(seed)
        files.write_tensors(path, timm.create_model("resnet10t", num_classes=3).state_dict())
        spec = tiny({"name": "a"}, model={"name": "resnet10t", "stem": "standard", "weights": str(path)})
        keys += [job.key for job in plan_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache").jobs]
    assert len(keys) == len(set(keys)) == 2


def test_results_of_a_method_that_changed_are_redone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nested = {"name": "deferred", "first": "ldam", "then": {"name": "cross_entropy"}}
    spec = tiny({"name": "plain"}, {"name": "ldam", "loss": nested}, {"name": "mixed", "mix": "mixup", "recipe": "crt"})

    def keys() -> dict[str, str]:
        return {job.arm: job.key for job in plan_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache").jobs}

    before = keys()
    for name, changed in (("ldam", {"ldam"}), ("crt", {"mixed"}), ("mixup", {"mixed"}), ("remix", set())):
        monkeypatch.setattr(naming, "METHOD_VERSIONS", {**naming.METHOD_VERSIONS, name: 99})
        assert {arm for arm, key in keys().items() if key != before[arm]} == changed, name
        monkeypatch.undo()


def stopping_at(step: int) -> Callable[[], bool]:
    asked = iter([False] * (step - 1) + [True] + [False] * 100)
    return lambda: next(asked)


def test_a_stopped_run_of_two_stages_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    spec = tiny({"name": "a", "recipe": "crt", "mix": "cutmix", "augment": "classical"})
    plan = plan_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache")
    given = (spec, plan.prepared[None], plan.jobs[0])
    whole = run_job(*given, folder=tmp_path / "whole", cache=tmp_path / "cache")
    for step in (2, 4, 5):  # in the first stage, at its end, in the second
        folder = tmp_path / f"cut{step}"
        with pytest.raises(StoppedError):
            run_job(*given, folder=folder, cache=tmp_path / "cache", should_stop=stopping_at(step))
        cut = run_job(*given, folder=folder, cache=tmp_path / "cache")
        for name in ("predictions.parquet", "result.json", "classifier/model.safetensors"):
            assert (cut / name).read_bytes() == (whole / name).read_bytes(), (step, name)
        for log in ("log.jsonl", f"{FIRST}/log.jsonl"):
            assert files.read_records(folder / log) == files.read_records(tmp_path / "whole" / log), (step, log)


def trained(weight: list[list[float]], features: np.ndarray, truth: np.ndarray, **settings: Any) -> Trained:
    layer = nn.Linear(len(weight[0]), len(weight))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.zero_()
    inputs = torch.tensor(features, dtype=torch.float32)
    model = nn.Sequential(nn.Flatten(), layer)
    targets = np.eye(len(weight))[truth]
    with torch.no_grad():
        logits = model(inputs).double().numpy()
    counts = tuple(float(n) for n in settings.pop("counts"))
    table: dict[str, Any] = {"task": "multiclass", "metric": "balanced_accuracy"} | settings
    return Trained(
        model=model,
        features=inputs,
        rows=ValidationRows(targets=targets, outputs=logits, split="validation"),
        class_counts=counts,
        labelled_counts=(sum(counts),) * len(counts),
        **table,
    )


def test_tau_is_the_smallest_of_the_best() -> None:
    """Weights of length 4 and 1 in orthogonal directions: the second class wins (1.5 > 1) once 4^(1 - tau) < 1.5."""
    seen = trained([[4.0, 0.0], [0.0, 1.0]], np.array([[1.0, 1.5], [3.0, 0.0]]), np.array([1, 0]), counts=(90, 10))
    model, chosen = TauNormalise().finish(seen)
    expected = next(t for t in np.linspace(0, 1, 21).round(2) if 4 ** (1 - t) < 1.5)
    assert chosen == {"tau": expected}
    assert model[1].weight[0, 0].item() == pytest.approx(4 ** (1 - expected), rel=1e-5)  # type: ignore[index]
    assert TauNormalise(tau=0.5).finish(seen)[1] == {"tau": 0.5}


def test_adjustment_by_hand() -> None:
    seen = trained([[1.0, 0.0], [0.0, 1.0]], np.ones((2, 2)), np.array([0, 1]), counts=(89, 9))
    model, chosen = LogitAdjustment().finish(seen)
    assert chosen["offsets"] == pytest.approx([-np.log(0.9), -np.log(0.1)], abs=1e-6), "with an image more of each"
    assert model[1].bias.tolist() == pytest.approx(chosen["offsets"], abs=1e-5)  # type: ignore[index]
    half = LogitAdjustment(tau=0.5).finish(seen)[1]["offsets"]
    assert half == pytest.approx([0.5 * value for value in chosen["offsets"]], abs=1e-6)
    several = trained([[1.0, 0.0], [0.0, 1.0]], np.ones((2, 2)), np.array([0, 1]), counts=(49, 9), task="multilabel")
    found = LogitAdjustment().finish(several)[1]["offsets"]
    assert found == pytest.approx([-np.log(50 / 10), -np.log(10 / 50)], abs=1e-6)


def test_thresholds_of_classes_are_those_that_validation_images_ask_for() -> None:
    """A class whose scores are always too low by 2 nats: its threshold falls, and every image is right."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, size=300)
    features = 3.0 * np.eye(3)[truth] + rng.normal(0, 0.3, size=(300, 3)) - [0, 0, 4.0]
    seen = trained(np.eye(3).tolist(), features, truth, counts=(100, 100, 100))
    before = score(seen.rows.targets, scores_from_logits(seen.rows.outputs, task="multiclass"), **BALANCED)
    model, chosen = ClassThresholds().finish(seen)
    with torch.no_grad():
        logits = model(seen.features).double().numpy()
    after = score(seen.rows.targets, scores_from_logits(logits, task="multiclass"), **BALANCED)
    assert before is not None
    assert after is not None
    assert (before < 0.75, after > 0.98) == (True, True)
    assert chosen["thresholds"][2] < min(chosen["thresholds"][:2])
    # Class counts that explain it all: the strength alone does.
    rare = trained(np.eye(3).tolist(), features, truth, counts=(400, 400, 400 * np.exp(-3.0)))
    assert ClassThresholds(rounds=0).finish(rare)[1]["thresholds"][2] < 0.3


BALANCED: Any = {"metric": "balanced_accuracy", "task": "multiclass"}


def test_second_stage_by_task() -> None:
    for task, sampler in (("binary", "balanced"), ("multiclass", "balanced"), ("multilabel", "label_balanced")):
        tables = CRT().second({"mix": {"name": "mixup"}, "augment": {"name": "classical"}}, task=task)  # type: ignore[arg-type]
        assert tables == {
            "mix": {"name": "none"},
            "augment": {"name": "classical"},
            "sampler": {"name": sampler},
            "loss": {"name": "auto"},
        }


def test_images_without_labels_and_classes_without_images(tmp_path: Path) -> None:
    spec = tiny({"name": "a"}, data=SEVERAL)
    prepared = plan_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache").prepared[None]
    manifest = prepared.manifest
    first, name = manifest.rows("train")[0], manifest.card.classes[0]

    def changed(column: str, rows: Any, value: float | None) -> Any:
        frame = manifest.frame.with_columns(
            pl.when(rows)
            .then(pl.lit(value, dtype=manifest.frame[column].dtype))
            .otherwise(pl.col(column))
            .alias(column)
        )
        return type(manifest)(frame=frame, card=manifest.card, root=manifest.root)

    column = next(c for c in manifest.frame.columns if c.endswith(name))
    with pytest.raises(TargetError, match=f"{name}: not known for any training image"):
        check_labels(changed(column, pl.col("split") == "train", None))
    with pytest.raises(TargetError, match=f"{name}: no training image shows it"):
        check_labels(changed(column, pl.col("split") == "train", 0.0))
    blank = manifest
    for label in manifest.card.classes:
        column = next(c for c in manifest.frame.columns if c.endswith(label))
        blank = type(manifest)(
            frame=blank.frame.with_columns(
                pl.when(pl.col("id") == first).then(None).otherwise(pl.col(column)).alias(column)
            ),
            card=manifest.card,
            root=manifest.root,
        )
    with pytest.raises(TargetError, match=r"1 of .* training images have no label at all"):
        check_labels(blank)


def test_a_frozen_network_learns_its_last_layer_alone(tmp_path: Path) -> None:
    loaded = timm.create_model("resnet10t", num_classes=5, in_chans=3).state_dict()
    weights = files.write_tensors(tmp_path / "resnet10t.safetensors", loaded)
    model = {"weights": str(weights), "frozen": True}
    spec = tiny({"name": "a", "model": model}, {"name": "b", "model": model, "mix": "cutmix"})
    result = run_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache")
    assert result.failed == {}
    for folder in result.folder.glob("jobs/*/result/classifier"):
        trained = safetensors.torch.load_file(folder / "model.safetensors")
        last = {"fc.weight", "fc.bias"}
        assert trained["fc.weight"].abs().max() > 0, "it began with zeros"
        for name in set(trained) - last:
            torch.testing.assert_close(trained[name], loaded[name], msg=name)
    with pytest.raises(ConfigError, match="none are loaded"):
        tiny({"name": "a", "model": {"frozen": True}})
    with pytest.raises(ConfigError, match="the latter alone"):
        plan_study(tiny({"name": "a", "model": model, "recipe": "crt"}), runs=tmp_path / "r", cache=tmp_path / "cache")
