"""How far apart two sets of images are, as distributions of vectors."""

import numpy as np
from jaxtyping import Float

from raremix.core.errors import DataError


def frechet_distance(real: Float[np.ndarray, "n d"], made: Float[np.ndarray, "m e"]) -> float:
    """Return the Frechet distance of two normal distributions that have the sets' means and covariances.

        |mu_r - mu_m|^2 + tr(C_r) + tr(C_m) - 2 tr((C_r C_m)^(1/2))

    Heusel et al. 2017 (https://arxiv.org/abs/1706.08500), covariances over n - 1 as theirs. With A and B the centred
    rows over sqrt(n - 1), the last trace is the sum of the singular values of A B^T: no matrix of d x d is needed, and
    none has to have full rank. It is biased: few images are farther from anything. Compare equal numbers only.

    Args:
        real, made: at least two rows each.

    Raises:
        DataError: for fewer rows, or numbers that are not finite.

    Example:
        >>> frechet_distance(np.array([[0.0], [2.0]]), np.array([[1.0], [3.0]]))
        1.0
    """
    check_vectors(real, made, least=2)
    means = real.mean(axis=0, dtype=np.float64) - made.mean(axis=0, dtype=np.float64)
    first, second = _root(real), _root(made)
    shared = float(np.linalg.svd(first @ second.T, compute_uv=False).sum())
    return float(max(means @ means + (first**2).sum() + (second**2).sum() - 2 * shared, 0.0))


def kernel_distance(real: Float[np.ndarray, "n d"], made: Float[np.ndarray, "m e"]) -> float:
    """Return the squared maximum mean discrepancy with the kernel (x y / d + 1)^3, without bias.

    Binkowski et al. 2018 (https://arxiv.org/abs/1801.01401), the "kernel inception distance" where the vectors are
    Inception's. Means over pairs leave out each row with itself, so that equal distributions are at zero on average and
    the value may be negative.

    Args:
        real, made: at least two rows each.

    Raises:
        DataError: for fewer rows, or numbers that are not finite.
    """
    check_vectors(real, made, least=2)
    n, m = len(real), len(made)
    own, other = _kernel(real, real), _kernel(made, made)
    within = (own.sum() - np.trace(own)) / (n * (n - 1)) + (other.sum() - np.trace(other)) / (m * (m - 1))
    return float(within - 2 * _kernel(real, made).mean())


def check_vectors(real: Float[np.ndarray, "n d"], made: Float[np.ndarray, "m e"], *, least: int) -> None:
    """Refuse sets that are too small, of another length, or not finite.

    Raises:
        DataError: saying which.
    """
    for name, rows in (("real", real), ("generated", made)):
        if len(rows) < least:
            raise DataError(f"{len(rows)} {name} images: this figure needs at least {least}")
        if not np.isfinite(rows).all():
            raise DataError(f"vectors of {name} images are not finite: look at the encoder, or at its weights")
    if real.shape[1] != made.shape[1]:
        raise DataError(f"vectors of {real.shape[1]} and {made.shape[1]} numbers: take both from one encoder")


def _root(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "r d"]:
    """Return at most d rows whose products are the covariance."""
    centred = (rows - rows.mean(axis=0, dtype=np.float64)) / np.sqrt(len(rows) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r")) if len(rows) > rows.shape[1] else centred


def _kernel(one: Float[np.ndarray, "n d"], other: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n m"]:
    return (one.astype(np.float64) @ other.T.astype(np.float64) / one.shape[1] + 1) ** 3
