"""From data to a study file: guesses, fingerprint, the file that is written; on phantoms of any shape and real sets."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from tests.study.recommend.fingerprints import GUESS, fingerprint, weights

from raremix.core.errors import ManifestError, UsageError
from raremix.data.manifest import Card, Manifest
from raremix.models import ClassifierSpec
from raremix.study import plan_study, read_study
from raremix.study.recommend.commented import cost_words, decidable_words, render, render_second
from raremix.study.recommend.describe import describe
from raremix.study.recommend.fingerprint import quality_of, ratio
from raremix.study.recommend.guess import group_pattern, guess_data
from raremix.study.recommend.look import look_at, sampled_ids
from raremix.study.recommend.plan import Plan, make_plan
from raremix.study.recommend.rules import read_rules
from raremix.study.recommend.shortcut import normalised_information
from raremix.study.recommend.step_time import time_run, time_scoring, time_step
from raremix.study.recommend.survey import Survey, busy_words, survey
from raremix.study.recommend.weights import find_weights, read_weights

RULES = read_rules()
STEP = lambda size, network, channels: 1e-6 * size**2  # noqa: E731

PHANTOMS: dict[str, list[str]] = {
    "tiny": ["images=40", "classes=2", "imbalance_ratio=2"],
    "long tail": ["images=160", "classes=4", "imbalance_ratio=10"],
    "one class is nearly alone": ["images=120", "classes=3", "imbalance_ratio=8"],
    "grey": ['modality="chest_xray"', "images=120", "classes=3", "imbalance_ratio=3"],
    "several labels": ['modality="chest_xray"', "images=120", "multilabel=true", "classes=3", "imbalance_ratio=3"],
    "single patients": ["images=60", "classes=2", "imbalance_ratio=3", "images_per_group=1"],
    "device tells": ["images=120", "classes=2", "imbalance_ratio=2", "device_shift=1.0"],
}


def planned(
    place: str, folder: Path, *, settings: list[str] | None = None, **options: Any
) -> tuple[Survey, Plan, Path]:
    found = survey(place, cache=folder / "cache", settings=settings or [], measure=STEP)
    made = make_plan(found.fingerprint, found.guess, RULES, name="p", settings=settings or [], **options)
    path = folder / "p.toml"
    path.write_text(render(made, found.guess, RULES, place=place))
    return found, made, path


def assert_every_line_has_a_reason(text: str) -> None:
    """Each key stands below a comment, and each arm's comment names its rule and its source."""
    above, in_arm = "", False
    for line in text.splitlines():
        if line.startswith("[["):
            assert "Source: " in above, line
            in_arm = True
        elif line.startswith("["):
            in_arm = False
        elif line and not line.startswith("#"):
            assert in_arm or above, f"no reason above {line}"
        above = f"{above} {line.lstrip('# ')}" if line.startswith("#") else (above if line.startswith("[[") else "")


@pytest.mark.parametrize("shape", PHANTOMS)
def test_a_phantom_of_any_shape_gets_a_study_that_can_be_run(shape: str, tmp_path: Path) -> None:
    settings = [f"data.{text}" for text in [*PHANTOMS[shape], "size=28"]]
    found, made, path = planned("phantom", tmp_path, settings=settings)
    text = path.read_text()
    assert tomllib.loads(text) == _rounded(made.study)
    assert_every_line_has_a_reason(text)
    spec = read_study(path)
    plan = plan_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache")
    assert len(plan.jobs) == made.shape.runs
    if shape == "device tells":
        assert "device TELLS THE CLASS" in text
    assert found.fingerprint.channels == (1 if "chest" in " ".join(settings) else 3)
    assert all(value for _, value in describe(found.fingerprint))


def _rounded(table: Any) -> Any:
    if isinstance(table, dict):
        return {key: _rounded(value) for key, value in table.items()}
    if isinstance(table, list | tuple):
        return [_rounded(value) for value in table]
    return float(f"{table:.6g}") if isinstance(table, float) else table


def write_images(folder: Path, names: list[str], *, size: tuple[int, int] = (40, 30), grey: bool = False) -> None:
    stream = np.random.default_rng(0)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (size[1], size[0]) if grey else (size[1], size[0], 3)
        Image.fromarray(stream.integers(0, 256, shape, dtype=np.uint8)).save(path)


