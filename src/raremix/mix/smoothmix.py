"""SmoothMix: a spot of another image, without an edge that could give it away."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from raremix.core.errors import ConfigError
from raremix.core.types import Batch
from raremix.mix.method import Method, Placement, check_name
from raremix.mix.pairing import Pairs

FLAT = 0.5
"""Share of a square's spread over which it is flat."""


@dataclass(frozen=True, kw_only=True)
class SmoothMix(Method):
    """Blend a spot of a partner into each image, with edges that fade as a Gaussian; centre and size per image [1].

    x = (1 - G) x_own + G x_partner, y = (1 - v) y_own + v y_partner, v = mean of G. In units of the image's height and
    width, with the centre c uniform in the image, s uniform in `spread`, and the distances d = |position - c|:

    circle: G = exp(-(d_y^2 + d_x^2) / (2 s^2))
    square: G = g(d_y) g(d_x), g(d) = 1 for d <= s / 2, else exp(-(d - s / 2)^2 / (2 (s / 2)^2))

    [1] Lee, Zaheer, Astrid, Lee, "SmoothMix: A Simple Yet Effective Data Augmentation to Train Robust Classifiers",
    CVPR Workshops 2020,
    https://openaccess.thecvf.com/content_CVPRW_2020/html/w45/Lee_SmoothMix_A_Simple_Yet_Effective_Data_Augmentation_to_Train_Robust_CVPRW_2020_paper.html.
    Departures: implementations draw one spot per batch, and know square images; here every row has its own spot, and in
    an image that is not square a circle is an ellipse of its proportions. How fast a square's edge fades is our choice.

    Args:
        shape: "circle" or "square".
        spread: smallest and largest s, as shares of the sides, 0 < smallest <= largest.

    The other settings are those of every method: `raremix.mix.method.Method`.

    Raises:
        ConfigError: if probability or spread is out of range.
        UnknownNameError: if there is no such shape.

    Example:
        >>> import torch
        >>> images, targets = SmoothMix(num_classes=2)(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))
        >>> images.shape, targets.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 2]))
    """

    shape: Literal["circle", "square"] = "circle"
    spread: tuple[float, float] = (0.25, 0.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.shape, ("circle", "square"), kind="shape")
        smallest, largest = self.spread
        if not 0 < smallest <= largest < np.inf:
            raise ConfigError(
                f"spread needs 0 < smallest <= largest, as shares of the image's sides, got {self.spread}"
            )

    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Draw a spot for each row of the batch."""
        rows, _, height, width = batch.images.shape
        centre = rng.random((2, rows, 1)).astype(np.float32)
        spread = rng.uniform(*self.spread, size=(rows, 1)).astype(np.float32)
        down, across = (
            torch.from_numpy(self._fade(np.abs(_middles(length) - c), spread))
            for length, c in zip((height, width), centre, strict=True)
        )
        mask = torch.addcmul(torch.ones(()), down[:, None, :, None], across[:, None, None, :], value=-1)
        return Placement(mask=mask)

    def _fade(self, distance: Float[np.ndarray, "R n"], spread: Float[np.ndarray, "R 1"]) -> Float[np.ndarray, "R n"]:
        if self.shape == "square":
            distance, spread = np.maximum(distance - FLAT * spread, 0.0), (1 - FLAT) * spread
        return np.exp(-0.5 * np.square(distance / spread))


def _middles(length: int) -> Float[np.ndarray, " n"]:
    """Return where the middles of a side's pixels lie, for a side of length 1."""
    return (np.arange(length, dtype=np.float32) + np.float32(0.5)) / np.float32(length)
