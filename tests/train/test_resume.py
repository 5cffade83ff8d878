"""A run that is cut short, however and however often, ends as if nothing had happened."""

import json
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision.amp import MixedPrecision
from tests.killer import Killer
from tests.train.toys import SPEC, Toy

from raremix.core import files
from raremix.core.errors import ResumeError
from raremix.train import checkpoint

EPOCH = 4
TOYS = {
    "mixup": Toy(mixer="mixup", sampler="natural", metric="auroc"),
    "cutmix, balanced": Toy(mixer="cutmix", sampler="balanced"),
}


# R2, R3


@pytest.mark.usefixtures("no_fsync")
@pytest.mark.parametrize("name", TOYS)
def test_from_every_step_of_three_epochs(name: str, tmp_path: Path) -> None:
    toy = TOYS[name]
    whole = toy.run(tmp_path / "whole")
    assert sorted(whole.task.steps) == list(range(12))
    for step in range(1, 12):
        here = tmp_path / str(step)
        first = toy.run(here, stop_at=step)
        assert sorted(first.task.steps) == list(range(step))
        rest = toy.run(here)
        assert {**first.task.steps, **rest.task.steps} == whole.task.steps, step
        assert sorted(rest.task.steps) == list(range(step, 12))
        assert rest.state() == whole.state(), step


@pytest.mark.usefixtures("no_fsync")
@pytest.mark.parametrize(
    "stops",
    [(EPOCH - 1, EPOCH, EPOCH + 1), (EPOCH + 1, EPOCH + 2), (5, 6, 7), (1, 2, 3, 4), (2 * EPOCH, 2 * EPOCH + 1, 11)],
)
def test_resumed_again_and_again(stops: tuple[int, ...], tmp_path: Path) -> None:
    toy = TOYS["mixup"]
    whole = toy.run(tmp_path / "whole")
    seen: dict[int, Any] = {}
    for stop in stops:
        seen |= toy.run(tmp_path / "cut", stop_at=stop).task.steps
    last = toy.run(tmp_path / "cut")
    assert {**seen, **last.task.steps} == whole.task.steps
    assert last.state() == whole.state()


@pytest.mark.usefixtures("no_fsync")
def test_stopped_at_the_very_end(tmp_path: Path) -> None:
    whole = TOYS["mixup"].run(tmp_path / "whole")
    TOYS["mixup"].run(tmp_path / "cut", stop_at=12)
    last = TOYS["mixup"].run(tmp_path / "cut")
    assert last.task.steps == {}
    assert last.state() == whole.state()
    # And once more, after the end: the last checkpoint is still the one of step 12.
    assert TOYS["mixup"].run(tmp_path / "cut").state() == whole.state()


@pytest.mark.usefixtures("no_fsync")
def test_killed_after_steps_that_no_checkpoint_knows(tmp_path: Path) -> None:
    """What was logged after the last checkpoint is logged once, not twice."""
    toy = Toy(metric="auroc")
    whole = toy.run(tmp_path / "whole")
    toy.run(tmp_path / "cut", stop_at=5)
    log = tmp_path / "cut" / "log.jsonl"
    for step in (6, 7):
        files.append_record(log, {"step": step, "loss": 9.0, "rate": 9.0})
    with log.open("ab") as file:
        file.write(b'{"step": 8, "lo')
    assert toy.run(tmp_path / "cut").state() == whole.state()


