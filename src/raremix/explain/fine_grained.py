"""FineGrained: how much each pixel stands out from its surroundings, at six widths."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from raremix.core.errors import ConfigError
from raremix.explain.grey import grey_of, grey_weights
from raremix.explain.scale import working_type

HALF_WIDTHS = (12, 24, 48, 28, 56, 112)
# A map whose peak is below this share of the grey values is rounding, not contrast: float32 knows 7 digits.
ROUNDING = 1e-5
# Pixels that are worked on at a time: on a CPU so few that most of what one pass writes is still in a cache when the
# next one reads it; elsewhere as many as need about a gigabyte.
CPU_PIXELS, DEVICE_PIXELS = 2**17, 2**25
LINE = 16  # float32 numbers per cache line: rows that start on one are added nearly twice as fast


@dataclass(frozen=True, kw_only=True)
class FineGrained:
    """Fine-grained centre-surround saliency [1], as OpenCV's StaticSaliencyFineGrained computes it, for whole batches.

    g: grey image, blurred twice with [1 2 1] x [1 2 1] / 16. For each half-width n, m_n is the mean of g over the
    2n x 2n window (clipped at the border) without its centre;
    ON = sum_n max(g - m_n, 0), OFF = sum_n max(m_n - g, 0); map = min(ON / max ON + OFF / max OFF, 1).

    [1] Montabone & Soto, "Human detection using a mobile platform and novel features derived from a visual saliency
    mechanism", Image and Vision Computing 28(3), 2010, https://doi.org/10.1016/j.imavis.2009.06.006. Departures: the
    widths follow the image's side instead of being fixed numbers of pixels; nothing is rounded to 8 bits in between.

    Args:
        reference: side in pixels at which the half-widths are 12, 24, 48, 28, 56 and 112; at others they follow the
            image's shorter side. Equal to the side of the images, it gives OpenCV's windows.
        stride: the map holds every so many-th pixel of every so many-th row, where it is exact; 2 takes 60 % of the
            time, and is fine enough for masks on patches.

    Raises:
        ConfigError: if reference or stride is not positive.

    Example:
        >>> images = torch.zeros(1, 3, 64, 64)
        >>> images[..., 20:24, 30:34] = 1
        >>> maps = FineGrained()(images, torch.zeros(1, 2))
        >>> bool(maps[0, 0, 21, 31] > 0.9), maps[0, 0, 50, 10].item()
        (True, 0.0)
    """

    reference: int = 512
    stride: int = 1

    def __post_init__(self) -> None:
        if self.reference < 1:
            raise ConfigError(f"reference = {self.reference}: a side in pixels, such as 512, must be at least 1")
        if self.stride < 1:
            raise ConfigError(f"stride = {self.stride}: 1 is every pixel, 2 every second one")

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"]) -> Float[Tensor, "B 1 h w"]:
        """Return how much each pixel stands out; the targets are not looked at."""
        B, _, H, W = images.shape
        maps = images.new_empty((B, 1, -(-H // self.stride), -(-W // self.stride)), dtype=working_type(images))
        pixels = CPU_PIXELS if images.device.type == "cpu" else DEVICE_PIXELS
        rows = min(max(pixels // (H * W), 1), B)
        grey = maps.new_empty((rows, H, W))
        blur = _Blur(grey)
        surround = _Surround(grey, [round(n * min(H, W) / self.reference) for n in HALF_WIDTHS], stride=self.stride)
        some = grey_of(images[:, :, :: max(H // 4, 1), :: max(W // 4, 1)].to(maps.dtype))[:, 0]
        rough_mean, rounding = some.mean(dim=(1, 2), keepdim=True), ROUNDING * some.abs().amax(dim=(1, 2), keepdim=True)
        for first in range(0, B, max(rows, 1)):
            part = slice(min(first, B - rows), min(first, B - rows) + rows)  # the last ones overlap those before
            blur(images[part].to(maps.dtype), rough_mean[part], out=grey)
            surround(rounding[part], out=maps[part, 0])
        return maps


class _Blur:
    """Grey images, blurred twice: the views that each pass over a few images reads and writes, made once."""

    def __init__(self, like: Float[Tensor, "B H W"]) -> None:
        B, H, W = like.shape
        tall, wide = ([like.new_empty(shape) for _ in range(2)] for shape in ((B, H + 4, W), (B, H, LINE + W + LINE)))
        self.grey = tall[0][:, 2:-2]
        self.down, self.across = _passes(tall, axis=1, first=0, size=H), _passes(wide, axis=2, first=LINE - 2, size=W)
        self.blurred_down = wide[0].narrow(2, LINE, W)
        self.edges_down, self.edges_across = _mirrored(tall[0], 1, 0, H), _mirrored(wide[0], 2, LINE - 2, W)

    def __call__(
        self, images: Float[Tensor, "B C H W"], rough_mean: Float[Tensor, "B 1 1"], *, out: Float[Tensor, "B H W"]
    ) -> None:
        """Blur into `out`, less each image's rough mean: small numbers make exact sums."""
        # [1 1] four times is [1 4 6 4 1], which is [1 2 1] twice: 256 in both directions, taken off beforehand.
        weights = [weight / 256 for weight in grey_weights(images.shape[1])]
        (first, weight), *others = zip(images.unbind(1), weights, strict=True)
        torch.add(-rough_mean / 256, first, alpha=weight, out=self.grey)
        for channel, weight in others:
            self.grey.add_(channel, alpha=weight)
        for passes, edges, last in (
            (self.down, self.edges_down, self.blurred_down),
            (self.across, self.edges_across, out),
        ):
            for edge, inside in edges:
                edge.copy_(inside)
            for one, next_one, into in passes:
                torch.add(one, next_one, out=last if into is None else into)


