"""Every metric against scikit-learn, and what happens where one is undefined."""

import warnings
from itertools import pairwise

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from raremix.core.errors import DataError, TargetError, UnknownNameError
from raremix.evaluate import METRICS, decide, measure, score
from raremix.evaluate.metrics import EPSILON
from raremix.evaluate.sufficient import ranked, reduce_predictions

K = 4


def tied(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Scores with many ties, in [0, 1]."""
    return np.round(rng.random(shape), 1)


def single_label(seed: int, classes: int, n: int = 160) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    share = 0.5 ** np.arange(classes)
    truth = rng.choice(classes, n, p=share / share.sum())
    truth[:classes] = np.arange(classes)
    targets = np.eye(classes)[truth]
    scores = np.round(rng.dirichlet(np.ones(classes), n) + 0.5 * targets, 1)
    return targets, scores / scores.sum(axis=1, keepdims=True)


def multi_label(seed: int, n: int = 160) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, K)) < [0.5, 0.3, 0.1, 0.05]).astype(float)
    targets[0], targets[1] = 1, 0
    scores = np.clip(np.round(0.6 * tied(rng, n, K) + 0.3 * targets, 1), 0, 1)
    return targets, scores, np.array([0.5, 0.4, 0.3, 0.2])


def ece_by_hand(right: np.ndarray, confidence: np.ndarray, bins: int = 15) -> float:
    edges = np.linspace(0, 1, bins + 1)
    total = 0.0
    for low, high in pairwise(edges):
        here = (confidence >= low) & ((confidence < high) | ((high == 1) & (confidence == 1)))
        if here.any():
            total += abs(right[here].mean() - confidence[here].mean()) * here.mean()
    return total


def slope_by_scikit(truth: np.ndarray, scores: np.ndarray) -> float:
    x = logit(np.clip(scores, EPSILON, 1 - EPSILON))[:, None]
    return float(LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000, solver="newton-cg").fit(x, truth).coef_[0, 0])


def intercept_by_root(truth: np.ndarray, scores: np.ndarray) -> float:
    """The shift under which as many positives are expected as there are."""
    x = logit(np.clip(scores, EPSILON, 1 - EPSILON))
    return float(brentq(lambda a: expit(a + x).sum() - truth.sum(), -80, 80, xtol=1e-13))  # type: ignore[arg-type]


def by_scikit(truth: np.ndarray, called: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """The metrics of one label against the rest."""
    sensitivity = sk.recall_score(truth, called)
    specificity = sk.recall_score(truth, called, pos_label=0)
    return {
        "accuracy": sk.accuracy_score(truth, called),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, called),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "precision": sk.precision_score(truth, called, zero_division=0),
        "f1": sk.f1_score(truth, called, zero_division=0),
        "mcc": sk.matthews_corrcoef(truth, called),
        "cohen_kappa": sk.cohen_kappa_score(truth, called),
        "youden_j": sensitivity + specificity - 1,
        "g_mean": np.sqrt(sensitivity * specificity),
        "auroc": sk.roc_auc_score(truth, scores),
        "average_precision": sk.average_precision_score(truth, scores),
        "ece": ece_by_hand(truth, scores),
        "brier": sk.brier_score_loss(truth, scores),
        "log_loss": sk.log_loss(truth, scores, labels=[0, 1]),
        "calibration_slope": slope_by_scikit(truth, scores),
        "calibration_intercept": intercept_by_root(truth, scores),
    }


def same(name: str, found: float | None, expected: float) -> None:
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12), name


@pytest.mark.parametrize("seed", range(4))
class TestAgainstScikitLearn:
    def test_binary(self, seed: int) -> None:
        targets, scores = single_label(seed, 2)
        thresholds = np.array([0.6, 0.4])
        called = scores[:, 1] >= 0.4
        for k in range(2):
            expected = by_scikit(targets[:, k].astype(int), (called == k).astype(int), scores[:, k])
            for name in METRICS:
                found = score(targets, scores, metric=name, task="binary", thresholds=thresholds, labels=[k])
                same(name, found, expected[name])
                if k == 1:
                    found = score(targets, scores, metric=name, task="binary", thresholds=thresholds)
                    same(name, found, expected[name])

    def test_multilabel_with_unlabelled_cells(self, seed: int) -> None:
        targets, scores, thresholds = multi_label(seed)
        known = np.random.default_rng(seed).random(targets.shape) < 0.8
        known[:2] = True
        holes = np.where(known, targets, np.nan)
        expected = {name: [] for name in METRICS}
        for k in range(K):
            rows = known[:, k]
            called = (scores[rows, k] >= thresholds[k]).astype(int)
            for name, value in by_scikit(targets[rows, k].astype(int), called, scores[rows, k]).items():
                expected[name].append(value)
        for name in METRICS:
            found = score(holes, scores, metric=name, task="multilabel", thresholds=thresholds)
            same(name, found, float(np.mean(expected[name])))
            found = score(holes, scores, metric=name, task="multilabel", thresholds=thresholds, labels=[2])
            same(name, found, expected[name][2])

    def test_multiclass(self, seed: int) -> None:
        targets, scores = single_label(seed, K)
        truth, called = targets.argmax(axis=1), scores.argmax(axis=1)
        recall = sk.recall_score(truth, called, average=None, zero_division=0)
        one_by_one = [by_scikit((truth == k).astype(int), (called == k).astype(int), scores[:, k]) for k in range(K)]
        right = (truth == called).astype(float)
        expected = {
            "accuracy": sk.accuracy_score(truth, called),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, called),
            "sensitivity": sk.recall_score(truth, called, average="macro"),
            "specificity": np.mean([one["specificity"] for one in one_by_one]),
            "precision": sk.precision_score(truth, called, average="macro", zero_division=0),
            "f1": sk.f1_score(truth, called, average="macro", zero_division=0),
            "mcc": sk.matthews_corrcoef(truth, called),
            "cohen_kappa": sk.cohen_kappa_score(truth, called),
            "youden_j": np.mean([one["youden_j"] for one in one_by_one]),
            "g_mean": np.prod(recall) ** (1 / K),
            "auroc": sk.roc_auc_score(truth, scores, multi_class="ovr", average="macro"),
            "average_precision": sk.average_precision_score(targets, scores, average="macro"),
            "ece": ece_by_hand(right, scores.max(axis=1)),
            "brier": ((scores - targets) ** 2).sum(axis=1).mean(),
            "log_loss": sk.log_loss(truth, scores),
            "calibration_slope": np.mean([one["calibration_slope"] for one in one_by_one]),
            "calibration_intercept": np.mean([one["calibration_intercept"] for one in one_by_one]),
        }
        for name in METRICS:
            same(name, score(targets, scores, metric=name, task="multiclass"), expected[name])
            for k in range(K):
                found = score(targets, scores, metric=name, task="multiclass", labels=[k])
                same(name, found, one_by_one[k][name])

    def test_weights_are_copies(self, seed: int) -> None:
        """A patient drawn w times counts as w patients: every metric, every task."""
        rng = np.random.default_rng(seed)
        weights = rng.integers(0, 4, size=160)
        copies = np.repeat(np.arange(160), weights)
        targets, scores, thresholds = multi_label(seed)
        one, many = single_label(seed, 2), single_label(seed, K)
        for task, truth, values, limits in [
            ("multilabel", targets, scores, thresholds),
            ("binary", *one, None),
            ("multiclass", *many, None),
        ]:
            unit = reduce_predictions(
                truth,
                values,
                decide(values, task=task, thresholds=limits),
                task=task,
                metrics=list(METRICS),
                group=np.arange(160),
                G=160,
            )
            drawn = unit.under(weights[None].astype(float))
            for name in METRICS:
                if METRICS[name].ideal is not None:
                    continue  # one Newton step away, see test_recalibration
                expected = score(truth[copies], values[copies], metric=name, task=task, thresholds=limits)
                assert expected is not None
                same(name, float(drawn[name][0, 0]), expected)


class TestRanking:
    @settings(max_examples=60)
    @given(
        arrays(np.float64, 40, elements=st.sampled_from([0.0, 1.0, float("nan")])),
        arrays(np.float64, 40, elements=st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0])),
        arrays(np.int64, 40, elements=st.integers(0, 7)),
    )
    def test_steps_lose_nothing(self, targets, scores, group) -> None:
        """Merged steps give the areas of all rows, for any ties, holes and groups."""
        weights = np.arange(8.0) % 4
        columns = np.stack([np.ones(8), weights], axis=1)
        for precise in (True, False):
            steps = ranked(targets, scores, group, 8, precise=precise)
            found = steps.under(columns, wanted=["auroc", "average_precision"] if precise else ["auroc"])
            for r in range(2):
                rows = np.repeat(np.arange(40), columns[group, r].astype(int))
                rows = rows[~np.isnan(targets[rows])]
                truth, values = targets[rows], scores[rows]
                if len(set(truth)) < 2:
                    assert np.isnan(found["auroc"][r])
                    continue
                assert found["auroc"][r] == pytest.approx(sk.roc_auc_score(truth, values), rel=1e-12)
                if precise:
                    expected = sk.average_precision_score(truth, values)
                    assert found["average_precision"][r] == pytest.approx(expected, rel=1e-12)

    def test_monotone_transforms_leave_every_bit(self) -> None:
        targets, scores = single_label(0, 2)
        squeezed = scores**3 / (scores**3 + (1 - scores) ** 3)
        for name in ("auroc", "average_precision"):
            before = score(targets, scores, metric=name, task="binary")
            assert score(targets, squeezed, metric=name, task="binary") == before

    def test_float32_and_float64_scores_agree_to_the_bit(self) -> None:
        targets, scores = single_label(1, 2)
        stored = scores.astype(np.float32)
        assert score(targets, stored, metric="auroc", task="binary") == score(
            targets, stored.astype(np.float64), metric="auroc", task="binary"
        )


class TestInvariance:
    @pytest.mark.parametrize("name", METRICS)
    def test_relabelled_classes(self, name: str) -> None:
        targets, scores = single_label(2, K)
        # the first of equal scores is called, so that equal ones would make the order of classes matter
        scores = scores + np.random.default_rng(0).uniform(0, 1e-6, scores.shape)
        scores /= scores.sum(axis=1, keepdims=True)
        order = [2, 0, 3, 1]
        found = score(targets[:, order], scores[:, order], metric=name, task="multiclass")
        expected = score(targets, scores, metric=name, task="multiclass")
        # A fit's last bit depends on which column of a matrix product it stands in.
        assert found == (expected if METRICS[name].ideal is None else pytest.approx(expected, rel=1e-12))

    @pytest.mark.parametrize("name", METRICS)
    def test_permuted_rows(self, name: str) -> None:
        targets, scores, thresholds = multi_label(3)
        order = np.random.default_rng(0).permutation(len(targets))
        options = {"task": "multilabel", "thresholds": thresholds, "classes": list("abcd"), "metrics": [name]}
        groups = np.repeat(np.arange(80), 2)
        first = measure(targets, scores, groups=groups, resamples=200, **options)
        second = measure(targets[order], scores[order], groups=groups[order], resamples=200, **options)
        assert first.equals(second)


class TestUndefined:
    """T6: a value or a named reason, never a warning (warnings are errors here) and never NaN."""

    def table(self, targets, scores, task="multilabel", **options):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = measure(
                np.asarray(targets, dtype=float),
                np.asarray(scores, dtype=float),
                task=task,
                classes=[f"c{k}" for k in range(np.asarray(targets).shape[1])],
                groups=np.arange(len(targets)),
                resamples=100,
                **options,
            )
        for column in ("value", "low", "high"):
            assert not found[column].is_nan().any()
            assert found[column].is_infinite().sum() == 0
        empty = found.filter(found["value"].is_null())
        assert (empty["note"] != "").all()
        assert (found["low"].is_null() == found["high"].is_null()).all()
        inside = found.drop_nulls(["low"])
        assert (inside["low"] <= inside["value"] + 1e-12).all()
        assert (inside["value"] <= inside["high"] + 1e-12).all()
        return {(row["metric"], row["scope"], row["label"]): row for row in found.iter_rows(named=True)}

    def test_perfect_ranking(self) -> None:
        truth = (np.arange(60) < 15).astype(float)[:, None]
        found = self.table(truth, 0.8 * truth + 0.1)[("auroc", "class", "c0")]
        assert found["value"] == 1.0
        assert found["high"] == 1.0
        assert 0.85 < found["low"] < 0.95

    @pytest.mark.parametrize("positives", [0, 1, 59, 60])
    @pytest.mark.parametrize("constant", [True, False])
    def test_one_kind_or_one_positive(self, positives: int, constant: bool) -> None:
        truth = (np.arange(60) < positives).astype(float)[:, None]
        scores = np.full((60, 1), 0.5) if constant else np.linspace(0, 1, 60)[:, None]
        found = self.table(truth, scores)
        area = found[("auroc", "class", "c0")]
        if positives in (0, 60):
            assert area["value"] is None
            assert area["note"] == f"no {'positive' if positives == 0 else 'negative'} row"
        else:
            assert area["value"] == (0.5 if constant else pytest.approx(0.0))
            assert area["low"] is None
            assert "fewer than 10" in area["note"]
        assert found[("brier", "overall", "")]["value"] is not None

    def test_constant_scores_of_many(self) -> None:
        truth = (np.arange(100) < 30).astype(float)[:, None]
        found = self.table(truth, np.full((100, 1), 0.2))
        area = found[("auroc", "overall", "")]
        assert area["value"] == 0.5
        assert area["low"] < 0.5 < area["high"]
        assert found[("precision", "overall", "")]["value"] == 0.0
        assert found[("precision", "overall", "")]["note"] == "never called, counted as 0"
        assert found[("mcc", "class", "c0")]["value"] == 0.0

    def test_label_that_nobody_looked_at(self) -> None:
        truth = np.stack([(np.arange(40) < 15).astype(float), np.full(40, np.nan)], axis=1)
        found = self.table(truth, np.full((40, 2), 0.5))
        assert found[("accuracy", "class", "c1")]["value"] is None
        assert found[("accuracy", "class", "c1")]["note"] == "no labelled row"
        assert found[("auroc", "overall", "")]["note"].startswith("no labelled row: c1")

    def test_class_without_test_rows_is_left_out_of_means(self) -> None:
        truth = np.zeros((40, 3))
        truth[np.arange(40), np.arange(40) % 2] = 1
        scores = 0.6 * truth + 0.4 / 3
        found = self.table(truth, scores, task="multiclass")
        assert found[("balanced_accuracy", "overall", "")]["value"] == 1.0
        assert found[("balanced_accuracy", "overall", "")]["note"] == "no positive row: c2"
        assert found[("sensitivity", "class", "c2")]["value"] is None
        assert found[("specificity", "class", "c2")]["value"] == 1.0

    @pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
    def test_everything_right_in_every_resample(self, task) -> None:
        truth = np.eye(2)[np.arange(60) % 2]
        found = self.table(truth, truth, task=task)
        for name in ("sensitivity", "balanced_accuracy", "youden_j", "accuracy"):
            row = found[(name, "class", "c1")]
            assert row["value"] == 1.0
            assert row["high"] == 1.0
            assert row["low"] < 1.0
        assert "no resample differs" in found[("f1", "class", "c1")]["note"]

    @pytest.mark.parametrize("n", [1, 2])
    def test_hardly_any_rows(self, n: int) -> None:
        self.table(np.eye(2)[:n], np.full((n, 2), 0.5), task="binary")

    def test_no_rows(self) -> None:
        with pytest.raises(TargetError, match="the split is empty"):
            self.table(np.zeros((0, 2)), np.zeros((0, 2)), task="binary")


class TestBadInput:
    def test_soft_targets(self) -> None:
        with pytest.raises(TargetError, match="0, 1 or NaN"):
            score(np.array([[0.3, 0.7]]), np.array([[0.3, 0.7]]), metric="auroc", task="binary")

    def test_two_classes_in_a_row(self) -> None:
        with pytest.raises(TargetError, match="one class per row"):
            score(np.ones((2, 3)), np.ones((2, 3)), metric="auroc", task="multiclass")

    def test_wrong_number_of_columns(self) -> None:
        with pytest.raises(TargetError, match="2 columns"):
            score(np.ones((2, 1)), np.ones((2, 1)), metric="auroc", task="binary")

    @pytest.mark.parametrize("bad", [np.nan, -0.1, 1.1, np.inf])
    def test_scores_that_are_no_probabilities(self, bad: float) -> None:
        with pytest.raises(DataError, match="probabilities"):
            score(np.ones((2, 1)), np.array([[0.1], [bad]]), metric="auroc", task="multilabel")

    def test_unknown_metric(self) -> None:
        with pytest.raises(UnknownNameError, match="did you mean 'auroc'"):
            score(np.ones((2, 1)), np.ones((2, 1)), metric="auorc", task="multilabel")
