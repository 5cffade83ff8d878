"""The guard after training: every kind of thing is fitted on held-out rows once, on purpose, and refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from raremix.core import files
from raremix.core.errors import HeldOutError
from raremix.core.fitted import FITTED_ON, write_fitted
from raremix.data.digests import with_digests
from raremix.data.manifest import Card, Manifest
from raremix.evaluate.decide import ValidationRows
from raremix.study import feeds, jobs, parse_study, results, run_study, training
from raremix.study.fitted import USES, check_fitted, fitted_entries, fitted_facts, refuse_held_out, rows_of
from raremix.study.prepare import Prepared, prepare
from raremix.study.run import plan_study
from raremix.study.spec import StudySpec

SPLITS = ["train"] * 6 + ["validation"] * 3 + ["test"] * 3


def small() -> Manifest:
    frame = pl.DataFrame(
        {
            "path": [f"{i}.png" for i in range(12)],
            "split": SPLITS,
            "target:a": [1.0, 0.0] * 6,
            "target:b": [0.0, 1.0] * 6,
            "sha256": [f"{i + 1:015x}" + "0" * 49 for i in range(12)],
        }
    )
    return Manifest(frame=frame, card=Card(name="t", task="binary", classes=("a", "b")), root=Path())


def tiny(**tables: Any) -> StudySpec:
    table = {
        "study": {"name": "s", "seeds": [0], "resamples": 100},
        "data": {"source": "phantom", "images": 120, "classes": 2, "imbalance_ratio": 3, "size": 28},
        "model": {"name": "resnet10t", "stem": "standard"},
        "train": {"steps": 2, "batch_size": 8, "validations": 1, "checkpoints": 1, "workers": 0},
        "arm": [{"name": "plain"}],
    }
    return parse_study({**table, **tables}, base=Path())


@pytest.mark.parametrize("what", USES)
@pytest.mark.parametrize("planted", ["train", "validation", "test"])
def test_what_saw_a_row_of_another_split_is_refused(what: str, planted: str) -> None:
    manifest = small()
    right = manifest.rows(USES[what])
    foreign = int(manifest.rows(planted)[-1])  # pyright: ignore[reportArgumentType]
    if planted == USES[what]:
        facts = fitted_facts(manifest, {what: right})
        assert facts[what] == {"split": USES[what], **rows_of(manifest, right).facts()}
        return
    with pytest.raises(HeldOutError, match=rf"{what}: 1 of {len(right) + 1} rows are not of .* \(row {foreign}\)"):
        fitted_facts(manifest, {what: np.append(right, foreign)})


@pytest.mark.parametrize("what", USES)
def test_a_result_that_was_fitted_on_other_rows_is_no_evidence(what: str) -> None:
    manifest = small()
    facts = fitted_facts(manifest, {what: manifest.rows(USES[what])})
    check_fitted(facts, manifest, where="jobs/a")
    check_fitted(facts, manifest.select(manifest.ids[::-1].copy()), where="jobs/a")
    # The same folder under another split: one of its rows is tested on now.
    moved = manifest.with_split([*SPLITS[:5], "test", "validation", "test", *SPLITS[8:]])
    with pytest.raises(HeldOutError, match=rf"jobs/a: {what} was fitted on . rows that are not this study's"):
        check_fitted(facts, moved, where="jobs/a")
    wrong = {what: {**facts[what], "split": "test"}}
    with pytest.raises(HeldOutError):
        check_fitted(wrong, manifest, where="jobs/a")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_generator_from_elsewhere_that_saw_held_out_images_is_refused(split: str) -> None:
    manifest = small()
    refuse_held_out(rows_of(manifest, manifest.rows("train")), manifest, what="the generator")
    seen = rows_of(manifest, np.append(manifest.rows("train"), manifest.rows(split)[:2]))  # pyright: ignore[reportArgumentType]
    # Other ids, names and folders: rows are told by their content.
    frame = manifest.frame.with_columns(pl.col("id") + 100, pl.format("moved/{}", "path").alias("path"))
    elsewhere = replace(manifest, frame=frame)
    with pytest.raises(HeldOutError, match=f"the generator was fitted on 2 of the 3 {split} rows"):
        refuse_held_out(seen, elsewhere, what="the generator")


def test_the_record_says_it_once() -> None:
    manifest = small()
    facts = fitted_facts(manifest, {"classifier": manifest.rows("train"), "moment": manifest.rows("validation")})
    assert [(entry["what"], entry["results"]) for entry in fitted_entries({"a": facts, "b": facts})] == [
        ("classifier", 2),
        ("moment", 2),
    ]


def test_a_study_records_what_saw_which_rows_and_trusts_no_other(tmp_path: Path) -> None:
    spec = tiny()
    result = run_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache")
    record = files.read_json(result.folder / "record.json")
    manifest = prepare(spec, cache=tmp_path / "cache").manifest
    found = {entry["what"]: entry for entry in record["fitted_on"]}
    assert set(found) == {"classifier", "class counts", "moment", "thresholds", "temperature"}
    assert found["classifier"]["hash"] == rows_of(manifest, manifest.rows("train")).hash()
    assert found["temperature"]["hash"] == rows_of(manifest, manifest.rows("validation")).hash()

    (folder,) = (result.folder / "jobs").glob("*/result")
    facts = files.read_json(folder / "result.json")
    facts["fitted_on"]["temperature"] |= rows_of(manifest, manifest.rows("test")).facts()
    files.write_json(folder / "result.json", facts)
    files.seal(folder, results.RESULT_FILES)
    with pytest.raises(HeldOutError, match="temperature was fitted on"):
        run_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache")


def test_a_classifier_that_is_fed_a_test_row_leaves_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = feeds.make_feed

    def leaking(spec: StudySpec, prepared: Prepared, *args: Any, **options: Any) -> Any:
        feed = real(spec, prepared, *args, **options)
        ids = feed.ids.copy()
        ids[0] = prepared.manifest.rows("test")[0]
        return replace(feed, ids=ids)

    monkeypatch.setattr(training, "make_feed", leaking)
    result = run_study(tiny(), runs=tmp_path / "runs", cache=tmp_path / "cache")
    (reason,) = result.failed.values()
    assert reason.startswith("classifier: 1 of")
    assert not list(result.folder.glob("jobs/*/result"))
    assert files.read_json(result.folder / "record.json")["study"]["status"] == "incomplete"


def test_weights_of_a_classifier_that_saw_the_test_images_are_refused(tmp_path: Path) -> None:
    first = run_study(tiny(), runs=tmp_path / "runs", cache=tmp_path / "cache")
    (folder,) = first.folder.glob("jobs/*/result/classifier")
    files.verify(folder, advice="")
    weights = {"name": "resnet10t", "stem": "standard", "weights": str(folder / "model.safetensors")}
    plan_study(tiny(model=weights), runs=tmp_path / "runs", cache=tmp_path / "cache")
    # With another seed the split is another one, and some of the rows that the weights saw are held out now.
    data = {"source": "phantom", "images": 120, "classes": 2, "imbalance_ratio": 3, "size": 28}
    other = tiny(model=weights, data=data, study={"name": "s", "seeds": [0], "folds": 3})
    with pytest.raises(HeldOutError, match=r"arm.plain.model.weights \(\w+\) was fitted on \d+ of the"):
        plan_study(other, runs=tmp_path / "runs", cache=tmp_path / "cache")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_synthetic_rows_of_a_generator_that_saw_held_out_images_are_refused(split: str, tmp_path: Path) -> None:
    """The rows themselves are all in train; what their generator was fitted on stands in a folder beside them."""
    splits = [*(["train"] * 8 + ["validation"] * 4 + ["test"] * 4), "train"]
    for number in range(len(splits)):
        files.write_image(tmp_path / "set" / f"{number}.png", np.full((8, 8, 1), 10 * number, dtype=np.uint8))
    frame = pl.DataFrame(
        {
            "path": [f"{number}.png" for number in range(len(splits))],
            "split": splits,
            "target:a": [float(number % 2 == 0) for number in range(len(splits))],
            "target:b": [float(number % 2) for number in range(len(splits))],
            "origin": ["real"] * 16 + ["synthetic"],
            "recipe": [None] * 16 + ['{"fitted_on": "generator"}'],
        }
    )
    card = Card(name="t", task="binary", classes=("a", "b"))
    whole = with_digests(Manifest(frame=frame, card=card, root=tmp_path / "set"), cache=tmp_path / "cache")
    whole.write(tmp_path / "set" / "manifest.parquet")
    seen = whole.rows(split)[:2]  # pyright: ignore[reportArgumentType]
    write_fitted(tmp_path / "set" / "generator", {"train": rows_of(whole, seen)})
    spec = tiny(data={"source": "manifest", "path": str(tmp_path / "set"), "size": 8})
    if split == "train":
        assert len(prepare(spec, cache=tmp_path / "cache").manifest) == 17
        return
    with pytest.raises(HeldOutError, match=rf"of the synthetic rows .* was fitted on 2 of the 4 {split} rows"):
        prepare(spec, cache=tmp_path / "cache")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_label_vectors_that_saw_held_out_images_are_refused(split: str, tmp_path: Path) -> None:
    """Vectors of labels may be means of images' vectors; their folder says of which images, and a study looks there."""
    manifest = prepare(tiny(), cache=tmp_path / "cache").manifest
    folder = tmp_path / "vectors"
    place = files.write_with(folder / "v.npy", lambda file: np.save(file, np.eye(2, 8, dtype=np.float32)))
    head = {"name": "text", "vectors": str(place), "names": list(manifest.card.classes)}
    spec = tiny(model={"name": "resnet10t", "stem": "standard", "head": head})
    plan_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache")  # from elsewhere: nothing is known of them
    write_fitted(folder, {"train": rows_of(manifest, manifest.rows("train"))})
    plan_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache")
    write_fitted(folder, {"train": rows_of(manifest, manifest.rows(split)[:1])})  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        HeldOutError, match=rf"arm.plain.model.head.vectors \(train\) was fitted on 1 of .* {split} rows"
    ):
        plan_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache")


