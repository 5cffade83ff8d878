"""The three networks of StyleGAN2 (Karras et al., CVPR 2020, https://arxiv.org/abs/1912.04958), with classes."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from raremix.generate.stylegan2_layers import (
    SLOPE,
    NoisyConv,
    ScaledConv,
    ScaledLinear,
    StyledConv,
    double,
    table_of,
    unit_length,
    vectors_of,
    with_spread,
)

MAPPING_RATE = 0.01
"""How much slower the mapping learns than the other networks, as published."""


class StyleMapping(nn.Module):
    """From noise and a class to a style.

    Noise and class vector are each brought to unit length. How much the class counts is kept with the weights, for
    training that begins without classes (https://arxiv.org/abs/2201.06578).

    Args:
        latent: length of the noise.
        style: length of a style, and of a class vector.
        depth: layers.
        classes: how many there are.
        share: how much the class counts at the start: 1, or 0.
    """

    share: Tensor

    def __init__(self, *, latent: int, style: int, depth: int, classes: int, share: float) -> None:
        super().__init__()
        self.table = table_of(classes, style)
        boost = math.sqrt(2)
        widths = [latent + style, *[style] * depth]
        self.layers = nn.ModuleList(ScaledLinear(a, b, rate=MAPPING_RATE, boost=boost) for a, b in pairwise(widths))
        self.register_buffer("share", torch.tensor(share))

    def forward(self, latents: Float[Tensor, "B z"], classes: Int[Tensor, " B"]) -> Float[Tensor, "B s"]:
        """Return a style of each row's class, in 32 bits."""
        with torch.autocast(latents.device.type, enabled=False):
            x = torch.cat([unit_length(latents.float()), self.share * vectors_of(self.table, classes)], dim=1)
            for layer in self.layers:
                x = functional.leaky_relu(layer(x), SLOPE)
        return x


class Synthesis(nn.Module):
    """From styles to an image: a learnt 4 x 4 map, doubled; each size adds what it draws to the doubled drawing so far.

    Args:
        widths: channels at 4, 8, ... pixels a side.
        channels: of the images.
        style: length of a style.
    """

    def __init__(self, *, widths: Sequence[int], channels: int, style: int) -> None:
        super().__init__()
        self.start = nn.Parameter(nn.init.normal_(torch.empty(1, widths[0], 4, 4)))
        convs = [NoisyConv(widths[0], widths[0], style=style, is_doubling=False)]
        for a, b in pairwise(widths):
            convs += [NoisyConv(a, b, style=style, is_doubling=True), NoisyConv(b, b, style=style, is_doubling=False)]
        self.convs = nn.ModuleList(convs)
        self.draws = nn.ModuleList(StyledConv(wide, channels, 1, style=style, is_demodulated=False) for wide in widths)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, styles: Float[Tensor, "B n s"], noise: Float[Tensor, "B m"]) -> Float[Tensor, "B C H W"]:
        """Return images, in [-1, 1] more or less.

        Args:
            styles: one per convolution; what a size draws takes that of its last one.
            noise: standard normal, for one map per convolution.
        """
        maps = noise.split([side**2 for side in noise_sides(len(self.draws))], dim=1)
        x = self.start.expand(len(styles), -1, -1, -1)
        image = self.bias.view(1, -1, 1, 1)
        for number, (conv, flat) in enumerate(zip(self.convs, maps, strict=True)):
            side = math.isqrt(flat.shape[1])
            x = conv(x, styles[:, number], flat.view(-1, 1, side, side))
            # The odd ones begin a size, the even ones end it.
            if number % 2 == 0:
                drawn = self.draws[number // 2](x, styles[:, number])
                with torch.autocast(styles.device.type, enabled=False):
                    image = drawn.float() + (double(image) if number else image)
        return image


class PairDiscriminator(nn.Module):
    """Whether an image is a real one, as one of its class: residual blocks, then a product with the class vector.

    logit = f(x) . e(y) / sqrt(width) (https://arxiv.org/abs/1802.05637), and beside it, by option, one that is told no
    class.

    Args:
        widths: channels at full size, half of it, ... 4 pixels a side.
        channels: of the images.
        classes: how many there are.
        is_doubled: give both logits.
    """

    def __init__(self, *, widths: Sequence[int], channels: int, classes: int, is_doubled: bool) -> None:
        super().__init__()
        boost, last = math.sqrt(2), widths[-1]
        self.enter = ScaledConv(channels, widths[0], 1, boost=boost)
        self.blocks = nn.ModuleList(HalvingBlock(a, b) for a, b in pairwise(widths))
        self.mix = ScaledConv(last + 1, last, 3, boost=boost)
        self.gather = ScaledLinear(16 * last, last, boost=boost)
        self.project = ScaledLinear(last, last)
        self.table = table_of(classes, last)
        self.plain = ScaledLinear(last, 1) if is_doubled else None

    def forward(self, images: Float[Tensor, "B C H W"], classes: Int[Tensor, " B"]) -> Float[Tensor, "B n"]:
        """Return each image's logits, in 32 bits: the one without a class, if there is one, then that of its class.

        Args:
            images: values in [-1, 1].
            classes: of the images.
        """
        x = functional.leaky_relu(self.enter(images), SLOPE)
        for block in self.blocks:
            x = block(x)
        x = functional.leaky_relu(self.mix(with_spread(x)), SLOPE)
        with torch.autocast(images.device.type, enabled=False):
            x = functional.leaky_relu(self.gather(x.float().flatten(1)), SLOPE)
            told = vectors_of(self.table, classes)
            found = [] if self.plain is None else [self.plain(x)]
            found.append((self.project(x) * told).sum(dim=1, keepdim=True) / math.sqrt(told.shape[1]))
        return torch.cat(found, dim=1)


class HalvingBlock(nn.Module):
    """A residual block that halves the side; both ways count 1 / sqrt 2, so that the variance does not grow."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.first = ScaledConv(inner, inner, 3, boost=math.sqrt(2))
        # The activation's sqrt 2 and the sum's 1 / sqrt 2 are 1 together.
        self.second = ScaledConv(inner, outer, 3, is_halving=True)
        self.short = ScaledConv(inner, outer, 1, has_bias=False, is_halving=True, boost=math.sqrt(0.5))

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B d u v"]:
        """Return features of half the side."""
        inside = functional.leaky_relu(self.first(x), SLOPE)
        return functional.leaky_relu(self.second(inside), SLOPE) + self.short(x)


def widths_of(side: int, *, base: int, widest: int) -> list[int]:
    """Return the channels at 4, 8, ... pixels a side: base / side, at most `widest`.

    Example:
        >>> widths_of(32, base=2048, widest=128)
        [128, 128, 128, 64]
    """
    return [max(1, min(widest, base >> power)) for power in range(2, side.bit_length())]


def noise_sides(sizes: int) -> list[int]:
    """Return the sides of the noise maps, for a number of sizes from 4 pixels on.

    Example:
        >>> noise_sides(3)
        [4, 8, 8, 16, 16]
    """
    return [4, *(4 << power for power in range(1, sizes) for _ in range(2))]
