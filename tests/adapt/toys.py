"""Images of which the pixels say where they come from, and mixers whose plan is known."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raremix.core.protocols import Mixer
from raremix.core.types import Batch, Boxes, MixPlan


def coded(rows: int, *, height: int = 8, width: int = 8) -> Tensor:
    """Return images of which image i is 1 in channel i alone: channel means are shares of pixels."""
    return torch.eye(rows)[:, :, None, None].expand(rows, rows, height, width).contiguous()


@dataclass(frozen=True, kw_only=True)
class LeftFromNext(Mixer):
    """Fill the left quarter of each image from the next one; draws nothing."""

    num_classes: int | None = None

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        rows, _, height, width = batch.images.shape
        edges = torch.tensor([[0], [0], [height], [width // 4]], dtype=torch.int32).expand(4, rows).contiguous()
        mask = Boxes(edges=edges, height=height, width=width)
        return MixPlan(own=torch.arange(rows), partner=torch.arange(rows).roll(-1), mask=mask, weight=mask.share())


@dataclass(frozen=True, kw_only=True)
class Twice(Mixer):
    """Give each image two rows, 3/4 and 1/4 of itself, as VariMix does."""

    num_classes: int | None = None

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        own = torch.arange(len(batch.images)).repeat_interleave(2)
        weight = torch.tensor([0.75, 0.25]).repeat(len(batch.images))
        partner = (own + 1) % len(batch.images)
        return MixPlan(own=own, partner=partner, mask=weight.reshape(-1, 1, 1, 1), weight=weight)


@dataclass(frozen=True, kw_only=True)
class Inside(Mixer):
    """Plan to mix inside a network."""

    num_classes: int | None = None

    def plan(self, batch: Batch, pool: Batch, *, rng: np.random.Generator) -> MixPlan:
        rows = len(batch.images)
        whole = torch.ones(rows)
        return MixPlan(
            own=torch.arange(rows), partner=torch.arange(rows), mask=whole[:, None, None, None], weight=whole, at="stem"
        )
