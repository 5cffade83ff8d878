"""Cross-entropy: a case computed by hand, torch's and timm's on whatever they can do, and class weights."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from tests.contract.loss_promises import example
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.losses import CrossEntropy, cross_entropy


def test_hand_computed_case() -> None:
    """Odds 1:3 and a soft target: -(0.25 log 0.25 + 0.75 log 0.75)."""
    logits = torch.tensor([[0.0, np.log(3.0)], [5.0, -5.0]]).float()
    targets = torch.tensor([[0.25, 0.75], [torch.nan, 1.0]])
    assert float(cross_entropy(logits, targets)) == pytest.approx(0.5623351, abs=1e-6)


def test_soft_is_hard_where_targets_are_one_hot() -> None:
    logits, targets = example()
    classes = targets.argmax(dim=1)
    one_hot = functional.one_hot(classes, 4).float()
    torch.testing.assert_close(cross_entropy(logits, one_hot), functional.cross_entropy(logits, classes))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_torch_agrees_on_soft_targets_weights_and_smoothing(smoothing: float) -> None:
    logits, targets = example()
    weights = torch.tensor([0.5, 2.0, 1.0, 3.0])
    expected = functional.cross_entropy(logits, targets, weight=weights, label_smoothing=smoothing)
    torch.testing.assert_close(
        cross_entropy(logits, targets, class_weights=weights, label_smoothing=smoothing), expected
    )


def test_timm_agrees() -> None:
    logits, targets = example()
    torch.testing.assert_close(cross_entropy(logits, targets), SoftTargetCrossEntropy()(logits, targets))
    classes = targets.argmax(dim=1)
    one_hot = functional.one_hot(classes, 4).float()
    torch.testing.assert_close(
        CrossEntropy(label_smoothing=0.1)(logits, one_hot), LabelSmoothingCrossEntropy(0.1)(logits, classes)
    )


def test_smoothing_leaves_unlabelled_rows_out() -> None:
    logits, targets = example()
    targets[3] = torch.nan
    loss = CrossEntropy(label_smoothing=0.2)
    kept = [0, 1, 2, 4, 5]
    torch.testing.assert_close(loss(logits, targets), loss(logits[kept], targets[kept]))


def test_inverse_weights_are_scikit_learns_balanced() -> None:
    labels = np.repeat([0, 1, 2], [70, 25, 5])
    weights = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    loss = CrossEntropy(class_weights="inverse", class_counts=(70, 25, 5))
    for k in range(3):
        target = torch.eye(3)[k : k + 1]
        assert float(loss(torch.zeros(1, 3), target)) == pytest.approx(weights[k] * np.log(3), rel=1e-5)


@pytest.mark.parametrize("scheme", ["inverse", "sqrt", "effective"])
def test_weights_keep_the_size_of_the_loss(scheme: str) -> None:
    """Over the whole training set, unsure everywhere, the weighted loss is the unweighted one."""
    counts = (900, 90, 10)
    targets = torch.eye(3)[torch.arange(3).repeat_interleave(torch.tensor(counts))]
    loss = CrossEntropy(class_weights=scheme, class_counts=counts)  # type: ignore[arg-type]
    assert float(loss(torch.zeros(1000, 3), targets)) == pytest.approx(np.log(3), rel=1e-5)


def test_a_batch_of_one_class_keeps_its_weight() -> None:
    """The weights are not divided out again by what happens to be in the batch."""
    loss = CrossEntropy(class_weights="inverse", class_counts=(90, 10))
    common, rare = (float(loss(torch.zeros(4, 2), torch.eye(2)[k].repeat(4, 1))) for k in range(2))
    assert rare / common == pytest.approx(9.0)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="class_counts"):
        CrossEntropy(class_weights="inverse")
    with pytest.raises(ConfigError, match="class_counts"):
        CrossEntropy(class_weights="inverse", class_counts=(3.0, -1.0))
    with pytest.raises(ConfigError, match="class_counts"):
        CrossEntropy(class_counts=())
    with pytest.raises(ConfigError, match="label_smoothing"):
        CrossEntropy(label_smoothing=1.0)
    with pytest.raises(ConfigError, match="4 classes"):
        CrossEntropy(class_weights="inverse", class_counts=(3, 1))(*example())
