import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.train.toys import SPEC, Toy, Traced
from torch import Tensor, nn

from raremix.core import files
from raremix.core.errors import RunError, StoppedError
from raremix.core.random import torch_seed
from raremix.core.types import Batch
from raremix.train import TrainSpec, fit
from raremix.train.inference import predict_logits
from raremix.train.log import Log
from raremix.train.loop import _moments
from raremix.train.schedule import rate_factor
from raremix.train.spec import make_fabric, resolve_precision

pytestmark = pytest.mark.usefixtures("no_fsync")


def simple(toy: Toy, task: Any, folder: Path, **settings: Any) -> Any:
    return fit(task, toy.feed(), spec=toy.spec, fabric=make_fabric(toy.spec), folder=folder, identity="x", **settings)


def test_it_learns(tmp_path: Path) -> None:
    toy = Toy(mixer="none", augmentation="none", spec=replace(SPEC, steps=120, learning_rate=0.03, average=0.9))
    result = toy.run(tmp_path).result
    assert result is not None
    net = toy.task().modules["classifier"]
    net.load_state_dict(result.weights["classifier"])
    logits = predict_logits(net, toy.images(), np.arange(20), num_classes=2)
    assert (logits.argmax(axis=1) == toy.targets().argmax(axis=1)).mean() == 1
    assert (result.best_step, result.best_value, result.steps_done) == (120, None, 120)
    losses = [record["loss"] for record in files.read_records(tmp_path / "log.jsonl")]
    assert len(losses) == 120
    assert losses[-1] < 0.2 * losses[0]


def test_a_run_is_plain_pytorch(tmp_path: Path) -> None:
    """The loop against ten lines of PyTorch, with the same batches, mixing, dropout, clipping and rates: same bits."""
    toy = Toy(spec=replace(SPEC, average=None, warmup=0.25, channels_last=False, clip=0.05))
    ran = toy.run(tmp_path)
    task, feed = toy.task(), toy.feed()
    net, optimizer = task.modules["classifier"], task.optimizers["classifier"]
    with torch.random.fork_rng(devices=[]):
        for step in range(12):
            torch.manual_seed(torch_seed(0, "dropout", step, 0))
            optimizer.param_groups[0]["lr"] = 0.02 * rate_factor(step, steps=12, warmup=3)
            optimizer.zero_grad()
            task.inner.loss("classifier", feed.batch(step), step=step)["loss"].backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.05, foreach=True)
            optimizer.step()
    assert ran.result is not None
    for key, value in net.state_dict().items():
        assert torch.equal(value, ran.result.weights["classifier"][key]), key


def test_the_best_moment_is_kept(tmp_path: Path) -> None:
    toy = Toy(spec=replace(SPEC, validations=6))
    values = iter([0.5, 0.8, 0.7, 0.8, 0.6, 0.1])
    seen: list[dict[str, Tensor]] = []

    def validate(modules: Mapping[str, nn.Module]) -> dict[str, float]:
        assert not modules["classifier"].training
        seen.append({key: value.clone() for key, value in modules["classifier"].state_dict().items()})
        return {"auroc": next(values), "other": 0.0}

    result = simple(toy, toy.task(), tmp_path, validate=validate, metric="auroc")
    # Of two equal moments the later one.
    assert (result.best_step, result.best_value) == (8, 0.8)
    for key, value in result.weights["classifier"].items():
        assert torch.equal(value, seen[3][key])
    logged = [r for r in files.read_records(tmp_path / "log.jsonl") if "validation/auroc" in r]
    assert [r["step"] for r in logged] == [2, 4, 6, 8, 10, 12]


def test_training_goes_on_in_training_mode_after_validation(tmp_path: Path) -> None:
    modes = []

    class Watching(Traced):
        def loss(self, phase: str, batch: Batch, *, step: int) -> Mapping[str, Tensor]:
            modes.append(self.modules["classifier"].training)
            return super().loss(phase, batch, step=step)

    for average in (None, 0.9):
        toy = Toy(spec=replace(SPEC, steps=4, validations=4, average=average))
        simple(
            toy, Watching(toy.task().inner), tmp_path / str(average), validate=lambda m: {"auroc": 0.0}, metric="auroc"
        )
    assert modes == [True] * 8


