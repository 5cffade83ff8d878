"""FMix: masks of irregular shape, by thresholding random images of low frequency."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raremix.core.errors import ConfigError
from raremix.core.types import Batch
from raremix.mix.method import Method, Placement
from raremix.mix.pairing import Pairs
from raremix.mix.strength import check_alpha, kept_share

DROPPED = 1e-3
"""Share of the field's variance that the finest waves, which are left out, may carry."""
SHORT = 4096
"""Up to so many pixels, sorting all rows at once is faster than selecting in each."""


@dataclass(frozen=True, kw_only=True)
class FMix(Method):
    """Keep of each image the pixels where a random field of low frequency is highest; a field and share per image [1].

    The field is a sum of waves of independent normal amplitudes divided by f^decay, f the wave's frequency in cycles
    per pixel. A row keeps the share w ~ Beta(alpha, alpha) of its pixels, rounded to whole ones, where its field is
    highest; y = v y_own + (1 - v) y_partner, v = share of pixels kept.

    [1] Harris et al., "FMix: Enhancing Mixed Sample Data Augmentation", 2020, https://arxiv.org/abs/2002.12047.
    Departures: every row draws its own mask and share, the authors' code one per batch. The finest waves, which
    together carry less than 1/1000 of the variance, are left out: at decay 3 they move a mask's edge by a fraction of
    a pixel. The code that circulates takes real and imaginary parts along the wrong axis of the spectrum, so that its
    masks hold two frequencies in one direction; here the spectrum is the paper's. Softened edges (`max_soft`) are left
    out.

    Args:
        alpha: shape of the Beta distribution, > 0; 1, uniform, is what the paper uses.
        decay: power by which amplitudes fall with frequency, >= 0; the paper has 3. Larger: smoother, larger regions.

    The other settings are those of every method: `raremix.mix.method.Method`.

    Raises:
        ConfigError: if alpha, probability or decay is out of range.

    Example:
        >>> import torch
        >>> images, targets = FMix(num_classes=2)(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))
        >>> images.shape, targets.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 2]))
    """

    alpha: float = 1.0
    decay: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)
        if not 0 <= self.decay < np.inf:
            raise ConfigError(f"decay must be a finite number >= 0, got {self.decay}")

    def place(self, batch: Batch, pool: Batch, pairs: Pairs, *, rng: np.random.Generator) -> Placement:
        """Draw a field for each row of the batch, and keep the share of its pixels where it is highest."""
        rows, _, height, width = batch.images.shape
        share = kept_share(rows, alpha=self.alpha, rng=rng)
        values = low_frequencies(rows, height=height, width=width, decay=self.decay, rng=rng).flatten(1)
        kept = values.ge_(torch.from_numpy(_lowest_kept(values.numpy(), share)))  # 1 and 0 in the same memory
        return Placement(mask=kept.reshape(rows, 1, height, width))


def low_frequencies(
    rows: int, *, height: int, width: int, decay: float, rng: np.random.Generator
) -> Float[Tensor, "R {height} {width}"]:
    """Draw random fields whose amplitudes fall with frequency.

    Args:
        rows: number of fields.
        height, width: size in pixels.
        decay: power by which amplitudes fall.
        rng: the stream to draw from.
    """
    waves = _waves(height, width, decay)
    down, across = torch.from_numpy(waves.down), torch.from_numpy(waves.across)
    amplitudes = np.zeros((rows, down.shape[1] // 2 * across.shape[0]), dtype=np.float32)
    amplitudes[:, waves.places] = rng.standard_normal((rows, len(waves.places)), dtype=np.float32) * waves.scale
    with torch.autocast("cpu", enabled=False):
        lines = torch.from_numpy(amplitudes.reshape(-1, across.shape[0])) @ across
        return torch.matmul(down, lines.reshape(rows, down.shape[1], width))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waves:
    """The waves a cos(t) + b sin(t), t = 2 pi (f_y y + f_x x), of a field: one of every pair of opposite ones.

    Written as the real part of (a - i b) exp(2 pi i f_y y) exp(2 pi i f_x x), a field is two products of real matrices.

    Attributes:
        down: cos and -sin of 2 pi f_y y, of each f_y in turn.
        across: what the real, then the imaginary parts of amplitudes add to a line: its real, then its imaginary part.
        places: where real and imaginary parts stand among f_y x (real, imaginary) x f_x.
        scale: size of each.
    """

    down: Float[np.ndarray, "H twice_n"]
    across: Float[np.ndarray, "twice_m twice_W"]
    places: Int[np.ndarray, " draws"]
    scale: Float[np.ndarray, " draws"]


@lru_cache(maxsize=32)
def _waves(height: int, width: int, decay: float) -> _Waves:
    down, across = np.arange(-(height // 2), height // 2 + 1), np.arange(width // 2 + 1)
    y, x = np.meshgrid(down, across, indexing="ij")
    is_half = (x > 0) | (y > 0)  # no constant, and of two opposite waves one
    frequency = np.hypot(y / height, x / width) * max(height, width)  # in units of the lowest
    scale = np.where(is_half, np.maximum(frequency, 1.0) ** -decay, 0.0)
    order = np.argsort(np.where(is_half, frequency, np.inf), axis=None, kind="stable")[: is_half.sum()]
    carried = np.cumsum(scale.flat[order] ** 2)
    wanted = order[: int(np.searchsorted(carried, (1 - DROPPED) * carried[-1])) + 1] if len(order) else order
    rows, columns = np.unravel_index(wanted, scale.shape)
    top, last = int(np.abs(down[rows]).max(initial=0)), int(columns.max(initial=0))
    angles = 2 * np.pi * np.outer(np.arange(height) / height, np.arange(-top, top + 1))
    turns = 2 * np.pi * np.outer(np.arange(last + 1), np.arange(width) / width)
    real, imaginary = np.cos(turns), np.sin(turns)
    first = (rows - height // 2 + top) * 2 * (last + 1) + columns
    return _Waves(
        down=np.stack([np.cos(angles), -np.sin(angles)], axis=2).reshape(height, -1).astype(np.float32),
        across=np.block([[real, imaginary], [-imaginary, real]]).astype(np.float32),
        places=np.concatenate([first, first + last + 1]),
        scale=np.tile(scale.flat[wanted], 2).astype(np.float32),
    )


def _lowest_kept(values: Float[np.ndarray, "R n"], share: Float[np.ndarray, " R"]) -> Float[np.ndarray, "R 1"]:
    """Return the value from which on a share of each row, rounded to whole entries, lies; infinite where none does."""
    rows, length = values.shape
    dropped = length - np.rint(share * length).astype(np.int64)
    places = np.minimum(dropped, length - 1)
    if length <= SHORT:
        lowest = np.sort(values, axis=1)[np.arange(rows), places]
    else:
        lowest = np.array([np.partition(row, k)[k] for row, k in zip(values, places, strict=True)], dtype=values.dtype)
    return np.where(dropped == length, np.inf, lowest).astype(values.dtype)[:, None]
