"""What is taken from diffusers, imported when it is asked for: the network that tells noise from image, the solvers."""

from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from raremix.core.errors import ConfigError
from raremix.generate.diffusion_noise import Noise

Solver = Literal["dpm++", "unipc", "heun", "ddim", "ddpm"]
"""DPM-Solver++ (https://arxiv.org/abs/2211.01095), UniPC (https://arxiv.org/abs/2302.04867) and Heun
(https://arxiv.org/abs/2206.00364) need few steps; DDIM (https://arxiv.org/abs/2010.02502) and DDPM
(https://arxiv.org/abs/2006.11239) are the ones to compare with."""

SOLVERS: tuple[Solver, ...] = ("dpm++", "unipc", "heun", "ddim", "ddpm")
ATTEND = 16
"""Maps of at most this side are attended over: beyond it attention costs more than all convolutions."""


def library() -> Any:
    """Import diffusers.

    Raises:
        ConfigError: if it is not installed, naming the extra.
    """
    try:
        import diffusers  # noqa: PLC0415 - heavy, and an extra
    except ImportError:
        raise ConfigError(
            "diffusion models need diffusers: pip install 'raremix[diffusion]', or fit another method (dcgan, stargan)"
        ) from None
    return diffusers


def image_network(*, side: int, channels: int, width: int, layers: int, dropout: float) -> nn.Module:
    """Build diffusers' UNet2D, whose class embedding is given as a vector.

    Args:
        side, channels: of the images.
        width: channels at full size; 2 and 4 times as many further in.
        layers: residual blocks per size.
        dropout: within the blocks.
    """
    levels = max(3, side.bit_length() - 3)  # down to 8 pixels
    widths = [width * min(4, 1 << level) for level in range(levels)]
    attends = [side >> level <= ATTEND for level in range(levels)]
    return library().UNet2DModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=tuple(widths),
        down_block_types=tuple("AttnDownBlock2D" if here else "DownBlock2D" for here in attends),
        up_block_types=tuple("AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attends)),
        layers_per_block=layers,
        dropout=dropout,
        attention_head_dim=min(64, width),
        norm_num_groups=groups_of(width),
        resnet_time_scale_shift="scale_shift",
        class_embed_type="identity",
    )


def groups_of(width: int) -> int:
    """Return how many groups of channels are normalised together: at most 32, and at least 4 channels each.

    Example:
        >>> groups_of(64), groups_of(8)
        (16, 2)
    """
    return next(groups for groups in (32, 16, 8, 4, 2, 1) if width % groups == 0 and width // groups >= min(4, width))


def save_memory(network: nn.Module, *, gradient_checkpointing: bool, attention_slicing: bool) -> nn.Module:
    """Let a network of diffusers trade time for memory.

    Args:
        network: changed in place.
        gradient_checkpointing: compute activations a second time instead of keeping them.
        attention_slicing: attend with one head after another.
    """
    plain: Any = network
    if gradient_checkpointing:
        plain.enable_gradient_checkpointing()
    if attention_slicing:
        for module in plain.modules():
            if hasattr(module, "set_attention_slice") and hasattr(module, "sliceable_head_dim"):
                module.set_attention_slice(1)
    return network


BY_RATIO = ("dpm++", "unipc", "heun")
"""Solvers whose steps can be even in the logarithm of noise over image; the others are there to compare with."""


def make_solver(name: Solver, noise: Noise, *, steps: int, device: torch.device, by_ratio: bool = False) -> Any:
    """Build a solver of diffusers for a noise schedule, and set its steps.

    Args:
        name: of the solver.
        noise: the schedule.
        steps: from its last moment to the image.
        device: where the steps are kept.
        by_ratio: whether steps are even in the logarithm of noise over image instead of in moments; the solvers that
            are not among `BY_RATIO` do not look at it.
    """
    common: dict[str, Any] = {
        "num_train_timesteps": noise.moments,
        "trained_betas": noise.betas,
        "prediction_type": noise.prediction,
        # The last moment, where nothing of the image is left, must be among the steps (https://arxiv.org/abs/2305.08891).
        "timestep_spacing": "trailing",
    }
    found, asked = library(), {"num_inference_steps": steps}
    if name == "dpm++":
        common |= {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_lu_lambdas": by_ratio}
        scheme = found.DPMSolverMultistepScheduler(**common)
    elif name == "unipc":
        scheme = found.UniPCMultistepScheduler(**common, solver_order=2, use_exponential_sigmas=by_ratio)
    elif name == "heun":
        scheme = found.HeunDiscreteScheduler(**common)
        if by_ratio:
            asked = {"timesteps": even_by_ratio(noise, steps)}
    elif name == "ddim":
        scheme = found.DDIMScheduler(**common, clip_sample=False, set_alpha_to_one=True)
    else:
        scheme = found.DDPMScheduler(**common, clip_sample=False)
    scheme.set_timesteps(**asked, device=device)
    return scheme


def even_by_ratio(noise: Noise, steps: int) -> list[int]:
    """Return moments from the last one to the first, even in the logarithm of noise over image, each once.

    Example:
        >>> from raremix.generate.diffusion_noise import cosine_noise
        >>> even_by_ratio(cosine_noise(32), 5)
        [999, 917, 359, 33, 0]
    """
    known = np.log(noise.ratios)
    wanted = np.linspace(known[-1], known[0], steps)
    return sorted({int(np.abs(known - one).argmin()) for one in wanted}, reverse=True)