@dataclass(frozen=True, slots=True)
class _Scale:
    """What one half-width n reads and writes: sums over rows, from these over windows, and -1 / (N - 1) of these."""

    bottom: Tensor
    top: Tensor
    strips: Tensor
    right: Tensor
    left: Tensor
    minus_share: Tensor
    is_alone: bool
    """Whether the window of the last pixel holds nothing else."""


class _Surround:
    """Contrast with what surrounds each pixel: the views that each pass over a few images reads and writes."""

    def __init__(self, grey: Float[Tensor, "B H W"], half_widths: list[int], *, stride: int) -> None:
        B, H, W = grey.shape
        widths = [min(max(n, 1), max(H, W)) for n in half_widths]
        border = max(widths)
        left = -(-border // LINE) * LINE
        across = -(-(left + W + border) // LINE) * LINE
        self.grey, self.stride = grey, stride
        self.kept = grey if stride == 1 else grey[:, ::stride, ::stride].contiguous()
        self.summed, self.contrast = torch.empty_like(grey), torch.empty_like(self.kept)
        self.both = grey.new_empty(2, *self.kept.shape)  # what is brighter than its surroundings, and what is darker
        # The integral image without its first row and column, which are 0: its corner lies at (border, left), zeros
        # above and left of it, and its last row and column repeated below and right: clipped windows need no care.
        self.integral = grey.new_zeros(B, border + H + border, across)
        self.inner = self.integral[:, border : border + H, left : left + W]
        self.edges = [
            (
                self.integral[:, border : border + H, left + W :],
                self.integral[:, border : border + H, left + W - 1 : left + W],
            ),
            (self.integral[:, border + H :], self.integral[:, border + H - 1 : border + H]),
        ]
        strips = grey.new_empty(B, self.kept.shape[1], across)
        self.scales = []
        for n in widths:
            columns = slice((left - n) // LINE * LINE, left + W + n)
            below, above = (self.integral[:, border + k : border + k + H : stride, columns] for k in (n, -n))
            right, before = (strips[:, :, left + k : left + k + W : stride] for k in (n, -n))
            share = _minus_share(grey, n)[::stride, ::stride].contiguous()
            is_alone = n == 1 and (H - 1) % stride == 0 and (W - 1) % stride == 0
            self.scales.append(_Scale(below, above, strips[:, :, columns], right, before, share, is_alone))

    def __call__(self, rounding: Float[Tensor, "B 1 1"], *, out: Float[Tensor, "B H W"]) -> None:
        """Write the maps of the grey images that `grey` holds; contrast up to `rounding` counts for nothing."""
        torch.cumsum(self.grey, 2, out=self.summed)
        torch.cumsum(self.summed, 1, out=self.inner)
        if self.kept is not self.grey:
            self.kept.copy_(self.grey[:, :: self.stride, :: self.stride])
        for edge, inside in self.edges:
            edge.copy_(inside)
        on, total = self.both
        for number, scale in enumerate(self.scales):
            torch.sub(scale.bottom, scale.top, out=scale.strips)
            window = torch.sub(scale.right, scale.left, out=self.contrast)
            # g - (S - g) / (N - 1), S being the sum of a window's N pixels
            contrast = torch.lerp(self.kept, window, scale.minus_share, out=total if number == 0 else self.contrast)
            if scale.is_alone:
                contrast[:, -1, -1] = 0
            if number == 0:
                torch.clamp(contrast, min=0, out=on)
            else:
                total.add_(contrast)
                on.add_(torch.relu_(contrast))
        off = torch.sub(on, total, out=total)
        peak = self.both.amax(dim=(2, 3), keepdim=True)
        factor = peak.masked_fill_(peak <= rounding, torch.inf).reciprocal_()
        torch.mul(on, factor[0], out=out)
        out.addcmul_(off, factor[1]).clamp_(max=1)


def _passes(buffers: list[Tensor], *, axis: int, first: int, size: int) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    """Return four sums of neighbours, from one buffer into the other and back: what is added, and into what."""
    passes: list[tuple[Tensor, Tensor, Tensor | None]] = []
    for number, length in enumerate(range(size + 3, size - 1, -1)):
        source, into = buffers[number % 2], buffers[1 - number % 2].narrow(axis, first, length)
        shifted = source.narrow(axis, first + 1, length)
        passes.append((source.narrow(axis, first, length), shifted, into if length > size else None))
    return passes


def _mirrored(buffer: Tensor, axis: int, first: int, size: int) -> list[tuple[Tensor, Tensor]]:
    """Return the two places before and after the image, and what mirrors there about the border pixels."""
    period = max(2 * (size - 1), 1)
    places = {place: min(place % period, -place % period) for place in (-2, -1, size, size + 1)}
    return [(buffer.narrow(axis, first + 2 + p, 1), buffer.narrow(axis, first + 2 + q, 1)) for p, q in places.items()]


def _minus_share(like: Float[Tensor, "B H W"], n: int) -> Float[Tensor, "H W"]:
    """Return -1 / pixels of each clipped window without the centre."""
    places = [torch.arange(size, dtype=like.dtype, device=like.device) for size in like.shape[1:]]
    height, width = ((p + n + 1).clamp(max=len(p)) - (p - n + 1).clamp(min=0) for p in places)
    return -1 / (height[:, None] * width - 1).clamp(min=1)
