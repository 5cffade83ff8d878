"""Resampling: who is drawn, and intervals against R's."""

import numpy as np
import pytest

from raremix.core.errors import DataError
from raremix.evaluate.bootstrap import (
    acceleration,
    basic_interval,
    bca_interval,
    blocks,
    bootstrap,
    patients,
    percentile_interval,
)

X = np.array([10, 12, 12.5, 12.5, 13.9, 15, 21, 22, 23, 34, 50, 81, 89, 121, 134, 213])
# Efron & Tibshirani's law schools: admission test and grade point average
LSAT = np.array([576.0, 635, 558, 578, 666, 580, 555, 661, 651, 605, 653, 575, 545, 572, 594])
GPA = np.array([3.39, 3.30, 2.81, 3.03, 3.44, 3.07, 3.00, 3.43, 3.36, 3.13, 3.12, 2.74, 2.76, 2.88, 2.96])


def without_each(statistic, n: int) -> np.ndarray:
    return statistic(1 - np.eye(n))


def mean_of(values: np.ndarray):
    return lambda weights: weights @ values / weights.sum(axis=1)


def correlation(weights: np.ndarray) -> np.ndarray:
    total = weights.sum(axis=1)
    x, y = weights @ LSAT / total, weights @ GPA / total
    cross = weights @ (LSAT * GPA) / total - x * y
    return cross / np.sqrt((weights @ LSAT**2 / total - x**2) * (weights @ GPA**2 / total - y**2))


class TestIntervals:
    def test_mean_against_r(self) -> None:
        drawn = bootstrap(mean_of(X), len(X), resamples=200_000, seed=1)
        estimate = float(X.mean())
        assert basic_interval(estimate, drawn) == pytest.approx((23.77, 79.12), rel=0.005)
        assert percentile_interval(drawn) == pytest.approx((28.86, 84.21), rel=0.005)
        accelerate = acceleration(without_each(mean_of(X), len(X)))
        assert bca_interval(estimate, drawn, accelerate=accelerate) == pytest.approx((32.31, 91.43), rel=0.005)

    def test_mean_of_a_hundred(self) -> None:
        values = np.arange(100.0)
        drawn = bootstrap(mean_of(values), 100, resamples=50_000, seed=2)
        found = bca_interval(49.5, drawn, accelerate=acceleration(without_each(mean_of(values), 100)))
        assert found == pytest.approx((43.96, 55.31), rel=0.01)

    def test_law_schools(self) -> None:
        estimate = float(correlation(np.ones((1, 15)))[0])
        assert estimate == pytest.approx(0.776374491289407, rel=1e-9)
        drawn = bootstrap(correlation, 15, resamples=50_000, seed=3)
        assert 0.13 <= drawn.std() <= 0.14
        assert percentile_interval(drawn) == pytest.approx((0.46, 0.96), abs=0.015)
        found = bca_interval(estimate, drawn, accelerate=acceleration(without_each(correlation, 15)))
        assert found == pytest.approx((0.32, 0.94), abs=0.015)

    def test_acceleration_of_two_samples(self) -> None:
        y = np.array([10.0, 27, 31, 40, 46, 50, 52, 104, 146])
        z = np.array([16.0, 23, 38, 94, 99, 141, 197])
        without_y = z.mean() - without_each(mean_of(y), len(y))
        without_z = without_each(mean_of(z), len(z)) - y.mean()
        assert acceleration(without_y, without_z) == pytest.approx(0.011008228344026734, rel=1e-9)

    def test_percentiles_are_mirrored_exactly(self) -> None:
        drawn = np.random.default_rng(0).normal(size=999)
        low, high = percentile_interval(drawn)
        assert percentile_interval(-drawn) == (-high, -low)


class TestPatients:
    TARGETS = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]], dtype=float)
    GROUPS = np.array(["p2", "p1", "p2", "p2", "p3", "p4"])

    def test_stratum_is_the_rarest_class(self) -> None:
        who = patients(self.GROUPS, self.TARGETS)
        assert who.index.tolist() == [1, 0, 1, 1, 2, 3]
        assert who.positives.tolist() == [2, 2, 1]
        assert who.negatives.tolist() == [3, 2, 4]
        # p2 shows classes 0 and 2, and class 2 is the rarer
        assert sorted(members.tolist() for members in who.strata) == [[0, 3], [1], [2]]

    def test_patients_without_any_positive_are_a_stratum(self) -> None:
        targets = np.array([[1.0, np.nan], [0, 0], [np.nan, np.nan]])
        who = patients(np.arange(3), targets)
        assert sorted(members.tolist() for members in who.strata) == [[0], [1, 2]]
        assert who.affected == 1

    def test_one_group_per_row(self) -> None:
        with pytest.raises(DataError, match="one group for each"):
            patients(np.arange(3), np.zeros((4, 1)))


class TestBlocks:
    def test_every_stratum_keeps_its_size(self) -> None:
        who = patients(np.arange(50), np.eye(5)[np.repeat(np.arange(5), [20, 15, 10, 4, 1])])
        for weights in blocks(who, resamples=250, seed=0):
            for members in who.strata:
                assert (weights[:, members].sum(axis=1) == len(members)).all()

    def test_more_resamples_keep_the_first(self) -> None:
        who = patients(np.arange(30), (np.arange(30) < 7).astype(float)[:, None])
        few = np.concatenate(list(blocks(who, resamples=150, seed=4)))
        many = np.concatenate(list(blocks(who, resamples=400, seed=4)))
        assert few.shape == (150, 30)
        np.testing.assert_array_equal(many[:150], few)

    def test_seeds_and_blocks_differ(self) -> None:
        who = patients(np.arange(30), np.zeros((30, 1)))
        first, second = blocks(who, resamples=200, seed=4)
        other = next(blocks(who, resamples=100, seed=5))
        assert not np.array_equal(first, second)
        assert not np.array_equal(first, other)

    def test_draws_are_uniform(self) -> None:
        who = patients(np.arange(10), np.zeros((10, 1)))
        weights = np.concatenate(list(blocks(who, resamples=5000, seed=0)))
        assert weights.mean(axis=0) == pytest.approx(np.ones(10), abs=0.06)
        # a bootstrap count is binomial (10, 1/10): variance 0.9
        assert weights.var(axis=0) == pytest.approx(np.full(10, 0.9), abs=0.09)
