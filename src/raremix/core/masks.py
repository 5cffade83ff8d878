"""Mixing masks at the resolution where they are used: images, feature maps, tokens."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

CLASS_TOKENS = 8
"""The most tokens that may stand before a transformer's grid: classes, distillation, registers."""


def resize_mask(mask: Float[Tensor, "R 1 h w"], height: int, width: int) -> Tensor:
    """Bring a mask to a map's size: patches repeated up, pixels averaged down; 1 x 1 is left to broadcast."""
    h, w = mask.shape[-2:]
    if (h, w) in {(1, 1), (height, width)}:
        return mask
    if height % h == 0 and width % w == 0:
        return mask.repeat_interleave(height // h, dim=2).repeat_interleave(width // w, dim=3)
    return functional.interpolate(mask, size=(height, width), mode="area")


def mask_for(mask: Float[Tensor, "R 1 h w"], features: Tensor) -> Tensor:
    """Bring a mask to the shape of features, so that it can be multiplied with them."""
    if features.ndim == 4:
        return resize_mask(mask, features.shape[-2], features.shape[-1])
    mean = mask.mean(dim=(1, 2, 3))
    if features.ndim != 3:
        return mean.reshape(-1, *([1] * (features.ndim - 1)))
    rows, columns = token_grid(features.shape[1], height=mask.shape[-2], width=mask.shape[-1])
    tokens = resize_mask(mask, rows, columns).expand(-1, 1, rows, columns).reshape(len(mask), -1, 1)
    first = mean[:, None, None].expand(-1, features.shape[1] - rows * columns, 1)
    return torch.cat([first, tokens], dim=1)


def token_grid(tokens: int, *, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of the grid that the last tokens of a transformer form; those before it are class tokens.

    Args:
        tokens: number of tokens, at least 1.
        height, width: of the image, or of anything of its proportions.

    Returns:
        The largest grid of the image's proportions that leaves at most `CLASS_TOKENS` over; the largest square if
        there is none.

    Example:
        >>> token_grid(197, height=224, width=224), token_grid(1 + 4 * 8, height=64, width=128)
        ((14, 14), (4, 8))
    """
    divisor = math.gcd(height, width)
    tall, wide = height // divisor, width // divisor
    scale = math.isqrt(tokens // (tall * wide))
    if scale and tokens - scale * scale * tall * wide <= CLASS_TOKENS:
        return scale * tall, scale * wide
    return math.isqrt(tokens), math.isqrt(tokens)
