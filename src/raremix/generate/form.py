"""What a generator draws: how large, how many channels, how many classes."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from raremix.core.errors import ConfigError, DataError

SMALLEST, LARGEST = 17, 512
"""Sides in pixels: below the first, mirrored edges would not fill 32 pixels; above the second, nothing was tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The shape of a generator's images, and the way into and out of its networks.

    Networks work on a power of two from 32 to 512 pixels a side, in [-1, 1]. Images of another size are extended by
    mirroring their edges, and cut again when they come out.

    Attributes:
        size: side of the images in pixels, 17 to 512.
        channels: 1 to 4.
        classes: number of classes, at least 2: a generator of one class has nothing to tell apart.

    Raises:
        ConfigError: if one of them is out of range.

    Example:
        >>> Form(size=28, channels=1, classes=2).side
        32
    """

    size: int
    channels: int
    classes: int

    def __post_init__(self) -> None:
        if not SMALLEST <= self.size <= LARGEST:
            raise ConfigError(
                f"generators draw images of {SMALLEST} to {LARGEST} pixels a side, got {self.size}: set data.size"
            )
        if not 1 <= self.channels <= 4:
            raise ConfigError(f"generators draw 1 to 4 channels, got {self.channels}: set data.channels")
        if self.classes < 2:
            raise ConfigError(f"a class-conditional generator needs at least 2 classes, got {self.classes}")

    @property
    def side(self) -> int:
        """Side of what the networks see: the next power of two from 32 on."""
        return max(32, 1 << (self.size - 1).bit_length())

    def enter(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C side side"]:
        """Bring images in [0, 1] to the networks' size and range.

        Raises:
            DataError: if they are not of this form.
        """
        expected = (self.channels, self.size, self.size)
        if tuple(images.shape[1:]) != expected:
            raise DataError(
                f"the generator draws images of shape {expected}, got {tuple(images.shape[1:])}: resize them, or fit "
                "one for this shape"
            )
        before = (self.side - self.size) // 2
        after = self.side - self.size - before
        scaled = images * 2 - 1
        return functional.pad(scaled, (before, after, before, after), mode="reflect") if after else scaled

    def leave(self, drawn: Float[Tensor, "B C side side"]) -> Float[Tensor, "B C H W"]:
        """Cut what the networks drew to the images' size, in [0, 1]."""
        before = (self.side - self.size) // 2
        inner = slice(before, before + self.size)
        return ((drawn.float()[..., inner, inner] + 1) / 2).clamp(0, 1)


def classes_of(targets: Float[Tensor, "B K"]) -> Int[Tensor, " B"]:
    """Return the class of each row: the largest target; NaN counts as absent.

    Example:
        >>> import torch
        >>> classes_of(torch.tensor([[0.0, 1.0], [0.7, 0.3]])).tolist()
        [1, 0]
    """
    return targets.nan_to_num(nan=0.0).argmax(dim=1)
