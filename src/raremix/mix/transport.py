"""Move blocks within images, so that what matters comes to lie where the mask shows it.

Blocks change places in pairs: one that the mask hides, with importance s_i, and one that it shows, s_j, at a distance
d, which gains s_i - s_j - 2 eta d^2. Pairs are matched by mutual choice: two that are each other's best trade places,
and the others choose again. Every block is still there once.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from raremix.core.pixels import empty_rows

TAKEN = 1e3
"""More than any importance that sums to one."""


@torch.no_grad()
def plan_swaps(
    importance: Float[Tensor, "R n n"], is_shown: Bool[Tensor, "R n n"], *, eta: float
) -> Int[Tensor, "3 swaps"]:
    """Choose the pairs of blocks that trade places.

    Args:
        importance: of each block, summing to one per image.
        is_shown: which blocks the mask shows.
        eta: cost of one block's move across the whole grid; it grows with the squared distance.

    Returns:
        The row of the image, the block that is hidden and the one that is shown, of each pair; blocks are numbered row
        by row.

    Example:
        >>> importance, is_shown = torch.tensor([[[0.0, 0.7], [0.3, 0.0]]]), torch.tensor([[[True, False]] * 2])
        >>> plan_swaps(importance, is_shown, eta=0.1).tolist()
        [[0], [1], [0]]
    """
    R, n, _ = importance.shape
    hidden = torch.where(is_shown, -TAKEN, importance)  # what a block brings if it comes to be shown
    shown = torch.where(is_shown, importance, TAKEN)  # what is lost with a block that comes to be hidden
    unit = 2 * eta / max(n - 1, 1) ** 2
    most = float((hidden.amax(dim=(1, 2)) - shown.amin(dim=(1, 2))).amax()) if R else 0.0
    steps = _steps(n, most=most, unit=unit)
    pairs = [importance.new_empty((3, 0), dtype=torch.int64)]
    if not len(steps):
        return pairs[0]
    away = (unit * (steps**2).sum(dim=1)).to(importance)[:, None, None, None]
    moves = (steps @ torch.tensor([n, 1])).to(importance.device)
    back = len(steps) - 1 - torch.arange(len(steps), device=importance.device)  # they come in order, y first
    places = torch.arange(n * n, device=importance.device)
    while True:
        least, to = (_around(shown, steps, outside=TAKEN) + away).min(dim=0)
        fro = (_around(hidden, steps, outside=-TAKEN) - away).max(dim=0).indices
        wanted = (places + moves[to].flatten(1)).clamp(0, n * n - 1)
        is_mutual = (hidden > least).flatten(1) & (fro.flatten(1).gather(1, wanted) == back[to].flatten(1))
        row, block = is_mutual.nonzero(as_tuple=True)
        if not len(row):
            return torch.cat(pairs, dim=1)
        other = wanted[row, block]
        pairs.append(torch.stack([row, block, other]))
        hidden.view(R, -1)[row, block] = -TAKEN
        shown.view(R, -1)[row, other] = TAKEN


def swap_blocks(
    images: Float[Tensor, "B C H W"], rows: Int[Tensor, " R"], swaps: Int[Tensor, "3 swaps"], *, n: int
) -> Float[Tensor, "R C H W"]:
    """Return rows of images in which pairs of blocks have traded places.

    Args:
        images: at least n pixels high and wide; where n does not divide a side, the blocks that move are as large as
            the smallest, and a line of pixels of the others stays where it is.
        rows: which images.
        swaps: as `plan_swaps` returns them, the first being places in `rows`.
        n: blocks along each side.
    """
    if torch.is_grad_enabled() and images.requires_grad:
        moved = images.index_select(0, rows.to(images.device))
    else:
        moved = torch.index_select(images, 0, rows.to(images.device), out=empty_rows(len(rows), like=images))
    row, hidden, shown = swaps
    H, W = images.shape[-2:]
    one, other = (
        (_pixels(block // n, n=n, length=H)[:, :, None], _pixels(block % n, n=n, length=W)[:, None, :])
        for block in (hidden, shown)
    )
    at, to = rows.to(images.device)[row][:, None, None], row[:, None, None]
    first, second = images[at, :, *one], images[at, :, *other]
    moved[to, :, *one] = second
    moved[to, :, *other] = first
    return moved


def _steps(n: int, *, most: float, unit: float) -> Int[Tensor, "S 2"]:
    """Return the steps, y and x, to blocks that are near enough for the largest gain there is."""
    reach = n - 1 if unit == 0 else min(n - 1, math.isqrt(max(int(most / unit), 0)))
    side = torch.arange(-reach, reach + 1)
    steps = torch.cartesian_prod(side, side)
    far = (steps**2).sum(dim=1)
    return steps[(far > 0) & (far * unit < most)]


def _around(values: Float[Tensor, "R n n"], steps: Int[Tensor, "S 2"], *, outside: float) -> Float[Tensor, "S R n n"]:
    n, reach = values.shape[-1], int(steps.abs().max())
    padded = functional.pad(values, (reach, reach, reach, reach), value=outside)
    corners = (steps + reach).tolist()
    return torch.stack([padded[:, y : y + n, x : x + n] for y, x in corners])


def _pixels(number: Int[Tensor, " swaps"], *, n: int, length: int) -> Int[Tensor, "swaps p"]:
    """Return the pixels, along one side, of the blocks of a number; all are as long as the shortest."""
    first = torch.ceil(number * (length / n) - 0.5).long()  # where the mask's cells begin
    return first[:, None] + torch.arange(length // n, device=number.device)
