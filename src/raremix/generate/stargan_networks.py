"""The four networks of StarGAN v2 (Choi et al., CVPR 2020, https://arxiv.org/abs/1912.01865)."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.2


class ResidualBlock(nn.Module):
    """Pre-activation residual block; the sum is divided by sqrt 2, so that its variance does not grow.

    Args:
        inner, outer: channels that go in and come out.
        normalize: instance normalisation before each activation.
        downsample: halve the side.
    """

    def __init__(self, inner: int, outer: int, *, normalize: bool = False, downsample: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(inner, inner, 3, padding=1)
        self.second = nn.Conv2d(inner, outer, 3, padding=1)
        self.first_norm = nn.InstanceNorm2d(inner, affine=True) if normalize else nn.Identity()
        self.second_norm = nn.InstanceNorm2d(inner, affine=True) if normalize else nn.Identity()
        self.shortcut = nn.Conv2d(inner, outer, 1, bias=False) if inner != outer else nn.Identity()
        self.downsample = downsample

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B d e f"]:
        """Return features of half the side, or the same."""
        short = self._halve(self.shortcut(x))
        x = self.first(functional.leaky_relu(self.first_norm(x), SLOPE))
        x = self.second(functional.leaky_relu(self.second_norm(self._halve(x)), SLOPE))
        return (x + short) / math.sqrt(2)

    def _halve(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, 2) if self.downsample else x


class AdaptiveNorm(nn.Module):
    """Instance normalisation whose scale and shift come from a style: (1 + gamma) IN(h) + beta."""

    def __init__(self, style: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.affine = nn.Linear(style, 2 * channels)

    def forward(self, x: Float[Tensor, "B c h w"], style: Float[Tensor, "B s"]) -> Float[Tensor, "B c h w"]:
        """Return features in the style's scale and shift."""
        gamma, beta = self.affine(style)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(beta, 1 + gamma, self.norm(x))


