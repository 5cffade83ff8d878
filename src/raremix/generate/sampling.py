"""Images that are the same whenever they are asked for again: by seed, class and number."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from raremix.core.random import torch_seed
from raremix.generate.method import ImageGenerator

BLOCK = 16
"""Images that are drawn at once. Another number of rows may take another path through a convolution, and round
otherwise; so a block is always drawn whole, and what was not asked for is dropped."""


def sample(
    generator: ImageGenerator,
    *,
    label: int,
    classes: int,
    numbers: Int[np.ndarray, " n"],
    seed: int,
    device: torch.device | None = None,
) -> Iterator[tuple[Int[np.ndarray, " b"], UInt8[np.ndarray, "b C H W"]]]:
    """Draw images of a class by their numbers, block by block.

    Image i of a class depends on the seed, the class and i, and on nothing else: not on how many are asked for.

    Args:
        generator: a trained one.
        label: the class.
        classes: how many there are.
        numbers: which images, ascending.
        seed: of the noise.
        device: where to draw; the CPU by default.

    Yields:
        Some of the numbers, and their images.
    """
    where = torch.device("cpu") if device is None else device
    size = block_of(generator, where)
    for block in np.unique(numbers // size):
        every = np.arange(block * size, (block + 1) * size)
        latents = torch.stack([latent(seed, label, int(i), generator.latent) for i in every])
        targets = torch.zeros(size, classes)
        targets[:, label] = 1
        images = generator.generate(targets.to(where), latents.to(where))
        asked = np.isin(every, numbers)
        yield every[asked], to_bytes(images)[asked]


def block_of(generator: object, device: torch.device) -> int:
    """Return how many images are drawn at once: on a GPU as many as fill it, where the generator says how many."""
    return BLOCK if device.type == "cpu" else int(getattr(generator, "block", BLOCK))


def latent(seed: int, label: int, number: int, length: int) -> Float[Tensor, " z"]:
    """Return the noise of one image."""
    stream = torch.Generator().manual_seed(torch_seed(seed, "latent", label, number))
    return torch.randn(length, generator=stream)


def to_bytes(images: Float[Tensor, "B C H W"]) -> UInt8[np.ndarray, "B C H W"]:
    """Turn values in [0, 1] into bytes."""
    return (images.detach().float().clamp(0, 1) * 255).round().byte().cpu().numpy()
