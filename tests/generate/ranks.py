"""What each process of a generator's training over several ranks does."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from tests.generate.toys import FORM, METHODS, SPEC, feed
from tests.train.toys import digest
from torch import Tensor, nn

from raremix.core import files
from raremix.core.errors import RunError, StoppedError
from raremix.core.ranks import Ranks
from raremix.generate import GeneratorMethod, TextualInversion
from raremix.train import FitResult, fit
from raremix.train.checkpoint import pack_optimizer, plain_state
from raremix.train.ranked import average_gradients, average_statistics

SHARED = replace(SPEC, batch_size=4)
"""Two images per rank and step, six steps."""


def train_all(fabric: Fabric, *, methods: Mapping[str, GeneratorMethod], folder: Path) -> None:
    """Train every method whole, and cut after two steps, and write down how each ended on this rank."""
    ranks = Ranks(rank=fabric.global_rank, count=fabric.world_size)
    said: dict[str, Any] = {"missing": missing(ranks), "statistics": statistics(ranks)}
    for name, method in methods.items():
        task, fitted = one(fabric, method, folder / name / "whole")
        assert fitted is not None
        if fabric.is_global_zero:
            flat = {
                f"{part}.{key}": value for part, weights in fitted.weights.items() for key, value in weights.items()
            }
            files.write_tensors(folder / f"{name}.safetensors", flat)
        said[name] = {"whole": state(task, fitted)}
        assert one(fabric, method, folder / name / "cut", stop_at=2)[1] is None
        task, fitted = one(fabric, method, folder / name / "cut")
        assert fitted is not None
        said[name] |= {"cut": state(task, fitted), "exact": fitted.exact}
        said[name]["memory"] = {key: value.tolist() for key, value in task.memory.items()}
    said["broken"] = broken(fabric, METHODS["dcgan"], folder / "broken")
    (folder / f"rank{fabric.global_rank}.json").write_text(json.dumps(said))


def one(
    fabric: Fabric, method: GeneratorMethod, folder: Path, *, stop_at: int | None = None, wrap: Any = None
) -> tuple[Any, FitResult | None]:
    """Train a method on this rank, until it is stopped if that is asked."""
    ranks, done = Ranks(rank=fabric.global_rank, count=fabric.world_size), [0]
    extras = {"steps": SHARED.steps, "average": SHARED.average, "ranks": ranks}
    task: Any = method.training(method.networks(FORM, seed=0), FORM, seed=0, extras=extras)
    with suppress(StoppedError):
        fitted = fit(
            task if wrap is None else wrap(task),
            feed(method, batch_size=SHARED.batch_size, ranks=ranks),
            spec=SHARED,
            fabric=fabric,
            folder=folder,
            identity="toy",
            progress=lambda what, step, total: done.__setitem__(0, step),
            # Only the first rank asks: all must follow.
            should_stop=lambda: fabric.is_global_zero and stop_at is not None and done[0] + 1 >= stop_at,
        )
        return task, fitted
    return task, None


def state(task: Any, fitted: FitResult) -> dict[str, str]:
    """Return hashes of everything that all ranks must agree on."""
    return {
        **{f"raw/{name}": digest(plain_state(module)) for name, module in task.modules.items()},
        **{f"kept/{name}": digest(weights) for name, weights in fitted.weights.items()},
        **{f"moments/{name}": digest(pack_optimizer(one)[0]) for name, one in task.optimizers.items()},
        "memory": digest(task.memory),
    }


def missing(ranks: Ranks) -> list[list[float] | None]:
    """Return what becomes of a gradient that both ranks have, that one has, and that none has."""
    found = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    found[0].grad = torch.tensor([1.0, 2.0]) * (ranks.rank + 1)
    if ranks.rank == 1:
        found[1].grad = torch.tensor([4.0, 8.0])
    average_gradients(found, ranks)
    return [None if p.grad is None else p.grad.tolist() for p in found]


def statistics(ranks: Ranks) -> list[float]:
    """Return the running mean of batches of which one rank saw ones, and the other threes, and what was alike."""
    norm = nn.BatchNorm1d(1)
    norm.running_mean = torch.tensor([1.0 + 2.0 * ranks.rank])
    norm.running_var = torch.tensor([0.1])
    average_statistics({"norm": norm}, ranks)
    assert norm.running_var.equal(torch.tensor([0.1]))
    return norm.running_mean.tolist()


def broken(fabric: Fabric, method: GeneratorMethod, folder: Path) -> str:
    """Return what a rank says when the second one's loss breaks."""

    class Broken:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        modules = property(lambda self: self.inner.modules)
        optimizers = property(lambda self: self.inner.optimizers)
        averaged = property(lambda self: self.inner.averaged)
        memory = property(lambda self: self.inner.memory)
        ranks = property(lambda self: self.inner.ranks)

        def after_step(self, step: int, averaged: Mapping[str, nn.Module]) -> None:
            self.inner.after_step(step, averaged)

        def loss(self, phase: str, batch: Any, *, step: int) -> Mapping[str, Tensor]:
            found = dict(self.inner.loss(phase, batch, step=step))
            if step == 3 and fabric.global_rank == 1:
                found["loss"] = found["loss"] * torch.nan
            return found

    try:
        one(fabric, method, folder, wrap=Broken)
    except RunError as error:
        return str(error)
    return "it went on"


def tiny_inversion(pipeline: Path) -> GeneratorMethod:
    """Return a method that learns words for the toy's classes."""
    words = TextualInversion(weights=str(pipeline), vectors=2, num_inference_steps=2)
    return words.told({"modality": "medical", "data": "toy"}, ["common", "lesion"])
