"""Distances between sets, against values that can be computed by hand and against the other packages' formulas."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from raremix.core.errors import DataError
from raremix.evaluate.generative import frechet_distance, kernel_distance


def sets(n: int = 60, m: int = 45, d: int = 12) -> tuple[np.ndarray, np.ndarray]:
    stream = np.random.default_rng(0)
    return stream.normal(size=(n, d)), stream.normal(size=(m, d)) * 1.1 + 0.3


def test_values_of_torch_fidelity() -> None:
    """Computed with torch-fidelity 0.4.0 on the same rows; its kernel distance on the first 45 of either."""
    real, made = sets()
    assert frechet_distance(real, made) == pytest.approx(3.1667732819927465, rel=1e-10)
    third = np.random.default_rng(0)
    third.normal(size=(60, 12))
    third.normal(size=(45, 12))
    assert kernel_distance(third.normal(size=(45, 12)), made) == pytest.approx(0.4461811842549541, rel=1e-10)


@pytest.mark.parametrize(("n", "m", "d"), [(40, 30, 8), (10, 12, 25), (50, 9, 16)])
def test_the_trace_by_the_root_of_a_matrix(n: int, m: int, d: int) -> None:
    real, made = sets(n, m, d)
    one, other = np.cov(real, rowvar=False), np.cov(made, rowvar=False)
    shift = real.mean(axis=0) - made.mean(axis=0)
    root = sqrtm(one @ other)
    expected = shift @ shift + np.trace(one) + np.trace(other) - 2 * np.trace(root).real
    # The root of a product without full rank is known to half the digits only.
    assert frechet_distance(real, made) == pytest.approx(expected, rel=1e-3)


def test_equal_sets_are_at_zero_and_order_does_not_matter() -> None:
    real, made = sets()
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(real, made) == pytest.approx(frechet_distance(made[::-1], real))
    assert kernel_distance(real, made) == pytest.approx(kernel_distance(made, real[::-1]))


def test_the_kernel_distance_is_unbiased_and_the_other_is_not() -> None:
    stream = np.random.default_rng(1)
    draws = [(stream.normal(size=(20, 4)), stream.normal(size=(20, 4))) for _ in range(400)]
    kernels = np.array([kernel_distance(*pair) for pair in draws])
    assert abs(kernels.mean()) < 3 * kernels.std() / 20
    assert np.mean([frechet_distance(*pair) for pair in draws]) > 0.3


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_what_cannot_be_compared_is_refused(distance) -> None:
    real, made = sets()
    with pytest.raises(DataError, match="1 real images"):
        distance(real[:1], made)
    with pytest.raises(DataError, match="not finite"):
        distance(real, np.where(made > 2, np.nan, made))
    with pytest.raises(DataError, match="from one encoder"):
        distance(real, made[:, :5])
