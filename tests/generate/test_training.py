"""Every generator in the one loop: resumed to the same bits, stopped when it breaks, moved by its seed alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.generate.toys import FORM, METHODS, SPEC, feed, run, same

from raremix.core.errors import ConfigError, RunError
from raremix.core.protocols import Trainable
from raremix.generate import DCGAN, GENERATORS, GeneratorMethod
from raremix.generate.pairs import ClassPairs
from raremix.train import checkpoint

pytestmark = pytest.mark.usefixtures("no_fsync")


@pytest.mark.parametrize("name", METHODS)
def test_resumed_to_the_same_bits(name: str, tmp_path: Path) -> None:
    whole = run(METHODS[name], tmp_path / "whole")
    assert whole is not None
    here = tmp_path / "cut"
    assert run(METHODS[name], here, stop_at=1) is None
    assert run(METHODS[name], here, stop_at=4) is None
    rest = run(METHODS[name], here)
    assert rest is not None
    assert rest.exact
    assert same(rest.weights, whole.weights)
    assert (here / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()


@pytest.mark.parametrize("name", METHODS)
def test_it_learns_something_and_averages_what_draws(name: str, tmp_path: Path) -> None:
    method = METHODS[name]
    fitted = run(method, tmp_path, spec=replace(SPEC, steps=4))
    assert fitted is not None
    start = method.networks(FORM, seed=0)
    for network in start:
        before = {key: value.detach() for key, value in start[network].state_dict().items()}
        assert not same({"x": fitted.weights[network]}, {"x": before}), network
    task = method.training(start, FORM, seed=0)
    assert set(method.kept) == set(task.averaged)


@pytest.mark.parametrize("name", sorted(set(GENERATORS) & set(METHODS)))
def test_registered_methods_keep_their_promises(name: str) -> None:
    method = GENERATORS[name]()
    assert isinstance(method, GeneratorMethod)
    assert GENERATORS[name].__dataclass_params__.frozen  # type: ignore[attr-defined]
    small = METHODS[name]
    task = small.training(small.networks(FORM, seed=0), FORM, seed=0)
    assert isinstance(task, Trainable)
    given = feed(small).batch(0)
    state, kept = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index] # noqa: NPY002
    first = {phase: float(task.loss(phase, given, step=5)["loss"].detach()) for phase in task.optimizers}
    again = {phase: float(task.loss(phase, given, step=5)["loss"].detach()) for phase in task.optimizers}
    assert first == again, "draws depend on the step alone"
    assert torch.equal(state, torch.get_rng_state())
    assert (kept == np.random.get_state()[1]).all()  # type: ignore[index] # noqa: NPY002
    networks, others = (small.networks(FORM, seed=s) for s in (0, 1))
    name = small.kept[0]
    first_weight = next(networks[name].parameters())
    assert not torch.equal(first_weight, next(others[name].parameters()))
    assert torch.equal(first_weight, next(small.networks(FORM, seed=0)[name].parameters()))


def test_a_loss_that_breaks_keeps_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = METHODS["dcgan"]
    kind: Any = type(method.training(method.networks(FORM, seed=0), FORM, seed=0))
    plain = kind.loss

    def broken(self: Any, phase: str, batch: Any, *, step: int) -> dict[str, torch.Tensor]:
        found = dict(plain(self, phase, batch, step=step))
        if step == 3 and phase == "generator":
            found["loss"] = found["loss"] * torch.nan
        return found

    monkeypatch.setattr(kind, "loss", broken)
    with pytest.raises(RunError, match=r"generator/loss is nan at step 4.*last good checkpoint is .*step-00000002"):
        run(method, tmp_path)
    kept = checkpoint.latest(tmp_path / "checkpoints")
    assert kept is not None
    assert kept.step == 2
    assert all(bool(t.isfinite().all()) for g in kept.tensors.values() for t in g.values() if t.is_floating_point())


def test_weights_that_broke_are_not_checkpointed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = METHODS["dcgan"]
    kind: Any = type(method.training(method.networks(FORM, seed=0), FORM, seed=0))

    def poison(self: Any, step: int, averaged: Any) -> None:
        if step == 3:
            with torch.no_grad():
                next(self.modules["generator"].parameters())[0] = torch.inf

    monkeypatch.setattr(kind, "after_step", poison)
    with pytest.raises(RunError, match="of the generator is not finite at step 4"):
        run(method, tmp_path)
    assert [path.name for path in checkpoint.checkpoints(tmp_path / "checkpoints")] == ["step-00000002"]


def test_pairs_are_of_one_class_and_all_classes_come_alike() -> None:
    targets = np.eye(3)[[0] * 20 + [1] * 3 + [2]]
    pairs = ClassPairs(targets=targets, seed=4)
    rows = pairs.row(np.arange(6 * 300)).reshape(-1, 2)
    classes = targets.argmax(axis=1)[rows]
    assert (classes[:, 0] == classes[:, 1]).all()
    # Counted over whole turns through the classes within a block of 256 pairs.
    assert np.bincount(classes[:255, 0]).tolist() == [85, 85, 85]
    assert (rows[classes[:, 0] < 2, 0] != rows[classes[:, 0] < 2, 1]).all(), "two images where there are two"
    assert set(rows.ravel().tolist()) == set(range(24))
    assert (pairs.row(np.array([1001, 7])) == rows.ravel()[[1001, 7]]).all()
    with pytest.raises(ConfigError, match="class number 1"):
        ClassPairs(targets=np.eye(2)[[0, 0]], seed=0)


@pytest.mark.parametrize("wrong", [{"width": 0}, {"r1": -1.0}, {"learning_rate": 0.0}])
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DCGAN(**wrong)
