"""What pixel and latent diffusion models share in drawing: from noise to an image, and from one image to another."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from math import prod

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from raremix.core.precision import Precision, computes_in_bf16
from raremix.core.random import rng
from raremix.generate.diffusion_library import Solver
from raremix.generate.diffusion_noise import Noise
from raremix.generate.diffusion_sampling import Predict, check_drawing, denoise, guided
from raremix.generate.form import Form, classes_of


@dataclass(frozen=True, kw_only=True, eq=False)
class DenoisingDrawer(ABC):
    """A trained denoiser, as an `ImageGenerator` and as a `ClassTranslator`.

    Attributes:
        network: (noisy images or latents, moments, classes) -> what it was asked for; class K says nothing.
        form: what is drawn.
        noise: the schedule that it was trained with.
        solver: by name.
        num_inference_steps: steps from noise to image.
        guidance_scale: how far the class pushes; 1: not beyond what was learnt.
        strength: how much noise an image gets that is to become another one, in (0, 1].
        precision: of the network: "bf16", "32", or what the device is fast in.
    """

    network: nn.Module = field(repr=False)
    form: Form
    noise: Noise = field(repr=False)
    solver: Solver = "dpm++"
    num_inference_steps: int = 20
    guidance_scale: float = 1.0
    strength: float = 0.5
    precision: Precision = "auto"

    check_drawing = staticmethod(check_drawing)
    by_ratio = False
    """Whether steps are even in the logarithm of noise over image instead of in time."""

    def __post_init__(self) -> None:
        check_drawing(
            solver=self.solver,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            strength=self.strength,
            precision=self.precision,
        )

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what is denoised."""

    @abstractmethod
    def enter(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B c h w"]:
        """Bring images in [0, 1] to where they are denoised."""

    @abstractmethod
    def leave(self, drawn: Float[Tensor, "B c h w"]) -> Float[Tensor, "B C H W"]:
        """Bring what was denoised back to images in [0, 1]."""

    def bounded(self, said: Predict) -> Predict:
        """Keep what the network says within what there can be; by default it is taken as it is."""
        return said

    @property
    def latent(self) -> int:
        """Length of the noise."""
        return prod(self.shape)

    @property
    def block(self) -> int:
        """How many images fill a GPU."""
        return max(16, 2**19 // self.form.side**2)

    @torch.no_grad()
    def generate(self, targets: Float[Tensor, "B K"], latents: Float[Tensor, "B z"]) -> Float[Tensor, "B C H W"]:
        """Return images in [0, 1] of the targets' classes."""
        return self.leave(self._solve(classes_of(targets).to(latents.device), latents))

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"], *, rng: np.random.Generator
    ) -> Float[Tensor, "B C H W"]:
        """Return images of the targets' classes that begin as the given ones with noise (SDEdit, image-to-image)."""
        return self._from_images(images, classes_of(targets), rng.standard_normal((len(images), self.latent)))

    @torch.no_grad()
    def reconstruct(
        self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B C H W"]:
        """Return the images, all from one noise, as their own classes; without targets, as no class in particular."""
        nothing = torch.full((len(images),), self.form.classes)
        classes = nothing if targets is None else classes_of(targets)
        # One vector: what an image is redrawn as does not depend on its place.
        return self._from_images(images, classes, rng(0, "mask").standard_normal((1, self.latent)))

    def _from_images(self, images: Tensor, classes: Tensor, draws: np.ndarray) -> Tensor:
        latents = torch.from_numpy(draws.astype(np.float32)).expand(len(images), -1).to(images.device)
        return self.leave(self._solve(classes.to(images.device), latents, start=self.enter(images)))

    def _solve(self, classes: Tensor, latents: Tensor, *, start: Tensor | None = None) -> Tensor:
        device = latents.device
        network = self.network.to(device)
        if not torch.is_inference_mode_enabled():  # weights that are laid out anew within could not be trained further
            network = network.to(memory_format=torch.channels_last)
        is_short = self.precision == "bf16" or (self.precision == "auto" and computes_in_bf16(device))

        def predict(noisy: Tensor, times: Tensor, classes: Tensor) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=is_short):
                return network(noisy.contiguous(memory_format=torch.channels_last), times, classes).float()

        nothing = torch.full_like(classes, self.form.classes)
        return denoise(
            self.bounded(guided(predict, classes, nothing, guidance_scale=self.guidance_scale)),
            latents.view(-1, *self.shape),
            noise=self.noise,
            solver=self.solver,
            steps=self.num_inference_steps,
            start=start,
            strength=self.strength,
            by_ratio=self.by_ratio,
        )
