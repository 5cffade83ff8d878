"""Bring an image to the square, number of channels and depth that a study trains on."""

from math import ceil, floor
from typing import Literal

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from raremix.core.errors import ConfigError

Pixels = UInt8[np.ndarray, "H W C"] | UInt16[np.ndarray, "H W C"]
Fitted = UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]
Resize = Literal["stretch", "crop", "pad"]
Box = tuple[float | int, float | int, float | int, float | int]
"""Left, top, right, bottom."""


def fit_image(
    pixels: Pixels,
    *,
    size: int,
    channels: int,
    bits: int,
    resize: Resize = "stretch",
    extent: tuple[float, float] | None = None,
) -> Fitted:
    """Bring an image to a square of a given size, number of channels and depth.

    Colour becomes grey by luma (ITU-R BT.601); grey is repeated into colour. Scaling is bilinear, averaged over the
    source pixels when shrinking. Depth is converted by the full range: 255 corresponds to 65535.

    Args:
        pixels: the image.
        size: side of the result in pixels.
        channels: 1 or 3; or 2 or 4 for an image that has as many, whose planes are then scaled one by one.
        bits: 8 or 16.
        resize: "stretch" to the square, "crop" its centre, or "pad" it with black.
        extent: height and width that the picture covers, where that ends within the last pixels; all by default.

    Raises:
        ConfigError: for other channels, bits or ways to resize.

    Example:
        >>> fit_image(np.zeros((4, 8, 3), dtype=np.uint8), size=2, channels=1, bits=16).dtype.name
        'uint16'
    """
    _check(size=size, channels=channels, bits=bits, resize=resize)
    if channels in {2, 4} and pixels.shape[2] != channels:
        raise ConfigError(f"channels = {channels} needs images with as many, got {pixels.shape[2]}: use 1 or 3")
    if pixels.dtype == np.uint8 and pixels.shape[2] in {1, 3}:
        plain = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        return fit_picture(
            Image.fromarray(plain), size=size, channels=channels, bits=bits, resize=resize, extent=extent
        )
    box, inner = _place(extent or pixels.shape[:2], size=size, resize=resize, is_whole=extent is None)
    # Plane by plane: Pillow weighs colour by alpha, but here a second or fourth channel is a measurement as well.
    kinds = np.uint8 if pixels.dtype == np.uint8 else np.float32
    planes = [_scale(Image.fromarray(pixels[..., c].astype(kinds)), box, inner) for c in range(pixels.shape[2])]
    return _finish(np.stack(planes, axis=-1).round().clip(0, 65535).astype(pixels.dtype), size, channels, bits)


def fit_picture(
    image: Image.Image,
    *,
    size: int,
    channels: int,
    bits: int,
    resize: Resize = "stretch",
    extent: tuple[float, float] | None = None,
) -> Fitted:
    """Bring a picture of 8 bit to a square; see `fit_image`.

    Args:
        image: of mode L or RGB.
        size, bits, resize, extent: see `fit_image`.
        channels: 1 or 3.

    Raises:
        ConfigError: see `fit_image`.
    """
    _check(size=size, channels=channels, bits=bits, resize=resize)
    if channels == 1 and image.mode == "RGB":
        image = image.convert("L")
    whole = image.size[1], image.size[0]
    box, inner = _place(extent or whole, size=size, resize=resize, is_whole=extent is None)
    fitted = _scale(image, box, inner)
    return _finish(fitted[..., None] if fitted.ndim == 2 else fitted, size, channels, bits)


def _check(*, size: int, channels: int, bits: int, resize: str) -> None:
    if channels not in {1, 2, 3, 4} or bits not in {8, 16} or size < 1 or resize not in {"stretch", "crop", "pad"}:
        raise ConfigError(
            "expected size >= 1, channels 1 to 4, bits 8 or 16 and resize stretch, crop or pad; "
            f"got {size}, {channels}, {bits}, {resize!r}"
        )


def _place(
    extent: tuple[float | int, ...], *, size: int, resize: Resize, is_whole: bool
) -> tuple[Box, tuple[int, int]]:
    """Return which part of a picture is shown, and the height and width that it gets."""
    height, width = extent
    top = left = 0.0
    if resize == "crop":
        side = min(height, width)
        # Whole pixels of a whole image; of a reduced one, where they would have been.
        top, left = (
            ((height - side) // 2, (width - side) // 2) if is_whole else ((height - side) / 2, (width - side) / 2)
        )
        height, width = side, side
    inner = (size, size)
    if resize == "pad":
        longest = max(height, width)
        inner = (max(1, round(size * height / longest)), max(1, round(size * width / longest)))
    return (left, top, left + width, top + height), inner


def _scale(image: Image.Image, box: Box, inner: tuple[int, int]) -> np.ndarray:
    left, top, right, bottom = floor(box[0]), floor(box[1]), ceil(box[2]), ceil(box[3])
    if (left, top, right, bottom) != (0, 0, *image.size):
        # Cut first: the filter would look at what lies beside the box.
        image = image.crop((left, top, right, bottom))
    rest = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    if rest != (0, 0, inner[1], inner[0]) or image.size != (inner[1], inner[0]):
        image = image.resize((inner[1], inner[0]), Image.Resampling.BILINEAR, box=rest)
    return np.asarray(image)


def _finish(fitted: np.ndarray, size: int, channels: int, bits: int) -> Fitted:
    """Convert the depth, lay the picture on black, and repeat grey into colour."""
    if bits == 16 and fitted.dtype == np.uint8:
        fitted = fitted.astype(np.uint16) * 257
    elif bits == 8 and fitted.dtype == np.uint16:
        fitted = ((fitted.astype(np.uint32) + 128) // 257).astype(np.uint8)
    height, width = fitted.shape[:2]
    if (height, width) != (size, size):
        padded = np.zeros((size, size, fitted.shape[2]), dtype=fitted.dtype)
        top, left = (size - height) // 2, (size - width) // 2
        padded[top : top + height, left : left + width] = fitted
        fitted = padded
    return np.repeat(fitted, 3, axis=2) if channels == 3 and fitted.shape[2] == 1 else fitted
