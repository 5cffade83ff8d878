"""DCGAN: draw images of a class from noise."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import Adam, Optimizer

from raremix.core.errors import ConfigError
from raremix.core.protocols import Trainable
from raremix.core.random import rng, torch_seed
from raremix.core.ranks import ALONE, Ranks
from raremix.core.types import Batch
from raremix.generate.adversarial import Game, discriminator_loss, exact, generator_loss, gradient_penalty
from raremix.generate.diff_augment import change, draw_changes
from raremix.generate.form import Form, classes_of
from raremix.generate.method import Budget, train_only

WIDEST = 512


class ClassNorm(nn.Module):
    """Batch normalisation with a scale and a shift per class (https://arxiv.org/abs/1610.07629)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = nn.Embedding(classes, channels)
        self.shift = nn.Embedding(classes, channels)
        nn.init.normal_(self.scale.weight, 1.0, 0.02)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Float[Tensor, "B c h w"], classes: Int[Tensor, " B"]) -> Float[Tensor, "B c h w"]:
        """Return normalised features in the scale and shift of each row's class."""
        return torch.addcmul(self.shift(classes)[:, :, None, None], self.norm(x), self.scale(classes)[:, :, None, None])


class NoiseGenerator(nn.Module):
    """From noise and a class to an image: a 4 x 4 map, doubled by transposed convolutions."""

    def __init__(self, *, side: int, channels: int, classes: int, latent: int, width: int) -> None:
        super().__init__()
        doublings = int(math.log2(side)) - 2
        widths = [min(WIDEST, width << (doublings - 1 - i)) for i in range(doublings)]
        self.start = nn.ConvTranspose2d(latent, widths[0], 4, bias=False)
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=False)
            for a, b in zip(widths, [*widths[1:], channels], strict=True)
        )
        self.norms = nn.ModuleList(ClassNorm(wide, classes) for wide in widths)
        self.apply(_start_weights)

    def forward(self, latents: Float[Tensor, "B z"], classes: Int[Tensor, " B"]) -> Float[Tensor, "B C H W"]:
        """Return images in [-1, 1]."""
        x = self.start(latents[:, :, None, None])
        for norm, grow in zip(self.norms, self.grow, strict=True):
            x = grow(functional.relu(norm(x, classes)))
        return torch.tanh(x)


