"""A generator fitted by two processes, from its data to its folder."""

from pathlib import Path
from typing import Any

import pytest

from raremix.core.errors import ConfigError, StoppedError
from raremix.generate import generator_hash, read_card
from raremix.study.generators.fit import fit_generator
from raremix.study.generators.spec import read_generator
from raremix.train import checkpoint

DATA = ["data.images=60", "data.classes=2", "data.imbalance_ratio=3", "data.size=32", "data.channels=1"]
TRAIN = ["train.batch_size=4", 'train.precision="32"', "train.accelerator=cpu", "train.validations=2"]


def spec(*more: str, devices: int = 2) -> Any:
    small = ["generator.width=2", "generator.latent=4", f"train.devices={devices}"]
    return read_generator("phantom", method="dcgan", settings=[*DATA, *TRAIN, *small, *more])


@pytest.mark.slow
def test_two_processes_leave_one_generator(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def progress(title: str) -> Any:
        return lambda what, done, total: told.append((done, total)) if title == "Fitting dcgan" else None

    folder = fit_generator(spec("train.steps=40"), folder=tmp_path / "g", cache=tmp_path / "cache", progress=progress)
    card = read_card(folder)
    assert (card.steps, card.batch_size) == (40, 4)
    assert card.measured
    assert sorted(p.name for p in (folder / "samples").iterdir()) == ["step-00000020.png", "step-00000040.png"]
    assert (folder / "evolution.png").is_file()
    assert not (folder / "checkpoints").exists()
    assert len((folder / "log.jsonl").read_text().splitlines()) == 42, "one process writes: 40 steps and 2 moments"
    assert told[-1] == (40, 40)


@pytest.mark.slow
def test_stopped_and_resumed_it_is_the_same_generator(tmp_path: Path) -> None:
    wanted = spec("train.steps=120")
    whole = fit_generator(wanted, folder=tmp_path / "whole", cache=tmp_path / "cache")
    begun: list[int] = []

    def progress(title: str) -> Any:
        return lambda what, done, total: begun.append(done) if title.startswith("Fitting") else None

    cut = tmp_path / "cut"
    with pytest.raises(StoppedError, match=r"stopped after step \d+ of 120"):
        fit_generator(wanted, folder=cut, cache=tmp_path / "cache", progress=progress, should_stop=lambda: bool(begun))
    assert 0 < checkpoint.load(checkpoint.checkpoints(cut / "checkpoints")[-1]).step < 120
    fit_generator(wanted, folder=cut, cache=tmp_path / "cache")
    assert generator_hash(cut) == generator_hash(whole)
    assert (cut / "log.jsonl").read_bytes() == (whole / "log.jsonl").read_bytes()


def test_every_device_gets_as_many_images() -> None:
    with pytest.raises(ConfigError, match=r"train.batch_size = 4 must be divisible by devices = 3"):
        spec(devices=3)
