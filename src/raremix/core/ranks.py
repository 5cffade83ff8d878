"""Several processes that train one model: which rows of a batch are this one's, and values over all of them."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Which of how many processes this one is; each has equally many rows of every batch, one after the other.

    What is drawn for a batch is drawn for the whole of it on every rank, which then keeps its rows. So a draw belongs
    to a place in the batch, whichever rank that place falls to, and however many there are.

    Attributes:
        rank: this process's number, from 0.
        count: how many there are.

    Example:
        >>> Ranks(rank=1, count=2).rows(3)
        slice(3, 6, None)
    """

    rank: int = 0
    count: int = 1

    def whole(self, rows: int) -> int:
        """Return how many rows a batch has of which this process has so many."""
        return rows * self.count

    def rows(self, rows: int) -> slice:
        """Return which rows of that batch are this process's."""
        return slice(self.rank * rows, (self.rank + 1) * rows)

    def normal(self, shape: tuple[int, ...], *, seed: int, device: torch.device) -> Tensor:
        """Draw this process's rows of a batch of standard normal noise, on its device.

        Args:
            shape: of this process's rows.
            seed: of the noise of the whole batch.
            device: where to draw.
        """
        stream = torch.Generator(device).manual_seed(seed)
        drawn = torch.randn((self.whole(shape[0]), *shape[1:]), generator=stream, device=device)
        # A copy, so that the other ranks' rows are not kept with them.
        return drawn if self.count == 1 else drawn[self.rows(shape[0])].clone()

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all ranks, without a gradient; every rank must ask."""
        if self.count == 1:
            return value.detach()
        total = value.detach().clone()
        torch.distributed.all_reduce(total)
        return total

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a tensor over all ranks, without a gradient; every rank must ask."""
        return value.detach() if self.count == 1 else self.sum(value).div_(self.count)


ALONE = Ranks()
"""The one process of a run that has no others."""
