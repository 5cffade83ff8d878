"""How images become noise: the schedule, what the network is asked for, and how much each moment counts."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raremix.core.errors import ConfigError

Prediction = Literal["v_prediction", "epsilon"]
"""What a network predicts: v = alpha eps - sigma x (https://arxiv.org/abs/2202.00512), or the noise eps."""

MOMENTS = 1000
LEAST, MOST = 0.005, 80.0
"""Ratios of noise to image at the first and the last moment: below the first nothing is seen in 8 bits, above the
second nothing of the image is left (https://arxiv.org/abs/2206.00364)."""

SHIFT_FROM = 64
"""Sides beyond this get more noise: larger images are averages over more pixels (https://arxiv.org/abs/2301.11093)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Noise:
    """x_t = alpha_t x + sigma_t eps with alpha^2 + sigma^2 = 1, at discrete moments t.

    Args:
        kept: alpha_t^2, falling with t.
        prediction: what networks are asked for.

    Raises:
        ConfigError: if it does not fall, or lies outside (0, 1).

    Example:
        >>> noise = Noise(kept=np.array([0.64, 0.36]), prediction="epsilon")
        >>> noise.betas.round(4).tolist()
        [0.36, 0.4375]
    """

    kept: Float[np.ndarray, " T"] = field(repr=False)
    prediction: Prediction = "v_prediction"
    _tables: dict[Any, Tensor] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not (np.diff(self.kept) < 0).all() or not 0 < self.kept[-1] <= self.kept[0] < 1:
            raise ConfigError("a noise schedule must keep less of the image at every moment, between 1 and 0")

    @property
    def moments(self) -> int:
        """How many moments there are."""
        return len(self.kept)

    @property
    def betas(self) -> Float[np.ndarray, " T"]:
        """Variance that each moment adds: what libraries of solvers build a schedule from."""
        return 1 - self.kept / np.concatenate([[1.0], self.kept[:-1]])

    @property
    def ratios(self) -> Float[np.ndarray, " T"]:
        """Noise over image, sigma / alpha, at every moment."""
        return np.sqrt(1 / self.kept - 1)

    def until(self, moments: int) -> "Noise":
        """Return the schedule of the first moments alone."""
        return replace(self, kept=self.kept[:moments])

    def scales(self, times: Int[Tensor, " B"]) -> tuple[Float[Tensor, "B 1 1 1"], Float[Tensor, "B 1 1 1"]]:
        """Return alpha and sigma of each moment."""
        kept = self._table("kept", self.kept, times.device)[times].view(-1, 1, 1, 1)
        return kept.sqrt(), (1 - kept).sqrt()

    def add(
        self, images: Float[Tensor, "B C H W"], noise: Float[Tensor, "B C H W"], times: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "B C H W"]]:
        """Return the noisy images, and what a network should say of them."""
        alpha, sigma = self.scales(times)
        wanted = noise if self.prediction == "epsilon" else alpha * noise - sigma * images
        return alpha * images + sigma * noise, wanted

    def clean(
        self, noisy: Float[Tensor, "B C H W"], said: Float[Tensor, "B C H W"], times: Int[Tensor, " B"]
    ) -> Float[Tensor, "B C H W"]:
        """Return the images that a network's words amount to."""
        alpha, sigma = self.scales(times)
        return (noisy - sigma * said) / alpha if self.prediction == "epsilon" else alpha * noisy - sigma * said

    def words(
        self, noisy: Float[Tensor, "B C H W"], images: Float[Tensor, "B C H W"], times: Int[Tensor, " B"]
    ) -> Float[Tensor, "B C H W"]:
        """Return what a network would have to say for these images to come out."""
        alpha, sigma = self.scales(times)
        noise = (noisy - alpha * images) / sigma
        return noise if self.prediction == "epsilon" else alpha * noise - sigma * images

    def weights(self, times: Int[Tensor, " B"], *, most: float) -> Float[Tensor, " B"]:
        """Return the min-SNR weight of each moment (Hang et al., ICCV 2023, https://arxiv.org/abs/2303.09556).

        min(s, most) / s for the noise and min(s, most) / (s + 1) for v, with s = alpha^2 / sigma^2: as an error of the
        image, no moment counts more than `most` times.

        Args:
            times: the moments.
            most: the paper's gamma; 0: every moment counts 1.
        """
        if most <= 0:
            return torch.ones_like(times, dtype=torch.float32)
        ratio = self.kept / (1 - self.kept)
        capped = np.minimum(ratio, most) / (ratio if self.prediction == "epsilon" else ratio + 1)
        return self._table(("weights", most), capped, times.device)[times]

    def _table(self, name: Any, values: np.ndarray, device: torch.device) -> Tensor:
        # From the CPU a table would be copied at every step.
        key = (name, device)
        if key not in self._tables:
            # One that was made while drawing could not be used in training.
            with torch.inference_mode(False):
                self._tables[key] = torch.from_numpy(values.astype(np.float32)).to(device)
        return self._tables[key]


def cosine_noise(side: int, *, prediction: Prediction = "v_prediction", moments: int = MOMENTS) -> Noise:
    """Build the cosine schedule: sigma / alpha = tan(angle), the angle rising evenly.

    Nichol & Dhariwal 2021, https://arxiv.org/abs/2102.09672, here from a ratio of .005 to one of 80; images beyond 64
    pixels get side / 64 times as much noise.

    Args:
        side: of what is made noisy, in pixels.
        prediction: what networks are asked for.
        moments: how many.

    Example:
        >>> noise = cosine_noise(32)
        >>> bool(abs(noise.kept[500] - 0.5) < 0.01)
        True
    """
    angles = np.linspace(np.arctan(LEAST), np.arctan(MOST), moments)
    ratio = np.tan(angles) * max(1.0, side / SHIFT_FROM)
    return Noise(kept=1 / (1 + ratio**2), prediction=prediction)


def spread_times(count: int, moments: int, *, rng: np.random.Generator) -> Int[np.ndarray, " B"]:
    """Draw a moment per image: each is uniform, and together they are spread evenly (https://arxiv.org/abs/2107.00630).

    Example:
        >>> times = spread_times(4, 1000, rng=np.random.default_rng(0))
        >>> np.bincount(times // 250).tolist()
        [1, 1, 1, 1]
    """
    places = (rng.random() + np.arange(count) / count) % 1.0
    return rng.permutation((places * moments).astype(np.int64))