@pytest.mark.usefixtures("no_fsync")
@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (torch.optim.AdamW, {"fused": True, "amsgrad": True}),
        (torch.optim.AdamW, {"foreach": True}),
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "fused": True}),
        (torch.optim.SGD, {}),
        (torch.optim.RMSprop, {"momentum": 0.9}),
        (torch.optim.NAdam, {}),
        (torch.optim.Adafactor, {}),
        ("lamb", {}),
        ("lion", {}),
        ("nadamw", {}),
        ("adopt", {}),
        ("adabelief", {}),
        ("adafactorbv", {}),
        ("muon", {}),
        ("lookahead_adamw", {}),
    ],
)
def test_every_kind_of_optimiser(optimizer: Any, options: dict[str, Any], tmp_path: Path) -> None:
    def make(parameters: Any, lr: float, **others: Any) -> torch.optim.Optimizer:
        from timm.optim import create_optimizer_v2

        if isinstance(optimizer, str):
            return create_optimizer_v2(list(parameters), opt=optimizer, lr=lr, **others)
        return optimizer(parameters, lr=lr, **others)

    toy = Toy(optimizer=make, options=options, spec=replace(SPEC, steps=6, learning_rate=0.01))
    whole = toy.run(tmp_path / "whole")
    toy.run(tmp_path / "cut", stop_at=3)
    assert toy.run(tmp_path / "cut").state() == whole.state()


@pytest.mark.usefixtures("no_fsync")
@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16"},
        {"precision": "16"},
        {"channels_last": False},
        {"average": None},
        {"clip": None, "schedule": "constant", "warmup": 0.0},
        {"deterministic": True},
        {"workers": 2},
    ],
    ids=str,
)
def test_under_every_setting(changes: dict[str, Any], tmp_path: Path) -> None:
    toy = Toy(spec=replace(SPEC, **changes), metric="auroc")
    whole = toy.run(tmp_path / "whole")
    toy.run(tmp_path / "cut", stop_at=5)
    cut = toy.run(tmp_path / "cut")
    assert {k: v for k, v in whole.task.steps.items() if k >= 5} == cut.task.steps
    assert cut.state() == whole.state()


@pytest.mark.usefixtures("no_fsync")
@pytest.mark.parametrize(("channels", "bits"), [(1, 8), (2, 8), (4, 8), (1, 16), (3, 16)])
def test_any_channels_and_depth(channels: int, bits: int, tmp_path: Path) -> None:
    toy = Toy(channels=channels, bits=bits, mixer="cutmix", spec=replace(SPEC, steps=6))
    whole = toy.run(tmp_path / "whole")
    toy.run(tmp_path / "cut", stop_at=3)
    assert toy.run(tmp_path / "cut").state() == whole.state()


@pytest.mark.usefixtures("no_fsync")
def test_the_scale_of_half_precision_is_part_of_the_state(tmp_path: Path) -> None:
    """It adapts while a run goes on; a CPU has none of its own accord, so one is given to it."""

    def half() -> Fabric:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4, growth_interval=3)
        return Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu", scaler=scaler))

    whole = Toy().run(tmp_path / "whole", fabric=half())
    Toy().run(tmp_path / "cut", stop_at=5, fabric=half())
    found = checkpoint.latest(tmp_path / "cut" / "checkpoints")
    assert found is not None
    assert (found.state["precision"]["scale"], found.state["precision"]["_growth_tracker"]) == (2.0**5, 2)
    assert Toy().run(tmp_path / "cut", fabric=half()).state() == whole.state()


# R7


@pytest.mark.usefixtures("no_fsync")
def test_other_threads_are_named_and_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = Toy()
    toy.run(tmp_path, stop_at=3)
    with monkeypatch.context() as patch:
        before = torch.get_num_threads()
        patch.setattr(torch, "get_num_threads", lambda: before + 1)
        with pytest.warns(UserWarning, match=f"not bit for bit: threads: {before} -> {before + 1}"):
            toy.run(tmp_path, stop_at=6)
    with pytest.warns(UserWarning, match=f"threads: {before + 1} -> {before}"):
        toy.run(tmp_path, stop_at=9)
    # Nothing changed since the last checkpoint, but the run stays what it is.
    result = toy.run(tmp_path).result
    assert result is not None
    assert not result.exact
    assert [note.split(":")[0] for note in result.notes] == ["resumed-inexact at step 3", "resumed-inexact at step 6"]


