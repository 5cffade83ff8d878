"""From noise to images in few steps, and from images to other ones by way of noise."""

import hashlib
import warnings
from collections.abc import Callable
from typing import get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raremix.core.errors import ConfigError
from raremix.core.precision import Precision
from raremix.generate.diffusion_library import BY_RATIO, SOLVERS, Solver, make_solver
from raremix.generate.diffusion_noise import Noise

Predict = Callable[[Float[Tensor, "B C H W"], Int[Tensor, " B"]], Float[Tensor, "B C H W"]]
"""(noisy images, moments) -> what the network says of them."""


def check_drawing(
    *,
    solver: str = "dpm++",
    num_inference_steps: int = 1,
    guidance_scale: float = 1.0,
    strength: float = 1.0,
    precision: str = "auto",
) -> None:
    """Refuse settings of drawing that are out of range; what is not given is not looked at.

    Raises:
        ConfigError: naming the setting.
    """
    if solver not in SOLVERS:
        raise ConfigError(f"solver = {solver!r}: expected one of {', '.join(SOLVERS)}")
    if num_inference_steps < 1:
        raise ConfigError(f"num_inference_steps must be at least 1, got {num_inference_steps}")
    if guidance_scale < 0:
        raise ConfigError(f"guidance_scale must be at least 0 (1 guides nothing), got {guidance_scale}")
    if not 0 < strength <= 1:
        raise ConfigError(
            f"strength must be above 0 (the image as it is) and at most 1 (nothing of it is left), got {strength}"
        )
    if precision not in get_args(Precision):
        raise ConfigError(f"precision = {precision!r}: expected one of {', '.join(get_args(Precision))}")


def denoise(
    predict: Predict,
    latents: Float[Tensor, "B C H W"],
    *,
    noise: Noise,
    solver: Solver,
    steps: int,
    start: Float[Tensor, "B C H W"] | None = None,
    strength: float = 1.0,
    by_ratio: bool = False,
) -> Float[Tensor, "B C H W"]:
    """Solve the equation that turns noise into images.

    With `start` it begins in the middle, at the images with noise added: SDEdit (https://arxiv.org/abs/2108.01073),
    known as image-to-image. Of n steps that are even in time the last floor(n strength) are made, at least one.

    Steps that are even in time end with a jump from a ratio of noise to image of .08 (of 20) to none, which leaves the
    mean of what there could be: everything weaker than ten grey levels is smoothed away. Steps that are even in the
    logarithm of the ratio (https://arxiv.org/abs/2206.00927, section 4) keep it; then the share of this way that lies
    below the moment strength x moments is made.

    Args:
        predict: the network, with its condition and guidance.
        latents: standard normal noise.
        noise: the schedule that the network was trained with.
        solver: by name.
        steps: how many; "heun" asks the network twice in each.
        start: images to begin with.
        strength: how much noise they get, in (0, 1].
        by_ratio: whether steps are even in the logarithm of noise over image; see `make_solver`.
    """
    by_ratio = by_ratio and solver in BY_RATIO
    if start is not None:
        noise, steps = _last_part(noise, steps, strength, by_ratio=by_ratio)
    with warnings.catch_warnings():
        # diffusers turns tensors into arrays in a way that numpy 2 warns of.
        warnings.simplefilter("ignore", DeprecationWarning)
        scheme = make_solver(solver, noise, steps=steps, device=latents.device, by_ratio=by_ratio)
    if hasattr(scheme, "set_begin_index"):
        scheme.set_begin_index(0)
    begin = torch.full((len(latents),), noise.moments - 1, device=latents.device)
    x = latents if start is None else noise.add(start, latents, begin)[0]
    if solver == "heun":  # walks in x / alpha
        x = x / noise.scales(begin)[0]
    # Noise of an image's own on the way: one stream for all would make images that begin differently end alike.
    stochastic = {"generator": [_stream_of(latent) for latent in latents]} if solver == "ddpm" else {}
    for time in scheme.timesteps:
        seen = scheme.scale_model_input(x, time)
        said = predict(seen, time.long().expand(len(latents)))
        x = scheme.step(said, time, x, **stochastic).prev_sample
    return x


def _last_part(noise: Noise, steps: int, strength: float, *, by_ratio: bool) -> tuple[Noise, int]:
    """Return the part of a schedule that a strength leaves, and how many of the steps fall to it."""
    if not by_ratio:
        made = min(steps, max(1, int(steps * strength)))
        return noise.until(max(2, round(noise.moments * made / steps))), made
    part, whole = noise.until(max(2, round(noise.moments * strength))), np.log(noise.ratios)
    way = np.log(part.ratios)
    return part, max(1, round(steps * (way[-1] - way[0]) / (whole[-1] - whole[0])))


def _stream_of(latent: Float[Tensor, "C H W"]) -> torch.Generator:
    """Return a stream that belongs to an image's own first noise: the same on every device and in any batch."""
    digest = hashlib.blake2b(latent.detach().cpu().contiguous().numpy().tobytes(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def guided(
    predict: Callable[[Tensor, Tensor, Tensor], Tensor], condition: Tensor, nothing: Tensor, *, guidance_scale: float
) -> Predict:
    """Return a prediction pushed away from what is said without the condition: u + g (c - u).

    Ho & Salimans 2022, https://arxiv.org/abs/2207.12598.

    Args:
        predict: (noisy images, moments, condition) -> what the network says.
        condition: one row per image.
        nothing: the condition that says nothing, one row per image.
        guidance_scale: g; at 1 the network is asked once, and nothing is pushed.
    """
    if guidance_scale == 1:
        return lambda noisy, times: predict(noisy, times, condition)
    both = torch.cat([condition, nothing])

    def pushed(noisy: Tensor, times: Tensor) -> Tensor:
        with_it, without = predict(torch.cat([noisy, noisy]), torch.cat([times, times]), both).chunk(2)
        return torch.lerp(without, with_it, guidance_scale)

    return pushed


def clipped(predict: Predict, noise: Noise) -> Predict:
    """Return a prediction whose images stay within [-1, 1], as images do."""

    def inside(noisy: Tensor, times: Tensor) -> Tensor:
        images = noise.clean(noisy, predict(noisy, times), times)
        return noise.words(noisy, images.clamp(-1, 1), times)

    return inside
