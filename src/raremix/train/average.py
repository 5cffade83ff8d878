"""An exponential moving average of the weights, which is what is validated and kept."""

import copy

import torch
from torch import nn

from raremix.core.protocols import Trainable
from raremix.train.checkpoint import plain_state, unwrap
from raremix.train.schedule import average_decay


def start_averages(task: Trainable, *, decay: float | None) -> dict[str, nn.Module]:
    """Copy the modules of which an average is kept; none where `decay` is None."""
    if decay is None:
        return {}
    return {name: copy.deepcopy(unwrap(task.modules[name])).requires_grad_(False).eval() for name in task.averaged}


@torch.no_grad()
def update_averages(task: Trainable, averages: dict[str, nn.Module], *, decay: float | None, step: int) -> None:
    """Move every average towards its module: floats by the decay of the step, counters at once."""
    for name, average in averages.items():
        ours, theirs = [], []
        now = plain_state(task.modules[name])
        for key, value in average.state_dict().items():
            if value.is_floating_point():
                ours.append(value)
                theirs.append(now[key])
            else:
                value.copy_(now[key])
        torch._foreach_lerp_(ours, theirs, 1 - average_decay(step, decay=decay or 0.0))  # pyright: ignore[reportPrivateImportUsage]
