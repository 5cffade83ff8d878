"""Where each pixel comes from: masks, as the share that a pixel keeps of its own image, and boxes."""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from raremix.core.types import Boxes


def blend(share: Float[np.ndarray, " R"]) -> Float[Tensor, "R 1 1 1"]:
    """Make a 1 x 1 mask per row: every pixel keeps the same share of its own image.

    Args:
        share: share that each row keeps, in [0, 1].

    Example:
        >>> blend(np.array([0.25])).shape
        torch.Size([1, 1, 1, 1])
    """
    return torch.from_numpy(share.astype(np.float32)).reshape(-1, 1, 1, 1)


def random_boxes(share: Float[np.ndarray, " R"], *, height: int, width: int, rng: np.random.Generator) -> Boxes:
    """Draw a box per row, of the image's proportions, around a uniform centre, clipped at the border.

    A row that keeps the share s has, before clipping, a box of sides sqrt(1 - s) times the image's; its edges are
    rounded to whole pixels.

    Args:
        share: share of its own pixels that each row keeps where nothing is clipped, in [0, 1].
        height, width: size of the image in pixels.
        rng: the stream to draw centres from.

    Returns:
        Boxes; after clipping a row keeps at least its share, up to rounding. Count what it keeps with `Boxes.share`.

    Example:
        >>> float(random_boxes(np.ones(1), height=8, width=8, rng=np.random.default_rng(0)).share())
        1.0
    """
    centre, half = rng.random((2, share.size)), np.sqrt(0.25 - 0.25 * share)
    edges = centre + _SIDES_OF_CENTRE * half
    np.maximum(edges, 0.0, out=edges)
    np.minimum(edges, 1.0, out=edges)
    edges *= _sides(height, width)
    edges = np.rint(edges, out=edges).astype(np.int32).reshape(4, -1)
    return Boxes(edges=torch.from_numpy(edges), height=height, width=width)


_SIDES_OF_CENTRE = np.array([-1.0, 1.0])[:, None, None]


@lru_cache(maxsize=64)
def _sides(height: int, width: int) -> Float[np.ndarray, "2 1"]:
    return np.array([[height], [width]], dtype=np.float64)
