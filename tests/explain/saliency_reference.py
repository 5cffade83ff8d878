"""Make `saliency_reference.npz`: OpenCV's fine-grained maps of images drawn from a seed.

    pip install opencv-contrib-python-headless && python tests/explain/saliency_reference.py

Not run by the tests, which read the file, and draw the images again.
"""

from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npz")
SHAPES = ((96, 96), (64, 88))
IMAGES = 2


def pictures(height: int, width: int) -> np.ndarray:
    """Return coloured 8-bit images of blobs on a slope, with noise, of shape (IMAGES, height, width, 3)."""
    rng = np.random.Generator(np.random.Philox(key=20070))
    y, x = np.mgrid[:height, :width] / (height - 1)
    images = 0.3 + 0.3 * x[None, :, :, None] * rng.random((IMAGES, 1, 1, 3))
    for _ in range(6):
        row, column = rng.random((2, IMAGES, 1, 1))
        distance = np.hypot(y - row, x - column * width / height)
        blob = np.exp(-((distance / rng.uniform(0.03, 0.2, (IMAGES, 1, 1))) ** 2))
        images = images + blob[..., None] * rng.uniform(-0.4, 0.4, (IMAGES, 1, 1, 3))
    images = images + rng.normal(0, 0.02, images.shape)
    return (images.clip(0, 1) * 255).round().astype(np.uint8)


def main() -> None:
    """Write the file."""
    import cv2

    saliency = cv2.saliency.StaticSaliencyFineGrained_create()
    maps = {
        f"{height}x{width}": np.stack(
            [saliency.computeSaliency(image[:, :, ::-1].copy())[1] for image in pictures(height, width)]
        )
        for height, width in SHAPES
    }
    np.savez_compressed(FILE, **{name: (255 * values).round().astype(np.uint8) for name, values in maps.items()})


if __name__ == "__main__":
    main()
