"""Thumbnails as a representation: what is left of an image at 16 x 16 pixels, within a circle.

Copies that were compressed, scaled, brightened or slightly rotated keep it; the circle leaves out the corners, which a
rotation changes most. It knows nothing about what is shown, so it goes beside a network's features, never alone.
"""

import numpy as np
from jaxtyping import Float, UInt8, UInt16

SIDE = 16
EDGE = 4.0
"""Steepness of the circle's edge: it falls from 1 to 0 over a quarter of the radius."""


def thumbnails(
    images: UInt8[np.ndarray, "B C H W"] | UInt16[np.ndarray, "B C H W"],
) -> Float[np.ndarray, "B 256"]:
    """Return grey values averaged over 16 x 16 fields, less their mean, fading out towards a circle.

    The cosine of two thumbnails is the correlation of what lies within the circle, so brightness and contrast do not
    matter.

    Args:
        images: of any size.

    Example:
        >>> thumbnails(np.zeros((2, 3, 32, 32), dtype=np.uint8)).shape
        (2, 256)
    """
    grey = images.mean(axis=1, dtype=np.float32)
    small = _shares(images.shape[2]) @ grey @ _shares(images.shape[3]).T
    along = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    window = np.clip(EDGE * (1 - np.hypot(along[:, None], along)), 0, 1).astype(np.float32)
    mean = (small * window).sum(axis=(1, 2), keepdims=True) / window.sum()
    return ((small - mean) * np.sqrt(window)).reshape(len(images), SIDE * SIDE)


def _shares(length: int) -> Float[np.ndarray, "16 L"]:
    """Return how much of each field every pixel covers; rows sum to one."""
    edges = np.linspace(0, length, SIDE + 1)
    pixels = np.arange(length)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.clip(covered, 0, None) * SIDE / length).astype(np.float32)
