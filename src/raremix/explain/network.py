"""Asking a network without changing it: what the maps that look into a classifier share."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raremix.core.errors import ConfigError, DataError


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Run a network for evaluation, whatever is going on around: training, `no_grad` or inference mode.

    Inside, no gradient is recorded until `torch.enable_grad` asks for it; outside, every module is back in the mode
    that it was in.
    """
    was_training = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for module, training in was_training:
            module.training = training


def images_for(model: nn.Module, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Return the images in the type of the network's weights, apart from any graph and from inference mode."""
    weights = next((p for p in model.parameters() if p.is_floating_point()), None)
    images = images.clone() if images.is_inference() else images.detach()
    return images if weights is None else images.to(weights.dtype)


def logits_of(
    model: nn.Module, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"]
) -> Float[Tensor, "B K"]:
    """Run the network, and check that it answers about the targets.

    Raises:
        DataError: if it does not put out one number per class of the targets.
    """
    logits = model(images)
    if not isinstance(logits, Tensor) or logits.shape != targets.shape:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise DataError(f"targets have shape {tuple(targets.shape)}, the network puts out {got}: use the one that fits")
    return logits


def inner_network(model: nn.Module) -> nn.Module:
    """Return timm's network inside whatever wraps it; the model itself where there is none."""
    return next((module for module in model.modules() if hasattr(module, "feature_info")), model)


def as_map(features: Tensor, model: nn.Module, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
    """Bring a module's output to the form of a map.

    Args:
        features: (B, D, h, w); (B, h, w, D) where the network says "NHWC", as Swin does; or (B, N, D) tokens, class
            tokens first.
        model: the network that they come from.
        images: what it was given.

    Raises:
        ConfigError: if it is none of these.
    """
    network = inner_network(model)
    if features.ndim == 4:
        is_last = str(getattr(network, "output_fmt", "")).endswith("NHWC")
        return features.permute(0, 3, 1, 2) if is_last else features
    if features.ndim != 3:
        raise ConfigError(
            f"the layer puts out shape {tuple(features.shape)}, not a map: name a layer before the pooling"
        )
    first = int(getattr(network, "num_prefix_tokens", 0) or 0)
    grid = _patch_grid(network, features.shape[1] - first, images)
    return features[:, features.shape[1] - grid.numel() :].transpose(1, 2).unflatten(2, grid)


def _patch_grid(network: nn.Module, patches: int, images: Tensor) -> torch.Size:
    """Return the grid that a transformer cuts images into, or else the largest square that the last tokens fill."""
    measure = getattr(getattr(network, "patch_embed", None), "dynamic_feat_size", None)
    if measure is not None:
        grid = torch.Size(measure(tuple(images.shape[2:])))
        if grid.numel() == patches:
            return grid
    return torch.Size([math.isqrt(patches)] * 2)
