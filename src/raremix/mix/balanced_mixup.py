"""Balanced-MixUp: blend images as they come with a little of class-balanced ones."""

from dataclasses import dataclass

import numpy as np

from raremix.core.types import Batch, Stream, Streams
from raremix.mix import mask
from raremix.mix.method import Method, Placement
from raremix.mix.pairing import Pairs
from raremix.mix.strength import check_alpha


@dataclass(frozen=True, kw_only=True)
class BalancedMixUp(Method):
    """Blend each image of the natural stream with one of a class-balanced stream, which gets the smaller weight [1].

    x = (1 - b) x_natural + b x_balanced, y likewise, b ~ Beta(alpha, 1): for the small alpha of the paper b is nearly
    always close to 0, and alpha / (1 + alpha) on average. The own weight 1 - b is Beta(1, alpha).

    A training loop asks `streams` how to sample the two; a study does so by itself. Called on a single batch, the mixer
    takes partners from the batch itself, and nothing is balanced.

    [1] Galdran, Carneiro, Gonzalez Ballester, "Balanced-MixUp for Highly Imbalanced Medical Image Classification",
    MICCAI 2021, https://arxiv.org/abs/2109.09850. Departure: the authors draw one weight per batch; here every row
    draws its own.

    Args:
        alpha: first shape of the balanced image's Beta(alpha, 1), > 0; the paper tries 0.1 to 0.3. 1 is uniform.

    The other settings are those of every method: `raremix.mix.method.Method`.

    Raises:
        ConfigError: if alpha or probability is out of range.

    Example:
        >>> import torch
        >>> natural, balanced = (torch.rand(4, 3, 8, 8), torch.eye(4)), (torch.rand(4, 3, 8, 8), torch.eye(4))
        >>> images, targets = BalancedMixUp()(*natural, pool=balanced)
        >>> images.shape, targets.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 4]))
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)

    @property
    def streams(self) -> Streams:
        """Own images as they come, partners class-balanced."""
        return Streams(own=Stream(sampling="natural"), pool=Stream(sampling="balanced"))

    @property
    def shapes(self) -> tuple[float, float]:
        """Shapes of the Beta distribution of the share that a row keeps of itself."""
        return 1.0, self.alpha

    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Draw a weight for each row of the batch."""
        first, second = self.shapes
        return Placement(mask=mask.blend(rng.beta(first, second, size=len(batch.images))))
