"""Prior correction: Bayes' rule by hand and by simulation, and what is no prevalence."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from raremix.core.errors import DataError
from raremix.evaluate.prior import adjust_logits, correct_prior, prior_of


def test_bayes_rule_by_hand() -> None:
    """Sensitivity .9, specificity .8, trained at 50 %: a positive answer is true in .9 / 1.1; at 1 % in 1 / 23."""
    logits = np.log(np.array([[0.2, 0.9]]))
    assert softmax(logits)[0, 1] == pytest.approx(0.9 / 1.1)
    corrected = correct_prior(logits, trained=[0.5, 0.5], deployed=[0.99, 0.01], task="binary")
    assert softmax(corrected)[0, 1] == pytest.approx(0.009 / (0.009 + 0.198))
    label = np.log(np.array([[0.9 / 0.2]]))
    corrected = correct_prior(label, trained=[0.5], deployed=[0.01], task="multilabel")
    assert expit(corrected)[0, 0] == pytest.approx(0.009 / (0.009 + 0.198))


def test_scores_are_calibrated_at_the_stated_prevalence() -> None:
    """Two normal densities: the exact posterior under 50 %, corrected to 5 %, is the one under 5 %."""
    stream = np.random.default_rng(0)
    is_ill = stream.random(200_000) < 0.05
    values = stream.normal(is_ill * 1.5, 1)
    balanced = np.stack([np.zeros_like(values), 1.5 * values - 1.125], axis=1)
    scores = softmax(correct_prior(balanced, trained=[0.5, 0.5], deployed=[0.95, 0.05], task="binary"), axis=1)[:, 1]
    assert scores.mean() == pytest.approx(0.05, abs=0.002)
    for low, high in ((0.02, 0.1), (0.1, 0.4), (0.4, 1.0)):
        here = (scores > low) & (scores < high)
        assert is_ill[here].mean() == pytest.approx(scores[here].mean(), abs=0.02)


def test_there_and_back() -> None:
    logits = np.random.default_rng(0).normal(size=(7, 3))
    there = correct_prior(logits, trained=[0.7, 0.2, 0.1], deployed=[0.1, 0.1, 0.8], task="multiclass")
    back = correct_prior(there, trained=[0.1, 0.1, 0.8], deployed=[0.7, 0.2, 0.1], task="multiclass")
    np.testing.assert_allclose(back, logits)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_adjusting_is_correcting_to_even_classes(task: str) -> None:
    logits = np.random.default_rng(0).normal(size=(7, 4))
    trained = [0.7, 0.2, 0.06, 0.04]
    even = [0.5] * 4 if task == "multilabel" else [0.25] * 4
    scores = expit if task == "multilabel" else lambda z: softmax(z, axis=1)
    corrected = correct_prior(logits, trained=trained, deployed=even, task=task)  # type: ignore[arg-type]
    adjusted = adjust_logits(logits, trained=trained, task=task)  # type: ignore[arg-type]
    np.testing.assert_allclose(scores(corrected), scores(adjusted))
    np.testing.assert_allclose(adjust_logits(logits, trained=trained, task=task, tau=0.0), logits)  # type: ignore[arg-type]


def test_the_prior_of_labelled_rows() -> None:
    targets = np.array([[1.0, 0.0], [1.0, np.nan], [0.0, 1.0], [0.0, 1.0]])
    np.testing.assert_allclose(prior_of(targets, task="multilabel"), [0.5, 2 / 3])
    np.testing.assert_allclose(prior_of(targets, task="binary"), [1 / 3, 2 / 3])


def test_what_is_no_prevalence_is_refused() -> None:
    logits = np.zeros((2, 2))
    with pytest.raises(DataError, match="expected 2 values"):
        correct_prior(logits, trained=[1.0], deployed=[0.5, 0.5], task="binary")
    with pytest.raises(DataError, match=r"deployed prevalence of class 1 .* is 0"):
        correct_prior(logits, trained=[0.5, 0.5], deployed=[1 - 1e-9, 0.0], task="binary")
    with pytest.raises(DataError, match=r"sums to 0\.9"):
        correct_prior(logits, trained=[0.5, 0.4], deployed=[0.5, 0.5], task="binary")
    with pytest.raises(DataError, match="tau >= 0"):
        adjust_logits(logits, trained=[0.5, 0.5], task="binary", tau=-1.0)
    with pytest.raises(DataError, match="the targets' prevalence of class 0"):
        prior_of(np.array([[1.0, 0.0]]), task="multilabel")
