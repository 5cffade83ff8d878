"""Vectors in the plane, to look at."""

import numpy as np
from jaxtyping import Float
from sklearn.manifold import TSNE

from raremix.core.errors import DataError

LEAST = 5


def embed_in_plane(vectors: Float[np.ndarray, "n d"], *, seed: int = 0) -> Float[np.ndarray, "n 2"]:
    """Return places in the plane in which near vectors stay near: t-SNE [1], each axis from 0 to 1.

    Distances between groups and their sizes mean nothing there; what mixes and what keeps apart does.

    [1] van der Maaten & Hinton 2008, https://www.jmlr.org/papers/v9/vandermaaten08a.html, as scikit-learn has it, from
    the principal components.

    Args:
        vectors: at least 5.
        seed: of the few draws that it makes.

    Raises:
        DataError: for fewer vectors, or numbers that are not finite.

    Example:
        >>> rows = np.concatenate([np.zeros((5, 4)), np.ones((5, 4))]) + np.eye(10, 4) / 100
        >>> places = embed_in_plane(rows)
        >>> bool(np.linalg.norm(places[0] - places[1]) < np.linalg.norm(places[0] - places[9]))
        True
    """
    if len(vectors) < LEAST or not np.isfinite(vectors).all():
        raise DataError(f"{len(vectors)} vectors to put into the plane: expected at least {LEAST}, all finite")
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    made = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(vectors)
    low, high = made.min(axis=0), made.max(axis=0)
    return (made - low) / np.maximum(high - low, 1e-9)
