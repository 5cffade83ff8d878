"""Precision, recall, density and coverage."""

import numpy as np
import pytest

from raremix.core.errors import DataError
from raremix.evaluate.generative import neighbourhoods


def test_values_of_prdc() -> None:
    """Computed with prdc 0.2 on the same rows."""
    stream = np.random.default_rng(0)
    found = neighbourhoods(stream.normal(size=(60, 12)), stream.normal(size=(45, 12)) * 1.1 + 0.3)
    assert found.precision == pytest.approx(0.8444444444444444)
    assert found.recall == pytest.approx(0.95)
    assert found.density == pytest.approx(0.8533333333333333)
    assert found.coverage == pytest.approx(0.8833333333333333)


def test_by_hand() -> None:
    """Real at 0, 1, 2, 10; the nearest of each is at 1, 1, 1, 8. Generated at 0.5, 20, 20.5, 21."""
    real, made = np.array([[0.0], [1], [2], [10]]), np.array([[0.5], [20], [20.5], [21]])
    found = neighbourhoods(real, made, neighbours=1)
    assert found.precision == 0.25  # only 0.5 lies within 1 of 0 or 1; 20 is 10 away from 10
    assert found.density == 0.5  # 0.5 lies in two neighbourhoods
    assert found.coverage == 0.5  # those of 0 and 1
    assert found.recall == 1.0  # 0.5's nearest generated is 19.5 away, which covers all real ones


def test_a_collapsed_generator_is_precise_and_covers_little() -> None:
    stream = np.random.default_rng(2)
    real = stream.normal(size=(200, 8))
    made = real[:1] + 1e-3 * stream.normal(size=(100, 8))
    found = neighbourhoods(real, made)
    assert found.precision == 1.0
    assert found.coverage < 0.1
    assert found.recall < 0.05


def test_too_few_are_refused() -> None:
    with pytest.raises(DataError, match="at least 6"):
        neighbourhoods(np.zeros((5, 2)), np.zeros((9, 2)))
