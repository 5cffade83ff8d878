"""Scores of maps against masks: counted by hand, at the edges, and against the definitions."""

import numpy as np
import pytest

from raremix.core.errors import DataError
from raremix.core.random import rng
from raremix.evaluate.localisation import FIGURES, Localisation, beats, localise, mean_by_patient

MASK = np.array([[True, True, False], [False, False, False]])


def score(*rows: list[float]) -> Localisation:
    found = localise(np.array(rows, dtype=np.float64), MASK)
    assert found is not None
    return found


def test_by_hand() -> None:
    found = score([4.0, 1.0, 2.0], [0.0, 1.0, 0.0])
    assert found.area == pytest.approx(2 / 6)
    assert found.pointing == 1
    assert found.energy == pytest.approx(5 / 8)
    # t = 4: 1/2; t = 2: 1/3; t = 1: 2/4; t = 0: 2/6.
    assert found.iou_best == pytest.approx(1 / 2)
    assert found.iou_half == pytest.approx(1 / 3)  # 4 and 2 are shown
    # Pairs of inside (4, 1) with outside (2, 0, 1, 0): 4 + (0 + 1 + .5 + 1) of 8.
    assert found.auroc == pytest.approx(6.5 / 8)
    assert not found.is_flat


def test_best_threshold_takes_equal_pixels_together() -> None:
    # Three equal pixels, two of them inside: 2/3, and never the two alone.
    assert score([1.0, 1.0, 1.0], [0.0, 0.0, 0.0]).iou_best == pytest.approx(2 / 3)


def test_equal_peaks_share_the_point() -> None:
    assert score([3.0, 0.0, 3.0], [3.0, 3.0, 0.0]).pointing == pytest.approx(1 / 4)


def test_the_mask_itself_is_perfect_and_its_complement_is_not() -> None:
    perfect = localise(MASK.astype(np.float32), MASK)
    assert perfect is not None
    assert [getattr(perfect, name) for name in FIGURES] == [1, 1, 1, 1, 1]
    worst = localise((~MASK).astype(np.float64), MASK)
    assert worst is not None
    assert (worst.pointing, worst.energy, worst.iou_half, worst.auroc) == (0, 0, 0, 0)
    assert worst.iou_best == pytest.approx(2 / 6)  # all pixels shown


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_flat_map_scores_the_share_of_the_mask(value: float) -> None:
    found = score([value] * 3, [value] * 3)
    assert found.is_flat
    assert found.auroc == pytest.approx(0.5)
    assert [getattr(found, name) for name in FIGURES[:4]] == pytest.approx([1 / 3] * 4)


def test_nothing_to_find_has_no_score() -> None:
    importance = np.ones((2, 3))
    assert localise(importance, np.zeros((2, 3), dtype=bool)) is None
    assert localise(importance, np.ones((2, 3), dtype=bool)) is None


def test_scaling_changes_nothing_and_powers_keep_the_ranks() -> None:
    stream = rng(0, "show")
    importance, mask = stream.random((7, 9)), stream.random((7, 9)) < 0.3
    one, scaled, sharp = (localise(m, mask) for m in (importance, importance * 8, importance**3))
    assert one is not None
    assert one == scaled
    assert sharp is not None
    assert (one.pointing, one.iou_best, one.auroc) == (sharp.pointing, sharp.iou_best, sharp.auroc)


def test_against_the_definitions() -> None:
    stream = rng(1, "show")
    for _ in range(20):
        importance, mask = stream.integers(0, 6, (5, 6)).astype(float), stream.random((5, 6)) < 0.4
        found = localise(importance, mask)
        assert found is not None
        overlaps = [((importance >= t) & mask).sum() / ((importance >= t) | mask).sum() for t in np.unique(importance)]
        assert found.iou_best == pytest.approx(max(overlaps))
        first, second = importance[mask][:, None], importance[~mask][None]
        assert found.auroc == pytest.approx(((first > second) + 0.5 * (first == second)).mean())


def test_refuses_what_is_no_map() -> None:
    with pytest.raises(DataError, match="resize the map"):
        localise(np.ones((2, 2)), MASK)
    with pytest.raises(DataError, match="not negative"):
        score([-1.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    with pytest.raises(DataError, match="finite"):
        score([float("nan"), 0.0, 0.0], [0.0, 0.0, 0.0])


def test_intervals_move_patients_whole() -> None:
    values, groups = np.repeat([0.0, 1.0], 50), np.repeat(["a", "b"], 50)
    together = mean_by_patient(values, groups)
    assert together.interval is not None
    assert (together.value, together.interval.low, together.interval.high) == (0.5, 0.0, 1.0)
    apart = mean_by_patient(values, np.arange(100))
    assert apart.interval is not None
    # Of 100 independent coins: .5 +- 1.96 * .05.
    assert apart.interval.low == pytest.approx(0.402, abs=0.015)
    assert apart.interval.high == pytest.approx(0.598, abs=0.015)
    assert (apart.images, apart.groups) == (100, 100)


def test_missing_values_and_single_patients() -> None:
    found = mean_by_patient(np.array([0.5, np.nan, 1.0]), np.array(["a", "b", "a"]))
    assert (found.value, found.interval, found.images, found.groups) == (0.75, None, 2, 1)
    nothing = mean_by_patient(np.array([np.nan]), np.array(["a"]))
    assert np.isnan(nothing.value)
    assert nothing.images == 0
    with pytest.raises(DataError, match="one group for each"):
        mean_by_patient(np.zeros(3), np.array(["a"]))


def test_gains_are_paired_and_know_which_way_is_better() -> None:
    stream = rng(2, "show")
    base, groups = stream.random(60), np.arange(60)
    gains = beats(base + 0.01, {"base": base, "high": np.ones(60)}, groups)
    # Unpaired, .01 would drown in a standard error of .04.
    assert gains["base"].interval is not None
    assert gains["base"].interval.low == pytest.approx(0.01)
    assert gains["high"].value < 0
    lower = beats(base - 0.01, {"base": base}, groups, is_lower_better=True)
    assert lower["base"].value == pytest.approx(0.01)
