"""PuzzleMix: choose by graph labelling which image each block comes from, so that what matters of both is kept."""

from dataclasses import dataclass
from functools import reduce
from math import comb, gcd

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.core.pixels import all_rows, take_rows
from raremix.core.protocols import ImportanceMap
from raremix.core.types import Batch
from raremix.mix.guidance import SALIENCY, fit, maps_of
from raremix.mix.labelling import Problem, quadratic, solve
from raremix.mix.method import Method, Placement, refuse_mass
from raremix.mix.pairing import Pairs
from raremix.mix.strength import check_alpha, kept_share
from raremix.mix.transport import plan_swaps, swap_blocks

EPSILON = 1e-8
"""Keeps the prior finite where a share is 0 or 1; the authors' value."""


@dataclass(frozen=True, kw_only=True)
class PuzzleMix(Method):
    """Let each block of an n x n grid come from the image whose importance it would hide, smoothly [1].

    The mask z takes `levels` values from 0 to 1 in each block and minimises

        sum_i (1 - z_i) s_i + z_i t_i  +  sum_ij phi(z_i, z_j)  -  eta / n^2 sum_i log p(z_i | w)
        phi = beta / 16n ((z_i - z_j)^2 + gamma d(z_i, z_j))

    with s and t the importance of the own image and the partner, averaged over blocks and scaled to a sum of one; ij
    the pairs of neighbouring blocks; d the mean difference, along the border of the blocks, of the patches that would
    meet there; p binomial, and w ~ Beta(alpha, alpha). With `transport`, blocks then move within each image so that
    more of what matters is shown.

    [1] Kim, Choo, Song, "Puzzle Mix: Exploiting Saliency and Local Statistics for Optimal Mixup", ICML 2020,
    https://arxiv.org/abs/2009.06962. Objective and constants are those of the authors' code. Departures: the objective
    is minimised by message passing for all images of a batch at once instead of one graph cut after the other
    (`raremix.mix.labelling`); every image draws its own w; any size of image will do; the importance is fine-grained
    saliency unless another is given (the paper: the loss's gradient by the image); blocks stay where they are unless
    `transport` is set, since anatomy has its places; transport trades pairs of blocks, so that all are kept
    (`raremix.mix.transport`), where the authors' plan leaves some places empty.

    Args:
        alpha: shape of the Beta distribution of the share to be kept, > 0.
        grids: numbers of blocks along each side, of which every batch draws one, as the authors' code does.
        levels: values that the mask takes, at least 2.
        beta: weight of smoothness.
        gamma: weight of what the images look like where blocks meet; images should lie in [0, 1].
        eta: weight of the share w.
        patch: least side in pixels of the patches that are compared where blocks meet.
        transport: whether blocks move within their images.
        distance: cost of a block's move across the image (the authors' t_eps).
        importance: says which pixels matter; the paper's is `raremix.explain.InputGradient`.

    The other settings are those of every method: `raremix.mix.method.Method`.

    Raises:
        ConfigError: if a setting is out of range, or the label goes by mass where pixels are moved.

    Example:
        >>> images, targets = PuzzleMix(num_classes=2)(torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 1, 0]))
        >>> images.shape, targets.shape
        (torch.Size([4, 3, 32, 32]), torch.Size([4, 2]))
    """

    alpha: float = 1.0
    grids: tuple[int, ...] = (2, 4, 8, 16)
    levels: int = 3
    beta: float = 1.2
    gamma: float = 0.5
    eta: float = 0.2
    patch: int = 4
    transport: bool = False
    distance: float = 0.8
    importance: ImportanceMap | None = SALIENCY

    is_guided = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)
        if self.transport:
            refuse_mass(self)
        if not self.grids or min(self.grids) < 1:
            raise ConfigError(f"grids = {self.grids}: give at least one number of blocks, each at least 1")
        if self.levels < 2 or self.patch < 1:
            raise ConfigError(f"levels = {self.levels} must be at least 2, patch = {self.patch} at least 1")
        for name in ("beta", "gamma", "eta", "distance"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} must be a finite number >= 0, got {value}")

    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Draw a share for each row, and choose the image of each block."""
        height, width = batch.images.shape[-2:]
        partner = torch.from_numpy(pairs.partner)
        share = kept_share(len(partner), alpha=self.alpha, rng=rng)
        n = min(self.grids[int(rng.integers(len(self.grids)))], height, width)
        own = _blocks(batch, n=n)
        others = own if pool is batch else _blocks(pool, n=n).to(own.device)
        problem = self.problem(batch.images, pool.images, own, others, partner=partner, share=share)
        mask = solve(problem).to(torch.float32) / (self.levels - 1)
        placed = fit(mask[:, None], height=height, width=width)
        if not self.transport or n == 1:
            return Placement(mask=placed)
        return Placement(
            mask=placed,
            own_images=self._transport(batch.images, own, mask, rows=all_rows(len(mask))),
            partner_images=self._transport(pool.images, take_rows(others, partner), 1 - mask, rows=partner),
        )

    @torch.no_grad()
    def problem(
        self,
        images: Float[Tensor, "B C H W"],
        pool_images: Float[Tensor, "P C H W"],
        own: Float[Tensor, "B n n"],
        others: Float[Tensor, "P n n"],
        *,
        partner: Int[Tensor, " B"],
        share: Float[np.ndarray, " B"],
    ) -> Problem:
        """Set up what is minimised; label k of a block stands for z = k / (levels - 1).

        Args:
            images, pool_images: own images and those that partners come from.
            own, others: their importance, averaged over blocks.
            partner: row of the pool.
            share: share to be kept, w.
        """
        n = own.shape[-1]
        smooth = self.beta / (16 * n)
        # What it costs a block to come from the own image, and from the partner.
        keep, give = take_rows(others, partner).clone(), own.clone()
        B = len(keep)
        down, right = (keep.new_full((B, n - i, n - 1 + i), smooth) for i in (1, 0))
        if self.gamma > 0 and smooth > 0 and n > 1:
            k = _patches(images, n=n, patch=self.patch)
            sides = _sides(images, n=n, k=k)
            others_sides = sides if pool_images is images else _sides(pool_images, n=n, k=k).to(sides.device)
            sides = torch.stack([others_sides.index_select(2, partner.to(sides.device)), sides])
            for dim, smoothness in ((0, down), (1, right)):
                # meets[a, b]: how patches of a before a border differ from those of b behind it; 1: own, 0: partner.
                before, behind = sides[:, dim].unbind(dim=1)
                meets = reduce(torch.add, (before[:, None] - behind[None]).abs().unbind(dim=3))
                meets = _sums(meets, 4, k) * (smooth * self.gamma / (images.shape[1] * k))
                meets = meets.mT if dim else meets
                # d(a, b) as a cost of each block and one of the pair where a and b differ.
                crossed = meets[0, 1] + meets[1, 0]
                for costs, image in ((keep, 1), (give, 0)):
                    costs.narrow(dim + 1, 0, n - 1).add_(meets[image].sum(dim=0) - crossed, alpha=0.5)
                    costs.narrow(dim + 1, 1, n - 1).add_(meets[:, image].sum(dim=0), alpha=0.5)
                smoothness.add_(crossed - meets[0, 0] - meets[1, 1], alpha=0.5)
                smoothness.clamp_(min=0)  # only images far outside [0, 1] come here
        prior = torch.from_numpy(self._prior(share)).to(keep.device)[:, :, None, None] / n**2
        z = torch.linspace(0, 1, self.levels, device=keep.device)[:, None, None, None]
        unary = z * keep + (1 - z) * give + prior
        return Problem(unary=unary, down=down, right=right, distance=quadratic(self.levels))

    def _prior(self, share: Float[np.ndarray, " B"]) -> Float[np.ndarray, "L B"]:
        top = self.levels - 1
        chances = [comb(top, k) * share**k * (1 - share) ** (top - k) for k in range(self.levels)]
        return (-self.eta * np.log(np.stack(chances) + EPSILON)).astype(np.float32)

    def _transport(self, images: Tensor, importance: Tensor, mask: Tensor, *, rows: Tensor) -> Tensor:
        swaps = plan_swaps(importance, mask > 0, eta=self.distance)
        return swap_blocks(images, rows, swaps, n=mask.shape[-1])


def _blocks(batch: Batch, *, n: int) -> Float[Tensor, "B n n"]:
    maps = batch.importance
    if maps is None or maps.shape[1] > 1:
        maps = maps_of(batch)  # which says what is missing
    return block_importance(maps, n=n)


@torch.no_grad()
def block_importance(maps: Float[Tensor, "B 1 h w"], *, n: int) -> Float[Tensor, "B n n"]:
    """Average maps over the blocks of a grid, scaled to a sum of one each; a map of zeros says that all matter alike.

    Example:
        >>> block_importance(torch.tensor([[[[3.0, 1.0], [0.0, 0.0]]]]), n=2)
        tensor([[[0.7500, 0.2500],
                 [0.0000, 0.0000]]])
    """
    blocks = _averages(maps.detach(), n)[:, 0].to(torch.float32).nan_to_num(nan=0.0).clamp(min=0)
    total = blocks.sum(dim=(1, 2), keepdim=True)
    return torch.where(total > 0, blocks / total.clamp(min=1e-30), 1 / n**2)


def _patches(images: Tensor, *, n: int, patch: int) -> int:
    """Return into how many patches a side of a block is cut: into the smallest, from `patch` on, that fill it."""
    H, W = images.shape[-2:]
    if H % n or W % n:
        return max(1, min(H, W) // n // patch)
    block = gcd(H, W) // n
    return block // min((size for size in range(1, block + 1) if block % size == 0 and size >= patch), default=block)


def _averages(images: Float[Tensor, "B C H W"], n: int) -> Float[Tensor, "B C n n"]:
    """Average images over the cells of a grid, at least in float32; where n divides no side, cells share pixels."""
    H, W = images.shape[-2:]
    if H % n or W % n:
        return functional.adaptive_avg_pool2d(images.to(torch.promote_types(images.dtype, torch.float32)), n)
    return _sums(_sums(images, 2, H // n), 3, W // n) / (H // n * (W // n))


def _sums(values: Tensor, dim: int, size: int) -> Tensor:
    """Add up neighbours along a dimension by groups, at least in float32."""
    kind = torch.promote_types(values.dtype, torch.float32)
    if size > 2 * dim:  # found by measuring at 224 pixels
        return values.unflatten(dim, (-1, size)).sum(dim=dim + 1, dtype=kind)
    # A sum over a few neighbours is slow on the CPU; as few sums of every size-th line, into one memory, are not.
    every = [slice(None)] * dim
    first, *others = (values[(*every, slice(i, None, size))].to(kind) for i in range(size))
    if not others:
        return first
    total = first + others[0]
    for line in others[1:]:
        total += line
    return total


def _sides(images: Float[Tensor, "B C H W"], *, n: int, k: int) -> Float[Tensor, "2 2 B C _ _"]:
    """Average the patches on both sides of every border between blocks.

    Returns:
        For borders between rows and between columns of blocks, before and behind: borders, and k patches along each
        block.
    """
    H, W = images.shape[-2:]
    cells = n * k
    if H % cells or W % cells or 16 * (n - 1) > cells:
        means = _averages(images, cells)
        lines = torch.arange(1, n, device=images.device) * k
        pairs = [[maps.index_select(2, lines - i) for i in (1, 0)] for maps in (means, means.mT)]
        return torch.stack([torch.stack(pair) for pair in pairs]).to(torch.float32)
    # Most pixels lie far from the borders: read only those beside them.
    h, w, values = H // cells, W // cells, images.to(torch.promote_types(images.dtype, torch.float32))
    rows, columns = [], []
    for border in range(1, n):
        y, x = border * (H // n), border * (W // n)
        rows.append(torch.stack([values[:, :, start : start + h].sum(dim=2) for start in (y - h, y)]))
        columns.append(_sums(values[..., x - w : x + w], 2, h))
    along = _sums(torch.stack(rows, dim=3), 4, w)
    across = torch.stack(columns, dim=2).unflatten(4, (2, w)).sum(dim=5).movedim(4, 0)
    return torch.stack([along, across]).to(torch.float32) / (h * w)
