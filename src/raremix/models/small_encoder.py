"""A small network that turns images into vectors, cheap enough to train on a laptop for one data set."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from raremix.core.random import torch_seed


class SmallEncoder(nn.Module):
    """Four stages of 3 x 3 convolutions, the last three residual, and the mean over what is left of the image.

    About 10 million multiplications for an image of 64 x 64 pixels at the default width, where a ResNet-18 with a stem
    for such images needs 560 million.

    Args:
        channels: of the images.
        width: channels of the first stage; the vectors are eight times as long.

    Example:
        >>> SmallEncoder(channels=3)(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 128])
    """

    def __init__(self, *, channels: int, width: int = 16) -> None:
        super().__init__()
        self.length = 8 * width
        self.stem = _convolution(channels, width, stride=2)
        self.stages = nn.Sequential(*(_Stage(width << k, width << (k + 1)) for k in range(3)))

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        """Return one vector per image in [0, 1]."""
        return self.stages(functional.relu(self.stem((images - 0.5) / 0.25))).mean(dim=(2, 3))

    def describe(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B E"]:
        """Return means and standard deviations of the last three stages' maps, each brought to length one.

        The last means alone, which the training compares, no longer know what views of an image do not share. What is
        foreign differs in just that: on skin images with planted contamination the average precision of off-topic
        images rose from .15 to .60, while that of near-duplicates stayed.
        """
        maps, parts = functional.relu(self.stem((images - 0.5) / 0.25)), []
        for stage in self.stages:
            maps = stage(maps)
            flat = maps.flatten(2)
            parts += [flat.mean(dim=2), flat.std(dim=2, correction=0)]
        return torch.cat([functional.normalize(part, dim=1) for part in parts], dim=1)


class _Stage(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first = _convolution(before, after, stride=2)
        self.second = _convolution(after, after, stride=1)

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        maps = functional.relu(self.first(maps))
        return functional.relu(maps + self.second(maps))


def _convolution(before: int, after: int, *, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after))


def small_encoder(*, channels: int, width: int = 16, seed: int) -> SmallEncoder:
    """Build the encoder, from the same initial weights for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, "init"))
        return SmallEncoder(channels=channels, width=width)
