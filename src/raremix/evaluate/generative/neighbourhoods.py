"""Whether generated images lie among the real ones, and whether the real ones lie among them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from raremix.evaluate.generative.distances import check_vectors

NEIGHBOURS = 5
"""As Naeem et al. advise; Kynkaanniemi et al. take 3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbourhoods:
    """Four figures of one pair of sets.

    Attributes:
        precision: share of generated images that lie in the neighbourhood of any real one.
        recall: share of real images that lie in the neighbourhood of any generated one.
        density: number of real neighbourhoods that a generated image lies in, over k; 1 for equal distributions.
        coverage: share of real images in whose neighbourhood any generated one lies; falls when a generator collapses.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def neighbourhoods(
    real: Float[np.ndarray, "n d"], made: Float[np.ndarray, "m e"], *, neighbours: int = NEIGHBOURS
) -> Neighbourhoods:
    """Compute improved precision and recall, density and coverage.

    The neighbourhood of an image is the open ball that its k-th nearest image of the same set lies on. Precision and
    recall: Kynkaanniemi et al. 2019 (https://arxiv.org/abs/1904.06991); density and coverage: Naeem et al. 2020
    (https://arxiv.org/abs/2002.09797).

    Args:
        real, made: more than k rows each.
        neighbours: k.

    Raises:
        DataError: for fewer rows, or numbers that are not finite.

    Example:
        >>> line = np.arange(8.0)[:, None]
        >>> neighbourhoods(line, line + 0.25, neighbours=2).coverage
        1.0
    """
    check_vectors(real, made, least=neighbours + 1)
    apart = between(real, made)
    return from_distances(
        apart, radii(between(real, real), neighbours), radii(between(made, made), neighbours), neighbours
    )


def from_distances(
    apart: Float[np.ndarray, "n m"],
    real_radii: Float[np.ndarray, " n"],
    made_radii: Float[np.ndarray, " m"],
    neighbours: int,
) -> Neighbourhoods:
    """Compute the same from distances between the sets and the radii within each."""
    inside = apart < real_radii[:, None]
    return Neighbourhoods(
        precision=float(inside.any(axis=0).mean()),
        recall=float((apart < made_radii).any(axis=1).mean()),
        density=float(inside.sum(axis=0).mean() / neighbours),
        coverage=float((apart.min(axis=1) < real_radii).mean()),
    )


def radii(within: Float[np.ndarray, "n n"], neighbours: int) -> Float[np.ndarray, " n"]:
    """Return each row's distance to its k-th nearest other row."""
    return np.partition(within, neighbours, axis=1)[:, neighbours]  # the nearest of all is the row itself


def between(one: Float[np.ndarray, "n d"], other: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n m"]:
    """Return squared Euclidean distances; exactly zero of a set's rows to themselves."""
    first, second = one.astype(np.float64), other.astype(np.float64)
    apart = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2 * first @ second.T
    if one is other:
        np.fill_diagonal(apart, 0.0)
    return np.maximum(apart, 0.0)
