"""From a [data] table to data: files that break, classes made rare, and what the record says of both."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.data.toys import pictures

from raremix.core import files
from raremix.core.errors import HeldOutError, LeakageError, ManifestError, ReadError, TargetError
from raremix.data.manifest import Manifest
from raremix.study import evaluate_classifier, parse_study, run_study
from raremix.study.prepare import of_arm, prepare
from raremix.study.run import plan_study
from raremix.study.spec import StudySpec

MODEL = {"name": "resnet10t", "stem": "standard"}
TRAIN = {"steps": 2, "batch_size": 8, "validations": 1, "checkpoints": 1, "workers": 0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two classes, 40 and 20 images."""
    root = tmp_path / "images"
    pictures(root / "benign", 40, seed=1)
    pictures(root / "rare", 20, seed=2)
    return root


def study(folder: Path, **tables: Any) -> StudySpec:
    data = {"source": "folder", "path": str(folder), "size": 28, **tables.pop("data", {})}
    table = {"study": {"name": "s", "seeds": [0], "resamples": 100}, "data": data, "model": MODEL, "train": TRAIN}
    return parse_study({**table, "arm": [{"name": "plain"}], **tables}, base=Path())


def break_files(folder: Path, numbers: list[int], *, kind: str = "benign") -> None:
    for number in numbers:
        path = folder / kind / f"{number:03d}.png"
        path.write_bytes(path.read_bytes()[:50])


def test_a_tenth_of_broken_files_is_refused_and_then_left_out(folder: Path, tmp_path: Path) -> None:
    whole = prepare(study(folder), cache=tmp_path / "a").manifest
    break_files(folder, [3, 14, 27])
    (folder / "rare" / "005.png").write_bytes(b"")
    break_files(folder, [6, 7], kind="rare")
    with pytest.raises(ReadError, match=r"row 3 \(benign/003.png\): .*6 of 60 files cannot be read.*--on-unreadable"):
        prepare(study(folder), cache=tmp_path / "b")
    skip = study(folder, data={"on_unreadable": "skip"})
    prepared = prepare(skip, cache=tmp_path / "b")
    assert len(prepared.manifest) == 54
    # No other file changes its split because some are broken.
    kept = whole.select(prepared.manifest.ids)
    assert kept.frame["split"].to_list() == prepared.manifest.frame["split"].to_list()
    table = prepared.quarantine
    assert table is not None
    assert table["path"].to_list() == [
        *(f"benign/{i:03d}.png" for i in (3, 14, 27)),
        *(f"rare/{i:03d}.png" for i in (5, 6, 7)),
    ]
    assert table["classes"].to_list() == ["benign"] * 3 + ["rare"] * 3
    assert table["reason"].null_count() == 0

    result = run_study(skip, runs=tmp_path / "runs", cache=tmp_path / "b")
    written = pl.read_csv(result.folder / "quarantine.csv")
    assert written.columns == ["id", "path", "split", "classes", "reason"]
    assert written["id"].to_list() == table["id"].to_list()
    record = files.read_json(result.folder / "record.json")
    left = record["data"]["quarantine"]
    assert (left["files"], left["of"]) == (6, 60)
    assert sum(sum(counts.values()) for counts in left["counts"].values()) == 6
    assert "6 of 60 files could not be read and were left out" in result.report.read_text()


def test_a_missing_or_unreadable_file_is_listed_too(folder: Path, tmp_path: Path) -> None:
    table = pl.DataFrame(
        {
            "file": [f"benign/{i:03d}.png" for i in range(41)] + [f"rare/{i:03d}.png" for i in range(20)],
            "dx": ["benign"] * 41 + ["rare"] * 20,
        }
    )
    files.write_csv(folder / "labels.csv", table)
    (folder / "rare" / "003.png").unlink()
    (folder / "rare" / "003.png").mkdir()
    data = {"source": "table", "path": str(folder / "labels.csv"), "label": "dx"}
    with pytest.raises(ManifestError, match="2 of 61 files are missing"):
        prepare(study(folder, data=data), cache=tmp_path / "c")
    prepared = prepare(study(folder, data={**data, "on_unreadable": "skip"}), cache=tmp_path / "c")
    assert prepared.quarantine is not None
    assert prepared.quarantine["path"].to_list() == ["benign/040.png", "rare/003.png"]
    # Once the file is there again, nothing is left out.
    (folder / "rare" / "003.png").rmdir()
    files.write_image(folder / "rare" / "003.png", np.full((8, 8, 3), 9, dtype=np.uint8))
    files.write_image(folder / "benign" / "040.png", np.full((8, 8, 3), 7, dtype=np.uint8))
    assert prepare(study(folder, data={**data, "on_unreadable": "skip"}), cache=tmp_path / "c").quarantine is None


def test_a_class_that_vanishes_is_an_error(folder: Path, tmp_path: Path) -> None:
    break_files(folder, list(range(20)), kind="rare")
    with pytest.raises(ManifestError, match="leaving out 20 of 60 files that cannot be read leaves no image of class"):
        prepare(study(folder, data={"on_unreadable": "skip"}), cache=tmp_path / "c")


