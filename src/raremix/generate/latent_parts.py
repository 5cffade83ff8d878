"""The parts of a Stable Diffusion model: an autoencoder, a text encoder, and what tells noise from latents."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from raremix.core.errors import ConfigError
from raremix.generate.diffusion_noise import Noise

SPREAD_RATE = 0.05
"""How fast an autoencoder's scale follows its latents, per training step."""


class Autoencoder(nn.Module):
    """Between images and latents of variance 1.

    Args:
        vae: diffusers' AutoencoderKL.
        spread: standard deviation of its own latents; its buffer follows them while it is trained.
    """

    spread: Tensor

    def __init__(self, vae: nn.Module, *, spread: float = 1.0) -> None:
        super().__init__()
        self.vae = vae
        self.register_buffer("spread", torch.tensor(spread))

    @property
    def factor(self) -> int:
        """Pixels per latent, along a side."""
        plain: Any = self.vae
        return 2 ** (len(plain.config.block_out_channels) - 1)

    @property
    def channels(self) -> tuple[int, int]:
        """Channels of images and of latents."""
        plain: Any = self.vae
        return plain.config.in_channels, plain.config.latent_channels

    def forward(
        self, images: Float[Tensor, "B C H W"], noise: Float[Tensor, "B c h w"], *, decode: bool = True
    ) -> tuple[Float[Tensor, "B c h w"], Float[Tensor, "B C H W"] | None, Float[Tensor, ""]]:
        """Return latents, the images as they come back, and how far the latents are from standard normal ones.

        Args:
            images: values in [-1, 1].
            noise: that draws the latents.
            decode: draw the images; in training mode this also lets the scale follow the latents.

        Returns:
            The latents scaled to variance 1; the images, or None; KL per latent, mean over the batch.
        """
        plain: Any = self.vae
        found = plain.encode(with_channels(images, self.channels[0])).latent_dist
        latents = found.mean + found.std * noise
        if self.training and decode:
            with torch.no_grad():
                self.spread.lerp_(latents.std().to(self.spread), SPREAD_RATE)
        drawn = plain.decode(latents).sample if decode else None
        return latents / self.spread, drawn, found.kl().mean() / latents[0].numel()

    def decode(self, latents: Float[Tensor, "B c h w"], *, channels: int) -> Float[Tensor, "B C H W"]:
        """Return images; of grey ones the mean of the three colours that they came as."""
        plain: Any = self.vae
        images = plain.decode(latents * self.spread).sample
        return images if images.shape[1] == channels else images.mean(dim=1, keepdim=True)


class TextDenoiser(nn.Module):
    """Say what is noise in latents, told their moment and the class, by way of its prompt.

    Args:
        parts: of which it asks the U-Net and the text encoder.
        prompts: tokens of each class's prompt, and of the one that says nothing.
    """

    prompts: Tensor
    made_of: "tuple[Parts]"

    def __init__(self, parts: "Parts", prompts: Int[Tensor, "P L"]) -> None:
        super().__init__()
        self.unet, self.text = parts.unet, parts.text
        # In a tuple: the autoencoder is no part of this network.
        self.made_of = (parts,)
        self.register_buffer("prompts", prompts, persistent=False)

    def forward(
        self, noisy: Float[Tensor, "B c h w"], times: Int[Tensor, " B"], classes: Int[Tensor, " B"]
    ) -> Float[Tensor, "B c h w"]:
        """Return what is asked for: v, or the noise."""
        # Every prompt once, and not one per image.
        told = self.text(self.prompts).last_hidden_state[classes]
        return self.unet(noisy, times, encoder_hidden_states=told, return_dict=False)[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """The parts of a Stable Diffusion model.

    Attributes:
        unet, text, tokenizer: as diffusers and transformers have them.
        autoencoder: with its scale.
        noise: the schedule.
    """

    unet: Any = field(repr=False)
    text: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    autoencoder: Autoencoder = field(repr=False)
    noise: Noise = field(repr=False)

    def tokens(self, prompts: Sequence[str]) -> Int[Tensor, "K L"]:
        """Return the tokens of prompts.

        Raises:
            ConfigError: if one is too long, so that its end would not be read.
        """
        longest = self.tokenizer.model_max_length
        for prompt in prompts:
            count = len(self.tokenizer(prompt).input_ids)
            if count > longest:
                raise ConfigError(
                    f"the prompt {prompt!r} has {count} tokens, the text encoder reads {longest}: make it shorter, "
                    'generator.prompt = "..."'
                )
        found = self.tokenizer(
            list(prompts), padding="max_length", max_length=longest, truncation=True, return_tensors="pt"
        )
        return found.input_ids


def with_channels(images: Float[Tensor, "B C H W"], channels: int) -> Float[Tensor, "B c H W"]:
    """Return images with as many channels as an autoencoder reads: grey ones get all alike.

    Raises:
        ConfigError: if that cannot be.
    """
    if images.shape[1] == channels:
        return images
    if images.shape[1] == 1:
        return images.expand(-1, channels, -1, -1)
    raise ConfigError(
        f"the autoencoder reads {channels} channels, the images have {images.shape[1]}: set data.channels to "
        f"{channels} or 1, or train from scratch (no generator.weights)"
    )
