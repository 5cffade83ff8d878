"""GenMix: MixUp of real with generated images."""

from dataclasses import dataclass

import numpy as np

from raremix.core.errors import ConfigError
from raremix.core.types import Batch, Stream, Streams
from raremix.mix import mask
from raremix.mix.method import Method, Placement
from raremix.mix.pairing import Pairs
from raremix.mix.strength import check_alpha, kept_share


@dataclass(frozen=True, kw_only=True)
class GenMix(Method):
    """Blend each real image and its label with those of a generated one [1].

    x = w x_real + (1 - w) x_synthetic, y likewise, w ~ Beta(alpha, alpha) per image. In a study the real images come as
    frequent as they are, the generated ones class-balanced; called alone, the generated ones are the pool:
    `mixer(images, targets, pool=(synthetic, synthetic_targets))`.

    [1] Lee, Lee, Hong, "GenMix: Combining Generative and Mixture Data Augmentation for Medical Image Classification",
    2024, https://arxiv.org/abs/2405.20650. The paper leaves open who is paired with whom, alpha and how often; the
    defaults here are ours.

    Args:
        alpha: shape of the Beta distribution, > 0; 1 is uniform.
        probability: probability that a real image is mixed at all.
        pairing: "any", or "same_class": new images of a class, with its label.
        offline_images: number of mixed images that are made once and shown again and again, as where a mixed set is
            written to disk; None: new ones at every step. A study's loader repeats them.

    The other settings are those of every method: `raremix.mix.method.Method`.

    Raises:
        ConfigError: if alpha, probability or offline_images is out of range.

    Example:
        >>> import torch
        >>> real, synthetic = torch.zeros(4, 3, 8, 8), torch.ones(6, 3, 8, 8)
        >>> mixer = GenMix(num_classes=2)
        >>> pool = (synthetic, torch.tensor([0, 0, 0, 1, 1, 1]))
        >>> images, targets = mixer(real, torch.tensor([0, 1, 1, 0]), pool=pool)
        >>> images.shape, targets.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 2]))
    """

    alpha: float = 1.0
    probability: float = 0.5
    offline_images: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)
        if self.offline_images is not None and self.offline_images < 1:
            raise ConfigError(f"offline_images must be at least 1, got {self.offline_images}; None mixes anew")

    @property
    def streams(self) -> Streams:
        """Real images as frequent as they are, with generated ones of all classes alike."""
        return Streams(
            own=Stream(sampling="natural", origin="real"),
            pool=Stream(sampling="balanced", origin="synthetic"),
            repeat=self.offline_images,
        )

    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Draw a weight for each row of the batch."""
        return Placement(mask=mask.blend(kept_share(len(batch.images), alpha=self.alpha, rng=rng)))
