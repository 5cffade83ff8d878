"""CMO: paste a box of a class-balanced image on an image as it comes."""

from dataclasses import dataclass

import numpy as np

from raremix.core.types import Batch, Stream, Streams
from raremix.mix import mask
from raremix.mix.method import Method, Placement
from raremix.mix.pairing import Pairs
from raremix.mix.strength import check_alpha, kept_share


@dataclass(frozen=True, kw_only=True)
class CMO(Method):
    """Paste a box of a class-balanced foreground on a natural background: rare classes in many contexts [1].

    Box and label are CutMix's: sides sqrt(1 - w) H and sqrt(1 - w) W around a uniform centre, w ~ Beta(alpha, alpha),
    clipped at the border; y = v y_background + (1 - v) y_foreground, v = share of pixels outside the clipped box. The
    background is the row's own image, the foreground its partner.

    A training loop asks `streams` how to sample the two; a study does so by itself. Called on a single batch, the mixer
    takes foregrounds from the batch itself, and is CutMix.

    [1] Park et al., "The Majority Can Help the Minority: Context-rich Minority Oversampling for Long-tailed
    Classification", CVPR 2022, https://arxiv.org/abs/2112.00412. Departures: every row draws its own box, and whether
    it is mixed at all; the authors draw both once per batch. They switch it off in the first and last 3 epochs: that
    is `raremix.mix.Scheduled`. Their code gives an image the weight 1 / n of its class, which makes all classes
    equally frequent: the stream "balanced".

    Args:
        alpha: shape of the Beta distribution, > 0; 1, uniform, is what the paper uses.
        probability: probability that a row is mixed at all; the paper has 0.5.

    The other settings are those of every method: `raremix.mix.method.Method`.

    Raises:
        ConfigError: if alpha or probability is out of range.

    Example:
        >>> import torch
        >>> natural, balanced = (torch.rand(4, 3, 8, 8), torch.eye(4)), (torch.rand(4, 3, 8, 8), torch.eye(4))
        >>> images, targets = CMO()(*natural, pool=balanced)
        >>> images.shape, targets.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 4]))
    """

    alpha: float = 1.0
    probability: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)

    @property
    def streams(self) -> Streams:
        """Backgrounds as they come, foregrounds class-balanced."""
        return Streams(own=Stream(sampling="natural"), pool=Stream(sampling="balanced"))

    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Draw a box for each row of the batch."""
        rows, _, height, width = batch.images.shape
        share = kept_share(rows, alpha=self.alpha, rng=rng)
        return Placement(mask=mask.random_boxes(share, height=height, width=width, rng=rng))
