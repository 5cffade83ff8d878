"""Images that are the same whenever they are asked for again: by seed, class and number."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from raremix.core.memory import InParts
from raremix.core.protocols import ImageTranslator
from raremix.core.random import RowStreams, rng, torch_seed
from raremix.generate.method import ImageGenerator

BLOCK = 16
"""Images that are drawn at once. Another number of rows may take another path through a convolution, and round
otherwise; so a block is always drawn whole, and what was not asked for is dropped. Only where memory runs out it is
drawn in parts."""


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

    Image i of a class depends on the seed, the class and i, and on nothing else: not on how many are asked for, nor
    on how many are drawn at once, but for rounding.

    Args:
        generator: a trained one.
        label: the class.
        classes: how many there are.
        numbers: which images, ascending.
        seed: of the noise.
        device: where to draw; the CPU by default.

    Yields:
        Some of the numbers, and their images.

    Raises:
        RunError: if there is no memory for a single image.
    """
    where = torch.device("cpu") if device is None else device
    size, parts = block_of(generator, where), InParts()
    for block in np.unique(numbers // size):
        every = np.arange(block * size, (block + 1) * size)
        latents = torch.stack([latent(seed, label, int(i), generator.latent) for i in every])
        targets = torch.zeros(size, classes)
        targets[:, label] = 1
        images = parts(generator.generate, targets.to(where), latents.to(where))
        asked = np.isin(every, numbers)
        yield every[asked], to_bytes(images)[asked]


def block_of(generator: object, device: torch.device) -> int:
    """Return how many images are drawn at once: on a GPU as many as fill it, where the generator says how many."""
    return BLOCK if device.type == "cpu" else int(getattr(generator, "block", BLOCK))


def redraw(
    translator: ImageTranslator,
    images: Float[Tensor, "B C H W"],
    targets: Float[Tensor, "B K"],
    streams: Sequence[tuple[int, ...]],
    *,
    seed: int,
    parts: InParts,
) -> Float[Tensor, "B C H W"]:
    """Translate images, each by a stream of its own.

    Args:
        translator: a trained one.
        images: values in [0, 1].
        targets: the classes that they are to show.
        streams: the address of each image's stream among those of the seed.
        seed: of the noise, or of the styles.
        parts: how many are drawn at once; kept from one call to the next.

    Raises:
        RunError: if there is no memory for a single image.
    """

    def draw(images: Tensor, targets: Tensor, streams: Sequence[tuple[int, ...]]) -> Tensor:
        return translator(images, targets, rng=RowStreams([rng(seed, "latent", *one) for one in streams]))

    return parts(draw, images, targets, streams)


def latent(seed: int, label: int, number: int, length: int) -> Float[Tensor, " z"]:
    """Return the noise of one image."""
    stream = torch.Generator().manual_seed(torch_seed(seed, "latent", label, number))
    return torch.randn(length, generator=stream)


def to_bytes(images: Float[Tensor, "B C H W"]) -> UInt8[np.ndarray, "B C H W"]:
    """Turn values in [0, 1] into bytes."""
    return (images.detach().float().clamp(0, 1) * 255).round().byte().cpu().numpy()
