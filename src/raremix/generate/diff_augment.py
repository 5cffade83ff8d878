"""Differentiable augmentation: random changes of what the discriminator sees, which gradients go through."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

COLOR, SHIFT, HOLE = 0.5, 0.125, 0.5
"""Largest change of brightness, largest shift and side of the hole as shares of the side, as published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The drawn changes of a batch, one row each; uniform in [0, 1).

    Attributes:
        draws: brightness, saturation, contrast, shift down, shift right, hole's row, hole's column.
    """

    draws: Float[Tensor, "B 7"]

    def __getitem__(self, rows: slice) -> "Changes":
        """Return the changes of some of the images."""
        return Changes(draws=self.draws[rows])


def draw_changes(count: int, *, rng: np.random.Generator) -> Changes:
    """Draw the changes of `count` images."""
    return Changes(draws=torch.from_numpy(rng.random((count, 7)).astype(np.float32)))


def change(images: Float[Tensor, "B C H W"], changes: Changes) -> Float[Tensor, "B C H W"]:
    """Change colours, shift (zeros come in) and cut a hole (Zhao et al., "DiffAugment", https://arxiv.org/abs/2006.10738).

    Real and drawn images get changes of one distribution, so that the generator learns the images and not the changes,
    as long as no change hides what it does (https://arxiv.org/abs/2006.06676).

    Args:
        images: values in [-1, 1].
        changes: one row per image.

    Example:
        >>> still = Changes(draws=torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.5, 0.0, 0.0]]))
        >>> change(torch.ones(1, 1, 4, 4), still)[0, 0].int().tolist()
        [[0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    """
    u = changes.draws.to(images.device)
    column = (-1, 1, 1, 1)
    height, width = images.shape[-2:]
    x = images + (2 * COLOR * (u[:, 0] - 0.5)).view(column)
    if images.shape[1] > 1:
        grey = x.mean(dim=1, keepdim=True)
        x = grey + (x - grey) * (2 * u[:, 1]).view(column)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = mean + (x - mean) * (0.5 + u[:, 2]).view(column)
    most = int(SHIFT * height + 0.5), int(SHIFT * width + 0.5)
    down = torch.floor(u[:, 3] * (2 * most[0] + 1)).long() - most[0]
    right = torch.floor(u[:, 4] * (2 * most[1] + 1)).long() - most[1]
    rows = torch.arange(height, device=x.device)[None, :] - down[:, None]
    columns = torch.arange(width, device=x.device)[None, :] - right[:, None]
    index = torch.arange(len(x), device=x.device)[:, None, None]
    padded = functional.pad(x, (1, 1, 1, 1))
    taken = padded.permute(0, 2, 3, 1)[
        index, (rows + 1).clamp(0, height + 1)[:, :, None], (columns + 1).clamp(0, width + 1)[:, None, :]
    ]
    x = taken.permute(0, 3, 1, 2)
    tall, wide = int(HOLE * height + 0.5), int(HOLE * width + 0.5)
    top = torch.floor(u[:, 5] * (height + 1 - tall % 2)) - tall // 2
    left = torch.floor(u[:, 6] * (width + 1 - wide % 2)) - wide // 2
    ys, xs = (torch.arange(n, device=x.device)[None, :] for n in (height, width))
    in_rows = (ys >= top[:, None]) & (ys < top[:, None] + tall)
    in_columns = (xs >= left[:, None]) & (xs < left[:, None] + wide)
    hole = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return x * (~hole)
