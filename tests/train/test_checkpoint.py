import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.core.faults import CountingDisk, FailingDisk, crash_points, power_cuts
from torch import nn

from raremix.core import files
from raremix.core.errors import CorruptError, ResumeError, StorageError
from raremix.train import checkpoint
from raremix.train.checkpoint import Snapshot


def snapshot(step: int) -> Snapshot:
    tensors = {
        "modules/net": {"w": torch.full((3, 2), float(step)), "count": torch.tensor(step)},
        "optimizers/net": {"0/step": torch.tensor(float(step))},
        "optimizers/empty": {},
    }
    return Snapshot(
        step=step, tensors=tensors, state={"identity": "run", "environment": {"a": 1}, "step_twice": 2 * step}
    )


def check(found: Snapshot | None, *, steps: set[int]) -> int:
    """Check that a checkpoint is one of these, and whole; return its step."""
    assert found is not None
    assert found.step in steps
    assert found.tensors["modules/net"]["w"].tolist() == [[found.step] * 2] * 3
    assert int(found.tensors["modules/net"]["count"]) == found.step
    assert float(found.tensors["optimizers/net"]["0/step"]) == found.step
    assert found.state == {"identity": "run", "environment": {"a": 1}, "step_twice": 2 * found.step}
    return found.step


def steps_in(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in checkpoint.checkpoints(folder)]


def test_there_and_back(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.latest(tmp_path / "none") is None
    checkpoint.save(tmp_path, snapshot(3))
    assert check(checkpoint.latest(tmp_path), steps={3}) == 3


def test_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10, 20):
        checkpoint.save(tmp_path, snapshot(step))
    assert steps_in(tmp_path) == [10, 20]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000020"]


def test_what_was_passed_over_crowds_out_nothing(tmp_path: Path) -> None:
    """Two damaged newer ones must not make the newest whole one the oldest, and so be deleted."""
    for step in (8, 12):
        checkpoint.save(tmp_path, snapshot(step))
    for step in (8, 12):
        (tmp_path / f"step-{step:08d}" / "state.json").write_text("{}")
    with pytest.warns(UserWarning, match="passed over"):
        assert checkpoint.latest(tmp_path) is None
    checkpoint.save(tmp_path, snapshot(4))
    checkpoint.save(tmp_path, snapshot(6))
    assert steps_in(tmp_path) == [4, 6]
    assert check(checkpoint.latest(tmp_path), steps={6}) == 6


def test_a_damaged_one_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, snapshot(4))
    (tmp_path / "step-00000004" / "modules.net.safetensors").write_bytes(b"")
    checkpoint.save(tmp_path, snapshot(4))
    assert check(checkpoint.latest(tmp_path), steps={4}) == 4


# D5


def flips(path: Path, *, every: int) -> Iterator[tuple[int, int]]:
    """Yield with one bit after another flipped."""
    whole = path.read_bytes()
    for place in range(0, len(whole), every):
        data = bytearray(whole)
        bit = place % 8
        data[place] ^= 1 << bit
        path.write_bytes(bytes(data))
        yield place, bit
    path.write_bytes(whole)


@pytest.mark.parametrize(
    "name", ["modules.net.safetensors", "optimizers.net.safetensors", "state.json", "manifest.json"]
)
def test_every_flipped_bit_is_found_and_the_older_one_used(name: str, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, snapshot(1))
    newest = checkpoint.save(tmp_path, snapshot(2))
    for _ in flips(newest / name, every=3):
        with pytest.raises(CorruptError, match=f"{newest}/") as caught:
            checkpoint.load(newest)
        assert "\n" not in str(caught.value)
        assert name == "manifest.json" or str(newest / name) in str(caught.value)
    next(flips(newest / name, every=9))
    with pytest.warns(UserWarning, match="checkpoint passed over: "):
        assert check(checkpoint.latest(tmp_path), steps={1}) == 1


def test_missing_files_are_found(tmp_path: Path) -> None:
    newest = checkpoint.save(tmp_path, snapshot(2))
    for path in sorted(newest.iterdir()):
        whole = path.read_bytes()
        path.unlink()
        with pytest.raises(CorruptError, match=path.name):
            checkpoint.load(newest)
        path.write_bytes(whole)


# D1, D2, D3


@pytest.fixture
def begin(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], object]:
    """Put two checkpoints into a folder."""
    made = tmp_path_factory.mktemp("begin")
    checkpoint.save(made, snapshot(1))
    checkpoint.save(made, snapshot(2))
    return lambda here: shutil.copytree(made, here, dirs_exist_ok=True)


