"""A small set of images, and generators small enough to train on it."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from raremix.core.errors import StoppedError
from raremix.core.ranks import ALONE, Ranks
from raremix.data.samplers import SAMPLERS
from raremix.generate import DCGAN, Diffusion, Form, GeneratorMethod, LatentDiffusion, StarGAN, StyleGAN2
from raremix.generate.pairs import ClassPairs
from raremix.train import Feed, FitResult, TrainSpec, fit
from raremix.train.spec import make_fabric

ROWS = 12
FORM = Form(size=32, channels=1, classes=2)
SPEC = TrainSpec(
    steps=6,
    batch_size=2,
    schedule="constant",
    warmup=0.0,
    clip=0.0,
    average=0.9,
    validations=0,
    checkpoints=3,
    precision="32",
    accelerator="cpu",
    workers=0,
)
STYLED: dict[str, Any] = {"latent": 3, "style": 4, "channel_max": 4, "r1_every": 5, "path_every": 1}
METHODS: dict[str, GeneratorMethod] = {
    "diffusion": Diffusion(width=8, layers=1, dropout=0.0, num_inference_steps=2),
    "dcgan": DCGAN(width=2, latent=5),
    "dcgan_hinge": DCGAN(width=2, latent=5, game="hinge"),
    "latent_diffusion": LatentDiffusion(
        width=8, text_width=32, autoencoder_width=8, autoencoder_steps=2, dropout=0.0, num_inference_steps=2
    ),
    "stargan": StarGAN(width=2, widest=4, hidden=8, latent=3, style=4, learning_rate=1e-3, mapping_rate=1e-3),
    # All changes, at a probability that moves; both penalties, at some steps; classes that come in halfway.
    "stylegan2": StyleGAN2(
        **STYLED,
        path=1.0,
        style_mixing=0.5,
        probability=0.5,
        span=100,
        augment=("blit", "geometry", "color", "filter", "noise", "cutout"),
        transition=(0.2, 0.8),
    ),
    "stylegan2_plain": StyleGAN2(**STYLED, augment=(), r1=0.0),
}
_fabric = lru_cache(make_fabric)


@dataclass(frozen=True)
class Squares:
    """Images in memory: class 1 has a bright square."""

    pixels: np.ndarray

    def take(self, ids: np.ndarray) -> np.ndarray:
        return self.pixels[ids]


def feed(method: GeneratorMethod, *, seed: int = 0, batch_size: int = SPEC.batch_size, ranks: Ranks = ALONE) -> Feed:
    pixels = np.random.default_rng(1).integers(0, 60, (ROWS, FORM.channels, FORM.size, FORM.size), dtype=np.uint8)
    pixels[1::2, :, 8:24, 8:24] += 180
    targets = np.eye(2)[np.arange(ROWS) % 2]
    common: dict[str, Any] = {"images": Squares(pixels), "ids": np.arange(ROWS), "targets": targets, "seed": seed}
    common |= {"rank": ranks.rank, "ranks": ranks.count}
    pool = None
    if method.is_translator:
        pool = Feed(**common, sampler=ClassPairs(targets=targets, seed=seed), batch_size=2 * batch_size, stream=1)
    return Feed(**common, sampler=SAMPLERS["balanced"](targets=targets, seed=seed), batch_size=batch_size, pool=pool)


def run(
    method: GeneratorMethod, folder: Path, *, stop_at: int | None = None, spec: TrainSpec = SPEC
) -> FitResult | None:
    """Train a toy in a folder, or go on with it; stopped after step `stop_at`, if that is given."""
    done = [0]

    def progress(what: str, step: int, total: int) -> None:
        done[0] = step

    with suppress(StoppedError):
        return fit(
            method.training(method.networks(FORM, seed=0), FORM, seed=0, extras={"steps": spec.steps}),
            feed(method, batch_size=spec.batch_size),
            spec=spec,
            fabric=_fabric(spec),
            folder=folder,
            identity="toy",
            progress=progress,
            should_stop=lambda: stop_at is not None and done[0] + 1 >= stop_at,
        )
    return None


def same(a: Mapping[str, Mapping[str, Tensor]], b: Mapping[str, Mapping[str, Tensor]]) -> bool:
    """Whether two sets of weights are the same to the last bit."""
    return a.keys() == b.keys() and all(
        a[n].keys() == b[n].keys() and all(bool((a[n][k] == b[n][k]).all()) for k in a[n]) for n in a
    )


def write_tiny_pipeline(folder: Path, *, channels: int = 3) -> Path:
    """Write an untrained Stable Diffusion model as diffusers writes one."""
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from raremix.generate.latent_small import word_tokenizer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        tokenizer = word_tokenizer(["a medical image of a common lesion"])
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=4,
            norm_num_groups=4,
        )
        vae = AutoencoderKL(
            in_channels=channels,
            out_channels=channels,
            block_out_channels=(8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            norm_num_groups=4,
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=32,
                intermediate_size=37,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=tokenizer.model_max_length,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text.eval(),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=PNDMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, skip_prk_steps=True, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder
