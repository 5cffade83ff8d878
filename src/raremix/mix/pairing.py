"""Who is mixed with whom: functions from two numbers of rows to one partner per row."""

import numpy as np
from jaxtyping import Int

from raremix.core.errors import ConfigError


def any_partner(rows: int, pool_rows: int, *, rng: np.random.Generator) -> Int[np.ndarray, " rows"]:
    """Draw a partner for every row, of any class, using the rows of the pool equally often.

    Where the pool has as many rows as the batch this is a random permutation, in which a row may meet itself. A larger
    pool gives a random choice without repetition; a smaller one is gone through again, in a new order, as often as
    needed.

    Args:
        rows: number of rows that need a partner.
        pool_rows: number of rows to choose from, at least 1.
        rng: the stream to draw from.

    Returns:
        Rows of the pool.

    Raises:
        ConfigError: if the pool is empty.

    Example:
        >>> sorted(any_partner(3, 3, rng=np.random.default_rng(0)).tolist())
        [0, 1, 2]
    """
    if pool_rows < 1:
        raise ConfigError(f"a pool to mix with needs at least 1 row, got {pool_rows}: pass a batch that is not empty")
    if rows <= pool_rows:
        return rng.permutation(pool_rows)[:rows]
    return np.concatenate([rng.permutation(pool_rows) for _ in range(-(-rows // pool_rows))])[:rows]
