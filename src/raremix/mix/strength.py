"""How much is mixed: a share per row from a symmetric Beta distribution."""

import numpy as np
from jaxtyping import Float

from raremix.core.errors import ConfigError


def kept_share(rows: int, *, alpha: float, rng: np.random.Generator) -> Float[np.ndarray, " rows"]:
    """Draw the share that each row keeps of itself: Beta(alpha, alpha).

    Mean and variance are 1/2 and 1 / (4 (2 alpha + 1)).

    Args:
        rows: number of rows.
        alpha: shape of the distribution, > 0.
        rng: the stream to draw from.

    Example:
        >>> kept_share(2, alpha=1e9, rng=np.random.default_rng(0)).round(3)
        array([0.5, 0.5])
    """
    return rng.random(rows) if alpha == 1 else rng.beta(alpha, alpha, size=rows)  # Beta(1, 1) is uniform


def check_alpha(alpha: float) -> None:
    """Refuse a shape that is out of range.

    Raises:
        ConfigError: naming the value.
    """
    if not (np.isfinite(alpha) and alpha > 0):
        raise ConfigError(f"alpha must be a finite number > 0, got {alpha}; to switch mixing off, take probability = 0")
