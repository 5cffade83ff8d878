"""CutMix: paste a box of another image, and mix the labels by the counted pixels."""

from dataclasses import dataclass

import numpy as np

from raremix.core.types import Batch
from raremix.mix import mask
from raremix.mix.method import Method, Placement
from raremix.mix.pairing import Pairs
from raremix.mix.strength import check_alpha, kept_share


@dataclass(frozen=True, kw_only=True)
class CutMix(Method):
    """Replace a box of each image by the same box of a partner; a box, and its label weight, per image [1].

    Box of sides sqrt(1 - w) H and sqrt(1 - w) W around a uniform centre, w ~ Beta(alpha, alpha), clipped at the border;
    y = v y_own + (1 - v) y_partner, v = share of pixels outside the clipped box.

    [1] Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019,
    https://arxiv.org/abs/1905.04899. Departure: the authors' code draws one box per batch; here every row draws its
    own.

    Args:
        alpha: shape of the Beta distribution, > 0; 1, uniform, is what the paper uses.

    The other settings are those of every method: `raremix.mix.method.Method`.

    Raises:
        ConfigError: if alpha or probability is out of range.

    Example:
        >>> import torch
        >>> images, targets = CutMix(num_classes=2)(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))
        >>> images.shape, targets.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 2]))
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)

    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Draw a box for each row of the batch."""
        rows, _, height, width = batch.images.shape
        share = kept_share(rows, alpha=self.alpha, rng=rng)
        return Placement(mask=mask.random_boxes(share, height=height, width=width, rng=rng))
