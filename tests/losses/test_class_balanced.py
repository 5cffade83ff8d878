"""Class-balanced loss: weights by hand and timm's, and what is refused."""

import numpy as np
import pytest
import torch
from tests.contract.loss_promises import example
from timm.loss.class_weights import compute_class_weights
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.losses import ClassBalanced, CrossEntropy, focal
from raremix.losses.class_weights import effective_weights


def test_hand_computed_case() -> None:
    """beta 1/2, counts 2 and 1: effective numbers 3/2 and 1, weights 2/3 and 1, over their mean 5/6."""
    loss = ClassBalanced(beta=0.5, class_counts=(2, 1))
    costs = [float(loss(torch.zeros(1, 2), torch.eye(2)[k : k + 1])) for k in range(2)]
    assert costs == pytest.approx([0.8 * np.log(2), 1.2 * np.log(2)], rel=1e-6)


def test_timm_and_torch_agree() -> None:
    logits, targets = example()
    counts = (900, 70, 20, 3)
    weights = compute_class_weights(counts, num_samples=993, method="effective_num", beta=0.999)[1]
    torch.testing.assert_close(effective_weights(tuple(map(float, counts)), 0.999, torch.device("cpu")), weights)
    expected = functional.cross_entropy(logits, targets, weight=weights)
    torch.testing.assert_close(ClassBalanced(beta=0.999, class_counts=counts)(logits, targets), expected)
    torch.testing.assert_close(
        ClassBalanced(beta=0.999, gamma=2.0, class_counts=counts)(logits, targets),
        focal(logits, targets, class_weights=weights),
    )


def test_beta_0_is_cross_entropy() -> None:
    logits, targets = example()
    loss = ClassBalanced(beta=0.0, class_counts=(9, 5, 2, 1))
    torch.testing.assert_close(loss(logits, targets), CrossEntropy()(logits, targets))


def test_bad_counts_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs class_counts"):
        ClassBalanced()
    with pytest.raises(ConfigError, match=r"class 1, 2 \(counted from 0\): no training image"):
        ClassBalanced(class_counts=(5, 0, 0))
    with pytest.raises(ConfigError, match="finite"):
        ClassBalanced(class_counts=(5, -1))
    with pytest.raises(ConfigError, match="beta"):
        ClassBalanced(class_counts=(5, 1), beta=1.0)
    with pytest.raises(ConfigError, match="has 2 entries, the logits have 4 classes"):
        ClassBalanced(class_counts=(5, 1))(*example())
