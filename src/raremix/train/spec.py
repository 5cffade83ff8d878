"""The [train] table, and the device and precision that it asks for."""

import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from lightning_fabric import Fabric

from raremix.core.precision import computes_in_bf16
from raremix.train.schedule import Schedule

Precision = Literal["auto", "32", "bf16", "16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSpec:
    """The [train] table: budget, optimiser, validation, device.

    Attributes:
        steps: optimiser steps; the same for every arm, so that arms with more images do not get more training.
        batch_size: images per step over all ranks.
        optimizer: any optimiser of timm by name ("adamw", "sgd", "lamb", ...).
        learning_rate: peak learning rate; None: in a study what the network usually takes
            (`raremix.models.usual_learning_rate`), elsewhere 1e-3.
        weight_decay: weight decay; biases and normalisation are spared.
        warmup: share of the steps with a rising learning rate.
        schedule: "cosine" or "constant".
        clip: largest norm of the gradient; 0 or None: any.
        average: decay of the weight average that is validated and kept; 0 or None to keep the raw weights.
        validations: how often the validation images are scored; the best moment is kept.
        metric: validation metric that chooses the moment; "auto" is the study's primary metric.
        checkpoints: how many checkpoints are written on the way.
        precision: "32", "bf16", "16", or "auto": bf16 where the device computes in it, else 32.
        channels_last: memory format of images and weights.
        accelerator: "auto", "cpu", "cuda", "mps".
        devices: processes; more than one trains a classifier by DistributedDataParallel, and averages a generator's
            gradients after each backward pass.
        sync_batchnorm: share batch statistics between the ranks.
        workers: threads that make batches ahead.
        deterministic: same bits on a GPU too, where its kernels allow.
        tensorboard: write TensorBoard events beside the log.
    """

    steps: int = 1000
    batch_size: int = 64
    optimizer: str = "adamw"
    learning_rate: float | None = None
    weight_decay: float = 0.05
    warmup: float = 0.05
    schedule: Schedule = "cosine"
    clip: float | None = 1.0
    average: float | None = 0.998
    validations: int = 8
    metric: str = "auto"
    checkpoints: int = 4
    precision: Precision = "auto"
    channels_last: bool = True
    accelerator: str = "auto"
    devices: int = 1
    sync_batchnorm: bool = False
    workers: int = 1
    deterministic: bool = False
    tensorboard: bool = False

    @property
    def rate(self) -> float:
        """The peak learning rate as a number."""
        return 1e-3 if self.learning_rate is None else self.learning_rate


def make_fabric(spec: TrainSpec) -> Fabric:
    """Build the Fabric that a [train] table asks for; the caller launches it where there are several devices."""
    strategy = "auto" if spec.devices == 1 else "ddp_spawn"
    precision = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[resolve_precision(spec)]
    with warnings.catch_warnings():
        # Fabric asks users to tune matmul precision and data loaders; raremix uses neither.
        warnings.simplefilter("ignore")
        return Fabric(accelerator=spec.accelerator, devices=spec.devices, strategy=strategy, precision=precision)  # pyright: ignore[reportArgumentType]


def resolve_precision(spec: TrainSpec) -> Literal["32", "bf16", "16"]:
    """Turn "auto" into bf16 where the device computes in it, else 32 bits."""
    if spec.precision != "auto":
        return spec.precision
    if spec.accelerator in {"auto", "cuda", "gpu"} and torch.cuda.is_available():
        device = "cuda"
    elif spec.accelerator in {"auto", "mps"} and torch.backends.mps.is_available():
        device = "mps"
    else:
        device = "cpu"
    return "bf16" if computes_in_bf16(torch.device(device)) else "32"
