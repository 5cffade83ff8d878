"""How isolated the rows of a representation are."""

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from raremix.core.random import rng
from raremix.data.neighbours import Neighbours, nearest_outside

SMALL = 0.1
"""Share of all rows up to which a cluster can be off-topic; a larger one is a part of the data."""

SAMPLE = 2048
TINY = 1e-6


def joining_distances(rows: Float[ndarray, "n d"], near: Neighbours) -> Float[ndarray, " n"]:
    """Return the distance at which each row, or the small cluster it is in, joins the rest.

    Single-linkage clustering joins the closest clusters first. The result is the distance of the last joint at which a
    row was on the smaller side, of at most a tenth of all rows. That what joins late and in small clusters is off-topic
    is SelfClean's idea (https://arxiv.org/abs/2305.17048); this way to turn it into a number is ours.

    Args:
        rows: the representation, of length one.
        near: nearest rows of other groups. With all other rows as neighbours the clustering is exact.
    """
    small = max(1, int(SMALL * len(rows)))
    return _last_as_smaller(_joints(rows, near, small=small), n=len(rows), small=small)


def tenth_distances(rows: Float[ndarray, "n d"], *, ids: Int[ndarray, " n"]) -> Float[ndarray, " n"]:
    """Return the distance within which a tenth of all rows lie.

    Args:
        rows: the representation, of length one.
        ids: one per row; the sample that stands for many rows follows them, so that the order of rows does not matter.
    """
    # Of many rows a sample is enough to know how far their tenth is.
    drawn = rng(0, "sample").permutation(len(rows))[:SAMPLE]
    some = rows[np.argsort(ids)[drawn]]
    place = min(len(some) - 1, max(1, round(SMALL * len(some))))
    found = np.empty(len(rows))
    for start in range(0, len(rows), SAMPLE):
        apart = np.maximum(1 - rows[start : start + SAMPLE] @ some.T, 0)
        found[start : start + SAMPLE] = np.partition(apart, place, axis=1)[:, place]
    return found


def _joints(
    rows: Float[ndarray, "n d"], near: Neighbours, *, small: int
) -> tuple[Int[ndarray, " e"], Int[ndarray, " e"], Float[ndarray, " e"]]:
    """Return the edges of a shortest tree over the rows, the shortest first.

    The tree is that of the graph of neighbours; where this falls apart, its small parts are joined to the row that is
    nearest outside of them, as in Boruvka's algorithm, and parts too large to be off-topic are left apart.
    """
    n, k = near.rows.shape
    first, second = np.repeat(np.arange(n), k), near.rows.ravel()
    found = second >= 0
    # A sparse graph does not hold edges of length zero.
    length = near.distances.ravel()[found].astype(np.float64) + TINY
    first, second = first[found], second[found]
    while True:
        graph = _graph(first, second, length, n=n)
        parts, part = connected_components(graph, directed=False)
        sizes = np.bincount(part, minlength=parts)
        asked = np.flatnonzero(_is_small(sizes, small=small)[part])
        if parts == 1 or not len(asked):
            break
        other, apart = nearest_outside(rows, asked, part)
        best = np.lexsort((asked, apart, part[asked]))
        best = best[np.unique(part[asked][best], return_index=True)[1]]
        first, second = np.append(first, asked[best]), np.append(second, other[best])
        length = np.append(length, apart[best].astype(np.float64) + TINY)
    tree = minimum_spanning_tree(graph).tocoo()
    order = np.lexsort((tree.col, tree.row, tree.data))
    return tree.row[order], tree.col[order], tree.data[order] - TINY


def _is_small(sizes: Int[ndarray, " p"], *, small: int) -> Bool[ndarray, " p"]:
    is_small = sizes <= small
    # Something has to be the rest that the others are compared with.
    if is_small.all():
        is_small[np.argmax(sizes)] = False
    return is_small


def _graph(first: Int[ndarray, " e"], second: Int[ndarray, " e"], length: Float[ndarray, " e"], *, n: int) -> csr_array:
    # Entries that are given twice would be added up: only the shortest of each pair is kept.
    low, high = np.minimum(first, second), np.maximum(first, second)
    order = np.lexsort((length, high, low))
    low, high, length = low[order], high[order], length[order]
    keep = np.append(True, (np.diff(low) != 0) | (np.diff(high) != 0)) if len(low) else np.zeros(0, dtype=bool)
    return csr_array((length[keep], (low[keep], high[keep])), shape=(n, n))


def _last_as_smaller(
    joints: tuple[Int[ndarray, " e"], Int[ndarray, " e"], Float[ndarray, " e"]], *, n: int, small: int
) -> Float[ndarray, " n"]:
    """Follow the joints, and return for each row the length of the last one at which it was on the smaller side."""
    scores = np.zeros(n)
    members: dict[int, list[int]] = {row: [row] for row in range(n)}
    head = np.arange(n)
    for first, second, length in zip(*(part.tolist() for part in joints), strict=True):
        one, other = sorted((members[int(head[first])], members[int(head[second])]), key=len)
        if len(one) <= small:
            scores[one] = length
        if len(other) == len(one) <= small:
            scores[other] = length
        del members[int(head[one[0]])]
        head[one] = head[other[0]]
        other.extend(one)
    return scores
