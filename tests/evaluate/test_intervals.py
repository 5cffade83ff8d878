"""Closed forms against published numbers (oracles) and against simulation (coverage)."""

from fractions import Fraction

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from sklearn.metrics import roc_auc_score

from raremix.core.errors import DataError
from raremix.evaluate import DeLong, auroc_interval, clopper_pearson, delong, newcombe5, wilson
from raremix.evaluate.intervals import (
    effective_wilson,
    hanley_mcneil_variance,
    logit_interval,
    square_and_add,
)

CLOSE = 1e-9
# the published Newcombe figures were made with a rounded normal quantile
ROUNDED_Z = float(2 * ndtr(1.959964) - 1)


def ratings(negative: list[int], positive: list[int]) -> tuple[np.ndarray, np.ndarray]:
    levels = np.arange(1.0, len(negative) + 1)
    scores = np.concatenate([np.repeat(levels, negative), np.repeat(levels, positive)])
    targets = np.concatenate([np.zeros(sum(negative)), np.ones(sum(positive))])
    return targets, scores[None]


class TestDeLong:
    def test_aneurysm_grades(self) -> None:
        """Aneurysmal subarachnoid haemorrhage, WFNS grade by outcome, 113 patients."""
        found = delong(*ratings([37, 20, 3, 8, 4], [2, 12, 1, 8, 18]))
        assert found.areas[0] == pytest.approx(0.823678861788618, rel=CLOSE)
        assert found.covariance[0, 0] == pytest.approx(0.00146991470882363, rel=CLOSE)
        half = 1.959963984540054 * np.sqrt(found.covariance[0, 0])
        assert found.areas[0] - half == pytest.approx(0.748534887819453, rel=CLOSE)
        assert found.areas[0] + half == pytest.approx(0.898822835757783, rel=CLOSE)

    @pytest.mark.parametrize(
        ("first", "second", "z", "p", "low", "high"),
        [
            (0, 2, 2.20898359144091, 0.0271757822291882, 0.0104061769564846, 0.174214419249478),
            (0, 1, 2.79777591868904, 0.00514557970691098, 0.0634011709339876, 0.3600405634833566),
            (1, 2, -1.39077002573558, 0.164295175223054, None, None),
        ],
    )
    def test_paired_differences_of_the_same_study(self, first, second, z, p, low, high) -> None:
        variances = [0.00146991470882363, 0.0031908105493913, 0.00266868245717244]
        covariance = np.diag(variances)
        for i, j, value in [
            (0, 1, -0.000532967856762438),
            (1, 2, -0.000756164938056579),
            (0, 2, 0.00119615567376754),
        ]:
            covariance[i, j] = covariance[j, i] = value
        study = DeLong(areas=np.array([0.823678861788618, 0.61195799457995, 0.731368563685637]), covariance=covariance)
        step, error, found = study.difference(first, second)
        assert step / error == pytest.approx(z, rel=CLOSE)
        assert found == pytest.approx(p, rel=CLOSE)
        if low is not None:
            half = 1.959963984540054 * error
            assert (step - half, step + half) == pytest.approx((low, high), rel=CLOSE)

    def test_ovarian_cancer_contrasts(self) -> None:
        """DeLong's own example as SAS prints it: albumin and total protein against Krebs-Goplerud."""
        for area, error, p in [(0.010752688, 0.095343618, 0.910206347), (-0.077956989, 0.104609589, 0.456139708)]:
            study = DeLong(areas=np.array([0.7 + area, 0.7]), covariance=np.diag([error**2, 0.0]))
            assert study.difference()[2] == pytest.approx(p, rel=1e-6)

    def test_hanley_mcneil_ratings(self) -> None:
        found = delong(*ratings([33, 6, 6, 11, 2], [3, 2, 2, 11, 33]))
        assert found.areas[0] == pytest.approx(0.893171061528060, rel=CLOSE)
        assert np.sqrt(found.covariance[0, 0]) == pytest.approx(0.0307244083793811, rel=CLOSE)
        assert np.sqrt(hanley_mcneil_variance(float(found.areas[0]), 51, 58)) == pytest.approx(
            0.0324865796073421, rel=CLOSE
        )

    @pytest.mark.parametrize(
        ("size", "variance"), [(1, 0.008979591836734696), (2, 0.012763681799250314), (3, 0.012556545883659587)]
    )
    def test_clustered_rows(self, size: int, variance: float) -> None:
        targets = np.array([1.0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1])
        scores = np.array([[0.9, 0.8, 0.3, 0.35, 0.4, 0.5, 0.2, 0.7, 0.1, 0.6, 0.45, 0.65]])
        found = delong(targets, scores, groups=np.arange(12) // size)
        assert found.areas[0] == pytest.approx(0.914285714285714, rel=CLOSE)
        assert found.covariance[0, 0] == pytest.approx(variance, rel=CLOSE)

    def test_a_cluster_of_one_is_delong(self, random_curves) -> None:
        targets, scores = random_curves
        plain, clustered = delong(targets, scores), delong(targets, scores, groups=np.arange(len(targets)))
        np.testing.assert_allclose(clustered.covariance, plain.covariance, rtol=1e-12)

    def test_covariance_is_that_of_the_definition(self, random_curves) -> None:
        targets, scores = random_curves
        up, down = scores[:, targets == 1], scores[:, targets == 0]
        wins = (up[:, :, None] > down[:, None, :]) + 0.5 * (up[:, :, None] == down[:, None, :])
        expected = np.cov(wins.mean(axis=2)) / up.shape[1] + np.cov(wins.mean(axis=1)) / down.shape[1]
        np.testing.assert_allclose(delong(targets, scores).covariance, expected, rtol=1e-12)

    def test_identical_curves_do_not_differ(self, random_curves) -> None:
        targets, scores = random_curves
        assert delong(targets, scores[[0, 0]]).difference() == (0.0, 0.0, 1.0)

    def test_near_ties_are_no_ties(self) -> None:
        """Eighteen scores one unit in the last place apart: the area is a fraction of 77 pairs, to the last bit."""
        steps = np.random.default_rng(7).permutation(18)
        scores = 0.65
        values = np.empty(18)
        for at in steps:
            values[at] = scores
            scores = np.nextafter(scores, 1.0)
        targets = np.zeros(18)
        targets[[1, 4, 5, 8, 11, 13, 17]] = 1
        wins = sum(u > d for u in values[targets == 1] for d in values[targets == 0])
        assert delong(targets, values[None]).areas[0] == float(Fraction(int(wins), 77))

    def test_says_what_is_missing(self) -> None:
        with pytest.raises(DataError, match="positives and negatives"):
            delong(np.ones(3), np.ones((1, 3)))

    def test_skips_unlabelled_rows(self) -> None:
        found = delong(np.array([0, np.nan, 1.0]), np.array([[0.1, 0.9, 0.2]]))
        assert found.areas[0] == 1.0


@pytest.fixture
def random_curves() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    targets = (rng.random(80) < 0.3).astype(float)
    return targets, np.round(rng.normal(size=(3, 80)) + targets, 1)


class TestProportions:
    @pytest.mark.parametrize(
        ("hits", "n", "low", "high"),
        [
            (10, 10, 0.7224672001, 1),
            (0, 10, 0, 0.2775327999),
            (8, 10, 0.4901624715, 0.9433178485),
            (81, 263, 0.2552885, 0.3662096),
            (15, 148, 0.0623864, 0.1604872),
        ],
    )
    def test_wilson(self, hits, n, low, high) -> None:
        found = wilson(hits, n)
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-7 if n > 100 else 1e-10)

    def test_clopper_pearson(self) -> None:
        assert clopper_pearson(10, 10).low == pytest.approx(0.6915028921, rel=CLOSE)
        none = clopper_pearson(0, 10)
        assert (none.low, none.high) == pytest.approx((0, 1 - 0.6915028921), rel=CLOSE)

    def test_no_trials_no_interval(self) -> None:
        with pytest.raises(DataError):
            wilson(0, 0)
        with pytest.raises(DataError):
            clopper_pearson(0, 0)

    def test_effective_size(self) -> None:
        """Fully dependent images of a patient count once; independent ones count each, less the t quantile's price."""
        share, groups = 0.8, 50
        alike = effective_wilson(share, share * (1 - share) / groups, groups=groups, rows=groups * 4)
        apart = effective_wilson(share, share * (1 - share) / (groups * 4), groups=groups, rows=groups * 4)
        assert alike.low < wilson(40, 50).low < apart.low < wilson(160, 200).low
        assert effective_wilson(share, 1e-9, groups=groups, rows=200) == wilson(160, 200)

    def test_square_and_add_of_one_is_itself(self) -> None:
        own = wilson(8, 10)
        found = square_and_add(np.array([0.8]), [own], scale=1.0)
        assert (found.low, found.high) == pytest.approx((own.low, own.high), rel=1e-12)


