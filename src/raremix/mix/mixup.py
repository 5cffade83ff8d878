"""MixUp: blend two images and their labels."""

from dataclasses import dataclass

import numpy as np

from raremix.core.types import Batch
from raremix.mix import mask
from raremix.mix.method import Method, Placement
from raremix.mix.pairing import Pairs
from raremix.mix.strength import check_alpha, kept_share


@dataclass(frozen=True, kw_only=True)
class MixUp(Method):
    """Blend each image and its label with a partner's by a weight drawn per image [1].

    x = w x_own + (1 - w) x_partner, y = w y_own + (1 - w) y_partner, w ~ Beta(alpha, alpha).

    [1] Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, https://arxiv.org/abs/1710.09412.
    Departure: the authors' code draws one weight per batch; here every row draws its own, which has the same mean and
    less variance between batches.

    Args:
        alpha: shape of the Beta distribution, > 0. Small values leave most images nearly whole; 1 is uniform. 0.2 is
            what the paper and torchvision's reference recipes use on ImageNet.

    The other settings are those of every method: `raremix.mix.method.Method`.

    Raises:
        ConfigError: if alpha or probability is out of range.

    Example:
        >>> import torch
        >>> images, targets = MixUp(num_classes=2)(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))
        >>> images.shape, targets.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 2]))
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)

    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Draw a weight for each row of the batch."""
        return Placement(mask=mask.blend(kept_share(len(batch.images), alpha=self.alpha, rng=rng)))
