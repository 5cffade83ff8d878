"""Curves on a grid and the confusion matrix, against scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics as sk

from raremix.evaluate import confusion, pr_curve, roc_curve


@pytest.fixture(scope="module")
def study() -> dict:
    rng = np.random.default_rng(0)
    truth = (rng.random(300) < 0.2).astype(int)
    positive = np.round(np.clip(rng.random((3, 300)) * 0.7 + 0.3 * truth, 0, 1), 2)
    return {
        "targets": np.eye(2)[truth],
        "scores": np.stack([1 - positive, positive], axis=-1),
        "task": "binary",
        "groups": np.arange(300),
        "resamples": 200,
    }


class TestRoc:
    def test_agrees_with_scikit_learn(self, study) -> None:
        found = roc_curve(**{**study, "scores": study["scores"][0]}, points=11)
        x, y, _ = sk.roc_curve(study["targets"][:, 1], study["scores"][0, :, 1], drop_intermediate=False)
        np.testing.assert_allclose(found.y, np.interp(found.x, x, y), rtol=1e-12)

    def test_area_under_the_grid(self, study) -> None:
        found = roc_curve(**{**study, "resamples": 20}, points=2001)
        areas = [sk.roc_auc_score(study["targets"][:, 1], one[:, 1]) for one in study["scores"]]
        assert np.trapezoid(found.y, found.x) == pytest.approx(np.mean(areas), abs=1e-3)

    def test_band(self, study) -> None:
        recipe, weights = roc_curve(**study), roc_curve(**study, claim="weights")
        for curve in (recipe, weights):
            assert ((curve.low <= curve.y) & (curve.y <= curve.high)).all()
            assert ((curve.low >= 0) & (curve.high <= 1)).all()
            assert (np.diff(curve.y) >= 0).all()
            assert curve.y[-1] == 1.0
        assert (recipe.high - recipe.low).mean() > (weights.high - weights.low).mean()

    def test_mean_over_classes(self) -> None:
        rng = np.random.default_rng(1)
        targets = np.eye(3)[np.repeat([0, 1, 2], [50, 30, 20])]
        scores = rng.dirichlet(np.ones(3), 100) * 0.6 + 0.4 * targets
        options = {"task": "multiclass", "groups": np.arange(100), "resamples": 20}
        each = [roc_curve(targets, scores, label=k, **options).y for k in range(3)]
        np.testing.assert_allclose(roc_curve(targets, scores, **options).y, np.mean(each, axis=0))

    @pytest.mark.parametrize("draw", [roc_curve, pr_curve])
    def test_nothing_to_draw(self, draw) -> None:
        found = draw(np.ones((5, 1)), np.full((5, 1), 0.5), task="multilabel", groups=np.arange(5))
        assert len(found.x) == 0
        assert "no curve" in found.note


class TestPrecisionRecall:
    def test_agrees_with_scikit_learn(self, study) -> None:
        found = pr_curve(**{**study, "scores": study["scores"][0]}, points=21)
        precision, recall, _ = sk.precision_recall_curve(study["targets"][:, 1], study["scores"][0, :, 1])
        # scikit-learn lists thresholds upwards: the last recall that still reaches the grid is the highest threshold
        expected = [precision[np.flatnonzero(recall >= max(x, 1e-12) - 1e-12)[-1]] for x in found.x]
        np.testing.assert_allclose(found.y, expected, rtol=1e-12)

    def test_area_is_the_average_precision(self, study) -> None:
        found = pr_curve(**{**study, "resamples": 20}, points=2001)
        expected = [sk.average_precision_score(study["targets"][:, 1], one[:, 1]) for one in study["scores"]]
        assert found.y[1:].mean() == pytest.approx(np.mean(expected), abs=2e-3)


class TestConfusion:
    def test_agrees_with_scikit_learn(self) -> None:
        rng = np.random.default_rng(0)
        targets, scores = np.eye(4)[rng.integers(0, 4, 200)], rng.dirichlet(np.ones(4), (2, 200))
        expected = [sk.confusion_matrix(targets.argmax(axis=1), one.argmax(axis=1)) for one in scores]
        np.testing.assert_allclose(confusion(targets, scores, task="multiclass"), np.mean(expected, axis=0))

    def test_multilabel(self) -> None:
        rng = np.random.default_rng(0)
        targets, scores = (rng.random((100, 3)) < 0.3).astype(float), rng.random((100, 3))
        limits = np.array([0.2, 0.5, 0.8])
        found = confusion(targets, scores, task="multilabel", thresholds=limits)
        np.testing.assert_array_equal(found, sk.multilabel_confusion_matrix(targets, scores >= limits))

    def test_unlabelled_rows_are_left_out(self) -> None:
        targets = np.array([[1.0, 0.0], [np.nan, np.nan]])
        assert confusion(targets, np.full((2, 2), 0.5), task="binary").sum() == 1
        found = confusion(np.array([[1.0], [np.nan]]), np.full((2, 1), 0.5), task="multilabel")
        assert found.tolist() == [[[0.0, 0.0], [0.0, 1.0]]]
