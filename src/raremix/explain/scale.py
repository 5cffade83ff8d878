"""Bringing maps to [0, 1], image by image."""

import torch
from jaxtyping import Float
from torch import Tensor


def working_type(images: Tensor) -> torch.dtype:
    """Return the type that maps of images are computed in: float32, or theirs where it is finer.

    Example:
        >>> working_type(torch.zeros(1, dtype=torch.bfloat16)), working_type(torch.zeros(1, dtype=torch.float64))
        (torch.float32, torch.float64)
    """
    return torch.promote_types(images.dtype, torch.float32)


def min_max(maps: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
    """Scale each row so that its smallest value becomes 0 and its largest 1; a flat row becomes all 0.

    Example:
        >>> min_max(torch.tensor([[2.0, 3.0, 4.0], [7.0, 7.0, 7.0]]))
        tensor([[0.0000, 0.5000, 1.0000],
                [0.0000, 0.0000, 0.0000]])
    """
    axes = tuple(range(1, maps.ndim))
    low, high = maps.amin(dim=axes, keepdim=True), maps.amax(dim=axes, keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), 0)


def over_peak(maps: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
    """Divide each row of evidence by its largest value; what is not positive becomes 0.

    Unlike `min_max` it keeps ratios: twice the evidence stays twice the importance.

    Example:
        >>> over_peak(torch.tensor([[-1.0, 1.0, 4.0], [-1.0, 0.0, -2.0]]))
        tensor([[0.0000, 0.2500, 1.0000],
                [0.0000, 0.0000, 0.0000]])
    """
    maps = maps.clamp(min=0)
    peak = maps.amax(dim=tuple(range(1, maps.ndim)), keepdim=True)
    return torch.where(peak > 0, maps / peak, 0)