def test_a_folder_without_patients_is_told_in_red_and_a_pattern_is_proposed(tmp_path: Path) -> None:
    names = [f"{label}/patient{k // 3:03d}_{k}.png" for label in ("sick", "well") for k in range(60)]
    write_images(tmp_path / "set", names)
    found, _, path = planned(str(tmp_path / "set"), tmp_path)
    assert found.fingerprint.proposed_group is not None
    assert "NO PATIENTS ARE NAMED" in path.read_text()
    group = next(line for line in path.read_text().splitlines() if line.startswith("# group = "))
    again = path.read_text().replace(group, group.removeprefix("# "))
    path.write_text(again)
    assert read_study(path).source.load(cache=tmp_path / "cache").frame["group"].n_unique() == 20


def test_one_sick_among_a_thousand_is_described_and_not_scored(tmp_path: Path) -> None:
    write_images(tmp_path / "set", [*(f"well/{k}.png" for k in range(1000)), "sick/0.png"], size=(8, 8), grey=True)
    found, made, path = planned(str(tmp_path / "set"), tmp_path)
    f = found.fingerprint
    assert f.ratio_images == 1000
    assert made.shape.folds is None
    assert "described and not scored: sick (1)" in " ".join(path.read_text().replace("#", " ").split())
    assert made.study["data"]["channels"] == 1
    plan_study(read_study(path), runs=tmp_path / "runs", cache=tmp_path / "cache")


def table_of(folder: Path, **columns: list[str]) -> Path:
    rows = len(next(iter(columns.values())))
    names = [f"{k:03d}.png" for k in range(rows)]
    write_images(folder / "images", names, grey=True)
    path = folder / "labels.csv"
    pl.DataFrame({"file": names, **columns}).write_csv(path)
    return path


def test_the_columns_of_a_table_are_guessed_and_told(tmp_path: Path) -> None:
    patient = [f"p{k // 2}" for k in range(80)]
    leaky = ["train", "test"] * 40
    honest = ["train"] * 40 + ["val"] * 20 + ["test"] * 20
    label = ["normal" if k % 4 else "abscess" for k in range(80)]
    table = table_of(
        tmp_path / "set", diagnosis=label, patient_id=patient, random_split=leaky, official_split=honest,
        scanner=["a", "b"] * 40, age=["50"] * 80,
    )  # fmt: skip
    found, made, path = planned(str(tmp_path / "set"), tmp_path)
    guess = found.guess
    assert guess.table["path"] == str(table.resolve())
    assert (guess.table["image"], guess.table["images_root"]) == ("file", "images")
    assert (guess.table["label"], guess.table["group"], guess.table["split"]) == (
        "diagnosis",
        "patient_id",
        "official_split",
    )
    assert guess.table["classes"] == ["normal", "abscess"], "what is not normal is the positive class"
    assert guess.table["subgroups"] == ["scanner", "age_band"]
    assert any("random_split" in note and "leaks" in note for note in guess.notes)
    assert ("split" in made.study["data"]) is (made.shape.folds is None)
    assert_every_line_has_a_reason(path.read_text())
    given = guess_data(str(table), settings=['data.label="scanner"', 'data.group="file"'])
    assert (given.table["label"], given.table["group"]) == ("scanner", "file")
    assert given.reasons["label"] == "given"


def test_findings_in_columns_are_several_labels(tmp_path: Path) -> None:
    columns = {"mass": ["1", "0"] * 30, "edema": ["0", "1", "-1"] * 20, "nodule": ["1", "1", "0"] * 20}
    guess = guess_data(str(table_of(tmp_path, **columns)))
    assert guess.table["labels"] == ["mass", "edema", "nodule"]
    assert guess.table["uncertain"] == "empty"


def test_what_cannot_be_guessed_is_asked(tmp_path: Path) -> None:
    path = table_of(tmp_path, height=[str(k) for k in range(20)])
    with pytest.raises(UsageError, match="--label COLUMN"):
        guess_data(str(path))
    with pytest.raises(UsageError, match=r"--label COLUMN"):
        guess_data(str(path), settings=['data.image="file"'])
    pl.DataFrame({"name": ["a", "b"], "label": ["x", "y"]}).write_csv(tmp_path / "other.csv")
    with pytest.raises(ManifestError, match=r"data\.image=COLUMN"):
        guess_data(str(tmp_path / "other.csv"))
    with pytest.raises(UsageError, match="expected a study file"):
        guess_data(str(tmp_path / "nothing.tar"))


