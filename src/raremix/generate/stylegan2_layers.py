"""What StyleGAN2's networks are built of, in plain torch: scaled weights, modulated convolutions, filtered sampling."""

import math
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.2

TAPS = (1.0, 3.0, 3.0, 1.0)
"""The low-pass filter, applied along rows and columns; its sum is brought to 1."""

GROUP = 4
"""Images whose spread the discriminator is shown together."""


class ScaledLinear(nn.Module):
    """A linear layer whose weights are kept at unit variance and scaled when they are used.

    y = (g W) x + m b with g = m / sqrt(inner), so that Adam moves all layers at the same relative speed
    (Karras et al., ICLR 2018, https://arxiv.org/abs/1710.10196).

    Args:
        inner, outer: features that go in and come out.
        bias: what the bias is at the start.
        rate: m, by which this layer learns faster or slower than the others.
        boost: further gain, for what the activation takes away.
    """

    def __init__(self, inner: int, outer: int, *, bias: float = 0.0, rate: float = 1.0, boost: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(outer, inner), std=1 / rate))
        self.bias = nn.Parameter(torch.full((outer,), bias / rate))
        self.gain, self.rate = boost * rate / math.sqrt(inner), boost * rate

    def forward(self, x: Float[Tensor, "*B i"]) -> Float[Tensor, "*B o"]:
        """Return W x + b, scaled."""
        return functional.linear(x, self.weight * self.gain, self.bias * self.rate)


class ScaledConv(nn.Module):
    """A convolution with scaled weights; where it halves the side, the low-pass filter comes first.

    Args:
        inner, outer: channels that go in and come out.
        kernel: side of the kernel, 1 or 3.
        has_bias: whether there is one.
        is_halving: halve the side.
        boost: further gain, for what the activation takes away.
    """

    def __init__(
        self,
        inner: int,
        outer: int,
        kernel: int,
        *,
        has_bias: bool = True,
        is_halving: bool = False,
        boost: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(outer, inner, kernel, kernel)))
        self.bias = nn.Parameter(torch.zeros(outer)) if has_bias else None
        self.gain, self.boost, self.is_halving = boost / math.sqrt(inner * kernel**2), boost, is_halving

    def forward(self, x: Float[Tensor, "B i h w"]) -> Float[Tensor, "B o u v"]:
        """Return features of the same side, or half of it."""
        weight, bias = self.weight * self.gain, None if self.bias is None else self.bias * self.boost
        kernel = weight.shape[-1]
        if not self.is_halving:
            return functional.conv2d(x, weight, bias, padding=kernel // 2)
        if kernel == 1:
            return functional.conv2d(low_pass(x, padding=1, stride=2), weight, bias)
        return functional.conv2d(low_pass(x, padding=2), weight, bias, stride=2)


class StyledConv(nn.Module):
    """A convolution whose weights are scaled by a style, and by what keeps its output at unit variance.

    w'_oik = s_i w_oik, w''_oik = w'_oik / sqrt(sum over i, k of w'_oik^2). Scaling what goes in by s_i and what comes
    out by the root is the same sum in another order, and needs no weights of its own for every image; the roots are
    computed in 32 bits.

    Karras et al., "StyleGAN2", CVPR 2020, https://arxiv.org/abs/1912.04958, equations 1 and 3.

    Args:
        inner, outer: channels that go in and come out.
        kernel: side of the kernel.
        style: length of a style.
        is_doubling: double the side, with the low-pass filter after it.
        is_demodulated: bring the output to unit variance.
    """

    def __init__(
        self, inner: int, outer: int, kernel: int, *, style: int, is_doubling: bool = False, is_demodulated: bool = True
    ) -> None:
        super().__init__()
        self.affine = ScaledLinear(style, inner, bias=1.0)
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(outer, inner, kernel, kernel)))
        self.gain = 1 / math.sqrt(inner * kernel**2)
        self.is_doubling, self.is_demodulated = is_doubling, is_demodulated

    def forward(self, x: Float[Tensor, "B i h w"], style: Float[Tensor, "B s"]) -> Float[Tensor, "B o u v"]:
        """Return features of the same side, or twice of it."""
        weight = self.weight * self.gain
        with torch.autocast(x.device.type, enabled=False):
            scale = self.affine(style.float())
            back = self.roots(scale) if self.is_demodulated else None
        x = x * scale[:, :, None, None].to(x.dtype)
        if self.is_doubling:
            x = functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
            x = low_pass(x, padding=1, gain=4.0)
        else:
            x = functional.conv2d(x, weight, padding=weight.shape[-1] // 2)
        return x if back is None else x * back[:, :, None, None].to(x.dtype)

    def roots(self, scale: Float[Tensor, "B i"]) -> Float[Tensor, "B o"]:
        """Return 1 / sqrt(sum over i, k of (s_i w_oik)^2)."""
        power = (self.weight * self.gain).square().sum(dim=(2, 3))
        return torch.rsqrt(scale.square() @ power.T + 1e-8)


class NoisyConv(nn.Module):
    """A styled convolution, noise of a learned strength, a bias, and the activation.

    Args:
        inner, outer: channels that go in and come out.
        style: length of a style.
        is_doubling: double the side.
    """

    def __init__(self, inner: int, outer: int, *, style: int, is_doubling: bool) -> None:
        super().__init__()
        self.conv = StyledConv(inner, outer, 3, style=style, is_doubling=is_doubling)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outer))

    def forward(
        self, x: Float[Tensor, "B i h w"], style: Float[Tensor, "B s"], noise: Float[Tensor, "B 1 u v"]
    ) -> Float[Tensor, "B o u v"]:
        """Return features of the same side, or twice of it."""
        x = self.conv(x, style)
        x = x + (noise * self.strength).to(x.dtype) + self.bias.to(x.dtype)[:, None, None]
        return functional.leaky_relu(x, SLOPE) * math.sqrt(2)


