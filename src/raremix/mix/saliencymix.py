"""SaliencyMix: paste the box around the partner's most salient pixel."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from raremix.core.protocols import ImportanceMap
from raremix.core.types import Batch, Boxes
from raremix.mix.guidance import SALIENCY, maps_of
from raremix.mix.method import Method, Placement
from raremix.mix.pairing import Pairs
from raremix.mix.strength import check_alpha, kept_share

PEAK = 1e-5
"""Values this close to the highest one, as a share of the map's range, are as high."""


@dataclass(frozen=True, kw_only=True)
class SaliencyMix(Method):
    """Replace a box of each image by the same box of a partner, around the partner's most salient pixel [1].

    Box of sides sqrt(1 - w) H and sqrt(1 - w) W around argmax S_partner, w ~ Beta(alpha, alpha), clipped at the border;
    y = v y_own + (1 - v) y_partner, v = share of pixels outside the clipped box.

    [1] Uddin et al., "SaliencyMix: A Saliency Guided Data Augmentation Strategy for Better Regularization", ICLR 2021,
    https://arxiv.org/abs/2006.01791. Departures: the authors' code, and OpenMixup's, take the most salient pixel of one
    image for the whole batch, and one w; here every row has its own. Where a map is the same everywhere no pixel stands
    out, and the centre is drawn. On a coarse map the peak is the centre of its highest cell.

    Args:
        alpha: shape of the Beta distribution, > 0; 1, uniform, is what the paper uses.
        importance: what is salient; the paper's is `FineGrained`.

    The other settings are those of every method: `raremix.mix.method.Method`.

    Raises:
        ConfigError: if alpha or probability is out of range.

    Example:
        >>> import torch
        >>> images, targets = SaliencyMix(num_classes=2)(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))
        >>> images.shape, targets.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 2]))
    """

    alpha: float = 1.0
    importance: ImportanceMap | None = SALIENCY

    is_guided = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)

    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Draw how large each box is, and centre it on the partner's peak."""
        rows, _, height, width = batch.images.shape
        half = np.sqrt(0.25 - 0.25 * kept_share(rows, alpha=self.alpha, rng=rng))
        centre, drawn = peaks(pool)[:, pairs.partner], rng.random((2, rows))
        centre = np.where(np.isnan(centre), drawn, centre)
        edges = np.clip(np.concatenate([centre - half, centre + half]), 0.0, 1.0)
        edges = np.rint(edges * [[height], [width], [height], [width]]).astype(np.int32)
        return Placement(mask=Boxes(edges=torch.from_numpy(edges), height=height, width=width))


def peaks(batch: Batch) -> Float[np.ndarray, "2 B"]:
    """Return where the highest value of each map lies, down and across, in [0, 1]; NaN where all values are the same.

    Example:
        >>> importance = torch.tensor([[[[0.0, 0.0, 1.0, 0.0]]]])
        >>> peaks(Batch(images=torch.zeros(1, 1, 8, 8), targets=torch.zeros(1, 1), importance=importance))
        array([[0.5  ],
               [0.625]])
    """
    maps = maps_of(batch)
    height, width = maps.shape[-2:]
    flat = maps.flatten(1)
    lowest, highest = flat.aminmax(dim=1)
    # Fine-grained saliency is 1 at the brightest and at the darkest spot: of equal peaks, the first.
    is_peak = flat >= (highest - PEAK * (highest - lowest))[:, None]
    where = torch.where(is_peak, torch.arange(flat.shape[1], device=flat.device), flat.shape[1]).amin(dim=1)
    found = torch.where(highest > lowest, where, -1).cpu().numpy()
    centre = np.stack([(found // width + 0.5) / height, (found % width + 0.5) / width])
    return np.where(found >= 0, centre, np.nan)