class Two:
    """Two networks that are trained in turn, as a generator and its critic are."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.modules: dict[str, nn.Module] = {"maker": nn.Linear(3, 3), "critic": nn.Linear(3, 1)}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "critic": torch.optim.SGD(self.modules["critic"].parameters(), lr=0.1),
            "maker": torch.optim.Adam(self.modules["maker"].parameters(), lr=0.01),
        }
        self.averaged = ("maker",)
        self.memory = {"turns": torch.zeros(1)}
        self.order: list[str] = []

    def after_step(self, step: int, averaged: Mapping[str, nn.Module]) -> None:
        self.memory["turns"] += averaged["maker"].bias[:1].detach().abs()  # type: ignore[union-attr,index]

    def loss(self, phase: str, batch: Batch, *, step: int) -> Mapping[str, Tensor]:
        self.order.append(phase)
        made = self.modules["maker"](batch.images.mean(dim=(2, 3)))
        score = self.modules["critic"](made).mean()
        return {"loss": score.square() if phase == "critic" else -score, "score": score}


@pytest.fixture
def kept_seed() -> Any:
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.mark.usefixtures("kept_seed")
def test_two_networks_in_turn_resume_exactly(tmp_path: Path) -> None:
    toy = Toy(spec=replace(SPEC, steps=6, schedule="constant", warmup=0.0))
    task = Two()
    whole = simple(toy, task, tmp_path / "whole")
    assert task.order == ["critic", "maker"] * 6
    assert set(whole.weights) == {"maker", "critic"}
    first = files.read_records(tmp_path / "whole" / "log.jsonl")[0]
    assert {"critic/loss", "critic/score", "maker/loss", "maker/score", "rate", "step"} == set(first)
    asked = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 3

    with pytest.raises(StoppedError, match="stopped after step 3 of 6: run the same command to go on"):
        simple(toy, Two(), tmp_path / "cut", should_stop=stop)
    kept = Two()
    cut = simple(toy, kept, tmp_path / "cut")
    for name, weights in whole.weights.items():
        for key, value in weights.items():
            assert torch.equal(value, cut.weights[name][key])
    assert float(kept.memory["turns"]) > 0
    assert torch.equal(kept.memory["turns"], task.memory["turns"])
    assert (tmp_path / "cut" / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    class Diverging(Traced):
        def loss(self, phase: str, batch: Batch, *, step: int) -> Mapping[str, Tensor]:
            found = super().loss(phase, batch, step=step)
            return {"loss": found["loss"] * (float("nan") if step == 2 else 1.0)}

    toy = Toy()
    with pytest.raises(RunError, match=r"loss is nan at step 3: lower \[train\] learning_rate") as caught:
        simple(toy, Diverging(toy.task().inner), tmp_path)
    assert caught.value.exit_code == 1
    # Also where only the validation sees it, between two logged steps.
    with pytest.raises(RunError, match="validation/auroc is nan at step 4"):
        simple(toy, toy.task(), tmp_path / "v", validate=lambda m: {"auroc": float("nan")}, metric="auroc")


def test_global_states_stand_still(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    deterministic = torch.are_deterministic_algorithms_enabled()
    Toy(spec=replace(SPEC, deterministic=True, steps=3), metric="auroc").run(tmp_path)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert torch.is_grad_enabled()


def test_checkpoints_and_logs_of_a_run(tmp_path: Path) -> None:
    Toy(spec=replace(SPEC, steps=12, checkpoints=4)).run(tmp_path)
    # The last moment needs none: the result is about to be written.
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000006", "step-00000009"]
    Toy(spec=replace(SPEC, steps=2, checkpoints=0)).run(tmp_path / "none")
    assert not (tmp_path / "none" / "checkpoints").exists()


@pytest.mark.usefixtures("kept_seed")
def test_a_long_run_logs_some_of_its_steps(tmp_path: Path) -> None:
    toy = Toy(spec=replace(SPEC, steps=450, batch_size=1, checkpoints=0), augmentation="none", mixer="none")
    simple(toy, Two(), tmp_path)
    assert [r["step"] for r in files.read_records(tmp_path / "log.jsonl")] == list(range(2, 451, 2))


def test_progress_is_told_after_every_step(tmp_path: Path) -> None:
    toy, calls = Toy(spec=replace(SPEC, steps=3)), []
    simple(toy, toy.task(), tmp_path, progress=lambda *call: calls.append(call))
    assert calls == [("training", 1, 3), ("training", 2, 3), ("training", 3, 3)]


def test_inputs_are_not_moved_between_settings() -> None:
    assert resolve_precision(TrainSpec(precision="32")) == "32"
    assert resolve_precision(TrainSpec(precision="16")) == "16"
    assert resolve_precision(TrainSpec(accelerator="cpu")) in {"32", "bf16"}


def test_tensorboard_by_option(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    Toy(spec=replace(SPEC, steps=2, tensorboard=True)).run(tmp_path)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_without_tensorboard_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RunError, match=r"pip install 'raremix\[tensorboard\]'"):
        Log(tmp_path, enabled=True, tensorboard=True)


def test_a_rank_that_does_not_log_writes_nothing(tmp_path: Path) -> None:
    log = Log(tmp_path, enabled=False, tensorboard=False)
    log.rewind(0)
    log.add(1, {"loss": 1.0})
    log.sync()
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_what_is_logged_is_json(tmp_path: Path) -> None:
    Toy(spec=replace(SPEC, steps=2)).run(tmp_path)
    for line in (tmp_path / "log.jsonl").read_text().splitlines():
        assert {"step", "loss", "rate", "check"} <= set(json.loads(line))


# Prediction


def test_logits_do_not_depend_on_the_batch_size() -> None:
    toy = Toy()
    net = toy.task().modules["classifier"]
    net.train()
    ids = np.array([3, 3, 0, 19, 7])
    calls: list[Any] = []
    whole = predict_logits(net, toy.images(), ids, num_classes=2, progress=lambda *call: calls.append(call))
    assert whole.dtype == np.float64
    assert net.training
    for size in (1, 2, 4):
        found = predict_logits(net, toy.images(), ids, num_classes=2, batch_size=size, channels_last=False)
        np.testing.assert_allclose(found, whole, atol=1e-5)
    np.testing.assert_array_equal(whole[0], whole[1])
    assert calls == [("predicting", 5, 5)]
    assert predict_logits(net, toy.images(), np.zeros(0, dtype=np.int64), num_classes=2).shape == (0, 2)


def test_moments_end_with_the_last_step() -> None:
    assert _moments(10, 2) == {5, 10}
    assert _moments(2, 16) == {1, 2}
    assert _moments(5, 0) == frozenset()
