"""Temperature and reliability."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax
from sklearn.calibration import calibration_curve

from raremix.core.errors import DataError
from raremix.evaluate import ValidationRows, fit_temperature, reliability, score, scores_from_logits, wilson
from raremix.evaluate.calibration import TEMPERATURE_RANGE


def logits_of(temperature: float, K: int, n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times too large for their targets."""
    rng = np.random.default_rng(0)
    true = rng.normal(scale=1.5, size=(n, K))
    truth = (true + rng.gumbel(size=(n, K))).argmax(axis=1)
    return true * temperature, np.eye(K)[truth]


class TestTemperature:
    @pytest.mark.parametrize("task", ["binary", "multiclass"])
    @pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
    def test_finds_the_one_that_was_put_in(self, task, temperature: float) -> None:
        logits, targets = logits_of(temperature, 2 if task == "binary" else 5)
        found = fit_temperature(ValidationRows(targets=targets, outputs=logits, split="validation"), task=task)
        assert found == pytest.approx(temperature, rel=0.08)
        loss = minimize_scalar(lambda t: -(log_softmax(logits / t, axis=1) * targets).sum(), bounds=(0.1, 10))
        assert found == pytest.approx(loss.x, rel=1e-4)

    def test_multilabel_with_unlabelled_cells(self) -> None:
        rng = np.random.default_rng(1)
        true = rng.normal(scale=1.5, size=(4000, 3))
        targets = (rng.random((4000, 3)) < expit(true)).astype(float)
        targets[rng.random((4000, 3)) < 0.3] = np.nan
        rows = ValidationRows(targets=targets, outputs=true * 2, split="validation")
        assert fit_temperature(rows, task="multilabel") == pytest.approx(2.0, rel=0.08)

    def test_lowers_the_loss_and_keeps_the_ranking(self) -> None:
        logits, targets = logits_of(3.0, 4)
        found = fit_temperature(ValidationRows(targets=targets, outputs=logits, split="validation"), task="multiclass")
        before = scores_from_logits(logits, task="multiclass")
        after = scores_from_logits(logits, task="multiclass", temperature=found)
        for name, better in [("log_loss", True), ("ece", True), ("accuracy", False)]:
            first = score(targets, before, metric=name, task="multiclass")
            second = score(targets, after, metric=name, task="multiclass")
            assert second < first if better else second == first

    def test_stays_in_range(self) -> None:
        targets = np.eye(2)[np.arange(20) % 2]
        for logits, expected in [(10 * targets, TEMPERATURE_RANGE[0]), (-10 * targets, TEMPERATURE_RANGE[1])]:
            rows = ValidationRows(targets=targets, outputs=logits, split="validation")
            assert fit_temperature(rows, task="binary") == expected

    def test_without_information(self) -> None:
        rows = ValidationRows(targets=np.eye(2), outputs=np.zeros((2, 2)), split="validation")
        assert fit_temperature(rows, task="binary") == 1.0


class TestScores:
    def test_float32_logits_become_float64_scores_that_add_up(self) -> None:
        found = scores_from_logits(np.array([[1000.0, 0.0, -1000.0]], dtype=np.float32), task="multiclass")
        assert found.dtype == np.float64
        assert found.tolist() == [[1.0, 0.0, 0.0]]

    def test_multilabel_is_a_sigmoid(self) -> None:
        assert scores_from_logits(np.array([[0.0, 2.0]]), task="multilabel", temperature=2.0) == pytest.approx(
            np.array([[0.5, expit(1.0)]])
        )

    def test_bad_input(self) -> None:
        with pytest.raises(DataError, match="diverged"):
            scores_from_logits(np.array([[np.nan, 0.0]]), task="binary")
        with pytest.raises(DataError, match="temperature"):
            scores_from_logits(np.zeros((1, 2)), task="binary", temperature=0.0)


class TestReliability:
    def test_binary_agrees_with_scikit_learn(self) -> None:
        rng = np.random.default_rng(0)
        positive = rng.random(500)
        truth = (rng.random(500) < positive).astype(int)
        found = reliability(np.eye(2)[truth], np.stack([1 - positive, positive], axis=1), task="binary", bins=10)
        observed, confidence = calibration_curve(truth, positive, n_bins=10)
        np.testing.assert_allclose(found.observed, observed, rtol=1e-12)
        np.testing.assert_allclose(found.confidence, confidence, rtol=1e-12)
        assert found.n.sum() == 500
        assert ((found.low <= found.observed) & (found.observed <= found.high)).all()

    def test_gap_weighted_by_n_is_the_ece(self) -> None:
        logits, targets = logits_of(3.0, 4, n=300)
        scores = scores_from_logits(logits, task="multiclass")
        found = reliability(targets, scores, task="multiclass")
        expected = score(targets, scores, metric="ece", task="multiclass")
        assert (np.abs(found.observed - found.confidence) * found.n).sum() / 300 == pytest.approx(expected)

    def test_interval_counts_patients(self) -> None:
        targets, scores = np.ones((40, 1)), np.full((40, 1), 0.9)
        assert reliability(targets, scores, task="multilabel").low[0] == wilson(40, 40).low
        few = reliability(targets, scores, task="multilabel", groups=np.arange(40) // 10)
        assert few.low[0] == wilson(4, 4).low

    def test_seeds_do_not_narrow_the_interval(self) -> None:
        targets, scores = np.ones((40, 1)), np.full((3, 40, 1), 0.9)
        found = reliability(targets, scores, task="multilabel")
        assert found.low[0] == wilson(40, 40).low
        assert found.n.tolist() == [40.0]

    def test_unlabelled_cells_do_not_count(self) -> None:
        targets = np.array([[1.0, np.nan], [np.nan, 0.0]])
        found = reliability(targets, np.full((2, 2), 0.5), task="multilabel", bins=2)
        assert (found.observed.tolist(), found.n.tolist()) == ([0.5], [2.0])
        assert reliability(targets, np.full((2, 2), 0.5), task="multilabel", label=0).observed.tolist() == [1.0]