class StyledBlock(nn.Module):
    """Residual block with adaptive normalisation; doubles the side where it is told to.

    Args:
        inner, outer: channels that go in and come out.
        style: length of a style.
        upsample: double the side, nearest neighbour.
    """

    def __init__(self, inner: int, outer: int, *, style: int, upsample: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(inner, outer, 3, padding=1)
        self.second = nn.Conv2d(outer, outer, 3, padding=1)
        self.first_norm = AdaptiveNorm(style, inner)
        self.second_norm = AdaptiveNorm(style, outer)
        self.shortcut = nn.Conv2d(inner, outer, 1, bias=False) if inner != outer else nn.Identity()
        self.upsample = upsample

    def forward(self, x: Float[Tensor, "B c h w"], style: Float[Tensor, "B s"]) -> Float[Tensor, "B d e f"]:
        """Return features of twice the side, or the same."""
        short = self.shortcut(self._double(x))
        x = self.first(self._double(functional.leaky_relu(self.first_norm(x, style), SLOPE)))
        x = self.second(functional.leaky_relu(self.second_norm(x, style), SLOPE))
        return (x + short) / math.sqrt(2)

    def _double(self, x: Tensor) -> Tensor:
        return functional.interpolate(x, scale_factor=2, mode="nearest") if self.upsample else x


class Translator(nn.Module):
    """Draw an image in a style: log2(side) - 4 halvings, four blocks, as many doublings; no tanh, no skips.

    Args:
        side: of the images, a power of two from 32 on.
        channels: of the images.
        width: channels at full size.
        widest: the most channels.
        style: length of a style.
    """

    def __init__(self, *, side: int, channels: int, width: int, widest: int, style: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        down, up, now = nn.ModuleList(), [], width
        for _ in range(int(math.log2(side)) - 4):
            wide = min(now * 2, widest)
            down.append(ResidualBlock(now, wide, normalize=True, downsample=True))
            up.insert(0, StyledBlock(wide, now, style=style, upsample=True))
            now = wide
        for _ in range(2):
            down.append(ResidualBlock(now, now, normalize=True))
            up.insert(0, StyledBlock(now, now, style=style))
        self.down, self.up = down, nn.ModuleList(up)
        self.leave = nn.Sequential(
            nn.InstanceNorm2d(width, affine=True), nn.LeakyReLU(SLOPE), nn.Conv2d(width, channels, 1)
        )

    def forward(self, images: Float[Tensor, "B C H W"], style: Float[Tensor, "B s"]) -> Float[Tensor, "B C H W"]:
        """Return the images, in [-1, 1] more or less, in the styles."""
        x = self.enter(images)
        for block in self.down:
            x = block(x)
        for block in self.up:
            x = block(x, style)
        return self.leave(x)


class StyleMapping(nn.Module):
    """From noise to a style of a class: four shared layers, then four of each head.

    Args:
        latent: length of the noise.
        hidden: width of the layers.
        style: length of a style.
        heads: one per class; 1: the class is not looked at, as VariMix was shipped.
    """

    def __init__(self, *, latent: int, hidden: int, style: int, heads: int) -> None:
        super().__init__()
        self.shared = nn.Sequential(*_layers(latent, hidden, 4))
        self.heads = nn.ModuleList(
            nn.Sequential(*_layers(hidden, hidden, 3), nn.Linear(hidden, style)) for _ in range(heads)
        )

    def forward(self, noise: Float[Tensor, "B z"], classes: Int[Tensor, " B"]) -> Float[Tensor, "B s"]:
        """Return a style of each row's class."""
        hidden = self.shared(noise)
        return _of_class([head(hidden) for head in self.heads], classes)


class StyleEncoder(nn.Module):
    """From an image to its style, as an image of a class.

    Args:
        side, channels: of the images.
        width, widest: channels at full size, and at most.
        style: length of a style.
        heads: one per class; 1: the class is not looked at, as VariMix was shipped.
    """

    def __init__(self, *, side: int, channels: int, width: int, widest: int, style: int, heads: int) -> None:
        super().__init__()
        self.trunk, wide = _trunk(side=side, channels=channels, width=width, widest=widest)
        self.heads = nn.ModuleList(nn.Linear(wide, style) for _ in range(heads))

    def forward(self, images: Float[Tensor, "B C H W"], classes: Int[Tensor, " B"]) -> Float[Tensor, "B s"]:
        """Return the style of each image, seen as one of its class."""
        features = self.trunk(images).flatten(1)
        return _of_class([head(features) for head in self.heads], classes)


class ClassDiscriminator(nn.Module):
    """One logit per class: whether an image is a real one of that class."""

    def __init__(self, *, side: int, channels: int, width: int, widest: int, classes: int) -> None:
        super().__init__()
        self.trunk, wide = _trunk(side=side, channels=channels, width=width, widest=widest)
        self.logits = nn.Conv2d(wide, classes, 1)

    def forward(self, images: Float[Tensor, "B C H W"], classes: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Return the logit of each row's class."""
        return self.logits(self.trunk(images)).flatten(1).gather(1, classes[:, None])[:, 0]


def start_weights(network: nn.Module) -> None:
    """Draw He's initial weights (https://arxiv.org/abs/1502.01852) in place; biases are zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _trunk(*, side: int, channels: int, width: int, widest: int) -> tuple[nn.Sequential, int]:
    """Build what brings an image down to one pixel, and say how many channels that has."""
    blocks: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1)]
    now = width
    for _ in range(int(math.log2(side)) - 2):
        wide = min(now * 2, widest)
        blocks.append(ResidualBlock(now, wide, downsample=True))
        now = wide
    return nn.Sequential(*blocks, nn.LeakyReLU(SLOPE), nn.Conv2d(now, now, 4), nn.LeakyReLU(SLOPE)), now


def _layers(inner: int, outer: int, count: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for number in range(count):
        layers += [nn.Linear(outer if number else inner, outer), nn.ReLU()]
    return layers


def _of_class(found: list[Tensor], classes: Tensor) -> Tensor:
    if len(found) == 1:
        return found[0]
    return torch.stack(found, dim=1)[torch.arange(len(classes), device=classes.device), classes]
