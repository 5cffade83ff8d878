"""What every generator promises: networks, a training for the one loop, and something that draws."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from raremix.core.protocols import ImageReconstructor, Trainable
from raremix.generate.form import Form


@runtime_checkable
class ImageGenerator(Protocol):
    """Draw images of classes from noise."""

    @property
    def latent(self) -> int:
        """Length of the noise."""
        ...

    def generate(self, targets: Float[Tensor, "B K"], latents: Float[Tensor, "B z"]) -> Float[Tensor, "B C H W"]:
        """Return images in [0, 1], one per row of noise.

        Args:
            targets: the classes that they are to show.
            latents: standard normal noise.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a method trains with where nobody says otherwise.

    Attributes:
        steps: optimiser steps.
        batch_size: images per step.
        average: decay of the weight average that draws.
        crop: smallest share of the side that a random crop of a training image keeps; 1 crops nothing.
    """

    steps: int
    batch_size: int
    average: float
    crop: float = 1.0


@runtime_checkable
class GeneratorMethod(Protocol):
    """A generator as its hyper-parameters: a frozen dataclass whose fields a file may set."""

    is_translator: bool
    """Whether it turns images into other ones, instead of noise into images."""

    kept: tuple[str, ...]
    """Names of the networks that are needed to draw."""

    @property
    def budget(self) -> Budget:
        """What it trains with by default."""
        ...

    def networks(self, form: Form, *, seed: int) -> dict[str, nn.Module]:
        """Build the networks, from the same initial weights for the same seed."""
        ...

    def training(
        self, networks: dict[str, nn.Module], form: Form, *, seed: int, extras: Mapping[str, Any] | None = None
    ) -> Trainable:
        """Build what the loop trains.

        Args:
            networks: from `networks`.
            form: what is drawn.
            seed: the run's seed.
            extras: what no file can hold, by name: an auxiliary classifier, for example.
        """
        ...

    def drawer(
        self, networks: Mapping[str, nn.Module], form: Form, *, extras: Mapping[str, Tensor] | None = None
    ) -> ImageGenerator | ImageReconstructor:
        """Build what draws.

        Args:
            networks: the kept ones, trained.
            form: what is drawn.
            extras: tensors that were kept with the weights, by name.
        """
        ...


def train_only(networks: Mapping[str, nn.Module], *names: str) -> None:
    """Let gradients be kept for the named networks alone; those of the others would be computed for nothing."""
    for name, network in networks.items():
        network.requires_grad_(name in names)
