"""LDAM: a margin by hand, the formula of the paper, soft targets, and the moment of the weights."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.contract.loss_promises import example
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.losses import LDAM, ldam
from raremix.losses.ldam import ldam_margins

COUNTS = (1600, 100, 81, 16)


def test_hand_computed_margins() -> None:
    """16^-1/4 = 1/2 is the largest; 1600^-1/4 = 1 / 6.32, 81^-1/4 = 1/3."""
    margins = ldam_margins((1600.0, 81.0, 16.0), 0.5, torch.device("cpu"))
    assert margins.tolist() == pytest.approx([16**0.25 * 0.5 / 1600**0.25, 1 / 3, 0.5])


def test_it_is_the_papers_formula() -> None:
    """s (cos - m) of the true class against s cos of the others, where the logits are s cos."""
    generator = torch.Generator().manual_seed(0)
    cosines, classes = 2 * torch.rand(8, 4, generator=generator) - 1, torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    margins = 0.5 * np.array(COUNTS) ** -0.25 / 16**-0.25
    lowered = cosines - functional.one_hot(classes, 4) * torch.tensor(margins).float()
    expected = functional.cross_entropy(30 * lowered, classes)
    loss = LDAM(class_counts=COUNTS)
    torch.testing.assert_close(loss(30 * cosines, functional.one_hot(classes, 4).float()), expected)


def test_a_soft_target_is_the_sum_of_its_classes_and_no_margin_of_a_mixture() -> None:
    logits, margins = torch.tensor([[1.0, 0.0]]), torch.tensor([0.5, 2.0])
    first = np.log(1 + np.exp(-(1 - 0.5)))
    second = np.log(1 + np.exp(1 + 2.0))
    value = float(ldam(logits, torch.tensor([[0.75, 0.25]]), margins=margins))
    assert value == pytest.approx(0.75 * first + 0.25 * second, rel=1e-6)


def test_weights_come_late() -> None:
    logits, targets = example()
    loss = LDAM(class_counts=COUNTS, reweight_from=0.8)
    early, late = loss.at_step(79, steps=100), loss.at_step(80, steps=100)
    assert early == loss
    assert float(late(logits, targets)) != pytest.approx(float(early(logits, targets)))
    torch.testing.assert_close(late(logits, targets), LDAM(class_counts=COUNTS, reweight_from=0.0)(logits, targets))
    never = LDAM(class_counts=COUNTS, reweight_from=1.0)
    assert never.at_step(100, steps=100) == never


def test_late_weights_leave_the_loss_its_size() -> None:
    """With logits of 0 and no margin every row loses log 4; over the training images the weighted mean is the same."""
    loss = LDAM(class_counts=COUNTS, max_margin=0.0, reweight_from=0.0)
    per_class = torch.stack([loss(torch.zeros(1, 4), row[None]) for row in torch.eye(4)])
    counts = torch.tensor(COUNTS, dtype=torch.float32)
    assert float((per_class * counts).sum() / counts.sum()) == pytest.approx(np.log(4), rel=1e-5)
    beta = 1 - 1e-4
    effective = (1 - beta) / (1 - beta ** np.asarray(COUNTS))
    np.testing.assert_allclose(per_class / per_class[0], effective / effective[0], rtol=1e-4)


@pytest.mark.parametrize(("settings", "scale"), [({}, 30.0), ({"is_cosine": False}, 4.0), ({"scale": 7.0}, 7.0)])
def test_the_scale_is_that_of_the_logits(settings: dict[str, Any], scale: float) -> None:
    given = LDAM(class_counts=COUNTS, **settings)
    logits, targets = example()
    assert given.scale == scale
    torch.testing.assert_close(given(logits, targets), LDAM(class_counts=COUNTS, scale=scale)(logits, targets))


def test_a_large_margin_is_exact_where_all_is_sure() -> None:
    """One class wins by 16; with a margin of 15 it wins by 1."""
    value = ldam(torch.tensor([[16.0, 0.0]]), torch.tensor([[1.0, 0.0]]), margins=torch.tensor([15.0, 1.0]))
    assert float(value) == pytest.approx(np.log(1 + np.exp(-1)), rel=1e-5)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="ldam needs class_counts"):
        LDAM()
    with pytest.raises(ConfigError, match="share of the training"):
        LDAM(class_counts=(1, 2), reweight_from=160.0)
    with pytest.raises(ConfigError, match="scale > 0"):
        LDAM(class_counts=(1, 2), scale=0.0)
