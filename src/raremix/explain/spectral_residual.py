"""SpectralResidual: what an image's spectrum holds beyond what spectra usually do."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.explain.grey import grey_of
from raremix.explain.scale import min_max, working_type

# Below this share of the largest amplitude, or of the grey values, float32 holds rounding and no signal.
ROUNDING = 1e-6
REACH = 5  # standard deviations; numbers too small for float32 make a product fifty times as slow


@dataclass(frozen=True, kw_only=True)
class SpectralResidual:
    """Saliency from the residual of the log spectrum [1], for whole batches.

    F = FFT(grey image); R = log|F| - mean of log|F| over 3 x 3 frequencies;
    map = Gaussian * |FFT^-1(exp(R) F / |F|)|^2, scaled to [0, 1] within each image.

    [1] Hou & Zhang, "Saliency Detection: A Spectral Residual Approach", CVPR 2007,
    https://doi.org/10.1109/CVPR.2007.383267. Departures: the mean over frequencies wraps around, since the spectrum is
    periodic; the Gaussian is cut at the border and made to sum to 1 there; an image without contrast has a map of
    zeros. The paper's text says sigma = 8; 2.5 is what published code commonly has, and what we take.

    Args:
        size: the image is shrunk until its longer side has so many pixels, and so has the map; 64 in the paper.
            Smaller images are left as they are.
        sigma: standard deviation of the Gaussian in pixels of the map; 0 for none.

    Raises:
        ConfigError: if size or sigma is out of range.

    Example:
        >>> images = torch.zeros(1, 1, 32, 32)
        >>> images[..., 20:23, 8:11] = 1
        >>> bool(SpectralResidual()(images, torch.zeros(1, 2))[0, 0, 21, 9] > 0.5)
        True
    """

    size: int = 64
    sigma: float = 2.5

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"size = {self.size}: a side in pixels, such as 64, must be at least 1")
        if not 0 <= self.sigma < float("inf"):
            raise ConfigError(f"sigma = {self.sigma}: a width in pixels, such as 2.5, must be at least 0")

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"]) -> Float[Tensor, "B 1 h w"]:
        """Return maps whose longer side is at most `size`; the targets are not looked at."""
        grey = _shrunk(grey_of(images.to(working_type(images))), self.size)[:, 0]
        spectrum = torch.fft.rfft2(grey)  # of real images the other half mirrors it
        amplitude = spectrum.abs()
        log = (amplitude + ROUNDING * amplitude.amax(dim=(1, 2), keepdim=True).clamp(min=ROUNDING)).log()
        # exp(log|F| - usual) F / |F| = F exp(-usual)
        usual = _mean_around(log, width=grey.shape[2])
        residual = torch.fft.irfft2(spectrum * torch.exp(-usual), s=grey.shape[1:]).square()
        with torch.autocast(grey.device.type, enabled=False):
            for axis in (1, 2):
                residual = residual.transpose(1, 2) @ _gaussian(grey.shape[axis], self.sigma, like=grey)
        low, high = grey.amin(dim=(1, 2)), grey.amax(dim=(1, 2))
        is_flat = high - low <= ROUNDING * torch.maximum(low.abs(), high.abs())
        return torch.where(is_flat[:, None, None, None], 0, min_max(residual[:, None]))


def _shrunk(grey: Float[Tensor, "B 1 H W"], size: int) -> Float[Tensor, "B 1 h w"]:
    H, W = grey.shape[-2:]
    scale = size / max(H, W)
    if scale >= 1:
        return grey
    return functional.interpolate(
        grey, size=(max(1, round(H * scale)), max(1, round(W * scale))), mode="bilinear", antialias=True
    )


def _mean_around(half: Float[Tensor, "B H V"], *, width: int) -> Float[Tensor, "B H V"]:
    """Return the mean over 3 x 3 frequencies of a spectrum of that width, of which one half is given.

    The value at (-u, -v) is that at (u, v), and both wrap around.
    """
    last = half.shape[2] - 1
    mirrored = half.flip(1).roll(1, 1)
    before, after = mirrored[:, :, min(1, last)], mirrored[:, :, width - last - 1]
    padded = torch.cat([before[:, :, None], half, after[:, :, None]], dim=2)
    rows = padded[:, :, :-2] + padded[:, :, 1:-1] + padded[:, :, 2:]
    return (rows + rows.roll(1, 1) + rows.roll(-1, 1)) / 9


def _gaussian(size: int, sigma: float, *, like: Tensor) -> Float[Tensor, "{size} {size}"]:
    """Return the matrix that blurs a row of pixels from the right; each of its columns sums to 1."""
    if sigma == 0:
        return torch.eye(size, dtype=like.dtype, device=like.device)
    places = torch.arange(size, dtype=like.dtype, device=like.device)
    far = ((places[:, None] - places) / sigma).abs()
    weights = torch.where(far <= REACH, torch.exp(-0.5 * far.square()), 0)
    return weights / weights.sum(dim=0)
