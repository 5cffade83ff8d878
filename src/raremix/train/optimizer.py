"""Optimisers by name."""

from typing import Any

import torch
from timm.optim import create_optimizer_v2  # pyright: ignore[reportPrivateImportUsage]
from torch import nn

from raremix.core.errors import ConfigError
from raremix.train.spec import TrainSpec


def make_optimizer(model: nn.Module, train: TrainSpec) -> torch.optim.Optimizer:
    """Build an optimiser of timm by name; biases and normalisation do not decay.

    Raises:
        ConfigError: if timm knows no such optimiser.
    """
    # One fused kernel instead of a loop over tensors; the three that have one are what most people use.
    fused: dict[str, Any] = {"fused": True} if train.optimizer in {"adam", "adamw", "sgd"} else {}
    try:
        return create_optimizer_v2(model, opt=train.optimizer, lr=train.rate, weight_decay=train.weight_decay, **fused)
    except (ValueError, AssertionError) as error:
        raise ConfigError(f"train.optimizer = {train.optimizer!r}: {error}") from None
