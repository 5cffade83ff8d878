"""AUC-margin: by hand, and as what the paper's minimum and maximum come to."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from tests.contract.loss_promises import example

from raremix.core.errors import ConfigError
from raremix.losses import AUCMargin


def test_hand_computed_case() -> None:
    """Scores .8 and .6 of positives, .4 and .5 of negatives: .01 + .0025 + (1 - .7 + .45)^2."""
    scores = torch.tensor([[0.8], [0.6], [0.4], [0.5]])
    value = float(AUCMargin()(scores.logit(), torch.tensor([[1.0], [1.0], [0.0], [0.0]])))
    assert value == pytest.approx(0.01 + 0.0025 + 0.75**2, rel=1e-5)


def test_it_is_the_papers_saddle_point() -> None:
    """min over a, b and max over alpha of the published expression, over p (1 - p), found numerically."""
    logits, _ = example(rows=12, classes=1)
    scores, is_positive = logits.sigmoid().numpy()[:, 0].astype(float), np.arange(12) < 4
    share = is_positive.mean()

    def published(a: float, b: float, alpha: float) -> float:
        positive, negative = np.where(is_positive, scores, 0), np.where(is_positive, 0, scores)
        value = (1 - share) * np.mean(np.where(is_positive, (scores - a) ** 2, 0))
        value += share * np.mean(np.where(is_positive, 0, (scores - b) ** 2))
        value += 2 * alpha * (share * (1 - share) + np.mean(share * negative - (1 - share) * positive))
        return float(value - share * (1 - share) * alpha**2)

    def worst(ab: np.ndarray) -> float:
        return -minimize(lambda alpha: -published(ab[0], ab[1], alpha[0]), x0=[0.5], bounds=[(0, None)]).fun

    saddle = minimize(worst, x0=[0.5, 0.5], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10}).fun
    ours = float(AUCMargin()(logits, torch.tensor(is_positive).float()[:, None]))
    assert ours == pytest.approx(saddle / (share * (1 - share)), rel=1e-4)


def test_classes_of_one_kind_leave_the_mean() -> None:
    logits, _ = example(classes=3)
    targets = torch.zeros(6, 3)
    targets[:2, 0], targets[:, 1] = 1, 1
    torch.testing.assert_close(AUCMargin()(logits, targets), AUCMargin()(logits[:, :1], targets[:, :1]))


def test_the_batch_twice_is_the_batch() -> None:
    logits, targets = example()
    twice = AUCMargin()(logits.repeat(2, 1), targets.repeat(2, 1))
    torch.testing.assert_close(twice, AUCMargin()(logits, targets))


def test_a_margin_beyond_the_scores_is_refused() -> None:
    with pytest.raises(ConfigError, match="margin must lie in"):
        AUCMargin(margin=1.5)
