"""A trained StarGAN at work: translations, reconstructions, styles, and the way from one class to another."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from raremix.core.errors import ConfigError
from raremix.generate.form import Form, classes_of

Style = Literal["reference", "latent", "mean"]
"""Where a translation's style comes from: an image of the class, noise, or the mean over the class's images."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StarTranslator:
    """A trained StarGAN as an `ImageTranslator` and an `ImageReconstructor`.

    Attributes:
        generator, mapping, encoder: the trained networks.
        form: what is drawn.
        latent: length of the noise.
        heads: of the style networks: one per class, or 1.
        styles: of training images, by class; NaN rows are empty places. Needed for the styles "reference" and "mean".
        style: where a translation's style comes from; None: "reference" where styles are kept, else "latent".
    """

    generator: nn.Module = field(repr=False)
    mapping: nn.Module = field(repr=False)
    encoder: nn.Module = field(repr=False)
    form: Form
    latent: int
    heads: int
    styles: Float[Tensor, "K M s"] | None = field(default=None, repr=False)
    style: Style | None = None

    def __post_init__(self) -> None:
        self.check_drawing(style=self.style)
        if self.style in {"reference", "mean"} and self.styles is None:
            raise ConfigError(f'style = "{self.style}" needs the styles of training images; set style = "latent"')

    @staticmethod
    def check_drawing(*, style: str | None = None) -> None:
        """Refuse settings of drawing that are out of range.

        Raises:
            ConfigError: naming the setting.
        """
        if style not in {None, "reference", "latent", "mean"}:
            raise ConfigError(f'style must be "reference", "latent" or "mean", got {style!r}')

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"], *, rng: np.random.Generator
    ) -> Float[Tensor, "B C H W"]:
        """Return the images translated to the targets' classes (the largest target of each row)."""
        device = self._move(images.device)
        style = self.draw_styles(classes_of(targets).to(device), rng=rng)
        return self.form.leave(self.generator(self.form.enter(images), style))

    @torch.no_grad()
    def reconstruct(
        self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B C H W"]:
        """Return the images in their own style.

        Args:
            images: values in [0, 1].
            targets: their classes. Left out, each class's head reads a style, and the drawing nearest to the image
                is returned.
        """
        self._move(images.device)
        entered = self.form.enter(images)
        if targets is not None or self.heads == 1:
            own = torch.zeros(len(images), dtype=torch.int64) if targets is None else classes_of(targets)
            return self.form.leave(self.generator(entered, self.encoder(entered, own.to(images.device))))
        best, least = images, torch.full((len(images),), torch.inf, device=images.device)
        for k in range(self.heads):
            own = torch.full((len(images),), k, device=images.device)
            drawn = self.form.leave(self.generator(entered, self.encoder(entered, own)))
            error = (drawn - images).abs().mean(dim=(1, 2, 3))
            best = torch.where((error < least)[:, None, None, None], drawn, best)
            least = error.minimum(least)
        return best

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"]) -> Float[Tensor, "B s"]:
        """Return the images' styles, as images of the targets' classes."""
        device = self._move(images.device)
        return self.encoder(self.form.enter(images), classes_of(targets).to(device))

    @torch.no_grad()
    def along(
        self,
        images: Float[Tensor, "B C H W"],
        own: Int[Tensor, " B"],
        other: Int[Tensor, " B"],
        place: Float[Tensor, " B"],
    ) -> Float[Tensor, "B C H W"]:
        """Return the images between their own style (0) and the mean style of another class (1).

        Raises:
            ConfigError: if no styles of training images were kept.
        """
        if self.styles is None:
            raise ConfigError("the way to another class ends in its mean style: fit the translator again to keep it")
        device = self._move(images.device)
        entered = self.form.enter(images)
        start = self.encoder(entered, own.to(device))
        end = self.styles.to(device)[other.to(device)].nanmean(dim=1)
        return self.form.leave(self.generator(entered, torch.lerp(start, end, place.to(device)[:, None])))

    def draw_styles(self, classes: Int[Tensor, " B"], *, rng: np.random.Generator) -> Float[Tensor, "B s"]:
        """Draw a style of each row's class."""
        kind = self.style or ("latent" if self.styles is None else "reference")
        if kind == "latent":
            noise = rng.standard_normal((len(classes), self.latent)).astype(np.float32)
            return self.mapping(torch.from_numpy(noise).to(classes.device), classes)
        assert self.styles is not None
        bank = self.styles.to(classes.device)[classes]
        if kind == "mean":
            return bank.nanmean(dim=1)
        filled = (~bank[..., 0].isnan()).sum(dim=1).cpu().numpy()
        chosen = torch.from_numpy((rng.random(len(classes)) * filled).astype(np.int64)).to(classes.device)
        return bank[torch.arange(len(classes), device=classes.device), chosen]

    def _move(self, device: torch.device) -> torch.device:
        for network in (self.generator, self.mapping, self.encoder):
            network.to(device)
        return device
