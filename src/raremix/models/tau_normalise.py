"""Tau-normalisation: shorten the last layer's longer weights, which belong to the frequent classes."""

import copy

import torch
from torch import nn

from raremix.core.errors import ConfigError
from raremix.core.features import head_of
from raremix.models.head import replace_head


def tau_normalise(model: nn.Module, *, tau: float = 1.0) -> nn.Module:
    """Return a classifier whose last layer's weights are divided by their length to the power tau; no training.

    w_c / |w_c|^tau, without a bias [1]. Trained on a long tail, frequent classes have the longer weights; tau = 0
    leaves the directions their lengths, 1 takes them away. Choose tau on validation images.

    [1] Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020,
    https://arxiv.org/abs/1910.09217.

    Args:
        model: a trained classifier whose last layer is linear; it is left as it is.
        tau: in [0, 1].

    Raises:
        ConfigError: if the last layer is not linear, or tau is out of range.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
        >>> _ = net[1].weight.data.copy_(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        >>> tau_normalise(net)[1].weight.tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 1.0]]
    """
    if not 0 <= tau <= 1:
        raise ConfigError(f"tau must lie in [0, 1], got {tau}")
    other = copy.deepcopy(model)
    head = head_of(other)
    if not isinstance(head, nn.Linear):
        raise ConfigError(f"tau-normalisation is for a linear last layer, and this one is a {type(head).__name__}")
    with torch.no_grad():
        weight = head.weight / head.weight.norm(dim=1, keepdim=True).clamp(min=1e-12) ** tau
        plain = nn.Linear(head.in_features, head.out_features, bias=False, device=weight.device, dtype=weight.dtype)
        plain.weight.copy_(weight)
    # The layer keeps its bias, at 0, so that the weights fit the network that timm builds.
    if head.bias is not None:
        plain.bias = nn.Parameter(torch.zeros_like(head.bias))
    replace_head(other, plain)
    return other
