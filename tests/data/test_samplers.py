import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.data.samplers import CYCLE, SAMPLERS, Balanced, Effective, Natural, Sqrt


def one_hot(*counts: int) -> np.ndarray:
    return np.repeat(np.eye(len(counts)), counts, axis=0)


def test_natural_is_one_permutation_per_epoch() -> None:
    sampler = Natural(targets=one_hot(3, 4), seed=5)
    rows = sampler.row(np.arange(21))
    for epoch in range(3):
        expected = rng(5, "shuffle", epoch).permutation(7)
        np.testing.assert_array_equal(rows[7 * epoch : 7 * epoch + 7], expected)
    assert sampler.epoch == 7


@pytest.mark.parametrize("name", SAMPLERS)
def test_any_slicing_gives_the_same_rows(name: str) -> None:
    targets = one_hot(40, 9, 2, 1)
    positions = np.arange(CYCLE - 300, CYCLE + 300)
    whole = SAMPLERS[name](targets=targets, seed=3).row(positions)
    for ranks in (2, 3):
        for rank in range(ranks):
            part = SAMPLERS[name](targets=targets, seed=3).row(positions[rank::ranks])
            np.testing.assert_array_equal(part, whole[rank::ranks])
    one = SAMPLERS[name](targets=targets, seed=3)
    shuffled = np.random.default_rng(0).permutation(len(positions))
    got = np.concatenate([one.row(positions[shuffled[i : i + 7]]) for i in range(0, len(shuffled), 7)])
    np.testing.assert_array_equal(got, whole[shuffled])
    assert not np.array_equal(SAMPLERS[name](targets=targets, seed=4).row(positions), whole)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_stretch_gives_what_its_positions_give_one_by_one(name: str) -> None:
    targets = np.zeros((900, 3))
    targets[:700, 0] = targets[650:880, 1] = 1
    sampler = SAMPLERS[name](targets=targets, seed=5)
    whole = sampler.row(np.arange(3 * CYCLE + 77))
    order = np.random.default_rng(0).permutation(len(whole))
    assert (sampler.row(order) == whole[order]).all()
    assert (sampler.row(np.arange(CYCLE - 3, CYCLE + 4)) == whole[CYCLE - 3 : CYCLE + 4]).all()


def test_a_resumed_run_goes_on_where_it_was() -> None:
    targets = one_hot(30, 5)
    whole = Balanced(targets=targets, seed=0).row(np.arange(1000))
    for step in (0, 1, 34, 35, 36, 70, 999):
        np.testing.assert_array_equal(Balanced(targets=targets, seed=0).row(np.arange(step, 1000)), whole[step:])


def test_probabilities_by_hand() -> None:
    targets = one_hot(16, 4, 1)
    assert Balanced(targets=targets, seed=0).probabilities.tolist() == pytest.approx([1 / 3] * 3)
    assert Sqrt(targets=targets, seed=0).probabilities.tolist() == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    # E = (1 - 0.5^n) / 0.5 is 2 - 2^-15, 1.875 and 1; a class weighs n / E.
    weights = np.array([16 / (2 - 2.0**-15), 4 / 1.875, 1.0])
    assert Effective(targets=targets, seed=0, beta=0.5).probabilities == pytest.approx(weights / weights.sum())
    assert Effective(targets=targets, seed=0, beta=0.0).probabilities == pytest.approx([16 / 21, 4 / 21, 1 / 21])
    assert Effective(targets=targets, seed=0, beta=0.999999).probabilities == pytest.approx([1 / 3] * 3, rel=1e-3)


