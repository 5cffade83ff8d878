"""Train an encoder without labels: two views of an image shall be closer than the views of different images."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from raremix.core.random import rng, torch_seed
from raremix.core.types import Batch
from raremix.train.feed import Augmentation


@dataclass(frozen=True, slots=True, kw_only=True)
class SimCLR:
    """SimCLR (Chen et al. 2020 [1]) as something to train.

        loss = -mean log  exp(z_i . z_i' / temperature) / sum over k != i of exp(z_i . z_k / temperature)

    where z are the projections, of length one, of two views per image, and i' is the other view of i. It is one formula
    that cannot collapse, it works with 128 images a step, and it trains what near-duplicates are looked for with: that
    a copy is closer than any other image.

    [1] https://arxiv.org/abs/2002.05709

    Attributes:
        modules: {"encoder": images -> vectors, "projection": vectors -> what is compared}.
        optimizers: {"views": the optimiser of both}.
        augmentation: draws the views.
        seed: the run's seed.
        rank: this process's number; an image is compared with those of its slice of the batch.
        temperature: below 1; the smaller, the more the closest other images count.
    """

    modules: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    augmentation: Augmentation
    seed: int
    rank: int = 0
    temperature: float = 0.2
    averaged: tuple[str, ...] = ()

    @property
    def memory(self) -> dict[str, Tensor]:
        """Nothing beside the modules."""
        return {}

    def loss(self, phase: str, batch: Batch, *, step: int) -> Mapping[str, Float[Tensor, ""]]:
        """Return the loss of two views of the batch."""
        count = len(batch.images)
        plan = self.augmentation.plan(2 * count, rng=rng(self.seed, "augment", step, self.rank))
        views = self.augmentation.apply(torch.cat([batch.images, batch.images]), plan)
        return {"loss": view_loss(self.modules["projection"](self.modules["encoder"](views)), self.temperature)}

    def after_step(self, step: int, averaged: Mapping[str, nn.Module]) -> None:
        """Do nothing."""


def view_loss(projections: Float[Tensor, "V D"], temperature: float) -> Float[Tensor, ""]:
    """Return SimCLR's loss of projections whose second half shows the same images as the first, in float32."""
    unit = functional.normalize(projections.float(), dim=1)
    count = len(unit) // 2
    alike = unit @ unit.T / temperature
    alike = alike.masked_fill(torch.eye(len(unit), dtype=torch.bool, device=unit.device), float("-inf"))
    places = torch.arange(len(unit), device=unit.device)
    return functional.cross_entropy(alike, (places + count) % len(unit))


def projection(length: int, *, width: int = 128, seed: int) -> nn.Module:
    """Build the two layers between encoder and loss; they are thrown away after the training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, "init", 1))
        hidden = 2 * length
        return nn.Sequential(nn.Linear(length, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, width))
