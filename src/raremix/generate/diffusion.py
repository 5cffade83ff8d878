"""Diffusion: draw images of a class by taking noise away, pixel by pixel."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from raremix.core.errors import ConfigError
from raremix.core.protocols import Trainable
from raremix.core.random import rng, torch_seed
from raremix.core.ranks import ALONE, Ranks
from raremix.core.types import Batch
from raremix.generate.diffusion_augment import LABELS, apply_changed, draw_changed
from raremix.generate.diffusion_drawing import DenoisingDrawer
from raremix.generate.diffusion_library import Solver, image_network, save_memory
from raremix.generate.diffusion_noise import MOMENTS, Noise, Prediction, cosine_noise, spread_times
from raremix.generate.diffusion_sampling import Predict, check_drawing, clipped
from raremix.generate.form import Form, classes_of
from raremix.generate.method import Budget


class Denoiser(nn.Module):
    """Say what is noise in an image, told its moment, its class and how it was changed.

    Args:
        network: diffusers' UNet2D, whose class embedding is given as a vector.
        width: length of that vector.
        classes: how many there are; one more says nothing.
    """

    def __init__(self, network: nn.Module, *, width: int, classes: int) -> None:
        super().__init__()
        self.network = network
        self.label = nn.Embedding(classes + 1, width)
        # Without a bias: labels of 0 add nothing.
        self.changed = nn.Linear(LABELS, width, bias=False)

    def forward(
        self,
        noisy: Float[Tensor, "B C H W"],
        times: Int[Tensor, " B"],
        classes: Int[Tensor, " B"],
        changed: Float[Tensor, "B 9"] | None = None,
    ) -> Float[Tensor, "B C H W"]:
        """Return what is asked for: v, or the noise."""
        told = self.label(classes)
        if changed is not None:
            told = told + self.changed(changed)
        return self.network(noisy, times, class_labels=told, return_dict=False)[0]


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """A class-conditional diffusion model of pixels that bears few images.

    x_t = alpha_t x + sigma_t eps; loss = w_t |v(x_t, t, y) - (alpha_t eps - sigma_t x)|^2, with the class y hidden now
    and then, so that drawing can be guided. The network is diffusers' UNet2D.

    Ho, Jain, Abbeel, "DDPM", NeurIPS 2020, https://arxiv.org/abs/2006.11239; v: https://arxiv.org/abs/2202.00512;
    w_t: min-SNR, https://arxiv.org/abs/2303.09556; hidden classes: https://arxiv.org/abs/2207.12598; conditional
    augmentation: https://arxiv.org/abs/2206.00364. Ours: moments are spread evenly over a batch.

    Args:
        width: channels at full size; 2 and 4 times as many further in, down to 8 pixels.
        layers: residual blocks per size.
        dropout: within the blocks, against learning images by heart.
        prediction: "v_prediction" or "epsilon".
        min_snr: the most that a moment counts; 0: all count alike.
        hide: share of the images whose class is hidden.
        augment: probability of each kind of change that the network is told of; 0: none.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        gradient_checkpointing: compute activations a second time instead of keeping them.
        attention_slicing: attend with one head after another.
        solver, num_inference_steps, guidance_scale: of drawing, where nobody says otherwise.

    Raises:
        ConfigError: if one of them is out of range.

    Example:
        >>> Diffusion(width=32).budget.batch_size
        64
    """

    width: int = 64
    layers: int = 2
    dropout: float = 0.1
    prediction: Prediction = "v_prediction"
    min_snr: float = 5.0
    hide: float = 0.1
    augment: float = 0.12
    learning_rate: float = 2e-4
    weight_decay: float = 0.01
    gradient_checkpointing: bool = False
    attention_slicing: bool = False
    solver: Solver = "dpm++"
    num_inference_steps: int = 20
    guidance_scale: float = 1.0

    is_translator = False
    kept = ("denoiser",)

    def __post_init__(self) -> None:
        if self.width < 8 or self.width % 8:
            raise ConfigError(f"diffusion: width must be a multiple of 8, got {self.width}")
        if self.layers < 1:
            raise ConfigError(f"diffusion: layers must be at least 1, got {self.layers}")
        for name in ("dropout", "hide", "augment"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"diffusion: {name} must be in [0, 1), got {getattr(self, name)}")
        if self.prediction not in {"v_prediction", "epsilon"}:
            raise ConfigError(f'diffusion: prediction must be "v_prediction" or "epsilon", got {self.prediction!r}')
        if self.learning_rate <= 0 or self.weight_decay < 0 or self.min_snr < 0:
            raise ConfigError("diffusion: learning_rate must be more than 0, weight_decay and min_snr at least 0")
        if self.hide == 0 and self.guidance_scale != 1:
            raise ConfigError("diffusion: guidance_scale other than 1 needs hidden classes: set hide = 0.1")
        check_drawing(
            solver=self.solver,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            strength=1.0,
        )

    @property
    def budget(self) -> Budget:
        """50,000 steps of 64 images."""
        return Budget(
            steps=50_000,
            batch_size=64,
            average=0.9995,
            precision="auto",
            clip=1.0,
            warmup=0.01,
            fewest=FEWEST,
            thrift="generator.gradient_checkpointing=true",
        )

    def networks(self, form: Form, *, seed: int) -> dict[str, nn.Module]:
        """Build the denoiser."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(seed, "init"))
            network = image_network(
                side=form.side, channels=form.channels, width=self.width, layers=self.layers, dropout=self.dropout
            )
            save_memory(
                network,
                gradient_checkpointing=self.gradient_checkpointing,
                attention_slicing=self.attention_slicing,
            )
            return {"denoiser": Denoiser(network, width=4 * self.width, classes=form.classes)}

    def training(
        self, networks: dict[str, nn.Module], form: Form, *, seed: int, extras: Mapping[str, Any] | None = None
    ) -> Trainable:
        """Build what the loop trains."""
        optimizers: dict[str, Optimizer] = {
            "denoiser": AdamW(
                networks["denoiser"].parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
            )
        }
        return DiffusionTraining(
            modules=networks,
            optimizers=optimizers,
            settings=self,
            form=form,
            noise=cosine_noise(form.side, prediction=self.prediction),
            seed=seed,
            ranks=(extras or {}).get("ranks", ALONE),
        )

    @property
    def drawer_class(self) -> type[Any]:
        """The class of what draws."""
        return PixelDrawer

    def drawer(
        self, networks: Mapping[str, nn.Module], form: Form, *, extras: Mapping[str, Tensor] | None = None
    ) -> "PixelDrawer":
        """Build what draws."""
        return PixelDrawer(
            network=networks["denoiser"].eval(),
            form=form,
            noise=cosine_noise(form.side, prediction=self.prediction),
            solver=self.solver,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
        )


