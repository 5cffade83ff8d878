"""Copies as generators make them, to be planted: what a detector does not find of these, it would not find at all."""

import io
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from scipy.ndimage import rotate

from raremix.core.random import rng

Images = UInt8[np.ndarray, "n C H W"]
NOISE, QUALITY, SHIFT, DEGREES, GAMMA, KEPT = 0.05, 30, 4, 5.0, 0.7, 0.7


def plant_copies(images: Images, *, kind: str, seed: int = 0) -> Images:
    """Return copies of images.

    Args:
        images: 0 to 255.
        kind: a key of `COPIES`.
        seed: of noise, directions and partners.
    """
    return COPIES[kind](images, rng(seed, "latent", list(COPIES).index(kind)))


def _exact(images: Images, stream: np.random.Generator) -> Images:
    return images.copy()


def _jpeg(images: Images, stream: np.random.Generator) -> Images:
    return np.stack([np.stack([_compressed(plane) for plane in image]) for image in images])


def _compressed(plane: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    buffer = io.BytesIO()
    Image.fromarray(plane).save(buffer, "JPEG", quality=QUALITY)
    return np.asarray(Image.open(buffer, formats=("JPEG",)))


def _noise(images: Images, stream: np.random.Generator) -> Images:
    return _bytes(images + 255 * NOISE * stream.standard_normal(images.shape))


def _shift(images: Images, stream: np.random.Generator) -> Images:
    moved = []
    for image, (down, across) in zip(images, stream.choice([-SHIFT, SHIFT], size=(len(images), 2)), strict=True):
        padded = np.pad(image, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)), mode="edge")
        top, left = SHIFT - down, SHIFT - across
        moved.append(padded[:, top : top + image.shape[1], left : left + image.shape[2]])
    return np.stack(moved)


def _rotation(images: Images, stream: np.random.Generator) -> Images:
    signs = stream.choice([-1.0, 1.0], size=len(images))
    turned = [
        rotate(image.astype(np.float32), DEGREES * sign, axes=(1, 2), reshape=False, order=1, mode="nearest")
        for image, sign in zip(images, signs, strict=True)
    ]
    return _bytes(np.stack(turned))


def _flip(images: Images, stream: np.random.Generator) -> Images:
    return images[..., ::-1].copy()


def _gamma(images: Images, stream: np.random.Generator) -> Images:
    return _bytes(255 * (images / 255) ** GAMMA)


def _blend(images: Images, stream: np.random.Generator) -> Images:
    return _bytes(KEPT * images + (1 - KEPT) * np.roll(images, 1, axis=0))


def _bytes(values: np.ndarray) -> Images:
    return values.clip(0, 255).round().astype(np.uint8)


COPIES: Mapping[str, Callable[[Images, np.random.Generator], Images]] = {
    "exact": _exact,
    "JPEG 30": _jpeg,
    "noise 5 %": _noise,
    "shift 4 px": _shift,
    "rotation 5 degrees": _rotation,
    "flip": _flip,
    "gamma 0.7": _gamma,
    "blend 70:30": _blend,
}
"""Every kind of copy, by name."""
