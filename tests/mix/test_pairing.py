"""Pairing: every row of the pool is used equally often."""

import numpy as np
import pytest

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.mix.pairing import any_partner


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_a_batch_with_itself_is_a_permutation(rows: int) -> None:
    assert sorted(any_partner(rows, rows, rng=rng(0, "mix"))) == list(range(rows))


def test_a_larger_pool_is_drawn_from_without_repetition() -> None:
    partner = any_partner(5, 100, rng=rng(0, "mix"))
    assert len(set(partner.tolist())) == 5
    assert partner.max() > 5


@pytest.mark.parametrize(("rows", "pool_rows"), [(7, 3), (6, 3), (5, 1)])
def test_a_smaller_pool_is_gone_through_again(rows: int, pool_rows: int) -> None:
    counts = np.bincount(any_partner(rows, pool_rows, rng=rng(0, "mix")), minlength=pool_rows)
    assert counts.sum() == rows
    assert counts.max() - counts.min() <= 1


def test_partners_are_uniform() -> None:
    stream = rng(0, "mix")
    firsts = np.bincount([any_partner(4, 4, rng=stream)[0] for _ in range(2000)], minlength=4)
    assert abs(firsts - 500).max() < 5 * (2000 * 0.25 * 0.75) ** 0.5


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1 row"):
        any_partner(2, 0, rng=rng(0, "mix"))
