"""MixUpUnion: MixUp over real and generated images together, the control of GenMix."""

from dataclasses import dataclass

import numpy as np

from raremix.core.types import Batch, Stream, Streams
from raremix.mix import mask
from raremix.mix.method import Method, Placement
from raremix.mix.pairing import Pairs
from raremix.mix.strength import check_alpha, kept_share


@dataclass(frozen=True, kw_only=True)
class MixUpUnion(Method):
    """Blend images of the union of real and generated ones, whoever meets whom.

    x = w x_own + (1 - w) x_partner, y likewise, w ~ Beta(alpha, alpha) per image; own and partner come from one stream
    of real and generated images, as frequent as they are. GenMix [1] mixes across the two; what it gains over this
    control is gained by the crossing, not by having more images to mix.

    [1] Lee, Lee, Hong, "GenMix: Combining Generative and Mixture Data Augmentation for Medical Image Classification",
    2024, https://arxiv.org/abs/2405.20650; the control is ours.

    Args:
        alpha: shape of the Beta distribution, > 0; GenMix's default.
        probability: probability that an image is mixed at all; GenMix's default.

    The other settings are those of every method: `raremix.mix.method.Method`.

    Raises:
        ConfigError: if alpha or probability is out of range.

    Example:
        >>> import torch
        >>> images, targets = MixUpUnion(num_classes=2)(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))
        >>> images.shape, targets.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 2]))
    """

    alpha: float = 1.0
    probability: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)

    @property
    def streams(self) -> Streams:
        """Real and generated images in one stream."""
        return Streams(own=Stream(sampling="natural", origin="any"))

    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Draw a weight for each row of the batch."""
        return Placement(mask=mask.blend(kept_share(len(batch.images), alpha=self.alpha, rng=rng)))