def test_a_pattern_is_proposed_only_where_it_groups_believably() -> None:
    limits: dict[str, Any] = {"least": 1.05, "most": 60, "groups": 10}
    assert group_pattern([f"ISIC_{k:07d}.jpg" for k in range(200)], **limits) is None, "one image each"
    assert group_pattern([f"scan1_{k}.png" for k in range(200)], **limits) is None, "all of one"
    assert group_pattern([f"{k // 4:08d}_{k % 4:03d}.png" for k in range(200)], **limits) is not None


def test_a_study_file_gives_its_data(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(
        '[data]\nsource = "phantom"\nimages = 120\nclasses = 2\nimbalance_ratio = 3\nsize = 28\n'
    )
    found, made, _ = planned(str(tmp_path / "s.toml"), tmp_path)
    assert found.fingerprint.images == 120
    assert made.study["data"]["images"] == 120


def toy(targets: np.ndarray, folder: Path, *, sha: list[str] | None = None) -> Manifest:
    names = [f"{k:03d}.png" for k in range(len(targets))]
    columns: dict[str, Any] = {"path": names, "sha256": sha or [f"{k:064x}" for k in range(len(targets))]}
    columns |= {f"target:c{k}": targets[:, k] for k in range(targets.shape[1])}
    card = Card(name="toy", task="multilabel", classes=tuple(f"c{k}" for k in range(targets.shape[1])))
    return Manifest(frame=pl.DataFrame(columns), card=card, root=folder)


def test_copies_and_contradictions_are_counted(tmp_path: Path) -> None:
    targets = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1], [0, 1], [1, 0]])
    sha = ["a", "a", "b", "b", "b", "b"]
    found = quality_of(toy(targets, tmp_path, sha=[name * 64 for name in sha]))
    assert (found.duplicates, found.conflicts) == (4, 4)
    assert found.examples[0] == "002.png = 003.png"


def test_the_sample_holds_rare_classes_and_reads_what_it_can(tmp_path: Path) -> None:
    targets = np.zeros((100, 2))
    targets[:97, 0] = 1
    targets[97:, 1] = 1
    manifest = toy(targets, tmp_path)
    ids = sampled_ids(manifest, sample=10)
    assert {97, 98, 99} <= set(ids.tolist())
    assert len(ids) == 10
    assert len(sampled_ids(manifest, sample=1000)) == 100
    write_images(tmp_path, [f"{k:03d}.png" for k in range(100)], size=(40, 20), grey=True)
    (tmp_path / "098.png").write_bytes(b"no image")
    frame = np.zeros((60, 60), dtype=np.uint8)
    frame[15:45, 15:45] = 200
    Image.fromarray(frame).save(tmp_path / "099.png")
    look = look_at(manifest, sample=10)
    assert len(look.ids) == 9
    assert "098.png" in look.unreadable[0]
    assert look.side == 40
    assert not look.colour.any()
    assert look.border[-1] == pytest.approx(0.75)
    assert len(look_at(manifest, sample=100, most_pixels=1).ids) <= 16


def test_information_is_hand_computed() -> None:
    # H = ln 2 each, and three of four rows agree: I = ln 2 - H(1/4, 3/4), less 1 / (2 n) for chance.
    first, second = np.array([0, 0, 1, 1] * 50), np.array([0, 0, 1, 0] * 50)
    joint = np.array([0.5, 0.25, 0.25])
    entropy = [float(-(p * np.log(p)).sum()) for p in (np.array([0.5, 0.5]), np.array([0.75, 0.25]), joint)]
    expected = 2 * (entropy[0] + entropy[1] - entropy[2] - 1 / 400) / (entropy[0] + entropy[1])
    assert normalised_information(first, second) == pytest.approx(expected)
    assert normalised_information(first, np.zeros(200)) == 0.0
    stream = np.random.default_rng(0)
    many = [normalised_information(stream.integers(0, 7, 60), stream.integers(0, 5, 60)) for _ in range(50)]
    assert float(np.mean(many)) < 0.04, "chance is subtracted"


