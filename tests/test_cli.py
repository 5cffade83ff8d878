"""The command line as a user meets it: help, JSON, dry runs, exit codes, errors of one line, what to type next."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import timm

from raremix import cli
from raremix.core import files
from raremix.models import load_classifier
from raremix.study import read_study
from raremix.study.apply import probabilities_of

STUDY = """
[study]
name = "tiny"
seeds = [0, 1]
resamples = 200
[data]
source = "phantom"
images = 120
classes = 2
imbalance_ratio = 3
size = 28
subgroups = ["device"]
[model]
name = "resnet10t"
stem = "standard"
[train]
steps = 3
batch_size = 8
validations = 1
checkpoints = 0
[[arm]]
name = "plain"
[[arm]]
name = "mixup"
augment = "classical"
mix = "mixup"
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished tiny study: tiny.toml, runs/tiny, cache."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.toml").write_text(STUDY)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr("sys.argv", ["raremix", "study", str(folder / "tiny.toml"), *where(folder)])
        cli.main()
    assert stop.value.code == 0
    return folder


def where(folder: Path) -> list[str]:
    return ["--runs", str(folder / "runs"), "--cache", str(folder / "cache")]


def classifier(place: Path) -> Path:
    return sorted((place / "runs" / "tiny" / "jobs").glob("mixup-*/result/classifier"))[0]


VERBS = ("study", "train", "evaluate", "predict", "report", "list", "doctor", "demo")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(run: Run, verb: str) -> None:
    code, said, _ = run(verb, "--help")
    assert code == 0
    assert "Usage" in said
    assert "--json" in said


def test_help_names_every_verb(run: Run) -> None:
    _, said, _ = run("--help")
    assert all(verb in said for verb in VERBS)


def test_a_study_leaves_all_that_it_promises(place: Path) -> None:
    folder = place / "runs" / "tiny"
    for name in ("report.html", "study.toml", "predictions.parquet", "metrics.csv", "comparisons.csv", "record.json"):
        assert (folder / name).is_file(), name
    said = pl.read_parquet(folder / "predictions.parquet")
    rows = files.read_json(folder / "record.json")["data"]["counts"]
    per_job = sum(rows["test"].values()) + sum(rows["validation"].values())
    assert len(said) == 4 * per_job
    assert said.select("arm", "seed").n_unique() == 4


def test_running_a_study_again_trains_nothing(run: Run, place: Path) -> None:
    weights = {p: p.stat().st_mtime_ns for p in (place / "runs").rglob("model.safetensors")}
    code, said, _ = run("study", place / "tiny.toml", *where(place))
    assert code == 0
    assert weights == {p: p.stat().st_mtime_ns for p in (place / "runs").rglob("model.safetensors")}
    assert "report.html" in said
    assert "raremix predict" in said


def test_json_is_one_object_and_nothing_else(run: Run, place: Path) -> None:
    code, said, _ = run("study", place / "tiny.toml", "--json", *where(place))
    assert code == 0
    assert json.loads(said)["record"]["study"]["name"] == "tiny"


def test_a_dry_run_changes_nothing(run: Run, place: Path) -> None:
    code, said, _ = run("study", place / "tiny.toml", "--dry-run", "--json", "--set", "study.name=other", *where(place))
    assert code == 0
    facts = json.loads(said)
    assert (facts["jobs"], facts["done"]) == (4, 0)
    assert "decide" in facts["decidable"]["text"] or "patients" in facts["decidable"]["text"]
    assert not (place / "runs" / "other").exists()


