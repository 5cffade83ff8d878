"""Co-Mixup: fill each image's blocks with what matters most in several images, while the batch stays diverse."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raremix.core.errors import ConfigError
from raremix.core.protocols import ImportanceMap
from raremix.core.types import Batch, Others
from raremix.mix import label as rules
from raremix.mix.guidance import SALIENCY, fit, maps_of
from raremix.mix.labelling import Problem, potts, solve
from raremix.mix.method import Method, Placement
from raremix.mix.pairing import Pairs
from raremix.mix.puzzlemix import block_importance

TWICE = 1e3
"""Cost of a block from an image that is among the candidates already: more than all that a block can bring."""


@dataclass(frozen=True, kw_only=True)
class CoMixup(Method):
    """Mix up to `images` images into each, block by block, so that importance adds up and outputs differ [1].

    Of the candidates of output j, block b takes number z_jb, and the batch minimises

        sum_jb -s(z_jb)_b + beta / N sum_j sum_bc [z_jb != z_jc] - eta / N sum_jb log a_j(z_jb)
            + gamma / N sum_i sum_j n_ij max_tau(sum_k!=j n_ik)

    with N blocks per image, s their importance scaled to a sum of one, bc neighbours, a_j ~ Dirichlet(alpha), n_ij the
    blocks of image i in output j, and max_tau(n) = n where n > tau N, else 0: what many outputs show already is dear.
    As in the paper the outputs are solved in turns, the last term being linear in one output while the others are held.
    Labels are the counted shares of the pixels.

    [1] Kim, Choo, Jeong, Song, "Co-Mixup: Saliency Guided Joint Mixup with Supermodular Diversity", ICLR 2021,
    https://arxiv.org/abs/2102.03065. Departures and simplifications: an output chooses among its own image, its
    partner, the partner's partner and so on, not among all of the batch; each turn is solved by message passing
    (`raremix.mix.labelling`) instead of a graph cut; a block comes from one image, never half from each of two; images
    are alike only to themselves (the authors' omega = 0); outputs that came out alike are not driven apart afterwards;
    every output draws its own prior; every `images`-th output takes its turn at the same time, although some of these
    may share an image; the importance is fine-grained saliency unless another is
    given (the paper: the loss's gradient by the image).

    Args:
        images: number of images, at least 2, that an output may hold.
        grid: blocks along each side.
        alpha: parameter of the Dirichlet distribution, > 0.
        beta: weight of smoothness.
        gamma: weight of diversity.
        eta: weight of the prior.
        tau: share of an image's blocks that others may show before it becomes dear.
        rounds: turns of every output.
        importance: says which pixels matter; the paper's is `raremix.explain.InputGradient`.

    The other settings are those of every method: `raremix.mix.method.Method`; labels go by area.

    Raises:
        ConfigError: if a setting is out of range.

    Example:
        >>> images, targets = CoMixup(num_classes=2)(torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 1, 0]))
        >>> images.shape, targets.shape
        (torch.Size([4, 3, 32, 32]), torch.Size([4, 2]))
    """

    images: int = 4
    grid: int = 4
    alpha: float = 2.0
    beta: float = 0.32
    gamma: float = 1.0
    eta: float = 0.05
    tau: float = 0.83
    rounds: int = 3
    importance: ImportanceMap | None = SALIENCY

    is_guided = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("images", 2), ("grid", 1), ("rounds", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not (np.isfinite(self.alpha) and self.alpha > 0):
            raise ConfigError(f"alpha must be a finite number > 0, got {self.alpha}")
        for name in ("beta", "gamma", "eta", "tau"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} must be a finite number >= 0, got {value}")
        if self.label not in {"area", "own"}:
            raise ConfigError(f'label = "{self.label}" weighs two images, and here are more: take "area"')

    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Draw a prior for each row, and choose the image of each block."""
        height, width = batch.images.shape[-2:]
        n = min(self.grid, height, width)
        own = block_importance(maps_of(batch), n=n)
        others = own if pool is batch else block_importance(maps_of(pool), n=n).to(own.device)
        partner = torch.from_numpy(pairs.partner)
        rows = candidates(partner, images=self.images, is_shared=pool is batch)
        # What an output may hold, as numbers that tell images apart: rows of the pool, then those of the batch.
        number = rows.clone()
        if pool is not batch:
            number[:, 0] += len(others)
        prior = rng.dirichlet(np.full(self.images, self.alpha), size=len(rows))
        first = torch.from_numpy(rng.integers(self.images, size=(len(rows), n, n))).to(own.device)
        cost = self.block_costs(own, others, rows, number, prior=prior)
        chosen = self.choose(cost, first, number.to(own.device))
        masks = torch.stack([chosen == k for k in range(self.images)], dim=1).to(torch.float32)
        masks = fit(masks.reshape(-1, 1, n, n), height=height, width=width).unflatten(0, (-1, self.images))[:, :, 0]
        shares = rules.area(masks.flatten(0, 1)[:, None]).unflatten(0, (-1, self.images))
        further = None
        if self.images > 2:
            further = Others(rows=rows[:, 2:], masks=masks[:, 2:], weights=shares[:, 2:])
        return Placement(mask=masks[:, :1], weight=shares[:, 0], others=further)

    @torch.no_grad()
    def block_costs(
        self,
        own: Float[Tensor, "B n n"],
        others: Float[Tensor, "P n n"],
        rows: Int[Tensor, "B L"],
        number: Int[Tensor, "B L"],
        *,
        prior: Float[np.ndarray, "B L"],
    ) -> Float[Tensor, "L B n n"]:
        """Return what a block from each candidate costs, whatever the other outputs show.

        Args:
            own, others: importance of the blocks of the batch and of the pool.
            rows: candidates of each output: row of the batch, then rows of the pool.
            number: numbers that tell the candidates' images apart.
            prior: share that each candidate is expected to have.
        """
        worth = torch.cat([own[:, None], others[rows[:, 1:].to(others.device)]], dim=1)
        wanted = torch.from_numpy(np.log(np.maximum(prior, 1e-8)).astype(np.float32)).to(own.device)
        is_twice = torch.stack([(number[:, :k] == number[:, k : k + 1]).any(dim=1) for k in range(self.images)])
        cost = -worth.transpose(0, 1) - self.eta / own.shape[-1] ** 2 * wanted.T[:, :, None, None]
        return cost + TWICE * is_twice.to(cost)[:, :, None, None]

    @torch.no_grad()
    def choose(
        self, cost: Float[Tensor, "L B n n"], chosen: Int[Tensor, "B n n"], number: Int[Tensor, "B L"]
    ) -> Int[Tensor, "B n n"]:
        """Let the outputs choose in turns, so often as there are rounds.

        Args:
            cost: of a block from each candidate.
            chosen: what is shown at first.
            number: numbers that tell the candidates' images apart.
        """
        L, B, n, _ = cost.shape
        smooth = self.beta / n**2
        for turn in range(self.rounds * L):
            rows = torch.arange(B, device=cost.device)[turn % L :: L]
            if not len(rows):
                continue
            dear = self.crowding(chosen, number)[rows].T[:, :, None, None]
            found = solve(
                Problem(
                    unary=cost[:, rows] + 2 * self.gamma / n**2 * dear,
                    down=cost.new_full((len(rows), n - 1, n), smooth),
                    right=cost.new_full((len(rows), n, n - 1), smooth),
                    distance=potts(L),
                )
            )
            chosen = chosen.index_copy(0, rows, found)
        return chosen

    def crowding(self, chosen: Int[Tensor, "B n n"], number: Int[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        """Return how many blocks of each candidate's image the other outputs show, where these are more than tau N."""
        counts = torch.stack([(chosen == k).sum(dim=(1, 2)) for k in range(number.shape[1])], dim=1)
        total = counts.new_zeros(int(number.max()) + 1).index_add(0, number.flatten(), counts.flatten())
        others = (total[number] - counts).to(torch.float32)
        return torch.where(others > self.tau * chosen[0].numel(), others, 0.0)


def candidates(partner: Int[Tensor, " B"], *, images: int, is_shared: bool) -> Int[Tensor, "B L"]:
    """Return what each output may hold: its own row, its partner, and further rows of the pool.

    The further ones are the partner's partner and so on where the pool is the batch, else the partners of the next
    rows.

    Example:
        >>> candidates(torch.tensor([1, 2, 0]), images=3, is_shared=True)
        tensor([[0, 1, 2],
                [1, 2, 0],
                [2, 0, 1]])
    """
    rows = [torch.arange(len(partner)), partner]
    for step in range(1, images - 1):
        rows.append(partner[rows[-1]] if is_shared else partner.roll(-step))
    return torch.stack(rows, dim=1)
