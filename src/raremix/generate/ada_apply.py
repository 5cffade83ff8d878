"""Adaptive augmentation: drawn changes applied to images, so that gradients go through."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from raremix.generate.ada import BANDS, Adaptation

HOLE = 0.5
"""Side of the hole as a share of the image's."""


def adapt(images: Float[Tensor, "B C H W"], drawn: Adaptation) -> Float[Tensor, "B C H W"]:
    """Change images; gradients go through, and rows that nothing happened to come back as they were.

    All moves of an image are one affine warp; what lies outside is its mirror image. A flip, quarter turns and whole
    pixels take the pixels as they are. Everything else is sampled by bicubic interpolation, where the paper samples
    bilinearly at twice the size, between a wavelet's twelve taps: an image that is made much smaller is rougher here.

    Args:
        images: values in [-1, 1].
        drawn: from `draw_adaptation`.

    Example:
        >>> from raremix.generate.ada import draw_adaptation
        >>> always = {"kinds": frozenset({"flip"}), "probability": 1.0, "rng": np.random.default_rng(0)}
        >>> images = torch.tensor([0.0, 1.0]).expand(8, 1, 2, 2)
        >>> adapt(images, draw_adaptation(8, side=2, channels=1, **always))[:, 0, 0, 0].tolist()
        [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    x = _warped(images, drawn)
    if drawn.color is not None:
        color = drawn.color.to(x)
        x = torch.einsum("boc,bchw->bohw", color[..., :-1], x) + color[..., -1, None, None]
    if drawn.bands is not None:
        x = _filtered(x, drawn.bands.to(x))
    if drawn.strength is not None:
        noise = drawn.ranks.normal(tuple(x.shape), seed=drawn.seed, device=x.device)
        x = x + noise.to(x) * drawn.strength.to(x).view(-1, 1, 1, 1)
    return x if drawn.hole is None else x * ~_hole(drawn.hole.to(x.device), *x.shape[-2:])


def _warped(images: Tensor, drawn: Adaptation) -> Tensor:
    out = images
    for rows, mode in ((drawn.is_moved, "nearest"), (drawn.is_warped, "bicubic")):
        # Known on the CPU, so that a GPU is not waited for; the still rows are not even computed.
        index = _index(rows, images.device)
        if not len(index):
            continue
        some = images[index]
        grid = functional.affine_grid(drawn.warp.to(images)[index], list(some.shape), align_corners=False)
        some = functional.grid_sample(some, grid, mode=mode, padding_mode="reflection", align_corners=False)
        out = out.index_copy(0, index, some)
    return out


def _index(rows: Bool[np.ndarray, " B"], device: torch.device) -> Int[Tensor, " n"]:
    return torch.from_numpy(np.flatnonzero(rows)).to(device)


def _filtered(x: Tensor, factors: Tensor) -> Tensor:
    """Scale what blurs of growing width part an image into; all factors 1 give the image."""
    row = torch.tensor([1.0, 2.0, 1.0], device=x.device, dtype=x.dtype) / 4
    kernel = torch.outer(row, row).expand(x.shape[1], 1, 3, 3)
    column, out, now = (-1, 1, 1, 1), torch.zeros_like(x), x
    for band in range(len(BANDS) - 1):
        wide = 1 << band
        padded = functional.pad(now, (wide,) * 4, mode="replicate")
        coarse = functional.conv2d(padded, kernel, dilation=wide, groups=x.shape[1])
        out = out + (now - coarse) * factors[:, -1 - band].view(column)
        now = coarse
    return out + now * factors[:, 0].view(column)


def _hole(centre: Float[Tensor, "B 2"], height: int, width: int) -> Bool[Tensor, "B 1 H W"]:
    inside = []
    for number, size in enumerate((height, width)):
        place = (torch.arange(size, device=centre.device) + 0.5) / size
        # Nothing is near NaN.
        inside.append((place - centre[:, number, None]).abs() < HOLE / 2)
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
