"""How long training takes on this machine: measured by training on noise, with the loop that a study trains with.

A run takes s steps of a + b B seconds, where B is the batch size: a is what the optimiser and the weight average take
for any number of images, b grows with the image's size. Beside its steps it is started, keeps checkpoints, and is
written down.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int

from raremix.core.random import rng
from raremix.data.augment import Classical
from raremix.data.samplers import Natural
from raremix.losses import CrossEntropy
from raremix.mix import NoMix
from raremix.models import ClassifierSpec
from raremix.train import Classification, Feed, TrainSpec, fit
from raremix.train.inference import predict_logits
from raremix.train.optimizer import make_optimizer
from raremix.train.spec import make_fabric

CLASSES = 7
STEPS = 4
SMALL = 32
"""Side at which two images cost so little that what remains is the price of a step itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTime:
    """What a run takes beside its images.

    Attributes:
        step: seconds of a step without any image.
        run: seconds of a run without any step: start, checkpoints, result.
    """

    step: float = 0.0
    run: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Noise:
    """Images that were never taken."""

    pixels: np.ndarray

    def take(self, ids: Int[np.ndarray, " B"]) -> np.ndarray:
        """Return noise."""
        return self.pixels[ids % len(self.pixels)]


def time_step(size: int, network: ClassifierSpec, channels: int, *, fixed: float = 0.0) -> float:
    """Measure the seconds that each image adds to a training step.

    Args:
        size: side of the images in pixels.
        network: what is trained; its weights are not read.
        channels: of the images.
        fixed: seconds of a step without images, see `RunTime`.
    """
    # On a CPU time grows evenly with the images, so that few will do.
    batch = 64 if torch.cuda.is_available() else max(2, min(16, 16 * 64 * 64 // size**2))
    seconds = _train(network, size=size, channels=channels, batch=batch, steps=STEPS, checkpoints=0).step
    return max(seconds - fixed, 0.1 * seconds) / batch


def time_scoring(size: int, network: ClassifierSpec, channels: int) -> float:
    """Measure the seconds that scoring an image takes.

    Args:
        size: side of the images in pixels.
        network: what scores; its weights are not read.
        channels: of the images.
    """
    count = 512 if torch.cuda.is_available() else max(8, min(64, 64 * 64 * 64 // size**2))
    pixels = rng(0, "show").integers(0, 256, (count, channels, size, size), dtype=np.uint8)
    spec = TrainSpec()
    fabric = make_fabric(spec)
    model = network.build(num_classes=CLASSES, channels=channels, size=size, seed=0).to(fabric.device)
    model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        predict_logits(
            model,
            _Noise(pixels=pixels),
            np.arange(count),
            num_classes=CLASSES,
            device=fabric.device,
            autocast=fabric.autocast,
        )
        seconds.append(time.perf_counter() - started)
    # The first pass also pays for what is made once; of the others, the less disturbed one tells what scoring takes.
    return min(seconds[1:]) / count


def time_run(network: ClassifierSpec, channels: int) -> RunTime:
    """Measure what a step takes without images, and a run without steps.

    Args:
        network: what is trained; its weights are not read.
        channels: of the images.
    """
    short = _train(network, size=SMALL, channels=channels, batch=2, steps=STEPS, checkpoints=0)
    kept = _train(network, size=SMALL, channels=channels, batch=2, steps=2, checkpoints=2)
    # Of two moments one is kept on the disk; a run keeps CHECKPOINTS less the last, and the result is a quarter of one.
    checkpoint = max(kept.whole - kept.built - 2 * short.step, 0.0)
    return RunTime(step=short.step, run=2 * kept.built + (TrainSpec().checkpoints - 0.75) * checkpoint)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trained:
    step: float
    built: float
    whole: float


def _train(network: ClassifierSpec, *, size: int, channels: int, batch: int, steps: int, checkpoints: int) -> _Trained:
    """Train on noise; return the median seconds of a step after the first, of building, and of all."""
    pixels = rng(0, "show").integers(0, 256, (2 * batch, channels, size, size), dtype=np.uint8)
    targets = np.eye(CLASSES)[np.arange(len(pixels)) % CLASSES]
    spec = TrainSpec(steps=steps, batch_size=batch, validations=0, checkpoints=checkpoints)
    feed = Feed(
        images=_Noise(pixels=pixels),
        ids=np.arange(len(pixels)),
        targets=targets,
        sampler=Natural(targets=targets, seed=0),
        augmentation=Classical(),
        batch_size=batch,
        seed=0,
    )
    moments: list[float] = []
    started = time.perf_counter()
    model = network.build(num_classes=CLASSES, channels=channels, size=size, seed=0)
    built = time.perf_counter() - started
    task = Classification(
        modules={"classifier": model},
        optimizers={"classifier": make_optimizer(model, spec)},
        criterion=CrossEntropy(),
        mixer=NoMix(num_classes=CLASSES),
        seed=0,
        steps=steps,
    )
    with tempfile.TemporaryDirectory() as folder:
        fit(
            task,
            feed,
            spec=spec,
            fabric=make_fabric(spec),
            folder=Path(folder),
            identity="timing",
            progress=lambda what, done, total: moments.append(time.perf_counter()),
        )
    return _Trained(step=float(np.median(np.diff(moments))), built=built, whole=time.perf_counter() - started)