@pytest.mark.parametrize("name", ["balanced", "sqrt", "effective"])
def test_classes_come_with_their_probabilities(name: str) -> None:
    targets = one_hot(50, 10, 3)
    sampler = SAMPLERS[name](targets=targets, seed=1)
    rows = sampler.row(np.arange(4 * (CYCLE + 2)))
    share = np.bincount(targets[rows].argmax(1)) / len(rows)
    np.testing.assert_allclose(share, sampler.probabilities, atol=2e-4)
    # Early positions follow the same probabilities: 3,000 draws of the first cycle.
    early = np.bincount(targets[rows[:3000]].argmax(1), minlength=3)
    assert chisquare(early, sampler.probabilities * 3000).pvalue > 1e-3


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 60), min_size=2, max_size=5),
    name=st.sampled_from(["balanced", "sqrt", "effective"]),
    stop=st.integers(1, 3000),
    seed=st.integers(0, 100),
)
def test_rows_of_a_class_come_equally_often(counts: list[int], name: str, stop: int, seed: int) -> None:
    targets = one_hot(*counts)
    visits = np.bincount(SAMPLERS[name](targets=targets, seed=seed).row(np.arange(stop)), minlength=len(targets))
    for k in range(len(counts)):
        own = visits[targets[:, k] == 1]
        assert own.max() - own.min() <= 1


def test_coverage_across_cycles_and_blocks() -> None:
    targets = one_hot(5000, 7)
    visits = np.bincount(Balanced(targets=targets, seed=0).row(np.arange(3 * CYCLE + 17)), minlength=5007)
    assert np.ptp(visits[:5000]) <= 1
    assert np.ptp(visits[5000:]) <= 1
    assert abs(int(visits[:5000].sum()) - int(visits[5000:].sum())) < 500


def test_orders_within_small_classes_are_uniform() -> None:
    # A pass over three rows has six orders; all come equally often.
    targets = one_hot(3)
    rows = Balanced(targets=np.column_stack([targets, np.zeros(3)]), seed=2).row(np.arange(18_000)).reshape(-1, 3)
    seen = Counter(map(tuple, rows.tolist()))
    assert len(seen) == 6
    assert chisquare(list(seen.values())).pvalue > 1e-3


def test_rows_without_a_label_are_a_class_of_their_own() -> None:
    targets = np.array([[1.0, 1], [1, 0], [0, 0], [np.nan, 0], [0, 0], [np.nan, np.nan]])
    sampler = Balanced(targets=targets, seed=0)
    assert sampler.probabilities.tolist() == pytest.approx([1 / 3] * 3)
    visits = np.bincount(sampler.row(np.arange(CYCLE + 2)), minlength=6)
    third = (CYCLE + 2) / 3
    # Row 0 is visited for both labels, row 1 for one, and the four others share the visits of "no finding".
    np.testing.assert_allclose(visits, [third * 1.5, third / 2, *[third / 4] * 4], atol=1)


def test_an_empty_class_gets_nothing() -> None:
    targets = np.column_stack([one_hot(4, 2), np.zeros(6)])
    for name in ("balanced", "sqrt", "effective"):
        sampler = SAMPLERS[name](targets=targets, seed=0)
        assert sampler.probabilities[2] == 0
        assert set(sampler.row(np.arange(200)).tolist()) == set(range(6))


def test_a_very_rare_class_is_not_rounded_away() -> None:
    targets = one_hot(1_000_000, 1)
    sampler = Effective(targets=targets, seed=0, beta=0.0)
    rows = sampler.row(np.arange(CYCLE + 1))
    assert (rows == 1_000_000).sum() == 1


def test_ten_million_rows_in_time() -> None:
    targets = np.zeros((10_000_000, 2), dtype=np.float32)
    targets[:, 0] = 1
    targets[::1000] = [0, 1]
    start = time.perf_counter()
    for name in SAMPLERS:
        rows = SAMPLERS[name](targets=targets, seed=0).row(np.arange(5_000_000, 5_000_128))
        assert rows.max() < 10_000_000
    assert time.perf_counter() - start < 60


def test_refusals() -> None:
    for name in SAMPLERS:
        with pytest.raises(ConfigError, match="at least one row"):
            SAMPLERS[name](targets=np.zeros((0, 2)), seed=0)
    with pytest.raises(ConfigError, match=r"beta must lie in \[0, 1\), got 1.0"):
        Effective(targets=one_hot(1, 1), seed=0, beta=1.0)
