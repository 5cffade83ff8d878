"""A small classifier on small images, and a record of all that a run did."""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from raremix.core.errors import StoppedError
from raremix.core.random import rng, torch_seed
from raremix.core.types import Batch, Boxes
from raremix.data.augment import AUGMENTATIONS
from raremix.data.samplers import SAMPLERS
from raremix.losses import LOSSES
from raremix.mix import MIXERS
from raremix.train import Classification, Feed, FitResult, TrainSpec, fit
from raremix.train.inference import predict_logits
from raremix.train.spec import make_fabric

_fabric = lru_cache(make_fabric)
ROWS, SIDE = 20, 12
SPEC = TrainSpec(
    steps=12,
    batch_size=5,
    learning_rate=0.02,
    validations=3,
    checkpoints=4,
    precision="32",
    accelerator="cpu",
    workers=0,
)
"""Three epochs of four steps."""


@dataclass(frozen=True)
class Arrays:
    """Images in memory."""

    pixels: np.ndarray

    def take(self, ids: np.ndarray) -> np.ndarray:
        return self.pixels[ids]


class Net(nn.Module):
    """Two convolutions with batch statistics and dropout, so that layout, buffers and torch's own draws all count."""

    def __init__(self, *, channels: int = 3, classes: int = 2, norm: bool = True) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1),
            nn.BatchNorm2d(6) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.dropout = nn.Dropout(0.3 if norm else 0.0)
        self.head = nn.Linear(8, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.dropout(self.features(images - 0.5)))


@dataclass(frozen=True, kw_only=True)
class Toy:
    """Everything that a toy run is made of."""

    spec: TrainSpec = SPEC
    seed: int = 0
    mixer: str = "mixup"
    sampler: str = "natural"
    augmentation: str = "classical"
    loss: str = "cross_entropy"
    rows: int = ROWS
    channels: int = 3
    bits: int = 8
    classes: int = 2
    norm: bool = True
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW
    options: Mapping[str, Any] = field(default_factory=lambda: {"fused": True})
    metric: str | None = None
    identity: str = "toy"

    def images(self) -> Arrays:
        kind = np.uint8 if self.bits == 8 else np.uint16
        top = np.iinfo(kind).max
        pixels = np.random.default_rng(5).integers(0, top, (self.rows, self.channels, SIDE, SIDE), dtype=kind)
        sick = self.targets()[:, -1] == 1
        pixels[sick, :, 3:8, 3:8] = top - top // 8
        return Arrays(pixels)

    def targets(self) -> np.ndarray:
        return np.eye(self.classes)[np.arange(self.rows) % 4 % self.classes]

    def feed(self, *, rank: int = 0, ranks: int = 1) -> Feed:
        targets = self.targets()
        return Feed(
            images=self.images(),
            ids=np.arange(self.rows),
            targets=targets,
            sampler=SAMPLERS[self.sampler](targets=targets, seed=self.seed),
            augmentation=AUGMENTATIONS[self.augmentation](),
            batch_size=self.spec.batch_size,
            seed=self.seed,
            rank=rank,
            ranks=ranks,
        )

    def task(self, *, rank: int = 0) -> "Traced":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(self.seed, "init"))
            net = Net(channels=self.channels, classes=self.classes, norm=self.norm)
        return Traced(
            Classification(
                modules={"classifier": net},
                optimizers={"classifier": self.optimizer(net.parameters(), lr=self.spec.learning_rate, **self.options)},
                criterion=LOSSES[self.loss](),
                mixer=MIXERS[self.mixer](),
                seed=self.seed,
                rank=rank,
            )
        )

    def run(self, folder: Path, *, stop_at: int | None = None, fabric: Fabric | None = None) -> "Ran":
        """Run, or go on with, the toy in a folder; stopped after step `stop_at`, if that is given."""
        task, feed, done = self.task(), self.feed(), [0]

        def progress(what: str, step: int, total: int) -> None:
            done[0] = step

        def validate(modules: Mapping[str, nn.Module]) -> dict[str, float]:
            logits = predict_logits(modules["classifier"], feed.images, feed.ids, num_classes=self.classes)
            return {"auroc": float(np.round(logits[:, -1] @ self.targets()[:, -1], 6))}

        # A Fabric in 32 bits has no state, and takes longer to make than the toy to train.
        fabric = fabric or (_fabric(self.spec) if self.spec.precision == "32" else make_fabric(self.spec))
        result = None
        with suppress(StoppedError):
            result = fit(
                task,
                feed,
                spec=self.spec,
                fabric=fabric,
                folder=folder,
                identity=self.identity,
                validate=validate if self.metric else None,
                metric=self.metric,
                progress=progress,
                should_stop=lambda: stop_at is not None and done[0] + 1 >= stop_at,
            )
        return Ran(task=task, folder=folder, result=result)


class Traced:
    """A trainable that writes down what every step saw and did."""

    def __init__(self, inner: Classification) -> None:
        self.inner = inner
        self.modules, self.optimizers, self.averaged = inner.modules, inner.optimizers, inner.averaged
        self.steps: dict[int, dict[str, Any]] = {}

    @property
    def memory(self) -> dict[str, Tensor]:
        return self.inner.memory

    def after_step(self, step: int, averaged: Mapping[str, nn.Module]) -> None:
        self.inner.after_step(step, averaged)

    def loss(self, phase: str, batch: Batch, *, step: int) -> Mapping[str, Tensor]:
        plan = self.inner.mixer.plan(batch, batch, rng=rng(self.inner.seed, "mix", step, self.inner.rank))
        mask = torch.as_tensor(plan.mask.edges) if isinstance(plan.mask, Boxes) else plan.mask
        losses = self.inner.loss(phase, batch, step=step)
        self.steps[step] = {
            "ids": None if batch.ids is None else batch.ids.tolist(),
            "images": digest(batch.images),
            "targets": digest(batch.targets),
            "weight": plan.weight.tolist(),
            "partner": plan.partner.tolist(),
            "mask": digest(mask),
            "loss": float(losses["loss"].detach()).hex(),
        }
        return losses


@dataclass(frozen=True)
class Ran:
    """What a run left."""

    task: Traced
    folder: Path
    result: FitResult | None

    def state(self) -> dict[str, str]:
        """Return hashes of everything that must be the same however often a run was cut short."""
        assert self.result is not None
        optimizer = self.task.optimizers["classifier"].state_dict()
        moments = {f"{i}/{key}": value for i, entry in optimizer["state"].items() for key, value in entry.items()}
        inner: Any = self.task.modules["classifier"]
        return {
            "kept": digest(self.result.weights["classifier"]),
            "raw": digest(inner.module.state_dict()),
            "moments": digest(moments),
            "groups": json.dumps(optimizer["param_groups"], default=str),
            "best": f"{self.result.best_step} {self.result.best_value}",
            "log": hashlib.sha256((self.folder / "log.jsonl").read_bytes()).hexdigest(),
            "exact": str(self.result.exact),
        }


def digest(value: Tensor | Mapping[str, Any]) -> str:
    """Return the SHA-256 of tensors' values, whatever their layout in memory."""
    found = hashlib.sha256()
    for name, entry in sorted(value.items()) if isinstance(value, Mapping) else [("", value)]:
        tensor = torch.as_tensor(entry).detach().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