def test_a_kill_leaves_the_old_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: Callable[[Path], object]
) -> None:
    def act(here: Path) -> None:
        checkpoint.save(here, snapshot(3))

    points = 0
    monkeypatch.setattr(files, "DISK", CountingDisk())
    for here, finished in crash_points(monkeypatch, tmp_path, act, begin=begin):
        step = check(checkpoint.latest(here), steps={2, 3})
        assert not finished or step == 3
        files.sweep(here, recursive=True)
        checkpoint.save(here, snapshot(4))
        assert steps_in(here) == [step, 4]
        assert len(list(here.iterdir())) == 2
        points += 1
    assert points > 30


def test_a_power_cut_leaves_the_old_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: Callable[[Path], object]
) -> None:
    def act(here: Path) -> None:
        checkpoint.save(here / "run" / "checkpoints", snapshot(3))
        checkpoint.save(here / "run" / "checkpoints", snapshot(4))

    monkeypatch.setattr(files, "DISK", CountingDisk())
    for left, _, finished in power_cuts(
        monkeypatch, tmp_path, act, begin=lambda p: begin(p / "run" / "checkpoints"), mixtures=3
    ):
        step = check(checkpoint.latest(left / "run" / "checkpoints"), steps={2, 3, 4})
        assert not finished or step == 4


@pytest.mark.parametrize("broken", ["files", "folders"])
@pytest.mark.filterwarnings("ignore:checkpoint passed over")
def test_without_fsync_a_power_cut_costs_a_checkpoint(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: Callable[[Path], object]
) -> None:
    """The control of the test above: it must be able to fail."""
    monkeypatch.setattr(files, "DISK", CountingDisk())
    bad = 0
    for left, _, finished in power_cuts(
        monkeypatch,
        tmp_path,
        lambda here: checkpoint.save(here, snapshot(3)),
        begin=begin,
        mixtures=2,
        syncs_files=broken != "files",
        syncs_folders=broken != "folders",
    ):
        found = checkpoint.latest(left)
        bad += found is None or (finished and found.step != 3)
    assert bad


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_failing_disk_keeps_the_old_ones(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: Callable[[Path], object]
) -> None:
    begin(tmp_path)
    failures = 0
    for n in range(40):
        with monkeypatch.context() as patch:
            patch.setattr(files, "DISK", FailingDisk(n, error))
            try:
                checkpoint.save(tmp_path, snapshot(3))
                break
            except StorageError as caught:
                text = str(caught)
        failures += 1
        assert str(tmp_path) in text
        # The last thing that can fail is the removal of the oldest: then the new one is there.
        check(checkpoint.latest(tmp_path), steps={2, 3} if steps_in(tmp_path) == [1, 2, 3] else {2})
        assert not [path for path in tmp_path.rglob("*") if files.TEMP_MARK in path.name]
    assert failures >= 10


# Optimisers, identity, environment


def trained(**options: Any) -> torch.optim.Optimizer:
    net = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, **options)
    for _ in range(2):
        net(torch.linspace(0, 1, 72).reshape(1, 2, 6, 6)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {"amsgrad": True}], ids=str)
def test_moments_keep_the_layout_of_their_weights(options: dict[str, Any], tmp_path: Path) -> None:
    """A fused kernel walks through memory: moments in another layout would move the wrong weights."""
    one = trained(**options)
    tensors, settings = checkpoint.pack_optimizer(one)
    files.write_tensors(tmp_path / "o", tensors)
    checkpoint.save(tmp_path / "c", Snapshot(step=1, tensors={"o/o": tensors}, state={"s": settings}))
    loaded = checkpoint.latest(tmp_path / "c")
    assert loaded is not None
    other = trained(**options)
    checkpoint.unpack_optimizer(other, loaded.tensors["o/o"], loaded.state["s"])
    for a, b in zip(one.param_groups[0]["params"], other.param_groups[0]["params"], strict=True):
        for key, value in one.state[a].items():
            assert torch.equal(value, other.state[b][key])
            assert value.stride() == other.state[b][key].stride()


def test_another_run_is_refused() -> None:
    checkpoint.check_identity(snapshot(1), "run")
    with pytest.raises(ResumeError, match="delete the checkpoints to begin anew"):
        checkpoint.check_identity(snapshot(1), "another")


def test_the_environment_names_what_bits_depend_on() -> None:
    found = checkpoint.environment(device=torch.device("cpu"), precision="32", channels_last=True, ranks=2)
    assert set(found) == {
        "torch", "numpy", "python", "machine", "device", "capability", "threads", "precision", "channels_last", "ranks"
    }  # fmt: skip
    assert checkpoint.differences(snapshot(1), {"a": 1}) == []
    assert checkpoint.differences(snapshot(1), {"a": 2, "b": 3}) == ["a: 1 -> 2", "b: None -> 3"]


def test_only_wrappers_are_unwrapped() -> None:
    """A network may well call one of its layers `module`."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 2)
            self.head = nn.Linear(2, 1)

    net = Net()
    assert checkpoint.unwrap(net) is net
    assert len(checkpoint.plain_state(net)) == 4
    assert checkpoint.unwrap(nn.parallel.DataParallel(net)) is not net.module
