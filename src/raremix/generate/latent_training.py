"""A latent diffusion model as something to train: the autoencoder first, if it is new, then what tells noise."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer

from raremix.core.errors import DataError
from raremix.core.random import rng, torch_seed
from raremix.core.ranks import ALONE, Ranks
from raremix.core.types import Batch
from raremix.generate.diffusion_noise import Noise, spread_times
from raremix.generate.form import Form, classes_of


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentTraining:
    """A latent diffusion model as something to train.

    Attributes:
        modules: "network", and "autoencoder" where it is trained too.
        optimizers: of these; the autoencoder's moves for `first` steps, then the network's.
        frozen: the autoencoder where it is not trained.
        form: what is drawn.
        noise: the schedule.
        seed: the run's.
        hide: share of the images whose prompt is hidden.
        min_snr: the most that a moment counts; 0: all alike.
        kl: weight of the autoencoder's distance from standard normal latents.
        prior: weight of the loss on the batch's pool, which holds images that are not to be forgotten.
        first: steps of the autoencoder.
        average: decay of the weight average that the loop keeps, or None.
    """

    modules: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    frozen: nn.Module | None = field(repr=False)
    form: Form
    noise: Noise
    seed: int
    hide: float
    min_snr: float
    kl: float = 0.0
    prior: float = 0.0
    first: int = 0
    average: float | None = None
    averaged: tuple[str, ...] = ("network",)
    ranks: Ranks = ALONE

    @property
    def memory(self) -> dict[str, Tensor]:
        """Nothing beside the networks."""
        return {}

    def loss(self, phase: str, batch: Batch, *, step: int) -> Mapping[str, Float[Tensor, ""]]:
        """Return the losses of the autoencoder, or of the network; whose turn it is not has a loss of 0."""
        if (phase == "autoencoder") != (step < self.first):
            # Without a gradient its optimiser leaves the weights, and its own moments, as they are.
            return {"loss": torch.zeros((), device=batch.images.device, requires_grad=True)}
        images = self.form.enter(batch.images)
        if phase == "autoencoder":
            return self._rebuilt(images, step)
        found = self._denoised(images, classes_of(batch.targets), step, 0)
        if self.prior <= 0:
            return found
        if batch.pool is None:
            raise DataError("prior preservation needs a pool of images of the prior class with every batch")
        kept = self._denoised(self.form.enter(batch.pool.images), classes_of(batch.pool.targets), step, 1)
        return {"loss": found["loss"] + self.prior * kept["loss"], "error": found["error"], "prior": kept["error"]}

    def after_step(self, step: int, averaged: Mapping[str, nn.Module]) -> None:
        """Let the autoencoder end as its average, and the network's average forget how it began."""
        if step + 1 == self.first:
            with torch.no_grad():
                for ours, theirs in zip(
                    _values(self.modules["autoencoder"]), _values(averaged["autoencoder"]), strict=True
                ):
                    ours.copy_(theirs)
        if step >= self.first > 0 and self.average:
            # The loop's average is as slow by now as after so many steps of training, of which this network had none.
            slow, due = (min(self.average, (1 + n) / (10 + n)) for n in (step, step - self.first))
            if due < slow:
                with torch.no_grad():
                    for ours, theirs in zip(
                        averaged["network"].parameters(), self.modules["network"].parameters(), strict=True
                    ):
                        ours.lerp_(theirs, 1 - due / slow)

    def _rebuilt(self, images: Tensor, step: int) -> dict[str, Tensor]:
        noise = self._noise(images, seed=torch_seed(self.seed, "latent", step, 2))
        _, drawn, distance = self.modules["autoencoder"](images, noise)
        error = (drawn.float() - images).abs().mean()
        return {"loss": error + self.kl * distance, "error": error, "distance": distance}

    def _denoised(self, images: Tensor, classes: Int[Tensor, " B"], step: int, number: int) -> dict[str, Tensor]:
        device, count = images.device, len(images)
        every, mine = self.ranks.whole(count), self.ranks.rows(count)
        draws = rng(self.seed, "latent", step, number)
        times = torch.from_numpy(spread_times(every, self.noise.moments, rng=draws)[mine]).to(device)
        hidden = torch.from_numpy(draws.random(every)[mine] < self.hide).to(device)
        latents = self._encoded(images, seed=torch_seed(self.seed, "latent", step, number, 3))
        noise = self._noise(images, seed=torch_seed(self.seed, "latent", step, number, 4))
        noisy, wanted = self.noise.add(latents, noise, times)
        said = self.modules["network"](noisy, times, torch.where(hidden, self.form.classes, classes))
        error = (said.float() - wanted).square().mean(dim=(1, 2, 3))
        return {"loss": (self.noise.weights(times, most=self.min_snr) * error).mean(), "error": error.mean()}

    @torch.no_grad()
    def _encoded(self, images: Tensor, *, seed: int) -> Tensor:
        autoencoder = self._autoencoder(images)
        noise = self._noise(images, seed=seed)
        # One that is trained is put under the loop's precision by the loop.
        with torch.autocast(images.device.type, torch.bfloat16, enabled=images.device.type == "cuda"):
            latents, _, _ = autoencoder(images, noise, decode=False)
        return latents.float()

    def _autoencoder(self, images: Tensor) -> Any:
        if self.frozen is None:
            return self.modules["autoencoder"]
        return self.frozen.to(images.device)

    def _noise(self, images: Tensor, *, seed: int) -> Tensor:
        """Draw noise for the latents of images."""
        plain: Any = self._autoencoder(images)
        side = self.form.side // plain.factor
        return self.ranks.normal((len(images), plain.channels[1], side, side), seed=seed, device=images.device)


def _values(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
