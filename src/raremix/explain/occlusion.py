"""Occlusion: what the classifier misses when a part of the image is covered."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raremix.core.errors import ConfigError
from raremix.explain.network import images_for, logits_of, undisturbed
from raremix.explain.scale import over_peak, working_type

AT_ONCE = 128
"""Covered images in one pass of the network."""

Window = tuple[slice, slice]


@dataclass(frozen=True, kw_only=True)
class Occlusion:
    """Fall of the asked classes' logits when a window is covered by the image's mean colour [1].

    s = sum_k target_k logit_k; map(p) = mean over the windows that hold the pixel p of s(image) - s(covered image), its
    positive part divided by its largest value. Needs no gradient, and no knowledge of the network.

    [1] Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014,
    https://arxiv.org/abs/1311.2901. Departures: the image's own mean colour instead of grey, which in an X-ray would be
    a finding; logits instead of the probability, which does not fall while the network stays sure; overlapping windows
    are averaged pixel by pixel; several classes at once, weighted by the targets (missing ones do not count).

    The network is run for evaluation, in full precision even inside autocast, and left as it was.

    Args:
        model: images in [0, 1] -> logits.
        windows: how many windows lie side by side along each side of the image; half of a lesion is a good size.
        overlap: a window starts every 1/overlap of its side. About (windows * overlap)^2 forward passes per image.

    Raises:
        ConfigError: if a number is below 1.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2))
        >>> Occlusion(model=net, windows=4)(torch.rand(5, 3, 8, 8), torch.eye(2)[[0, 1, 1, 0, 1]]).shape
        torch.Size([5, 1, 8, 8])
    """

    model: nn.Module = field(repr=False)
    windows: int = 8
    overlap: int = 2

    def __post_init__(self) -> None:
        if self.windows < 1 or self.overlap < 1:
            raise ConfigError(f"expected windows and overlap of at least 1, got {self.windows} and {self.overlap}")

    def __call__(self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"]) -> Float[Tensor, "B 1 H W"]:
        """Return how much the classifier misses each pixel; zeros where nothing is asked about."""
        dtype = working_type(images)
        places = list(self._places(*images.shape[-2:]))
        # Differences of nearly equal logits: 8 bits of autocast would leave noise.
        with undisturbed(self.model), torch.autocast(images.device.type, enabled=False):
            inputs = images_for(self.model, images)
            colour = inputs.mean(dim=(2, 3), keepdim=True)
            whole = self._score(inputs, targets)
            fall = torch.zeros_like(inputs[:, :1], dtype=dtype)
            count = torch.zeros_like(fall[:1])
            at_once = max(1, AT_ONCE // max(1, len(inputs)))
            for start in range(0, len(places), at_once):
                block = places[start : start + at_once]
                covered = inputs.repeat(len(block), 1, 1, 1).unflatten(0, (len(block), len(inputs)))
                for part, (rows, columns) in zip(covered, block, strict=True):
                    part[:, :, rows, columns] = colour
                scores = self._score(covered.flatten(0, 1), targets.repeat(len(block), 1)).unflatten(
                    0, (len(block), -1)
                )
                for (rows, columns), score in zip(block, scores, strict=True):
                    fall[:, :, rows, columns] += (whole - score)[:, None, None, None]
                    count[:, :, rows, columns] += 1
            return over_peak(fall / count)

    def _places(self, height: int, width: int) -> Iterator[Window]:
        for rows in _windows(height, windows=self.windows, overlap=self.overlap):
            for columns in _windows(width, windows=self.windows, overlap=self.overlap):
                yield rows, columns

    def _score(self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"]) -> Float[Tensor, " B"]:
        logits = logits_of(self.model, images, targets)
        return (logits * targets.nan_to_num(0).to(logits)).sum(dim=1).to(working_type(images))


def _windows(size: int, *, windows: int, overlap: int) -> list[slice]:
    """Return windows that cover 0 .. size, the last one flush with the end."""
    side = max(1, -(-size // windows))
    starts = [*range(0, size - side, max(1, side // overlap)), size - side]
    return [slice(start, start + side) for start in starts]
