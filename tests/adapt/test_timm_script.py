"""Scripts that import timm's mixing are mixed by raremix, as they are: one of ours always, timm's own where it is."""

import csv
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm.data
import torch
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "examples" / "11_timm_train_script.py"
LIKE_TIMMS = Path(__file__).with_name("timm_like_train.py")
SMOOTHING, EPOCHS, OFF = 0.1, 3, 2

WATCH = """
import json, runpy, sys
from raremix.adapt import timm as ours

log, example = sys.argv[1:3]
sys.argv = sys.argv[2:]


def watch(kind):
    mix = kind.__call__

    def call(self, *given):
        x, target = mix(self, *given)
        with open(log, "a") as file:
            print(json.dumps({"kind": kind.__name__, "targets": target.tolist()}), file=file)
        return x, target

    kind.__call__ = call


watch(ours.Mixup)
watch(ours.FastCollateMixup)
runpy.run_path(example, run_name="__main__")
"""
"""Runs the example, and writes down what each call of a stand-in returned, in the workers too."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Black images and white ones, in the folders that timm's script looks for."""
    root = tmp_path_factory.mktemp("images")
    for split, rows in (("train", 16), ("validation", 4)):
        for name, shade in (("black", 0), ("white", 255)):
            (root / split / name).mkdir(parents=True)
            for row in range(rows):
                Image.new("RGB", (16, 16), (shade,) * 3).save(root / split / name / f"{row}.png")
    return root


@pytest.fixture(autouse=True)
def untouched_randomness() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


def run_example(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", [str(EXAMPLE), *map(str, arguments)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")


def shares(targets: list[list[float]]) -> torch.Tensor:
    """Return how much of each row's label is the second class, without the smoothing."""
    return (torch.tensor(targets)[:, 1] - SMOOTHING / 2) / (1 - SMOOTHING)


def mixed_epochs(batches: list[torch.Tensor]) -> list[bool]:
    """Return in which epochs a row was of both classes; in a single batch all may meet their own kind."""
    assert len(batches) == EPOCHS * 4  # 32 images in batches of 8
    epochs = [torch.cat(batches[start : start + 4]) for start in range(0, len(batches), 4)]
    return [bool(((white > 1e-4) & (white < 1 - 1e-4)).any()) for white in epochs]


@pytest.mark.parametrize("name", ["Mixup", "FastCollateMixup"])
def test_a_script_that_imports_as_timms_does_is_mixed_by_raremix(
    name: str, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = timm.data.Mixup, timm.data.FastCollateMixup, sys.path.copy()
    options = ["--data-dir", images, "--mixup", 1, "--mixup-off-epoch", OFF, "--epochs", EPOCHS]
    options += ["--no-prefetcher"] if name == "Mixup" else []
    run_example(monkeypatch, LIKE_TIMMS, "--mixer", "cutmix", "--set", "alpha=2.0", *options)
    assert (timm.data.Mixup, timm.data.FastCollateMixup, sys.path) == before

    said, *lines = capsys.readouterr().out.splitlines()
    assert said.startswith(f"in place of timm.data.{name}: CutMix(")
    assert "alpha=2.0" in said
    rows = [json.loads(line) for line in lines]
    white = [shares(row["targets"]) for row in rows]
    assert mixed_epochs(white) == [True] * OFF + [False] * (EPOCHS - OFF)
    for row, share in zip(rows, white, strict=True):  # label mass is what is seen
        torch.testing.assert_close(torch.tensor(row["shades"]), share, rtol=0, atol=1e-5)
    assert any(len(set(row["shades"])) > 4 for row in rows)  # timm's own have one weight in a batch
    assert rows[-1]["loss"] < rows[0]["loss"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no_such.py", "--mixer", "cutmix"), "no_such.py: no such script"),
        ((LIKE_TIMMS, "--mixer", "cutmx"), "unknown mixer 'cutmx': did you mean 'cutmix'"),
        ((LIKE_TIMMS, "--mixer", "cutmix", "--set", "alpa=1"), "unknown key of --mixer 'alpa'"),
        ((LIKE_TIMMS, "--mixer", "cmo"), "CMO draws its partners from"),
        ((LIKE_TIMMS, "--data-dir", "x"), "--mixer"),
    ],
    ids=["script", "mixer", "setting", "pool", "none"],
)
def test_what_cannot_be_run_is_refused_before_the_script_starts(
    arguments: tuple[object, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        run_example(monkeypatch, *arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_script_that_did_not_mix_is_not_passed_over(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run_example(monkeypatch, LIKE_TIMMS, "--mixer", "cutmix", "--data-dir", images, "--epochs", 1)
    assert "nothing was mixed" in capsys.readouterr().err


@pytest.fixture
def train_script(tmp_path: Path) -> Path:
    """A copy of timm's script that runs without a GPU, with a file of settings beside it that says so.

    Older scripts know no --device, but any setting of a file, and name a GPU as the default of two functions.
    """
    given = os.environ.get("TIMM_TRAIN_SCRIPT")
    if not given:
        pytest.skip("set TIMM_TRAIN_SCRIPT to the path of timm's train.py, which is in none of its packages")
    text = Path(given).read_text(encoding="utf-8")
    copy = tmp_path / "train.py"
    copy.write_text(text.replace("device=torch.device('cuda')", "device=torch.device('cpu')"), encoding="utf-8")
    (tmp_path / "cpu.yaml").write_text("device: cpu\n", encoding="utf-8")
    return copy


@pytest.mark.parametrize("name", ["Mixup", "FastCollateMixup"])
def test_timms_own_script_is_mixed_by_raremix(name: str, train_script: Path, images: Path, tmp_path: Path) -> None:
    log = tmp_path / "calls.jsonl"
    options = f"--model test_resnet --num-classes 2 --input-size 3 32 32 --no-aug --smoothing {SMOOTHING}".split()
    options += f"-b 8 --epochs {EPOCHS} --mixup 1 --mixup-off-epoch {OFF} --workers 2 --lr 0.01 --opt adamw".split()
    options += f"--warmup-epochs 0 --config {tmp_path / 'cpu.yaml'} --data-dir {images} --output {tmp_path}".split()
    options += ["--experiment", "run", *(["--no-prefetcher"] if name == "Mixup" else [])]
    done = subprocess.run(
        [sys.executable, "-c", WATCH, log, EXAMPLE, train_script, "--mixer", "saliencymix", *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"in place of timm.data.{name}: SaliencyMix(" in done.stdout

    calls = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    white = [shares(call["targets"]) for call in calls if call["kind"] == name]
    assert mixed_epochs(white) == [True] * OFF + [False] * (EPOCHS - OFF)
    with (tmp_path / "run" / "summary.csv").open(encoding="utf-8") as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
    assert len(losses) == EPOCHS
    assert losses[-1] < losses[0]
