"""Draw from a latent diffusion model: images of a class from its prompt, and images as ones of another class."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from raremix.generate.diffusion_drawing import DenoisingDrawer
from raremix.generate.latent_parts import Autoencoder, Parts


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentDrawer(DenoisingDrawer):
    """A trained latent diffusion model; see `DenoisingDrawer` for the settings that are not listed.

    Attributes:
        parts: what it is made of.
        autoencoder: between images and latents.
        prompts: one per class, as they were learnt.
    """

    parts: Parts = field(repr=False)
    autoencoder: Autoencoder = field(repr=False)
    prompts: tuple[str, ...] = ()
    num_inference_steps: int = 25
    guidance_scale: float = 2.0
    strength: float = 0.8

    @property
    def shape(self) -> tuple[int, int, int]:
        """Those of the latents."""
        side = self.form.side // self.autoencoder.factor
        return self.autoencoder.channels[1], side, side

    def enter(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B c h w"]:
        """Encode to the mean of what the autoencoder says."""
        nothing = torch.zeros(len(images), *self.shape, device=images.device)
        latents, _, _ = self.autoencoder.to(images.device)(self.form.enter(images), nothing, decode=False)
        return latents

    def leave(self, drawn: Float[Tensor, "B c h w"]) -> Float[Tensor, "B C H W"]:
        """Decode a few at a time: at full size an autoencoder needs more memory than the network at an eighth."""
        autoencoder = self.autoencoder.to(drawn.device)
        images = [autoencoder.decode(some, channels=self.form.channels) for some in drawn.split(DECODED)]
        return self.form.leave(torch.cat(images))


DECODED = 16
"""Latents that are decoded at once."""
