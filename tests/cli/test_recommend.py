"""raremix recommend and raremix study --best, as a user meets them."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raremix.study.recommend import survey
from raremix.study.recommend.step_time import RunTime

Run = Callable[..., tuple[int, str, str]]
TINY = [f"--set=data.{text}" for text in ("images=60", "classes=2", "imbalance_ratio=2", "size=28")]
CHEAP = ["--set", "train.steps=2", "--set", "train.batch_size=4", "--set", "train.validations=1"]


@pytest.fixture(autouse=True)
def _untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are not timed: what they would take is given."""
    monkeypatch.setattr(survey, "time_step", lambda size, network, channels, *, fixed: 1e-6 * size**2)
    monkeypatch.setattr(survey, "time_run", lambda network, channels: RunTime())
    monkeypatch.setattr(survey, "time_scoring", lambda size, network, channels: 3e-7 * size**2)


def test_recommend_writes_a_study_and_says_what_to_type_next(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    code, out, _ = run("recommend", "phantom", *TINY, "--cache", tmp_path / "cache", "-o", path)
    assert code == 0
    assert f"raremix study {path} --best" in out.splitlines()[-1]
    assert all(word in out for word in ("R1 evaluation", "R18 shortcut", "Cost:", "Evidence:", "imbalance"))
    assert tomllib.loads(path.read_text())["study"]["name"] == "plan"


def test_a_dry_run_writes_nothing_and_json_is_one_object(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    where = ("--cache", tmp_path / "cache", "-o", path)
    code, out, _ = run("recommend", "phantom", *TINY, *where, "--dry-run", "--json", "--time-limit", "1h")
    said = json.loads(out)
    assert code == 0
    assert not path.exists()
    assert not said["written"]
    assert {"fingerprint", "decisions", "arms", "left_out", "cuts", "cost", "decidable", "tables"} <= set(said)
    assert {entry["kind"] for entry in said["decisions"]} == {"fixed", "rule", "empirical"}
    code, out, _ = run("recommend", "phantom", *TINY, *where, "--dry-run")
    assert code == 0
    assert "would write" in out


def test_copies_stop_and_ask_with_exit_3(run: Run, tmp_path: Path) -> None:
    stream = np.random.default_rng(0)
    for label in ("sick", "well"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for k in range(30):
            Image.fromarray(stream.integers(0, 256, (12, 12), dtype=np.uint8)).save(
                tmp_path / "set" / label / f"{k}.png"
            )
    (tmp_path / "set" / "sick" / "copy.png").write_bytes((tmp_path / "set" / "sick" / "0.png").read_bytes())
    where = ("--cache", tmp_path / "cache", "-o", tmp_path / "plan.toml")
    code, out, err = run("recommend", tmp_path / "set", *where)
    assert code == 3
    assert "refused" in err
    assert "--accept-duplicates" in err
    assert "imbalance" in out, "the fingerprint is shown all the same"
    assert not (tmp_path / "plan.toml").exists()
    code, _, _ = run("recommend", tmp_path / "set", *where, "--accept-duplicates")
    assert code == 0


def test_what_is_wrong_is_one_line_and_exit_2(run: Run, tmp_path: Path) -> None:
    for arguments, word in (
        (["nothing/"], "is not there"),
        (["phantom", "--time-limit", "soon"], "2h, 90m"),
        (["phantom", *TINY, "-o", tmp_path / "plan.json"], ".toml"),
    ):
        code, _, err = run("recommend", *arguments, "--cache", tmp_path / "cache")
        assert code == 2, arguments
        assert word in err.strip().splitlines()[-1]


def test_the_plan_is_run_to_one_answer(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    where = ("--cache", tmp_path / "cache")
    run("recommend", "phantom", *TINY, *where, "-o", path, "--time-limit", "0.001m", *CHEAP)
    runs = ("--runs", tmp_path / "runs", *where, "--set", "model.name=resnet10t", "--set", "study.resamples=100")
    code, out, _ = run("study", path, "--best", *runs, "--set", "study.seeds=[0]")
    assert code == 0, out
    assert "was chosen" in out
    best = tmp_path / "runs" / "plan" / "best"
    assert f"raremix predict {best / 'classifier'} IMAGES" in out.splitlines()[-1]
    code, out, _ = run("study", path, "--best", "--json", *runs, "--set", "study.seeds=[0]")
    assert json.loads(out)["classifier"] == str(best / "classifier")
    image = next((tmp_path / "cache" / "phantoms").glob("*/images/*.png"))
    code, _, _ = run("predict", best / "classifier", image, "-o", tmp_path / "scores.csv")
    assert code == 0


def test_keeping_the_test_closed_goes_with_choosing(run: Run, tmp_path: Path) -> None:
    code, _, err = run("study", "phantom", "--keep-test-closed", "--cache", tmp_path / "cache")
    assert code == 2
    assert "--best" in err
