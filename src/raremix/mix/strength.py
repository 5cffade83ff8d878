"""How much is mixed: a share per row from a symmetric Beta distribution."""

import numpy as np
from jaxtyping import Float

from raremix.core.errors import ConfigError


def kept_share(rows: int, *, alpha: float, probability: float, rng: np.random.Generator) -> Float[np.ndarray, " rows"]:
    """Draw the share that each row keeps of itself: Beta(alpha, alpha) with the given probability, otherwise 1.

    Mean and variance of a drawn share are 1/2 and 1 / (4 (2 alpha + 1)).

    Args:
        rows: number of rows.
        alpha: shape of the distribution, > 0.
        probability: probability that a row is mixed, in [0, 1].
        rng: the stream to draw from.

    Example:
        >>> kept_share(2, alpha=1.0, probability=0.0, rng=np.random.default_rng(0))
        array([1., 1.])
    """
    share = rng.random(rows) if alpha == 1 else rng.beta(alpha, alpha, size=rows)  # Beta(1, 1) is uniform
    return share if probability == 1 else np.where(rng.random(rows) < probability, share, 1.0)


def check_strength(*, alpha: float, probability: float) -> None:
    """Refuse a shape or a probability that is out of range.

    Raises:
        ConfigError: naming the value.
    """
    if not (np.isfinite(alpha) and alpha > 0):
        raise ConfigError(f"alpha must be a finite number > 0, got {alpha}; to switch mixing off, take probability = 0")
    if not 0 <= probability <= 1:
        raise ConfigError(f"probability must lie in [0, 1], got {probability}")