def low_pass(
    x: Float[Tensor, "B c h w"], *, padding: int, stride: int = 1, gain: float = 1.0
) -> Float[Tensor, "B c u v"]:
    """Filter every channel by `TAPS` in both directions; zeros lie outside.

    Example:
        >>> low_pass(torch.ones(1, 1, 6, 6), padding=1)[0, 0, 2, 2].item()
        1.0
    """
    return functional.conv2d(x, _kernel(x, gain), padding=padding, stride=stride, groups=x.shape[1])


def double(x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B c u v"]:
    """Return twice as large images: zeros between the pixels, then the low-pass filter."""
    return functional.conv_transpose2d(x, _kernel(x, 4.0), stride=2, padding=1, groups=x.shape[1])


def unit_length(x: Float[Tensor, "B n"]) -> Float[Tensor, "B n"]:
    """Return rows whose mean square is 1."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


def with_spread(x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B d h w"]:
    """Add a channel that says how much images differ: a generator that draws one image is seen through.

    The standard deviation over groups of up to 4 images, mean over channels and pixels (Karras et al., ICLR 2018,
    https://arxiv.org/abs/1710.10196).

    Example:
        >>> with_spread(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1))[:, 1].flatten().tolist()
        [1.0, 1.0]
    """
    count = len(x)
    size = next(size for size in range(min(GROUP, count), 0, -1) if count % size == 0)
    # Images i, i + count / size, ... form a group.
    groups = x.float().reshape(size, count // size, *x.shape[1:])
    spread = (groups.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    shown = spread.repeat(size).to(x.dtype).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
    return torch.cat([x, shown], dim=1)


def table_of(classes: int, length: int) -> nn.Embedding:
    """Build a table of class vectors of unit variance."""
    return nn.Embedding(classes, length)


def vectors_of(table: nn.Embedding, classes: Int[Tensor, " B"]) -> Float[Tensor, "B n"]:
    """Return each row's class vector at unit length."""
    return unit_length(table(classes))


def _kernel(x: Tensor, gain: float) -> Tensor:
    return _taps(gain, x.dtype, x.device).expand(x.shape[1], 1, -1, -1)


@lru_cache(maxsize=32)
def _taps(gain: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Made once: a copy from the CPU at every layer would make a GPU wait. Made outside inference, it serves both.
    with torch.inference_mode(mode=False):
        taps = torch.tensor(TAPS, dtype=torch.float64) * (math.sqrt(gain) / sum(TAPS))
        return torch.outer(taps, taps).to(device, dtype)
