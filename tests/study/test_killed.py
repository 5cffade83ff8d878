"""A study that is killed at any moment and run again: nothing done twice, nothing lost, the same tables."""

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.killer import Killer

from raremix.core import files

STUDY: dict[str, Any] = {
    "study": {"name": "s", "seeds": [0, 1], "resamples": 100},
    "data": {"source": "phantom", "images": 120, "classes": 2, "imbalance_ratio": 3, "size": 28},
    "model": {"name": "resnet10t", "stem": "standard"},
    "train": {"steps": 6, "batch_size": 8, "validations": 2, "checkpoints": 6, "workers": 0},
    "arm": [{"name": "plain"}, {"name": "cutmix", "mix": "cutmix", "augment": "classical"}],
}


GENERATED: dict[str, Any] = {
    **STUDY,
    "study": {**STUDY["study"], "seeds": [0]},
    "generator": [
        {
            "name": "dcgan",
            "method": {"name": "dcgan", "width": 4},
            "train": {"steps": 6, "batch_size": 4, "checkpoints": 3},
        }
    ],
    "data": {**STUDY["data"], "size": 32},
    "arm": [
        {"name": "plain"},
        {"name": "added", "images": {"generator": "dcgan", "to": 100}},
    ],
}
"""Besides training, a fit, and some hundred images that are drawn block by block."""


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    found = Killer()
    yield found
    found.close()


def survive(killer: Killer, root: Path, *, kills: int, seed: int, study: dict[str, Any] = STUDY) -> None:
    """Kill a study until it was killed often enough, and compare what it leaves with an undisturbed one."""
    chance = random.Random(seed)
    started = time.monotonic()
    assert killer.run(root / "whole", study=study) == 0
    duration = time.monotonic() - started
    killed, done = 0, {}
    while killed < kills:
        code = killer.run(root / "cut", study=study, kill_after=chance.uniform(0.02, 0.9) * duration)
        assert code in {0, -signal.SIGKILL}
        killed += code != 0
        now = finished(root / "cut")
        assert {path: now.get(path) for path in done} == done, "what was done is left as it is"
        done = now
        if code == 0:
            assert_same(root / "cut", root / "whole")
            files.remove_folder(root / "cut")
            done = {}
    assert killer.run(root / "cut", study=study) == 0
    now = finished(root / "cut")
    assert {path: now[path] for path in done} == done
    assert_same(root / "cut", root / "whole")


def finished(place: Path) -> dict[Path, tuple[int, int]]:
    """Return the results that are there, with what changes if they are written again."""
    found = place.glob("runs/*/jobs/*/result/result.json")
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def drawn(place: Path) -> dict[str, str]:
    """Return the synthetic images that are there, by name and content."""
    found = (place / "runs").glob("*/synthetic/*/images/**/*.png")
    return {str(path.relative_to(place)): files.hash_file(path) for path in found}


def assert_same(cut: Path, whole: Path) -> None:
    for name in ("metrics.csv", "predictions.parquet", "study.toml"):
        assert (cut / "runs" / "s" / name).read_bytes() == (whole / "runs" / "s" / name).read_bytes(), name
    assert len(finished(cut)) == len(finished(whole)) > 1
    assert drawn(cut) == drawn(whole), "the same images, none twice"
    strays = [path for path in cut.rglob("*") if files.TEMP_MARK in path.name]
    assert strays == []
    assert (cut / "runs" / "s" / "report.html").stat().st_size > 10_000


def test_a_study_killed_a_few_times(killer: Killer, tmp_path: Path) -> None:
    survive(killer, tmp_path, kills=2, seed=1)


def test_a_study_that_makes_images_killed_a_few_times(killer: Killer, tmp_path: Path) -> None:
    survive(killer, tmp_path, kills=2, seed=1, study=GENERATED)
    assert len(drawn(tmp_path / "whole")) > 60


@pytest.mark.slow
def test_a_study_that_makes_images_killed_many_times(killer: Killer, tmp_path: Path) -> None:
    survive(killer, tmp_path, kills=25, seed=6, study=GENERATED)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3, 4, 5])
def test_a_study_killed_many_times(killer: Killer, tmp_path: Path, seed: int) -> None:
    """A hundred kills in all: a fault that shows once in 33 kills is found with a chance of 95 %."""
    survive(killer, tmp_path, kills=25, seed=seed)
