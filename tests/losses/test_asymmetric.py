"""Asymmetric loss: by hand, the authors' formulas as timm has them, and easy negatives that cost nothing."""

import numpy as np
import pytest
import torch
from tests.contract.loss_promises import example, value_and_gradient
from timm.loss import AsymmetricLossMultiLabel, AsymmetricLossSingleLabel

from raremix.core.errors import ConfigError
from raremix.losses import Asymmetric, AsymmetricSoftmax, binary_focal, cross_entropy
from raremix.losses.asymmetric import asymmetric, asymmetric_softmax


def test_hand_computed_case() -> None:
    """p = 3/4: a positive costs (1/4) log(4/3), a negative (0.7)^4 log(1 / 0.3); their mean."""
    logits = torch.full((1, 2), np.log(3.0)).float()
    expected = (0.25 * np.log(4 / 3) - 0.7**4 * np.log(0.3)) / 2
    assert float(asymmetric(logits, torch.tensor([[1.0, 0.0]]))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("positive", "negative", "clip"), [(1.0, 4.0, 0.05), (0.0, 4.0, 0.05), (0.0, 0.0, 0.1), (1.0, 3.0, 0.0)]
)
def test_timm_agrees_on_hard_targets(positive: float, negative: float, clip: float) -> None:
    logits, targets = example()
    targets = (targets > 0.25).float()
    theirs = AsymmetricLossMultiLabel(gamma_pos=positive, gamma_neg=negative, clip=clip, reduction="mean")
    ours = Asymmetric(gamma_positive=positive, gamma_negative=negative, clip=clip)
    torch.testing.assert_close(ours(logits, targets), theirs(logits, targets))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_timm_agrees_on_one_label_per_image(smoothing: float) -> None:
    logits, targets = example()
    classes = targets.argmax(dim=1)
    theirs = AsymmetricLossSingleLabel(gamma_pos=1, gamma_neg=4, eps=smoothing)(logits, classes)
    ours = AsymmetricSoftmax(label_smoothing=smoothing)(logits, torch.eye(4)[classes])
    torch.testing.assert_close(ours, theirs)


def test_special_cases() -> None:
    logits, targets = example()
    focal = asymmetric(logits, targets, gamma_positive=2.0, gamma_negative=2.0, clip=0.0)
    torch.testing.assert_close(focal, binary_focal(logits, targets, gamma=2.0))
    plain = asymmetric_softmax(logits, targets, gamma_positive=0.0, gamma_negative=0.0, label_smoothing=0.0)
    torch.testing.assert_close(plain, cross_entropy(logits, targets))


def test_easy_negatives_have_no_gradient() -> None:
    """A score of 0.047 lies below the clip of 0.05."""
    _, gradient = value_and_gradient(Asymmetric(), torch.tensor([[-3.0, -2.0]]), torch.zeros(1, 2))
    assert float(gradient[0, 0]) == 0
    assert float(gradient[0, 1]) > 0


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="gamma_negative"):
        Asymmetric(gamma_negative=-1.0)
    with pytest.raises(ConfigError, match="clip"):
        Asymmetric(clip=1.0)
    with pytest.raises(ConfigError, match="label_smoothing"):
        AsymmetricSoftmax(label_smoothing=1.0)
