"""What is done to a trained network's last layer: shift its logits."""

import copy

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from raremix.core.errors import ConfigError
from raremix.core.features import head_of


def shift_logits(model: nn.Module, offsets: Float[np.ndarray, " K"]) -> nn.Module:
    """Return a classifier whose logits are larger by `offsets`, as part of its last layer's bias; no training.

    Args:
        model: a trained classifier whose last layer is linear and has a bias; it is left as it is.
        offsets: what is added to each logit.

    Raises:
        ConfigError: if the last layer is not linear, or has no bias.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
        >>> shifted = shift_logits(net, np.array([1.0, 0.0]))
        >>> (shifted(torch.ones(1, 1, 2)) - net(torch.ones(1, 1, 2))).detach().round(decimals=5).tolist()
        [[1.0, 0.0]]
    """
    other = copy.deepcopy(model)
    head = head_of(other)
    if not isinstance(head, nn.Linear) or head.bias is None:
        raise ConfigError(
            f"logits are shifted by the bias of a linear last layer, and this one is a {type(head).__name__} without: "
            'leave [model] head out, or take recipe = "crt"'
        )
    with torch.no_grad():
        head.bias.add_(torch.from_numpy(offsets).to(head.bias))
    return other
