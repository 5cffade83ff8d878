"""Images as vectors of their pixels, in which exact, noisy and compressed copies are seen."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torch.nn import functional

SIDE = 64
DEGREES = 5.0


def pixel_space(images: UInt8[np.ndarray, "n C H W"]) -> Float32[np.ndarray, "n d"]:
    """Return the grey pixels at 64 x 64 (or less, where images are smaller), less their mean, of length one.

    Products of such rows do not see brightness and contrast.

    Args:
        images: 0 to 255.
    """
    return _rows(_small(images))


def pixel_views(images: UInt8[np.ndarray, "n C H W"]) -> Float32[np.ndarray, "n v d"]:
    """Return the same of 26 views of each image: as it is and mirrored, shifted by 1/16 to 1/64 of a side, and turned.

    The distance of an image to others is that of its nearest view: a generator that was trained with flips, shifts and
    rotations gives its copies so. Below 64 pixels the shortest shifts are one pixel, and the views as many less.

    Args:
        images: 0 to 255.
    """
    small = _small(images)
    views = [small, small.flip(-1), small.flip(-2), small.flip((-2, -1))]
    views += [_shifted(small, down, across) for down, across in _steps(small.shape[-1])]
    views += [_turned(small, degrees) for degrees in (-DEGREES, DEGREES)]
    return np.stack([_rows(view) for view in views], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class PixelViews:
    """The `pixel_views` of images, made when they are asked for: all at once they take 26 times the images' memory.

    Example:
        >>> views = PixelViews(np.zeros((5, 1, 8, 8), dtype=np.uint8))
        >>> len(views), views[0:2].shape
        (5, (2, 14, 64))
    """

    images: UInt8[np.ndarray, "n C H W"]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> Float32[np.ndarray, "b v d"]:
        return pixel_views(self.images[rows])


def _small(images: UInt8[np.ndarray, "n C H W"]) -> Float[Tensor, "n 1 h w"]:
    pixels = torch.from_numpy(np.ascontiguousarray(images)).float().mean(dim=1, keepdim=True)
    side = [min(SIDE, length) for length in pixels.shape[-2:]]
    if list(pixels.shape[-2:]) == side:
        return pixels
    return functional.interpolate(pixels, size=side, mode="bilinear", antialias=True)


def _steps(side: int) -> list[tuple[int, int]]:
    """Return shifts, down and across, each once: the longest along a side, the others along diagonals as well."""
    far, near, nearest = (max(1, side // parts) for parts in (16, 32, 64))
    steps = [(0, far), (0, -far), (far, 0), (-far, 0)]
    for step in (near, nearest):
        steps += [(down, across) for down in (-step, 0, step) for across in (-step, 0, step)]
    return [step for step in dict.fromkeys(steps) if step != (0, 0)]


def _shifted(images: Float[Tensor, "n 1 h w"], down: int, across: int) -> Float[Tensor, "n 1 h w"]:
    """Shift, and repeat the border."""
    height, width = images.shape[-2:]
    rows = (torch.arange(height) - down).clamp(0, height - 1)
    columns = (torch.arange(width) - across).clamp(0, width - 1)
    return images[:, :, rows][..., columns]


def _turned(images: Float[Tensor, "n 1 h w"], degrees: float) -> Float[Tensor, "n 1 h w"]:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0]]).expand(len(images), 2, 3)
    places = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, places, padding_mode="border", align_corners=False)


def _rows(images: Float[Tensor, "n 1 h w"]) -> Float32[np.ndarray, "n d"]:
    flat = images.flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    return (flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-12)).numpy()
