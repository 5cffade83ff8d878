"""The images of a data set, at the size of its study, as vectors."""

import numpy as np
import torch
from jaxtyping import Float32, Int, UInt8
from torch.nn import functional

from raremix.core.types import Progress
from raremix.study.audit.representation import Representation
from raremix.study.prepare import Prepared

BATCH = 64


class Encoder:
    """Turns rows, or images, into vectors.

    Args:
        representation: how.
        prepared: the data.
        total: images that will be asked for, for the progress.
        progress: called as images are encoded.
    """

    def __init__(
        self, representation: Representation, prepared: Prepared, *, total: int, progress: Progress | None
    ) -> None:
        self.representation, self.prepared = representation, prepared
        self.done, self.progress = 0, progress
        self.total = total

    def images(self, ids: Int[np.ndarray, " n"]) -> UInt8[np.ndarray, "n C H W"]:
        images = self.prepared.cache.take(ids)
        return images if images.dtype == np.uint8 else (images >> 8).astype(np.uint8)

    def of(self, ids: Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n d"]:
        parts = [self.encode(self.images(ids[i : i + BATCH])) for i in range(0, len(ids), BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)

    def encode(self, images: UInt8[np.ndarray, "n C H W"]) -> Float32[np.ndarray, "n d"]:
        form, found = self.representation.form, []
        with torch.inference_mode():
            for start in range(0, len(images), BATCH):
                pixels = torch.from_numpy(images[start : start + BATCH]).float() / 255
                if pixels.shape[1] != form.channels:
                    pixels = pixels.mean(dim=1, keepdim=True).expand(-1, form.channels, -1, -1)
                if not self.representation.is_published:
                    side = (form.size, form.size)
                    pixels = functional.interpolate(pixels, size=side, mode="bilinear", antialias=True)
                found.append(self.representation.encode(pixels).float().numpy())
                self.done += len(pixels)
                if self.progress is not None:
                    self.progress("encode images", min(self.done, self.total), self.total)
        return np.concatenate(found)


def unit_vectors(rows: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    """Scale rows to length one."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
