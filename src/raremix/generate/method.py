"""What every generator promises: networks, a training for the one loop, and something that draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

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


@runtime_checkable
class ClassTranslator(ImageReconstructor, Protocol):
    """Show images as ones of other classes, and as what they are."""

    @property
    def form(self) -> Form:
        """What is drawn."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a method trains with where nobody says otherwise.

    Attributes:
        steps: optimiser steps.
        batch_size: images per step.
        average: decay of the weight average that draws.
        half_life: images after which that average has forgotten half, whatever the batch size; 0: `average` it is.
        precision: "32", or "auto": bf16 where the device computes in it.
        clip: largest norm of the gradient; 0: any.
        warmup: share of the steps with a rising learning rate.
        fewest: images of a class below which a fit is refused, unless it is asked for by name.
        thrift: the setting that saves memory.
    """

    steps: int
    batch_size: int
    average: float
    half_life: int = 0
    # Gradient penalties are small differences of large numbers; bf16 keeps eight bits of them.
    precision: Literal["32", "auto"] = "32"
    clip: float = 0.0
    warmup: float = 0.0
    fewest: int = 1
    thrift: str = "generator.width=..., smaller than now"

    def decay(self, batch_size: int) -> float:
        """Return the decay of the weight average per step of so many images.

        Example:
            >>> Budget(steps=1, batch_size=1, average=0.9, half_life=100).decay(200)
            0.25
        """
        return 0.5 ** (batch_size / self.half_life) if self.half_life else self.average


@runtime_checkable
class GeneratorMethod(Protocol):
    """A generator as its hyper-parameters: a frozen dataclass whose fields a file may set."""

    is_translator: bool
    """Whether it turns images into other ones, instead of noise into images."""

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the networks that are needed to draw."""
        ...

    @property
    def budget(self) -> Budget:
        """What it trains with by default."""
        ...

    @property
    def drawer_class(self) -> type[Any]:
        """The class of what `drawer` returns.

        What it can do, and which settings of drawing it has, is so known before anything is fitted: it has `generate`
        where it draws from noise, `reconstruct` where it begins with images, and `check_drawing`, whose parameters are
        its settings and which refuses values that are out of range.
        """
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
            extras: what no file can hold, by name: an auxiliary classifier, for example, or the "ranks" that share it.
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


@runtime_checkable
class WordedMethod(GeneratorMethod, Protocol):
    """A generator that is told in words what to draw, or that begins with weights from elsewhere."""

    begins_with: tuple[str, ...]
    """Methods whose fitted generators its `weights` may be."""

    def check_classes(self, classes: Sequence[str]) -> None:
        """Refuse settings that name other classes than there are.

        Raises:
            ConfigError: naming the setting and the classes.
        """
        ...

    def told(self, words: Mapping[str, str], classes: Sequence[str]) -> "WordedMethod":
        """Return the method with what the data say filled in.

        Args:
            words: of the data's card, by the names that a template uses.
            classes: names.
        """
        ...


@runtime_checkable
class SizedMethod(GeneratorMethod, Protocol):
    """A generator with hyper-parameters that depend on how many images there are."""

    def sized(self, images: int) -> "SizedMethod":
        """Return the method with what was left to the data filled in.

        Args:
            images: on how many it will be fitted.
        """
        ...


def train_only(networks: Mapping[str, nn.Module], *names: str) -> None:
    """Let gradients be kept for the named networks alone; those of the others would be computed for nothing."""
    for name, network in networks.items():
        network.requires_grad_(name in names)