class TestArea:
    @pytest.mark.parametrize(
        ("area", "m", "n", "low", "high"),
        [
            (0.9, 10, 40, 0.7230861734, 0.9657211810),
            (1.0, 5, 50, 0.7900518232, 1),
            (1.0, 10, 200, 0.8968219381, 1),
        ],
    )
    def test_newcombe_method_5(self, area, m, n, low, high) -> None:
        found = newcombe5(area, m, n, confidence=ROUNDED_Z)
        assert (found.low, found.high) == pytest.approx((low, high), rel=CLOSE)

    def test_newcombe_is_mirrored(self) -> None:
        found, mirrored = newcombe5(0.2, 12, 30), newcombe5(0.8, 12, 30)
        assert (found.low, found.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low), rel=1e-12)

    def test_no_curve_no_interval(self) -> None:
        with pytest.raises(DataError):
            newcombe5(0.5, 0, 10)

    def test_logit_interval_needs_room(self) -> None:
        assert logit_interval(1.0, 0.1) is None
        assert logit_interval(0.5, 0.0) is None

    @pytest.mark.parametrize(
        ("m", "n", "area", "least"),
        [
            (10, 100, 0.80, 0.88),
            (10, 100, 0.95, 0.88),
            (20, 200, 0.80, 0.91),
            (20, 200, 0.95, 0.91),
            (40, 200, 0.90, 0.925),
            (50, 200, 0.95, 0.925),
        ],
    )
    def test_coverage(self, m: int, n: int, area: float, least: float) -> None:
        """T3: 1,000 draws each of two normal scores with a known area."""
        rng = np.random.default_rng((m, n, int(area * 100)))
        shift = np.sqrt(2) * _quantile(area)
        targets = np.concatenate([np.ones(m), np.zeros(n)])
        found = delong(targets, rng.standard_normal((1000, m + n)) + shift * targets)
        inside = 0
        for estimate, variance in zip(found.areas.tolist(), found.covariance.diagonal().tolist(), strict=True):
            interval = auroc_interval(estimate, variance, positives=m, negatives=n)
            inside += interval.low <= area <= interval.high
        assert inside / 1000 >= least

    def test_coverage_of_clustered_rows(self) -> None:
        """Four images per patient that share most of their score; counting images would cover 80 %."""
        rng = np.random.default_rng(11)
        ill = np.repeat(np.arange(120) < 20, 4)
        groups = np.repeat(np.arange(120), 4)
        shift = np.sqrt(2 * (1.0 + 0.3**2)) * _quantile(0.85)
        shared, own = rng.standard_normal((400, 120))[:, groups], rng.standard_normal((400, 480))
        scores = shared + 0.3 * own + shift * ill
        plain = clustered = 0
        found, naive = delong(ill.astype(float), scores, groups=groups), delong(ill.astype(float), scores)
        for draw, area in enumerate(found.areas.tolist()):
            interval = auroc_interval(area, float(found.covariance[draw, draw]), positives=20, negatives=100)
            clustered += interval.low <= 0.85 <= interval.high
            interval = auroc_interval(area, float(naive.covariance[draw, draw]), positives=80, negatives=400)
            plain += interval.low <= 0.85 <= interval.high
        assert clustered / 400 >= 0.92
        assert plain / 400 <= 0.85


def _quantile(area: float) -> float:
    return float(ndtri(area))


def test_area_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(5)
    targets = (rng.random(300) < 0.1).astype(float)
    scores = np.round(rng.random((4, 300)), 2)
    expected = [roc_auc_score(targets, row) for row in scores]
    np.testing.assert_allclose(delong(targets, scores).areas, expected, rtol=1e-12)
