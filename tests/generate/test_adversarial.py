"""The gradient penalty of the games between two networks: the same in bf16, and in 32 bits what it always was."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tests.generate.toys import FORM, METHODS, feed, run, same

from raremix.generate import dcgan, stargan
from raremix.train import TrainSpec
from raremix.train.spec import make_fabric

pytestmark = pytest.mark.usefixtures("no_fsync")

BOTH = [("dcgan", dcgan, ["discriminator"]), ("stargan", stargan, ["discriminator_latent", "discriminator_reference"])]


@pytest.mark.parametrize(("name", "module", "phases"), BOTH)
def test_a_step_in_bf16_is_finite_and_near_one_in_32_bits(name: str, module: ModuleType, phases: list[str]) -> None:
    method, batch = METHODS[name], feed(METHODS[name]).batch(0)
    plain, rough = (method.training(method.networks(FORM, seed=0), FORM, seed=0) for _ in range(2))
    fabric = make_fabric(TrainSpec(precision="bf16", accelerator="cpu"))
    for part, network in rough.modules.items():
        rough.modules[part] = fabric.setup_module(network)
    before: Any = rough.modules["generator"](*_inputs(name))
    assert before.dtype == torch.float32
    for phase, optimizer in rough.optimizers.items():
        ours, theirs = (one.loss(phase, batch, step=0) for one in (plain, rough))
        if phase in phases:
            assert float(theirs["r1"].detach()) == float(ours["r1"].detach()) > 0, "to the last bit"
        assert float(theirs["loss"].detach()) == pytest.approx(float(ours["loss"].detach()), rel=0.05)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(theirs["loss"])
        moved = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        assert moved
        assert all(bool(torch.isfinite(p.grad).all()) for p in moved)


@pytest.mark.parametrize(("name", "module", "phases"), BOTH)
def test_in_32_bits_nothing_changes(
    name: str, module: ModuleType, phases: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(METHODS[name], tmp_path / "exact")
    monkeypatch.setattr(module, "exact", lambda network: network)
    plain = run(METHODS[name], tmp_path / "plain")
    assert found is not None
    assert plain is not None
    assert same(found.weights, plain.weights)


def _inputs(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    if name == "dcgan":
        return torch.zeros(2, 5), torch.tensor([0, 1])
    return torch.zeros(2, 1, 32, 32), torch.zeros(2, 4)
