"""A small set of images, and generators small enough to train on it."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from raremix.core.errors import StoppedError
from raremix.data.samplers import SAMPLERS
from raremix.generate import DCGAN, Form, GeneratorMethod, StarGAN
from raremix.generate.pairs import ClassPairs
from raremix.train import Feed, FitResult, TrainSpec, fit
from raremix.train.loop import make_fabric

ROWS = 12
FORM = Form(size=32, channels=1, classes=2)
SPEC = TrainSpec(
    steps=6,
    batch_size=2,
    schedule="constant",
    warmup=0.0,
    clip=0.0,
    average=0.9,
    validations=0,
    checkpoints=3,
    precision="32",
    accelerator="cpu",
    workers=0,
)
METHODS: dict[str, GeneratorMethod] = {
    "dcgan": DCGAN(width=2, latent=5),
    "dcgan_hinge": DCGAN(width=2, latent=5, game="hinge"),
    "stargan": StarGAN(width=2, widest=4, hidden=8, latent=3, style=4, learning_rate=1e-3, mapping_rate=1e-3),
}
_fabric = lru_cache(make_fabric)


@dataclass(frozen=True)
class Squares:
    """Images in memory: class 1 has a bright square."""

    pixels: np.ndarray

    def take(self, ids: np.ndarray) -> np.ndarray:
        return self.pixels[ids]


def feed(method: GeneratorMethod, *, seed: int = 0, batch_size: int = SPEC.batch_size) -> Feed:
    pixels = np.random.default_rng(1).integers(0, 60, (ROWS, FORM.channels, FORM.size, FORM.size), dtype=np.uint8)
    pixels[1::2, :, 8:24, 8:24] += 180
    targets = np.eye(2)[np.arange(ROWS) % 2]
    common: dict[str, Any] = {"images": Squares(pixels), "ids": np.arange(ROWS), "targets": targets, "seed": seed}
    pool = None
    if method.is_translator:
        pool = Feed(**common, sampler=ClassPairs(targets=targets, seed=seed), batch_size=2 * batch_size, stream=1)
    return Feed(**common, sampler=SAMPLERS["balanced"](targets=targets, seed=seed), batch_size=batch_size, pool=pool)


def run(
    method: GeneratorMethod, folder: Path, *, stop_at: int | None = None, spec: TrainSpec = SPEC
) -> FitResult | None:
    """Train a toy in a folder, or go on with it; stopped after step `stop_at`, if that is given."""
    done = [0]

    def progress(what: str, step: int, total: int) -> None:
        done[0] = step

    with suppress(StoppedError):
        return fit(
            method.training(method.networks(FORM, seed=0), FORM, seed=0),
            feed(method),
            spec=spec,
            fabric=_fabric(spec),
            folder=folder,
            identity="toy",
            progress=progress,
            should_stop=lambda: stop_at is not None and done[0] + 1 >= stop_at,
        )
    return None


def same(a: Mapping[str, Mapping[str, Tensor]], b: Mapping[str, Mapping[str, Tensor]]) -> bool:
    """Whether two sets of weights are the same to the last bit."""
    return a.keys() == b.keys() and all(
        a[n].keys() == b[n].keys() and all(bool((a[n][k] == b[n][k]).all()) for k in a[n]) for n in a
    )