def test_ratio_leaves_empty_classes_out() -> None:
    assert ratio([90, 0, 3]) == 30
    assert ratio([0, 0]) == 1


def test_the_second_configuration_extends_the_first(tmp_path: Path) -> None:
    made = make_plan(fingerprint((800, 100), side=512, modality="fundus"), GUESS, RULES, name="p")
    text = render_second(made, RULES, base="p.toml")
    assert text is not None
    (tmp_path / "p.toml").write_text(render(made, GUESS, RULES, place="x"))
    (tmp_path / "p-128px.toml").write_text(text)
    first, second = read_study(tmp_path / "p.toml"), read_study(tmp_path / "p-128px.toml")
    assert (first.data.size, second.data.size) == (64, 128)
    assert second.name != first.name
    assert [arm.name for arm in second.arms] == [arm.name for arm in first.arms]
    assert render_second(make_plan(fingerprint(), GUESS, RULES, name="p"), RULES, base="p.toml") is None


def test_cost_and_evidence_in_words() -> None:
    made = make_plan(fingerprint((4000, 1000)), GUESS, RULES, name="p")
    assert f"= {made.shape.runs} classifiers" in cost_words(made)
    assert "6.0 points" in decidable_words(made)
    assert "minutes are not known" in cost_words(make_plan(fingerprint(seconds_per_image={}), GUESS, RULES, name="p"))


def test_what_is_offered_runs_once_its_mark_is_taken_away(tmp_path: Path) -> None:
    f = fingerprint((2000, 300, 200), named_groups=False)
    made = make_plan(f, GUESS, RULES, name="p")
    text = render(made, GUESS, RULES, place="x")
    assert text.index("NO PATIENTS ARE NAMED") < text.index("Cost: ") < text.index("[study]")
    assert "Each costs about" in text
    keys = "name|loss|model|recipe|mix|images|method"
    marked = re.compile(rf"^# (\[\[(?:arm|generator)\]\]|(?:{keys}) = .*)$", re.MULTILINE)
    first, last = text.partition("# Offered, and")[::2]
    (tmp_path / "p.toml").write_text(first + "# Offered, and" + marked.sub(r"\1", last))
    spec = read_study(tmp_path / "p.toml")
    names = {arm.table["name"] for arm in made.offered}
    assert {"varimix", "translated", "repeated"} <= names <= {arm.name for arm in spec.arms}
    assert [table.name for table in spec.generators] == ["translator"], "written once, for both arms that take it"


def test_keys_of_one_decision_have_its_reason_once() -> None:
    own = weights()
    made = make_plan(fingerprint((4000, 1000), weights=(own,)), GUESS, RULES, name="p")
    text = render(made, GUESS, RULES, place="x")
    assert_every_line_has_a_reason(text)
    assert text.count("Few images carry few parameters") == 1
    assert "# R5: as above\nweights = " in text


@pytest.mark.parametrize("names", [["a/0.png", "a/1.png", "b/0.png", "b/1.png"], ["a/0.png", "b/0.png"]])
def test_what_cannot_be_divided_is_told_and_not_planned(names: list[str], tmp_path: Path) -> None:
    write_images(tmp_path / "set", names)
    with pytest.raises(ManifestError, match=r"cannot be divided .* at least 3 groups .* too few groups have: a \d"):
        survey(str(tmp_path / "set"), cache=tmp_path / "cache", measure=STEP)


@pytest.mark.parametrize("minutes", [None, 2.0, 10.0, 120.0])
def test_forty_classes_of_six_images_get_a_study_within_the_limit(minutes: float | None, tmp_path: Path) -> None:
    write_images(tmp_path / "set", [f"c{c:02d}/{k}.png" for c in range(40) for k in range(6)], size=(12, 10))
    _, made, path = planned(str(tmp_path / "set"), tmp_path, minutes=minutes)
    assert_every_line_has_a_reason(path.read_text())
    assert made.is_within_limit
    plan = plan_study(read_study(path), runs=tmp_path / "runs", cache=tmp_path / "cache")
    assert len(plan.jobs) == made.shape.runs


def test_training_is_timed_as_a_study_trains() -> None:
    network = ClassifierSpec(name="resnet10t", stem="standard")
    fixed = time_run(network, 1)
    assert fixed.step > 0
    assert fixed.run > 0
    assert time_step(64, network, 1, fixed=fixed.step) > 0
    assert time_scoring(64, network, 1) > 0