FEWEST = 20
"""A class of fewer images is refused: a network of this kind repeats them instead of learning what they share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionTraining:
    """Diffusion as something to train; see `Diffusion` for the loss."""

    modules: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    settings: Diffusion
    form: Form
    noise: Noise
    seed: int
    averaged: tuple[str, ...] = ("denoiser",)
    ranks: Ranks = ALONE

    @property
    def memory(self) -> dict[str, Tensor]:
        """Nothing beside the network."""
        return {}

    def loss(self, phase: str, batch: Batch, *, step: int) -> Mapping[str, Float[Tensor, ""]]:
        """Return the weighted loss, and the plain error."""
        settings, device, count = self.settings, batch.images.device, len(batch.images)
        every, mine = self.ranks.whole(count), self.ranks.rows(count)
        draws = rng(self.seed, "latent", step, 0)
        times = torch.from_numpy(spread_times(every, MOMENTS, rng=draws)[mine]).to(device)
        hidden = torch.from_numpy(draws.random(every)[mine] < settings.hide).to(device)
        classes = torch.where(hidden, self.form.classes, classes_of(batch.targets))
        images, told = self.form.enter(batch.images), None
        if settings.augment > 0:
            changed = draw_changed(every, share=settings.augment, rng=rng(self.seed, "augment", step, 0, 0))[mine]
            images, told = apply_changed(images, changed), changed.labels.to(device)
        # From the CPU it would come too slowly.
        noise = self.ranks.normal(tuple(images.shape), seed=torch_seed(self.seed, "latent", step, 1), device=device)
        noisy, wanted = self.noise.add(images, noise, times)
        said = self.modules["denoiser"](noisy, times, classes, told)
        error = (said.float() - wanted).square().mean(dim=(1, 2, 3))
        return {
            "loss": (self.noise.weights(times, most=settings.min_snr) * error).mean(),
            "error": error.mean(),
        }

    def after_step(self, step: int, averaged: Mapping[str, nn.Module]) -> None:
        """Nothing is kept beside the weights."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelDrawer(DenoisingDrawer):
    """A trained pixel diffusion model; see `DenoisingDrawer` for its settings."""

    by_ratio = True

    @property
    def shape(self) -> tuple[int, int, int]:
        """Those of the padded image."""
        return self.form.channels, self.form.side, self.form.side

    def enter(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B c h w"]:
        """Pad, and bring to [-1, 1]."""
        return self.form.enter(images)

    def leave(self, drawn: Float[Tensor, "B c h w"]) -> Float[Tensor, "B C H W"]:
        """Bring to [0, 1], and cut the padding off."""
        return self.form.leave(drawn)

    def bounded(self, said: Predict) -> Predict:
        """Pixels lie in [-1, 1]."""
        return clipped(said, self.noise)