def test_more_seeds_train_only_what_is_new(run: Run, place: Path) -> None:
    code, said, _ = run(
        "study", place / "tiny.toml", "--dry-run", "--json", "--set", "study.seeds=[0,1,2]", *where(place)
    )
    assert code == 0
    assert (json.loads(said)["jobs"], json.loads(said)["done"]) == (6, 4)


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("arm.mixpu.mix.alpha=3", "did you mean 'mixup'"),
        ("arm.mixup.mix.alhpa=3", "did you mean 'alpha'"),
        ("train.stesp=3", "did you mean 'steps'"),
        ("model.name=resnet81", "did you mean 'resnet18'"),
        ("study.metric=aurco", "did you mean 'auroc'"),
        ("data.source=phantm", "did you mean 'phantom'"),
        ("train.steps=many", "train.steps"),
        ("train.steps", "key.of.table=value"),
        ("data.subgroups=['colour']", "colour"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_2(run: Run, place: Path, setting: str, hint: str) -> None:
    code, said, complaint = run("study", place / "tiny.toml", "--set", setting, *where(place))
    assert code == 2
    assert hint in complaint
    assert "Traceback" not in complaint + said


def test_an_error_as_json(run: Run, place: Path) -> None:
    code, said, _ = run("study", place / "nothing.toml", "--json")
    assert code == 2
    assert json.loads(said)["error"] == "ConfigError"


def test_a_patient_in_two_splits_is_refused(run: Run, place: Path, tmp_path: Path) -> None:
    table = phantom_table(place).with_columns(
        pl.Series("split", ["train", "test"] * 60),
        pl.Series("patient", ["p1", "p1", *(f"p{i}" for i in range(2, 120))]),
    )
    code, _, complaint = run(
        "train",
        write_table(table, tmp_path),
        "--label",
        "label",
        "--group",
        "patient",
        "--set",
        "data.split=split",
        *where(place),
    )
    assert code == 3
    assert "refused" in complaint
    assert "row 0 (000000.png) in train with row 1" in complaint
    assert "p1" not in complaint  # a patient's number stays in the table


def test_a_class_in_test_only_is_refused(run: Run, place: Path, tmp_path: Path) -> None:
    table = phantom_table(place)
    split = ["test" if label == table["label"][0] else "train" for label in table["label"]]
    path = write_table(table.with_columns(pl.Series("split", split)), tmp_path)
    code, _, complaint = run("train", path, "--label", "label", "--set", "data.split=split", *where(place))
    assert code == 3
    assert table["label"][0] in complaint


def test_a_truncated_image_names_its_row(run: Run, place: Path, tmp_path: Path) -> None:
    path = write_table(phantom_table(place), tmp_path)
    victim = sorted(tmp_path.glob("*.png"))[3]
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    code, _, complaint = run("train", path, "--label", "label", *where(place))
    assert code == 2
    assert victim.name in complaint


def test_a_missing_column_is_named_with_the_nearest(run: Run, place: Path, tmp_path: Path) -> None:
    code, _, complaint = run("train", write_table(phantom_table(place), tmp_path), "--label", "lable", *where(place))
    assert code == 2
    assert "did you mean 'label'" in complaint


def test_predict_scores_every_image(run: Run, place: Path, tmp_path: Path) -> None:
    folder = Path(phantom_table(place)["file"][0]).parent
    code, said, _ = run("predict", classifier(place), folder, "-o", tmp_path / "scores.csv", "--json")
    assert code == 0
    scores = pl.read_csv(tmp_path / "scores.csv")
    assert len(scores) == json.loads(said)["images"] == 120
    classes = [c for c in scores.columns if c not in {"path", "decision"}]
    assert scores.select(pl.sum_horizontal(classes)).to_series().to_numpy() == pytest.approx(1.0)


def test_predict_agrees_with_the_study(run: Run, place: Path, tmp_path: Path) -> None:
    """The study keeps scores as trained; predict shifts them, by what the card says, to what images are like."""
    folder = classifier(place)
    kept = pl.read_parquet(folder.parent / "predictions.parquet").filter(pl.col("split") == "test")
    run("predict", folder, Path(phantom_table(place)["file"][0]).parent, "-o", tmp_path / "scores.parquet")
    scores = pl.read_parquet(tmp_path / "scores.parquet")
    names = [c for c in scores.columns if c not in {"path", "decision"}]
    card = load_classifier(folder)[1]
    logits = np.log(kept.select(f"score:{name}" for name in names).to_numpy().astype(np.float64)) * card.temperature
    ours = scores.select(names)[kept["id"].to_list()].to_numpy()
    assert ours == pytest.approx(probabilities_of(card, logits, prevalence={}), abs=1e-4)


def test_evaluate_measures_with_intervals(run: Run, place: Path, tmp_path: Path) -> None:
    output = tmp_path / "metrics.csv"
    code, said, _ = run("evaluate", classifier(place), place / "tiny.toml", "--by", "device", "-o", output, "--json")
    assert code == 0
    rows = json.loads(said)["metrics"]
    assert {"overall", "class", "subgroup"} <= {row["scope"] for row in rows}
    assert len(pl.read_csv(output)) == len(rows)


def test_evaluate_refuses_the_rows_that_it_was_trained_on(run: Run, place: Path) -> None:
    code, _, complaint = run("evaluate", classifier(place), place / "tiny.toml", "--split", "train")
    assert code == 3
    assert "trained on" in complaint


def test_predict_without_images_says_so(run: Run, place: Path, tmp_path: Path) -> None:
    code, _, complaint = run("predict", classifier(place), tmp_path)
    assert code == 2
    assert "no images" in complaint


def test_report_is_written_again_from_the_record(run: Run, place: Path) -> None:
    path = place / "runs" / "tiny" / "report.html"
    before = path.read_bytes()
    path.unlink()
    code, said, _ = run("report", place / "runs" / "tiny")
    assert code == 0
    assert "report.html" in said
    assert path.read_bytes() == before


def test_list_names_runs_and_methods(run: Run, place: Path) -> None:
    _, said, _ = run("list", "--runs", place / "runs", "--json")
    assert "tiny" in {row["run"] for row in json.loads(said)["runs"]}
    for what, name in (("mixers", "cutmix"), ("samplers", "sqrt"), ("losses", "cross_entropy"), ("metrics", "auroc")):
        _, said, _ = run("list", what, "--json")
        assert name in {row["name"] for row in json.loads(said)[what]}


def test_a_saved_classifier_is_a_timm_folder(place: Path) -> None:
    model = timm.create_model(f"local-dir:{classifier(place)}", pretrained=True)
    assert model.num_classes == 2


def phantom_table(place: Path) -> pl.DataFrame:
    """The tiny study's images as a table with a label column and absolute files."""
    manifest = read_study(place / "tiny.toml").source.load(cache=place / "cache")
    labels = [manifest.card.classes[k] for k in manifest.targets().argmax(axis=1)]
    return pl.DataFrame({"file": [str(path) for path in manifest.paths()], "label": labels})


def write_table(table: pl.DataFrame, folder: Path) -> Path:
    """Copy the images beside the table, under which they must lie, and write it."""
    for name in table["file"]:
        shutil.copy(name, folder / Path(name).name)
    table.with_columns(pl.Series("file", [Path(name).name for name in table["file"]])).write_csv(folder / "labels.csv")
    return folder / "labels.csv"