def test_leaks_are_refused_where_unreadable_files_are_skipped(tmp_path: Path) -> None:
    pictures(tmp_path / "d", 4)
    text = "file,dx,p,s\n000.png,a,1,train\n001.png,b,1,test\n002.png,b,2,train\n003.png,a,3,validation\n"
    (tmp_path / "d" / "t.csv").write_text(text)
    data = {"source": "table", "path": str(tmp_path / "d" / "t.csv"), "label": "dx", "group": "p", "split": "s"}
    with pytest.raises(LeakageError, match="1 group is in two splits"):
        prepare(study(tmp_path, data={**data, "on_unreadable": "skip"}), cache=tmp_path / "c")


def test_synthetic_rows_are_tested_on_only_where_the_study_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = prepare(study(folder), cache=tmp_path / "c").manifest
    made = plain.rows("test")[:2].tolist()
    origin = pl.when(pl.col("id").is_in(made)).then(pl.lit("synthetic")).otherwise(pl.lit("real")).alias("origin")
    mixed = Manifest(frame=plain.frame.with_columns(origin), card=plain.card, root=plain.root)
    spec = study(folder)
    monkeypatch.setattr(type(spec.source), "load", lambda self, **options: mixed)
    with pytest.raises(LeakageError, match=r"allow_synthetic = \[\"test\"\]"):
        prepare(spec, cache=tmp_path / "c")
    allowed = study(folder, data={"allow_synthetic": ["test"]})
    assert len(prepare(allowed, cache=tmp_path / "c").manifest) == 60


def test_a_long_tail_is_made_recorded_and_drawn(folder: Path, tmp_path: Path) -> None:
    spec = study(
        folder,
        data={"imbalance": {"ratio": 9, "seed": 1}},
        arm=[{"name": "plain"}, {"name": "balanced", "imbalance": {"ratio": 1}}],
    )
    prepared = prepare(spec, cache=tmp_path / "c")
    plain = prepare(study(folder), cache=tmp_path / "c")
    assert prepared.manifest.class_counts("train").tolist() == [26, 3]
    assert prepared.thinned == "rare 13 to 3"
    for split in ("validation", "test"):
        assert prepared.manifest.rows(split).tolist() == plain.manifest.rows(split).tolist()
    own = of_arm(prepared, spec.arms[1])
    assert own.manifest.class_counts("train").tolist() == [13, 13]
    assert of_arm(prepared, spec.arms[0]) is prepared
    plan = plan_study(spec, runs=tmp_path / "runs", cache=tmp_path / "c")
    assert len({job.key for job in plan.jobs}) == 2

    result = run_study(spec, runs=tmp_path / "runs", cache=tmp_path / "c")
    assert not result.failed
    record = files.read_json(result.folder / "record.json")
    made = record["data"]["rarity"]
    assert (made["profile"], made["asked"]) == ("exponential", 9.0)
    assert made["reached"] == pytest.approx(26 / 3)
    assert (made["before"], made["after"]) == ({"benign": 26, "rare": 13}, {"benign": 26, "rare": 3})
    assert record["arms"][0]["rarity"] is None
    assert record["arms"][1]["rarity"]["after"] == {"benign": 13, "rare": 13}
    assert "Classes made rare on purpose" in result.report.read_text()
    # The two classifiers saw other rows, and the record says so.
    assert len({entry["hash"] for entry in record["fitted_on"] if entry["what"] == "classifier"}) == 2

    (classifier,) = result.folder.glob("jobs/plain-*/result/classifier")
    evaluate_classifier(classifier, prepared.manifest, resamples=100)
    moved = plain.manifest.with_split(["test"] * len(plain.manifest))
    with pytest.raises(HeldOutError, match=r"29 of 60 images are among those that the classifier was trained on"):
        evaluate_classifier(classifier, moved, resamples=100)


def test_what_is_rare_in_one_fold_is_tested_in_another(folder: Path, tmp_path: Path) -> None:
    spec = study(
        folder,
        study={"name": "s", "seeds": [0], "folds": 2, "resamples": 100},
        data={"imbalance": {"ratio": 9}},
        split={"validation": 0.2},
    )
    result = run_study(spec, runs=tmp_path / "runs", cache=tmp_path / "c")
    assert not result.failed
    said = pl.read_parquet(result.folder / "predictions.parquet").filter(pl.col("split") == "test")
    assert sorted(said["id"]) == list(range(60))
    metrics = pl.read_csv(result.folder / "metrics.csv").filter(pl.col("scope") == "overall")
    assert metrics["n"].max() == 60


def test_several_labels_have_no_profile(tmp_path: Path) -> None:
    data = {"source": "phantom", "modality": "chest_xray", "multilabel": True, "images": 60, "classes": 2, "size": 28}
    spec = parse_study({"study": {"name": "s"}, "data": {**data, "imbalance": {"ratio": 5}}}, base=Path())
    with pytest.raises(TargetError, match="several labels"):
        prepare(spec, cache=tmp_path / "c")
