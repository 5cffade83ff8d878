"""Decisions, and thresholds that only validation rows can choose."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import roc_curve

from raremix.core.errors import DataError, HeldOutError
from raremix.evaluate import ValidationRows, choose_thresholds, decide


def rows(targets, outputs, split="validation") -> ValidationRows:
    return ValidationRows(targets=np.asarray(targets, float), outputs=np.asarray(outputs, float), split=split)


class TestDecide:
    SCORES = np.array([[0.7, 0.3], [0.45, 0.55], [0.5, 0.5]])

    def test_binary_looks_at_the_last_class(self) -> None:
        assert decide(self.SCORES, task="binary")[:, 1].tolist() == [False, True, True]
        found = decide(self.SCORES, task="binary", thresholds=np.array([0.75, 0.25]))
        assert found[:, 1].all()
        assert not found[:, 0].any()

    def test_multiclass_takes_the_largest_and_the_first_of_equals(self) -> None:
        found = decide(self.SCORES, task="multiclass", thresholds=np.array([0.9, 0.1]))
        assert found.argmax(axis=1).tolist() == [0, 1, 0]
        assert (found.sum(axis=1) == 1).all()

    def test_thresholds_per_label_seed_and_row(self) -> None:
        scores = np.stack([self.SCORES, self.SCORES])
        by_label = decide(scores, task="multilabel", thresholds=np.array([0.6, 0.4]))
        assert by_label[0].tolist() == [[True, False], [False, True], [False, True]]
        by_seed = decide(scores, task="multilabel", thresholds=np.array([[0.0, 0.0], [1.0, 1.0]]))
        assert by_seed[0].all()
        assert not by_seed[1].any()
        limits = np.ones_like(scores)
        limits[:, 1] = 0
        assert decide(scores, task="multilabel", thresholds=limits)[:, :, 0].tolist() == [[False, True, False]] * 2


class TestThresholds:
    @given(
        arrays(np.float64, 30, elements=st.sampled_from([0.0, 1.0])),
        arrays(np.float64, 30, elements=st.floats(0, 1, width=16)),
    )
    def test_youden_is_the_best_point_of_the_roc_curve(self, targets, scores) -> None:
        found = choose_thresholds(rows(targets[:, None], scores[:, None]), task="multilabel")[0]
        if len(set(targets)) < 2:
            assert found == 0.5
            return
        alarms, hits, _ = roc_curve(targets, scores, drop_intermediate=False)
        called = scores >= found
        own = called[targets == 1].mean() - called[targets == 0].mean()
        assert own == pytest.approx((hits - alarms).max(), abs=1e-12)

    def test_f1_is_the_best_of_all_thresholds(self) -> None:
        rng = np.random.default_rng(0)
        targets = (rng.random(200) < 0.1).astype(float)
        scores = np.round(0.5 * rng.random(200) + 0.3 * targets, 2)

        def f1(threshold: float) -> float:
            called = scores >= threshold
            return 2 * (called & (targets == 1)).sum() / (called.sum() + targets.sum())

        found = choose_thresholds(rows(targets[:, None], scores[:, None]), task="multilabel", rule="f1")[0]
        assert f1(found) == max(f1(t) for t in np.linspace(0, 1, 1001))

    def test_sits_between_scores_and_near_a_half(self) -> None:
        found = choose_thresholds(rows([[0], [1]], [[0.2], [0.4]]), task="multilabel")
        assert found == pytest.approx([0.3])

    def test_binary_thresholds_add_up(self) -> None:
        found = choose_thresholds(rows([[1, 0], [0, 1]], [[0.9, 0.1], [0.7, 0.3]]), task="binary")
        assert found == pytest.approx([0.8, 0.2])

    def test_unlabelled_rows_do_not_count(self) -> None:
        found = choose_thresholds(rows([[0], [1], [np.nan]], [[0.2], [0.4], [0.3]]), task="multilabel")
        assert found == pytest.approx([0.3])

    @pytest.mark.parametrize(("task", "rule"), [("multiclass", "youden"), ("binary", "half")])
    def test_one_half_where_nothing_is_chosen(self, task, rule) -> None:
        found = choose_thresholds(rows([[1, 0], [0, 1]], [[0.9, 0.1], [0.7, 0.3]]), task=task, rule=rule)
        assert found.tolist() == [0.5, 0.5]


class TestValidationRows:
    @pytest.mark.parametrize("split", ["test", "train", ["validation", "test"], np.array(["test", "validation"])])
    def test_other_rows_are_refused(self, split) -> None:
        with pytest.raises(HeldOutError, match="never on test"):
            rows([[0], [1]], [[0.2], [0.4]], split=split)

    def test_one_split_per_row(self) -> None:
        with pytest.raises(DataError, match="for each of 2 rows"):
            rows([[0], [1]], [[0.2], [0.4]], split=["validation"])
