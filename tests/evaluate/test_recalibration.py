"""Calibration slope and intercept: what was put in is found, and one Newton step stands for a fit anew."""

import numpy as np
import pytest
from scipy.special import expit, logit

from raremix.core.errors import DataError
from raremix.evaluate import measure, score
from raremix.evaluate.metrics import METRICS
from raremix.evaluate.sufficient import reduce_predictions


def drawn(slope: float, intercept: float, n: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Labels that come true as logit P = intercept + slope logit(said)."""
    rng = np.random.default_rng(0)
    said = expit(rng.normal(-1.0, 1.5, size=(n, 1)))
    return (rng.random((n, 1)) < expit(intercept + slope * logit(said))).astype(float), said


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.4, 0.0), (2.0, 0.0), (1.0, -1.5), (1.0, 1.0)])
def test_what_was_put_in_is_found(slope: float, intercept: float) -> None:
    truth, said = drawn(slope, intercept)
    assert score(truth, said, metric="calibration_slope", task="multilabel") == pytest.approx(slope, rel=0.06)
    if slope == 1:
        found = score(truth, said, metric="calibration_intercept", task="multilabel")
        assert found == pytest.approx(intercept, abs=0.06)


def test_by_hand() -> None:
    """Said 3/4 and 1/4, came true 2 of 3 and 1 of 3: log 2 / log 3 of the way; said 1/2, came true 3 of 4: log 3."""
    said = np.array([[0.75]] * 3 + [[0.25]] * 3)
    truth = np.array([[1.0], [1.0], [0.0], [1.0], [0.0], [0.0]])
    found = score(truth, said, metric="calibration_slope", task="multilabel")
    assert found == pytest.approx(np.log(2) / np.log(3), rel=1e-12)
    even = score(np.array([[1.0], [1.0], [1.0], [0.0]]), np.full((4, 1), 0.5), **INTERCEPT)
    assert even == pytest.approx(np.log(3), rel=1e-12)


INTERCEPT = {"metric": "calibration_intercept", "task": "multilabel"}


def test_where_there_is_no_fit_there_is_no_value() -> None:
    apart = np.array([[0.0], [0.0], [1.0], [1.0]])
    said = np.array([[0.1], [0.2], [0.8], [0.9]])
    assert score(apart, said, metric="calibration_slope", task="multilabel") is None, "perfectly separated"
    assert score(apart, np.full((4, 1), 0.3), metric="calibration_slope", task="multilabel") is None, "all the same"
    assert score(np.zeros((4, 1)), said, **INTERCEPT) is None, "no positive"
    assert score(apart, np.array([[0.0], [0.0], [1.0], [0.0]]), **INTERCEPT) is not None, "certain, and wrong once"


def test_a_step_stands_for_a_fit_anew() -> None:
    """Over resamples of 300 rows the spread of one-step values is that of whole fits."""
    truth, said = drawn(0.8, 0.3, n=300)
    rng = np.random.default_rng(1)
    names = [name for name, metric in METRICS.items() if metric.ideal is not None]
    unit = reduce_predictions(
        truth, said, said > 0.5, task="multilabel", metrics=names, group=np.arange(300), G=300, classes=[0]
    )
    weights = rng.multinomial(300, np.full(300, 1 / 300), size=200)
    for name in names:
        steps = unit.under(weights.astype(float))[name][:, 0]
        whole = np.array(
            [
                score(truth[rows], said[rows], metric=name, task="multilabel")
                for rows in (np.repeat(np.arange(300), w) for w in weights)
            ]
        )
        assert np.corrcoef(steps, whole)[0, 1] > 0.99, name
        assert steps.std() == pytest.approx(whole.std(), rel=0.1), name


def test_intervals_hold_the_truth_and_are_for_probabilities() -> None:
    truth, said = drawn(1.0, 0.0, n=400)
    options = {"task": "multilabel", "classes": ["a"], "groups": np.arange(400), "resamples": 400}
    table = measure(truth, said, **options)
    rows = {name: table.filter((table["metric"] == name) & (table["scope"] == "overall")).row(0) for name in METRICS}
    for name in ("calibration_slope", "calibration_intercept"):
        value, low, high = rows[name][3:6]
        assert low < METRICS[name].ideal < high
        assert low < value < high
    shifted = measure(truth, said, probabilities=expit(logit(said) + 1.0), **options)
    for name in METRICS:
        row = shifted.filter((shifted["metric"] == name) & (shifted["scope"] == "overall")).row(0)
        same = row[3] == rows[name][3]
        assert same == (name not in {"brier", "log_loss", "ece", "calibration_intercept", "calibration_slope"}) or (
            # A shift of all logits leaves the slope as it is, up to rounding.
            name == "calibration_slope" and row[3] == pytest.approx(rows[name][3], rel=1e-9)
        )
    with pytest.raises(DataError, match="probabilities for 1 seeds"):
        measure(truth, said, probabilities=np.stack([said, said]), **options)
