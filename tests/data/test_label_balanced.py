"""Labels come up alike, combinations stay what they are, and every slicing of the positions gives the same rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raremix.core.errors import ConfigError
from raremix.data import label_balanced
from raremix.data.coverage import coverage
from raremix.data.label_balanced import LabelBalanced, patterns_of, tilt
from raremix.data.samplers import Balanced, Natural


def correlated(n: int = 4000, seed: int = 0) -> np.ndarray:
    """Three labels: the rare second comes mostly with the first, the third by itself."""
    rng = np.random.default_rng(seed)
    first = rng.random(n) < 0.2
    second = rng.random(n) < np.where(first, 0.1, 0.01)
    third = rng.random(n) < 0.04
    return np.stack([first, second, third], axis=1).astype(float)


def odds_ratio(targets: np.ndarray, weights: np.ndarray) -> float:
    a, b = targets[:, 0] == 1, targets[:, 1] == 1
    cells = [weights[(a == x) & (b == y)].sum() for x in (True, False) for y in (True, False)]
    return cells[0] * cells[3] / (cells[1] * cells[2])


def test_by_hand() -> None:
    """One of four rows has the label and is to be half of the draws: 2 times, and 2 / 3 each of the others."""
    assert tilt(np.eye(4, 1) > 0, np.array([0.5])) == pytest.approx([2, 2 / 3, 2 / 3, 2 / 3], rel=1e-3)
    one_hot = np.repeat(np.eye(2), [9, 1], axis=0)
    assert LabelBalanced(targets=one_hot, seed=0).draws == pytest.approx([5 / 9] * 9 + [5.0], rel=2e-3)
    assert LabelBalanced(targets=one_hot, seed=0, strength=0.0).draws == pytest.approx(np.ones(10), abs=1e-6)
    capped = LabelBalanced(targets=one_hot, seed=0, repeats=3.0).draws
    assert capped == pytest.approx([7 / 9] * 9 + [3.0], rel=1e-3)


def test_labels_alike_and_odds_ratios_as_found() -> None:
    targets = correlated(20_000)
    sampler = LabelBalanced(targets=targets, seed=0)
    shares = sampler.draws @ targets / len(targets)
    assert shares == pytest.approx([targets.mean()] * 3, rel=5e-3)
    third = targets[:, 2] == 1
    for part in (third, ~third):  # given the third label, as the principle has it
        natural = odds_ratio(targets[part], np.ones(part.sum()))
        assert odds_ratio(targets[part], sampler.draws[part]) == pytest.approx(natural, rel=1e-6)
    balanced = Balanced(targets=targets, seed=0)
    drawn = np.bincount(balanced.row(np.arange(20 * len(targets))), minlength=len(targets)) / 20
    part = ~third
    before, after = odds_ratio(targets[part], np.ones(part.sum())), odds_ratio(targets[part], drawn[part])
    assert abs(np.log(after / before)) > 0.5, "what class-by-class balancing does to them"


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.integers(1, 5), st.integers(0, 50), st.floats(0, 1))
def test_each_epoch_is_whole_and_rounded(n: int, labels: int, seed: int, strength: float) -> None:
    targets = (np.random.default_rng(seed).random((n, labels)) < 0.3).astype(float)
    sampler = LabelBalanced(targets=targets, seed=seed, strength=strength)
    assert sampler.draws.sum() == pytest.approx(n)
    total = np.zeros(n)
    for epoch in range(6):
        times = np.bincount(sampler.row(np.arange(epoch * n, (epoch + 1) * n)), minlength=n)
        assert times.sum() == n
        assert (np.abs(times - sampler.draws) < 1 + 1e-9).all(), "rounded up or down"
        total += times
    assert (np.abs(total - 6 * sampler.draws) < 4).all(), "and never far behind"


def test_ranks_and_a_resumed_run_see_the_same_rows() -> None:
    targets = correlated(300)
    whole = LabelBalanced(targets=targets, seed=2).row(np.arange(1200))
    for rank in range(3):
        part = LabelBalanced(targets=targets, seed=2).row(np.arange(1200)[rank::3])
        np.testing.assert_array_equal(part, whole[rank::3])
    for step in (0, 1, 299, 300, 301, 877):
        np.testing.assert_array_equal(LabelBalanced(targets=targets, seed=2).row(np.arange(step, 1200)), whole[step:])


def test_coverage_counts_what_is_shown() -> None:
    targets = correlated(1000)
    natural = coverage(Natural(targets=targets, seed=0), targets)
    assert (natural.drawn.tolist(), natural.unseen, natural.most) == (natural.images.tolist(), 0.0, 1)
    assert natural.moved < 1e-3
    even = coverage(LabelBalanced(targets=targets, seed=0), targets, epochs=40)
    assert np.ptp(even.drawn) < 0.05 * even.drawn.mean()
    assert even.moved < 0.02
    assert even.labels_per_image[1] == pytest.approx(even.labels_per_image[0], rel=0.02)
    one_by_one = coverage(Balanced(targets=targets, seed=0), targets, epochs=40)
    assert one_by_one.moved > 3 * even.moved
    assert one_by_one.unseen > even.unseen
    assert one_by_one.labels_per_image[1] > 2 * one_by_one.labels_per_image[0]


def test_combinations_of_more_labels_than_a_number_has_bits() -> None:
    labels = np.random.default_rng(0).random((200, 90)) < 0.5
    labels[100:] = labels[:100]
    patterns, where, counts = patterns_of(labels)
    assert len(patterns) == 100
    assert (counts == 2).all()
    assert (patterns[where] == labels).all()


@pytest.mark.parametrize("block", [7, 64, 300])
def test_how_many_rows_are_worked_on_at_a_time_changes_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = (np.random.default_rng(1).random((300, 20)) < 0.1).astype(float)
    whole = LabelBalanced(targets=targets, seed=2)
    monkeypatch.setattr(label_balanced, "BLOCK", block)
    parts = LabelBalanced(targets=targets, seed=2)
    assert parts.draws.tolist() == whole.draws.tolist()
    assert parts.row(np.arange(900)).tolist() == whole.row(np.arange(900)).tolist()


@pytest.mark.parametrize("block", [1, 1 << 20])
def test_combinations_are_those_of_numpy(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they are counted or sorted, as they are where there are more possible ones than rows."""
    monkeypatch.setattr(label_balanced, "BLOCK", block)
    labels = np.random.default_rng(0).random((500, 19)) < 0.15
    patterns, where, counts = patterns_of(labels)
    expected, places, times = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
    np.testing.assert_array_equal(patterns, expected)
    np.testing.assert_array_equal(where, places)
    np.testing.assert_array_equal(counts, times)


def test_refusals() -> None:
    targets = correlated(20)
    for wrong, words in (({"strength": 1.5}, "strength"), ({"repeats": 0.5}, "repeats")):
        with pytest.raises(ConfigError, match=words):
            LabelBalanced(targets=targets, seed=0, **wrong)  # type: ignore[arg-type]
    assert LabelBalanced(targets=np.zeros((5, 2)), seed=0).draws.tolist() == [1.0] * 5, "nothing to balance"
    assert LabelBalanced(targets=np.full((5, 2), np.nan), seed=0).draws.tolist() == [1.0] * 5
