"""Conditional augmentation: a denoiser sees images changed, is told how, and draws unchanged ones when told nothing."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

LABELS = 9
"""Flipped, upside down, cosine and sine of the turn, size, right, down, brightness, contrast: 0 where none changed; the
last five in standard deviations, so that a network hears of a shift as loudly as of a flip."""

SIZE, SHIFT, BRIGHTNESS, CONTRAST = 0.2, 0.125, 0.1, 0.3
"""Standard deviations: of the size's logarithm to base 2, of shifts as a share of the side (both as published), of
brightness in the range -1 to 1, of the contrast's logarithm to base 2."""
SPREAD = (SIZE, SHIFT, SHIFT, BRIGHTNESS, CONTRAST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """The drawn changes of a batch, which are also what the denoiser is told.

    Attributes:
        labels: one row per image, see `LABELS`.
    """

    labels: Float[Tensor, "B 9"]

    def __getitem__(self, rows: slice) -> "Changed":
        """Return the changes of some of the images."""
        return Changed(labels=self.labels[rows])


def draw_changed(count: int, *, share: float, rng: np.random.Generator) -> Changed:
    """Draw the changes of `count` images.

    Args:
        count: how many.
        share: probability of each kind of change.
        rng: the stream.
    """
    asked = rng.random((count, 7)) < share
    normal = rng.standard_normal((count, 5))
    sides, angle = rng.integers(2, size=(count, 2)), rng.uniform(-np.pi, np.pi, count) * asked[:, 2]
    labels = np.empty((count, LABELS), dtype=np.float32)
    labels[:, :2] = sides * asked[:, :2]
    labels[:, 2], labels[:, 3] = np.cos(angle) - 1, np.sin(angle)
    labels[:, 4:] = normal * asked[:, [3, 4, 4, 5, 6]]
    return Changed(labels=torch.from_numpy(labels))


def apply_changed(images: Float[Tensor, "B C H W"], changed: Changed) -> Float[Tensor, "B C H W"]:
    """Change images in [-1, 1]; those whose labels are all 0 come back as they were.

    Karras et al., "EDM", NeurIPS 2022, appendix F.2, https://arxiv.org/abs/2206.00364: what is told does not leak into
    what is drawn. Departures: one bicubic warp instead of wavelet filters; no anisotropic scale; brightness and
    contrast.

    Args:
        images: values in [-1, 1].
        changed: one row per image.

    Example:
        >>> still = Changed(labels=torch.zeros(1, 9))
        >>> images = torch.rand(1, 1, 4, 4)
        >>> torch.equal(apply_changed(images, still), images)
        True
    """
    u = changed.labels.to(images)
    u = torch.cat([u[:, :4], u[:, 4:] * u.new_tensor(SPREAD)], dim=1)
    cos, sin, scale = 1 + u[:, 2], u[:, 3], torch.exp2(-u[:, 4])
    across, down = (1 - 2 * u[:, 0]), (1 - 2 * u[:, 1])
    # Shifts are shares of the side, which is 2 units long.
    warp = torch.stack(
        [
            torch.stack([cos * scale * across, -sin * scale * down, -2 * u[:, 5]], dim=1),
            torch.stack([sin * scale * across, cos * scale * down, -2 * u[:, 6]], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(warp, list(images.shape), align_corners=False)
    warped = functional.grid_sample(images, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    moved = (u[:, :7] != 0).any(dim=1).view(-1, 1, 1, 1)
    column = (-1, 1, 1, 1)
    # A resampled image is not the image: rounding alone would change those that were not asked to move.
    return torch.addcmul(u[:, 7].view(column), torch.where(moved, warped, images), torch.exp2(u[:, 8]).view(column))
