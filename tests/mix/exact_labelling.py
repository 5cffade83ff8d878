"""The optimal labelling of a grid, by one minimum cut (Ishikawa, TPAMI 2003): exact for squared distances of labels."""

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

SCALE = 1e7
"""Costs are rounded to integers at this scale, which the flow needs; they are of the order of 1e-3 to 1."""


def optimum(unary: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Label one grid at the least cost, with (a - b)^2 / (L - 1)^2 as the distance of labels a and b.

    Label k of a cell is written as L - 1 bits, of which the first k are on. Twice the product of two labels is the sum
    and the difference of counts of bits, so that (a - b)^2 = a (K - b) + (K - a) b + a^2 - K a + b^2 - K b with K =
    L - 1: pairs of bits that differ, and a rest that belongs to the cells.

    Args:
        unary: (L, n, m).
        down: (n - 1, m), weights of pairs of a cell and the one below.
        right: (n, m - 1), likewise to the right.
    """
    L, n, m = unary.shape
    K = L - 1
    weight = np.zeros((n, m))
    for edge, first, second in ((down, np.s_[:-1], np.s_[1:]), (right, np.s_[:, :-1], np.s_[:, 1:])):
        weight[first] += edge
        weight[second] += edge
    a = np.arange(L)[:, None, None]
    costs = unary + weight * (a * a - K * a) / K**2
    costs = costs - costs.min(axis=0)
    bits, source, sink = np.arange(K * n * m).reshape(K, n, m), K * n * m, K * n * m + 1
    edges: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def join(start: np.ndarray | int, stop: np.ndarray | int, capacity: np.ndarray | float) -> None:
        one, other, much = np.broadcast_arrays(start, stop, capacity)
        edges.append((one.ravel(), other.ravel(), much.ravel()))

    for k in range(L):
        join(bits[k - 1] if k else source, bits[k] if k < K else sink, costs[k])
    for k in range(1, K):
        join(bits[k], bits[k - 1], 100.0)  # a bit is on only if the one before is
    for i in range(K):
        for j in range(K):
            for edge, one, other in ((down, bits[i, :-1], bits[j, 1:]), (right, bits[i, :, :-1], bits[j, :, 1:])):
                join(one, other, edge / K**2)
                join(other, one, edge / K**2)
    starts, stops, capacities = (np.concatenate(part) for part in zip(*edges, strict=True))
    whole = np.rint(capacities * SCALE).astype(np.int32)
    graph = csr_array((whole, (starts, stops)), shape=(sink + 1, sink + 1))
    left = graph - maximum_flow(graph, source, sink).flow
    left.eliminate_zeros()
    is_on = np.zeros(sink + 1, dtype=bool)
    is_on[breadth_first_order(left, source, return_predecessors=False)] = True
    return is_on[: K * n * m].reshape(K, n, m).sum(axis=0)
