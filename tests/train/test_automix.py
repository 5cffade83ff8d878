"""Training masks beside a classifier: each loss moves its own network, areas follow shares, runs can be cut short."""

import hashlib
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.toys import SPEC as TOY_SPEC
from tests.train.toys import Net, Toy, digest
from torch import Tensor, nn

from raremix.core.errors import StoppedError
from raremix.core.features import output_of
from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.losses import LOSSES
from raremix.mix import AutoMix, MixBlock
from raremix.train import AutoMixing, FitResult, fit
from raremix.train.spec import make_fabric

AT = "features.2"
SPEC = replace(TOY_SPEC, steps=8, checkpoints=8)


pytestmark = pytest.mark.usefixtures("no_fsync")


def automixing(**settings: Any) -> AutoMixing:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        modules: dict[str, nn.Module] = {"classifier": Net(), "mask": MixBlock(6, hidden=4)}
    return AutoMixing(
        modules=modules,
        optimizers={name: torch.optim.AdamW(module.parameters(), lr=0.01) for name, module in modules.items()},
        criterion=LOSSES["cross_entropy"](),
        mixer=AutoMix(),
        seed=0,
        at=AT,
        **settings,
    )


def lesions(rows: int = 24) -> Batch:
    """Return noise with a bright square on the left for the second class, and on the right for the first."""
    generator = torch.Generator().manual_seed(0)
    images, targets = 0.3 * torch.rand(rows, 3, 16, 16, generator=generator), torch.eye(2).repeat(rows // 2, 1)
    images[0::2, :, 5:11, 9:15] = 1.0
    images[1::2, :, 5:11, 1:7] = 1.0
    return Batch(images=images, targets=targets)


def train(task: AutoMixing, phase: str, batch: Batch, *, steps: int) -> list[dict[str, float]]:
    """Move one network for some steps, the teacher following."""
    found = []
    for step in range(steps):
        optimizer = task.optimizers[phase]
        optimizer.zero_grad()
        losses = task.loss(phase, batch, step=step)
        losses["loss"].backward()
        optimizer.step()
        task.after_step(step, task.modules)
        found.append({name: float(value.detach()) for name, value in losses.items()})
    return found


def test_training_lowers_the_mask_networks_loss_and_areas_follow_shares() -> None:
    """The teacher knows the two classes; masks learn to keep the square of each, whatever the share."""
    task, batch = automixing(decay=0.9), lesions()
    train(task, "classifier", batch, steps=40)
    loss = task.loss("mask", batch, step=1000)
    assert float(loss["gap"].detach()) < 1e-3, "untrained masks are the shares"
    found = train(task, "mask", batch, steps=60)
    first, last = (sum(entry["loss"] for entry in part) / 10 for part in (found[:10], found[-10:]))
    assert last < first - 0.01
    assert sum(entry["gap"] for entry in found[-10:]) / 10 < 0.2
    assert task.teacher is not None
    mixer = AutoMix(network=task.modules["mask"], features=partial(output_of, task.teacher, AT))
    plan = mixer.plan(batch, batch, rng=rng(1, "mix"))
    assert isinstance(plan.mask, Tensor)
    share = rng(1, "mix")
    share.permutation(24)
    drawn = torch.from_numpy(share.beta(2.0, 2.0, 24)).float()
    assert float(torch.corrcoef(torch.stack([drawn, plan.weight]))[0, 1]) > 0.8


def test_a_penalty_on_areas_keeps_them_near_the_shares() -> None:
    gaps = []
    for area in (0.0, 10.0):
        task, batch = automixing(decay=0.9, area=area, margin=0.0), lesions()
        train(task, "classifier", batch, steps=40)
        gaps.append(train(task, "mask", batch, steps=60)[-1]["gap"])
    assert gaps[1] < 0.05
    assert gaps[1] < gaps[0]


@pytest.mark.parametrize(("phase", "other"), [("classifier", "mask"), ("mask", "classifier")])
def test_a_phase_gives_gradients_to_its_own_network_alone(phase: str, other: str) -> None:
    task = automixing()
    task.loss(phase, lesions(), step=0)["loss"].backward()
    assert any(p.grad is not None and bool((p.grad != 0).any()) for p in task.modules[phase].parameters())
    assert all(p.grad is None for p in task.modules[other].parameters())
    assert task.teacher is not None
    assert all(p.grad is None for p in task.teacher.parameters())


def test_the_teacher_follows_and_is_never_trained() -> None:
    task = automixing(decay=0.5)
    assert task.teacher is not None
    before = {name: value.clone() for name, value in task.memory.items()}
    with torch.no_grad():
        for parameter in task.modules["classifier"].parameters():
            parameter.add_(1.0)
    task.after_step(10**6, task.modules)
    for name, parameter in task.teacher.named_parameters():
        torch.testing.assert_close(parameter, before[f"teacher/{name}"] + 0.5)
    assert not task.teacher.training


def test_images_that_are_not_mixed_cost_nothing_where_they_do_not_count() -> None:
    batch = lesions()
    mixed, both = (
        float(automixing(clean=clean).loss("classifier", batch, step=0)["loss"].detach()) for clean in (0.0, 1.0)
    )
    assert both > mixed + 0.3  # two classes: about ln 2 more


def run(folder: Path, *, stop_at: int | None = None) -> tuple[AutoMixing, FitResult | None]:
    task, done, result = automixing(steps=SPEC.steps), [0], None

    def progress(what: str, step: int, total: int) -> None:
        done[0] = step

    with suppress(StoppedError):
        result = fit(
            task,
            Toy(spec=SPEC).feed(),
            spec=SPEC,
            fabric=make_fabric(SPEC),
            folder=folder,
            identity="automix",
            progress=progress,
            should_stop=lambda: stop_at is not None and done[0] + 1 >= stop_at,
        )
    return task, result


def state(task: AutoMixing, result: FitResult, folder: Path) -> dict[str, str]:
    found = {name: digest(weights) for name, weights in result.weights.items()}
    found |= {f"{name}, raw": digest(module.state_dict()) for name, module in task.modules.items()}
    log = hashlib.sha256((folder / "log.jsonl").read_bytes()).hexdigest()
    return found | {"teacher": digest(task.memory), "log": log, "exact": str(result.exact)}


def test_a_run_that_is_cut_short_ends_with_the_same_bits(tmp_path: Path) -> None:
    task, result = run(tmp_path / "whole")
    assert result is not None
    expected = state(task, result, tmp_path / "whole")
    assert set(result.weights) == {"classifier", "mask"}
    for step in (1, 4, 7):
        here = tmp_path / str(step)
        assert run(here, stop_at=step)[1] is None
        task, result = run(here)
        assert result is not None
        assert state(task, result, here) == expected, step