@pytest.mark.usefixtures("no_fsync")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"precision": "bf16"}, "precision: 32 -> bf16"),
        ({"channels_last": False}, "channels_last: True -> False"),
    ],
)
def test_another_precision_or_layout_is_named(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    Toy().run(tmp_path, stop_at=3)
    with pytest.warns(UserWarning, match=words):
        ran = Toy(spec=replace(SPEC, **changes)).run(tmp_path)
    assert ran.result is not None
    assert not ran.result.exact
    assert words in ran.result.notes[0]


@pytest.mark.usefixtures("no_fsync")
@pytest.mark.parametrize("key", ["torch", "numpy", "capability", "machine"])
def test_another_machine_or_library_is_named(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Toy().run(tmp_path, stop_at=3)
    real = checkpoint.environment
    monkeypatch.setattr(checkpoint, "environment", lambda **settings: {**real(**settings), key: "other"})
    with pytest.warns(UserWarning, match=f"{key}: .* -> other"):
        Toy().run(tmp_path)


@pytest.mark.usefixtures("no_fsync")
def test_other_data_or_settings_are_refused(tmp_path: Path) -> None:
    Toy(identity="these data").run(tmp_path, stop_at=3)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        ResumeError, match="other data or another configuration: choose another output folder"
    ) as caught:
        Toy(identity="other data").run(tmp_path)
    assert caught.value.exit_code == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("no_fsync")
def test_an_undisturbed_run_is_exact(tmp_path: Path) -> None:
    Toy().run(tmp_path, stop_at=5)
    result = Toy().run(tmp_path).result
    assert result is not None
    assert result.exact
    assert result.notes == ()


# R9


@pytest.mark.usefixtures("no_fsync")
def test_a_seed_does_not_know_of_others(tmp_path: Path) -> None:
    alone = Toy(seed=3).run(tmp_path / "alone").state()
    for seed in (2, 3, 4):
        state = Toy(seed=seed).run(tmp_path / str(seed)).state()
        assert (state == alone) == (seed == 3)


# R1


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    found = Killer()
    yield found
    found.close()


def survive(killer: Killer, root: Path, *, mixer: str, steps: int, kills: int, seed: int) -> None:
    """Kill a run at random moments, with other worker threads each time, and compare it with an undisturbed one."""
    chance = random.Random(seed)

    def toy() -> dict[str, Any]:
        workers = chance.choice([0, 1, 2])
        spec = {"steps": steps, "workers": workers, "checkpoints": steps // 3, "validations": 5}
        return {"mixer": mixer, "spec": spec, "metric": "auroc" if seed % 2 else None}

    started = time.monotonic()
    assert killer.run(root / "whole", toy=toy()) == 0
    duration = time.monotonic() - started
    killed = 0
    for _ in range(20 * kills):
        code = killer.run(root / "cut", toy=toy(), kill_after=chance.uniform(0.02, 0.6) * duration)
        assert code in {0, -signal.SIGKILL}
        killed += code != 0
        if code == 0 and killed < kills:
            # It got to its end too soon: begin another one, to be killed as well.
            assert_same(root / "cut", root / "whole")
            files.remove_folder(root / "cut")
        elif killed >= kills:
            break
    assert killed >= kills
    assert killer.run(root / "cut", toy=toy()) == 0
    assert_same(root / "cut", root / "whole")
    strays = [path for path in (root / "cut").rglob("*") if files.TEMP_MARK in path.name]
    assert strays == []


def assert_same(cut: Path, whole: Path) -> None:
    assert json.loads((cut / "state.json").read_text()) == json.loads((whole / "state.json").read_text())
    assert (cut / "log.jsonl").read_bytes() == (whole / "log.jsonl").read_bytes()


def test_killed_a_few_times(killer: Killer, tmp_path: Path) -> None:
    survive(killer, tmp_path, mixer="mixup", steps=60, kills=4, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize(("mixer", "seed"), [("mixup", 11), ("cutmix", 12), ("none", 13), ("cutmix", 14)])
def test_killed_many_times(killer: Killer, tmp_path: Path, mixer: str, seed: int) -> None:
    """Sixty kills in all: a fault that shows once in twenty kills is found with a chance of 95 %."""
    survive(killer, tmp_path, mixer=mixer, steps=90, kills=16, seed=seed)
