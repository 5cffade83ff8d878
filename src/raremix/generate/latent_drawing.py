"""Draw from a latent diffusion model: images of a class from its prompt, and images as ones of another class."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from raremix.core.random import rng, torch_seed
from raremix.generate.diffusion_library import Solver
from raremix.generate.diffusion_sampling import check_drawing, denoise, guided
from raremix.generate.form import Form, classes_of
from raremix.generate.latent_parts import Autoencoder, Parts


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentDrawer:
    """A trained latent diffusion model, as an `ImageGenerator` and as a `ClassTranslator`.

    Attributes:
        network: (noisy latents, moments, classes) -> what it was asked for; class K says nothing.
        parts: what it is made of.
        autoencoder: between images and latents.
        form: what is drawn.
        prompts: one per class, as they were learnt.
        solver: by name.
        num_inference_steps: steps from noise to image.
        guidance_scale: how far the prompt pushes; 1: not beyond what was learnt.
        strength: how much noise an image gets that is to become another one, in (0, 1].
    """

    network: nn.Module = field(repr=False)
    parts: Parts = field(repr=False)
    autoencoder: Autoencoder = field(repr=False)
    form: Form
    prompts: tuple[str, ...] = ()
    solver: Solver = "dpm++"
    num_inference_steps: int = 25
    guidance_scale: float = 2.0
    strength: float = 0.8

    drawing = ("solver", "num_inference_steps", "guidance_scale", "strength")

    def __post_init__(self) -> None:
        check_drawing(**{name: getattr(self, name) for name in self.drawing})

    @property
    def side(self) -> int:
        """Side of the latents."""
        return self.form.side // self.autoencoder.factor

    @property
    def latent(self) -> int:
        """Length of the noise: a number per latent."""
        return self.autoencoder.channels[1] * self.side**2

    @property
    def block(self) -> int:
        """How many images fill a GPU."""
        return max(16, 2**19 // self.form.side**2)

    @torch.no_grad()
    def generate(self, targets: Float[Tensor, "B K"], latents: Float[Tensor, "B z"]) -> Float[Tensor, "B C H W"]:
        """Return images in [0, 1] of the targets' classes."""
        return self._solve(classes_of(targets).to(latents.device), latents)

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"], *, rng: np.random.Generator
    ) -> Float[Tensor, "B C H W"]:
        """Return images of the targets' classes that begin as the given ones with noise (image-to-image)."""
        return self._from_images(images, classes_of(targets), rng=rng)

    @torch.no_grad()
    def reconstruct(
        self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B C H W"]:
        """Return the images from the same noise, as their own classes; without targets, as no class in particular."""
        nothing = torch.full((len(images),), self.form.classes)
        classes = nothing if targets is None else classes_of(targets)
        return self._from_images(images, classes, rng=rng(0, "mask"))

    def _from_images(self, images: Tensor, classes: Tensor, *, rng: np.random.Generator) -> Tensor:
        draws = rng.standard_normal((len(images), self.latent)).astype(np.float32)
        latents, device = torch.from_numpy(draws).to(images.device), images.device
        autoencoder = self.autoencoder.to(device)
        shape = (-1, autoencoder.channels[1], self.side, self.side)
        start, _, _ = autoencoder(self.form.enter(images), torch.zeros_like(latents).view(shape), decode=False)
        return self._solve(classes.to(device), latents, start=start)

    def _solve(self, classes: Tensor, latents: Tensor, *, start: Tensor | None = None) -> Tensor:
        device = latents.device
        network, autoencoder = self.network.to(device), self.autoencoder.to(device)

        def predict(noisy: Tensor, times: Tensor, classes: Tensor) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                return network(noisy, times, classes).float()

        nothing = torch.full_like(classes, self.form.classes)
        drawn = denoise(
            guided(predict, classes, nothing, guidance_scale=self.guidance_scale),
            latents.view(-1, autoencoder.channels[1], self.side, self.side),
            noise=self.parts.noise,
            solver=self.solver,
            steps=self.num_inference_steps,
            start=start,
            strength=self.strength,
            seed=torch_seed(0, "latent"),
        )
        # Decoded a few at a time: at full size an autoencoder needs more memory than the network at an eighth.
        images = [autoencoder.decode(some, channels=self.form.channels) for some in drawn.split(DECODED)]
        return self.form.leave(torch.cat(images))


DECODED = 16
"""Latents that are decoded at once."""
