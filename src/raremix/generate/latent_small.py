"""A small latent diffusion model from scratch, in Stable Diffusion's form."""

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raremix.core.errors import ConfigError
from raremix.generate.diffusion_library import groups_of, library
from raremix.generate.diffusion_noise import cosine_noise
from raremix.generate.latent_parts import Autoencoder, Parts

TOKENS = 32
"""The longest prompt of a model from scratch, in tokens."""


def transformers() -> Any:
    """Import transformers.

    Raises:
        ConfigError: if it is not installed, naming the extra.
    """
    try:
        import transformers as found  # noqa: PLC0415 - heavy, and an extra
    except ImportError:
        raise ConfigError(
            "latent diffusion needs transformers: pip install 'raremix[diffusion]', or fit another method"
        ) from None
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    """How large a model from scratch is.

    Attributes:
        width, layers, dropout: of the U-Net.
        text_width: of the text encoder, and of what the U-Net attends to.
        latent_channels: channels of the latents.
        autoencoder_width: channels of the autoencoder at full size.
    """

    width: int
    layers: int
    dropout: float
    text_width: int
    latent_channels: int
    autoencoder_width: int


def small_parts(size: Small, *, side: int, channels: int, prompts: Sequence[str]) -> Parts:
    """Build untrained parts: the weights come from torch's generator as it stands.

    The tokenizer knows the prompts' words, and spells all others.

    Args:
        size: how large.
        side, channels: of the images.
        prompts: one per class.
    """
    diffusers = library()
    halvings = 2 if side <= 64 else 3
    widths = [size.autoencoder_width * min(4, 1 << i) for i in range(halvings + 1)]
    vae = diffusers.AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=tuple(widths),
        layers_per_block=1,
        latent_channels=size.latent_channels,
        norm_num_groups=groups_of(size.autoencoder_width),
        sample_size=side,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )
    inner = side >> halvings
    levels = max(2, inner.bit_length() - 3)  # down to 8 latents, or 4 of the smallest images
    blocks = [size.width * min(4, 1 << level) for level in range(levels)]
    unet = diffusers.UNet2DConditionModel(
        sample_size=inner,
        in_channels=size.latent_channels,
        out_channels=size.latent_channels,
        block_out_channels=tuple(blocks),
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        layers_per_block=size.layers,
        dropout=size.dropout,
        cross_attention_dim=size.text_width,
        attention_head_dim=8,
        norm_num_groups=groups_of(size.width),
    )
    tokenizer = word_tokenizer(prompts)
    found = transformers()
    text = found.CLIPTextModel(
        found.CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.text_width,
            intermediate_size=2 * size.text_width,
            num_hidden_layers=2,
            num_attention_heads=max(1, size.text_width // 32),
            max_position_embeddings=TOKENS,
            projection_dim=size.text_width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    noise = cosine_noise(inner)
    return Parts(unet=unet, text=text, tokenizer=tokenizer, autoencoder=Autoencoder(vae), noise=noise)


def word_tokenizer(prompts: Sequence[str]) -> Any:
    """Build a CLIP tokenizer that knows the words of these prompts, and spells all others in ASCII characters.

    Its numbers depend on the words alone, not on their order in the prompts.
    """
    letters = [chr(c) for c in range(33, 127) if chr(c) not in string.ascii_uppercase]
    vocabulary = {piece: n for n, piece in enumerate([*letters, *(f"{letter}</w>" for letter in letters)])}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[special] = len(vocabulary)
    found = transformers()
    tokenizer = found.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=TOKENS)
    words = sorted({word for prompt in prompts for word in re.findall(r"[^\W_]{2,}", prompt.lower())})
    tokenizer.add_tokens([found.AddedToken(word, single_word=True) for word in words])
    return tokenizer