def test_a_public_set_brings_its_name_and_licence(tmp_path: Path) -> None:
    names = [f"train/NORMAL/IM-{k:04d}-0001.jpeg" for k in range(12)]
    names += [f"train/PNEUMONIA/person{k}_{kind}_{k}.jpeg" for k in range(12) for kind in ("virus", "bacteria")]
    names += ["test/NORMAL/IM-9999-0001.jpeg", "test/PNEUMONIA/person1_virus_1.jpeg"]
    write_images(tmp_path / "chest_xray", names)
    found, made, path = planned(str(tmp_path / "chest_xray"), tmp_path)
    assert found.guess.table["source"] == "kermany"
    assert found.fingerprint.named_groups
    assert "CC BY 4.0" in path.read_text().partition("[study]")[0]
    assert made.study["data"]["source"] == "kermany"


def test_hostile_names_do_not_leave_their_comment(tmp_path: Path) -> None:
    f = fingerprint(name='x"\n[model]\nname = "evil"', classes=("a\n]", 'b"'))
    text = render(make_plan(f, GUESS, RULES, name="p"), GUESS, RULES, place="x\n[evil]")
    assert tomllib.loads(text)["model"]["name"] == "resnet18"
    assert "evil" not in tomllib.loads(text)


def test_weights_are_described_by_what_the_file_says(tmp_path: Path) -> None:
    import safetensors.numpy

    folder = tmp_path / "weights"
    folder.mkdir()
    tensors = {"a": np.zeros((3, 4), dtype=np.float32), "b": np.zeros(5, dtype=np.float32)}
    said = {"timm": "mobilenetv2_100, pad_type=same, mean=std=0.5"}
    safetensors.numpy.save_file(tensors, folder / "odd.safetensors", metadata=said)
    safetensors.numpy.save_file(tensors, folder / "resnet18_imagenet.safetensors")
    safetensors.numpy.save_file(tensors, folder / "unknown.safetensors")
    (folder / "broken.safetensors").write_bytes(b"no")
    found = find_weights([tmp_path / "data" / "set"])
    mine = [one for one in found if one.path.parent == folder]
    assert [one.name for one in mine] == ["mobilenetv2_100", "resnet18"]
    assert mine[0].parameters == 17
    assert mine[0].table(channels=1) == {
        "name": "mobilenetv2_100", "weights": str(folder / "odd.safetensors"), "mean": [0.5], "std": [0.5],
        "options": {"pad_type": "same"},
    }  # fmt: skip
    assert read_weights(folder / "resnet18_imagenet.safetensors").mean is None


def test_a_busy_machine_is_told_before_the_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    for load, is_told in ((0.3, False), (1.9, False), (2.6, True), (9.0, True)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert bool(busy_words()) == is_told
    assert "load 8 on 2 processors" in busy_words()
    monkeypatch.delattr("os.getloadavg")
    assert not busy_words()


SETS: dict[str, Callable[[Any], bool]] = {
    "kermany_cxr_224": lambda f: f.task == "binary" and f.classes[-1] == "PNEUMONIA" and f.grouped,
    "ham10000_128": lambda f: f.ratio_images == pytest.approx(4323 / 60) and len(f.classes) == 7,
    "nih_cxr14_64/labels.csv": lambda f: f.task == "multilabel" and f.groups == 264 and len(f.classes) == 14,
    "medmnist/retinamnist.npz": lambda f: f.class_images == (714, 186, 326, 282, 92) and not f.named_groups,
    "medmnist/pneumoniamnist_content.npz": lambda f: f.task == "binary" and f.grouped,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_a_real_set_gets_a_study_that_can_be_run(name: str, shared_data: Path, tmp_path: Path) -> None:
    place = shared_data / name
    if not place.exists():
        pytest.skip(f"{name} is not in {shared_data}")
    found, made, path = planned(str(place), tmp_path, minutes=600)
    assert SETS[name](found.fingerprint)
    assert_every_line_has_a_reason(path.read_text())
    plan = plan_study(read_study(path), runs=tmp_path / "runs", cache=tmp_path / "cache")
    assert len(plan.jobs) == made.shape.runs
