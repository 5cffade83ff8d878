"""Distribution-balanced loss: a weight by hand, timm's, and labels that cannot be learnt."""

import numpy as np
import pytest
import torch
from tests.contract.loss_promises import example
from timm.loss import DistributionBalancedLoss

from raremix.core.errors import ConfigError
from raremix.losses import DistributionBalanced

COUNTS, ROWS = (60, 25, 9, 2), (100, 100, 100, 100)


def test_hand_computed_weights() -> None:
    """Without prior, focus or scale: labels seen 4 and 1 times, an image of both: rates 1/5 and 4/5."""
    settings = {"gamma": 0.0, "bias": 0.0, "negative_scale": 1.0, "floor": 0.1, "steepness": 10.0, "centre": 0.2}
    loss = DistributionBalanced(class_counts=(4, 1), labelled_counts=(9, 9), **settings)  # type: ignore[arg-type]
    weights = 0.1 + 1 / (1 + np.exp(-10 * (np.array([0.2, 0.8]) - 0.2)))
    expected = float(np.mean(weights * np.log(2)))
    assert float(loss(torch.zeros(1, 2), torch.ones(1, 2))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_timm_agrees(gamma: float) -> None:
    logits, targets = example()
    ours = DistributionBalanced(class_counts=COUNTS, labelled_counts=ROWS, gamma=gamma)
    theirs = DistributionBalancedLoss(COUNTS, num_samples=100, focal_gamma=gamma)
    for labels in (targets, (targets > 0.25).float(), torch.zeros_like(targets)):
        torch.testing.assert_close(ours(logits, labels), theirs(logits, labels))


def test_labels_known_in_fewer_images_have_their_own_prior() -> None:
    logits, targets = example()
    everywhere = DistributionBalanced(class_counts=COUNTS, labelled_counts=ROWS, bias=1.0)
    somewhere = DistributionBalanced(class_counts=COUNTS, labelled_counts=(100, 100, 100, 4), bias=1.0)
    targets[:, :3] = torch.nan
    assert float(everywhere(logits, targets)) != pytest.approx(float(somewhere(logits, targets)))


def test_labels_that_cannot_be_learnt_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs class_counts"):
        DistributionBalanced()
    with pytest.raises(ConfigError, match="labelled_counts"):
        DistributionBalanced(class_counts=(1, 2))
    with pytest.raises(ConfigError, match="labelled_counts is 0 for class 1"):
        DistributionBalanced(class_counts=(1, 2), labelled_counts=(5, 0))
    with pytest.raises(ConfigError, match=r"label 1 \(counted from 0\) is positive in every"):
        DistributionBalanced(class_counts=(1, 5), labelled_counts=(5, 5))
    with pytest.raises(ConfigError, match="negative_scale >= 1"):
        DistributionBalanced(class_counts=(1, 2), labelled_counts=(5, 5), negative_scale=0.5)