@pytest.mark.parametrize("left", ["the type", "the record"])
def test_what_chooses_from_test_rows_leaves_no_result(
    left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Temperature and thresholds of a job that takes test rows for validation rows: each guard alone refuses them."""
    real_rows, real_write = Manifest.rows, results.write_result

    def mistaken(manifest: Manifest, split: Any = None) -> Any:
        return real_rows(manifest, "test" if split == "validation" else split)

    def lying(*, split: Any, **arrays: Any) -> ValidationRows:
        return ValidationRows(split="validation", **arrays)

    def leaking(*args: Any, **options: Any) -> Any:
        *first, outputs = args
        args = (*first, {**outputs, "validation": outputs["test"]})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Manifest, "rows", mistaken)
            if left == "the type":
                patch.setattr(results, "fitted_facts", lambda manifest, used: {})
            else:
                patch.setattr(results, "ValidationRows", lying)
            return real_write(*args, **options)

    monkeypatch.setattr(jobs, "write_result", leaking)
    result = run_study(tiny(), runs=tmp_path / "runs", cache=tmp_path / "cache")
    (reason,) = result.failed.values()
    assert "test" in reason if left == "the type" else reason.startswith("moment: ")
    assert not list(result.folder.glob("jobs/*/result"))


def test_maps_that_were_kept_of_held_out_images_are_refused(tmp_path: Path) -> None:
    mix = {"name": "cutmix", "label": "mass", "importance": {"name": "fine_grained", "grid": 4}}
    spec = tiny(arm=[{"name": "a", "mix": mix}])
    prepared = prepare(spec, cache=tmp_path)
    feed = feeds.make_feed(spec, prepared, spec.arms[0], seed=0)
    feeds.make_guide(spec.arms[0], prepared, feed, cache=tmp_path)
    (folder,) = (tmp_path / "importance").iterdir()
    feeds.make_guide(spec.arms[0], prepared, feed, cache=tmp_path)
    write_fitted(folder, {"train": rows_of(prepared.manifest, prepared.manifest.rows("test"))})
    files.seal(folder, ["maps.raw", FITTED_ON])
    with pytest.raises(HeldOutError, match="importance maps was fitted on"):
        feeds.make_guide(spec.arms[0], prepared, feed, cache=tmp_path)