class ProjectionDiscriminator(nn.Module):
    """Whether an image is a real one of its class: logit = v.f + e(class).f (https://arxiv.org/abs/1802.05637)."""

    def __init__(self, *, side: int, channels: int, classes: int, width: int, is_spectral: bool) -> None:
        super().__init__()
        halvings = int(math.log2(side)) - 2
        widths = [channels, *(min(WIDEST, width << i) for i in range(halvings))]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Conv2d(a, b, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.trunk = nn.Sequential(*layers)
        self.logit = nn.Linear(widths[-1], 1)
        self.project = nn.Embedding(classes, widths[-1])
        self.apply(_start_weights)
        # As small as the shared logit: what a class adds would otherwise be all that is seen at first.
        nn.init.normal_(self.project.weight, 0.0, 0.02)
        if is_spectral:
            for module in (*(m for m in layers if isinstance(m, nn.Conv2d)), self.logit, self.project):
                spectral_norm(module)

    def forward(self, images: Float[Tensor, "B C H W"], classes: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Return one logit per image."""
        features = self.trunk(images).sum(dim=(2, 3)) / 4
        return self.logit(features)[:, 0] + (self.project(classes) * features).sum(dim=1)


@dataclass(frozen=True, kw_only=True)
class DCGAN:
    """A class-conditional DCGAN [1] that bears few images.

    z ~ N(0, 1) and a class go in; the class enters the generator through batch normalisation and the discriminator
    through a projection. The discriminator sees both kinds of images through differentiable augmentation.

    [1] Radford, Metz, Chintala, "DCGAN", ICLR 2016, https://arxiv.org/abs/1511.06434. Departures: the class; no batch
    normalisation in the discriminator, which mixes up real and drawn images under a gradient penalty; with the hinge,
    spectral normalisation in its place.

    Args:
        latent: length of the noise.
        width: channels of the last layer but one; 2^i times as many, up to 512, further in.
        game: "non_saturating", or "hinge".
        r1: weight of the gradient penalty on real images; None: 1 for "non_saturating", 0 for the hinge.
        augment: show the discriminator changed images; without it a few hundred images are learnt by heart.
        learning_rate: of Adam, for both networks.

    Raises:
        ConfigError: if one of them is out of range.

    Example:
        >>> sorted(DCGAN(width=8).networks(Form(size=32, channels=1, classes=2), seed=0))
        ['discriminator', 'generator']
    """

    latent: int = 100
    width: int = 64
    game: Game = "non_saturating"
    r1: float | None = None
    augment: bool = True
    learning_rate: float = 2e-4

    is_translator = False
    kept = ("generator",)

    def __post_init__(self) -> None:
        if self.latent < 1 or self.width < 1:
            raise ConfigError(f"dcgan: latent and width must be at least 1, got {self.latent} and {self.width}")
        if self.game not in {"non_saturating", "hinge"}:
            raise ConfigError(f'dcgan: game must be "non_saturating" or "hinge", got {self.game!r}')
        if (self.r1 or 0.0) < 0 or self.learning_rate <= 0:
            raise ConfigError("dcgan: r1 must be at least 0 and learning_rate more than 0")

    @property
    def penalty(self) -> float:
        """The weight of the gradient penalty that is in force."""
        return (0.0 if self.game == "hinge" else 1.0) if self.r1 is None else self.r1

    @property
    def budget(self) -> Budget:
        """20,000 steps of 64 images."""
        return Budget(steps=20_000, batch_size=64, average=0.999)

    def networks(self, form: Form, *, seed: int) -> dict[str, nn.Module]:
        """Build generator and discriminator."""
        common: dict[str, Any] = {
            "side": form.side,
            "channels": form.channels,
            "classes": form.classes,
            "width": self.width,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(seed, "init"))
            return {
                "generator": NoiseGenerator(**common, latent=self.latent),
                "discriminator": ProjectionDiscriminator(**common, is_spectral=self.game == "hinge"),
            }

    def training(
        self, networks: dict[str, nn.Module], form: Form, *, seed: int, extras: Mapping[str, Any] | None = None
    ) -> Trainable:
        """Build what the loop trains: the discriminator, then the generator."""
        optimizers: dict[str, Optimizer] = {
            name: Adam(networks[name].parameters(), lr=self.learning_rate, betas=(0.5, 0.999))
            for name in ("discriminator", "generator")
        }
        return DCGANTraining(
            modules=networks,
            optimizers=optimizers,
            settings=self,
            form=form,
            seed=seed,
            ranks=(extras or {}).get("ranks", ALONE),
        )

    @property
    def drawer_class(self) -> type[Any]:
        """The class of what draws."""
        return NoiseDrawer

    def drawer(
        self, networks: Mapping[str, nn.Module], form: Form, *, extras: Mapping[str, Tensor] | None = None
    ) -> "NoiseDrawer":
        """Build what draws."""
        return NoiseDrawer(network=networks["generator"].eval(), form=form, latent=self.latent)


@dataclass(frozen=True, slots=True, kw_only=True)
class DCGANTraining:
    """DCGAN as something to train; see `DCGAN` for the losses."""

    modules: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    settings: DCGAN
    form: Form
    seed: int
    averaged: tuple[str, ...] = ("generator",)
    ranks: Ranks = ALONE

    @property
    def memory(self) -> dict[str, Tensor]:
        """Nothing beside the networks."""
        return {}

    def loss(self, phase: str, batch: Batch, *, step: int) -> Mapping[str, Float[Tensor, ""]]:
        """Return the loss of the discriminator, or that of the generator."""
        train_only(self.modules, phase)
        settings, judge = self.settings, self.modules["discriminator"]
        number = ("discriminator", "generator").index(phase)
        classes, count = classes_of(batch.targets), len(batch.images)
        draws = rng(self.seed, "latent", step, number).standard_normal((self.ranks.whole(count), settings.latent))
        latents = torch.from_numpy(draws[self.ranks.rows(count)].astype(np.float32)).to(batch.images.device)
        if phase == "generator":
            logits = judge(self._seen(self.modules["generator"](latents, classes), step, 0), classes)
            return {"loss": generator_loss(logits, game=settings.game)}
        with torch.no_grad():
            drawn = self.modules["generator"](latents, classes)
        images = self._seen(self.form.enter(batch.images), step, 1).detach().requires_grad_(settings.penalty > 0)
        real = (exact(judge) if settings.penalty > 0 else judge)(images, classes)
        loss = discriminator_loss(real, judge(self._seen(drawn, step, 2), classes), game=settings.game)
        if settings.penalty <= 0:
            return {"loss": loss}
        penalty = gradient_penalty(real, images)
        return {"loss": loss + settings.penalty * penalty, "adversarial": loss, "r1": penalty}

    def after_step(self, step: int, averaged: Mapping[str, nn.Module]) -> None:
        """Nothing is kept beside the weights."""

    def _seen(self, images: Tensor, step: int, number: int) -> Tensor:
        if not self.settings.augment:
            return images
        count = len(images)
        drawn = draw_changes(self.ranks.whole(count), rng=rng(self.seed, "augment", step, number, 0))
        return change(images, drawn[self.ranks.rows(count)])


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseDrawer:
    """A trained network that draws from noise, as an `ImageGenerator`.

    Attributes:
        network: (noise, classes) -> images in [-1, 1].
        form: what is drawn.
        latent: length of the noise.
    """

    network: nn.Module = field(repr=False)
    form: Form
    latent: int

    @staticmethod
    def check_drawing() -> None:
        """There is nothing to set."""

    @torch.no_grad()
    def generate(self, targets: Float[Tensor, "B K"], latents: Float[Tensor, "B z"]) -> Float[Tensor, "B C H W"]:
        """Return images in [0, 1] of the targets' classes."""
        self.network.to(latents.device)
        return self.form.leave(self.network(latents, classes_of(targets).to(latents.device)))


def _start_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
