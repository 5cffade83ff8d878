"""Supervised contrastive loss: the paper's formula written out, soft labels, keys, and rows to be left out."""

import numpy as np
import pytest
import torch
from tests.contract.loss_promises import example
from torch import Tensor
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.losses import SupervisedContrastive, cross_entropy
from raremix.losses.supervised_contrastive import supervised_contrastive


def sphere(rows: int, *, seed: int = 0) -> Tensor:
    return functional.normalize(torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed)), dim=1)


def written_out(features: np.ndarray, classes: list[int], *, temperature: float) -> float:
    """Equation 2 (L_out), with loops."""
    losses = []
    for i, own in enumerate(classes):
        others = [k for k in range(len(classes)) if k != i]
        partners = [p for p in others if classes[p] == own]
        if partners:
            total = sum(np.exp(features[i] @ features[k] / temperature) for k in others)
            terms = [np.log(np.exp(features[i] @ features[p] / temperature) / total) for p in partners]
            losses.append(-np.mean(terms))
    return float(np.mean(losses))


def test_hand_computed_case() -> None:
    """Three of one class at 90 degrees or more: f_1 f_2 = 0, f_1 f_3 = -1, f_2 f_3 = 0, temperature 1."""
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    ends = -(0 - 1) / 2 + np.log(1 + np.exp(-1))
    expected = (2 * ends + np.log(2)) / 3
    value = float(supervised_contrastive(features, torch.ones(3, 1), temperature=1.0))
    assert value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_it_is_the_papers_formula(temperature: float) -> None:
    features, classes = sphere(9), [0, 1, 2, 0, 1, 0, 3, 1, 0]
    value = supervised_contrastive(features, torch.eye(4)[classes], temperature=temperature)
    expected = written_out(features.double().numpy(), classes, temperature=temperature)
    assert float(value) == pytest.approx(expected, rel=1e-5)


def test_keys_are_compared_with_and_have_no_loss() -> None:
    features, classes = sphere(7), torch.tensor([0, 1, 0, 2, 1, 0, 2])
    targets = torch.eye(3)[classes]
    whole = [supervised_contrastive(features, targets)]
    values = supervised_contrastive(features[:3], targets[:3], keys=features[3:], key_targets=targets[3:])
    losses = []
    for i in range(3):
        order = [i, *[k for k in range(7) if k != i]]
        one = supervised_contrastive(
            features[order[:1]], targets[order[:1]], keys=features[order[1:]], key_targets=targets[order[1:]]
        )
        losses.append(one)
    torch.testing.assert_close(values, torch.stack(losses).mean())
    assert float(whole[0]) != pytest.approx(float(values))


def test_a_soft_row_is_the_sum_of_its_classes() -> None:
    features = sphere(5)
    rest = torch.eye(2)[[0, 1, 0, 1]]
    parts = [
        supervised_contrastive(features[:1], torch.eye(2)[c : c + 1], keys=features[1:], key_targets=rest)
        for c in range(2)
    ]
    soft = supervised_contrastive(features[:1], torch.tensor([[0.3, 0.7]]), keys=features[1:], key_targets=rest)
    torch.testing.assert_close(soft, 0.3 * parts[0] + 0.7 * parts[1])


def test_rows_without_label_or_partner_are_left_out() -> None:
    features, targets = sphere(6).requires_grad_(), torch.eye(3)[[0, 0, 1, 1, 2, 0]]
    targets[5] = torch.nan
    value = supervised_contrastive(features, targets)
    (gradient,) = torch.autograd.grad(value, features)
    torch.testing.assert_close(value, supervised_contrastive(features[:5], targets[:5]))
    assert bool((gradient[5] == 0).all())
    assert float(supervised_contrastive(features[:2].detach(), torch.eye(3)[:2])) == 0
    assert float(supervised_contrastive(features.detach(), torch.full((6, 3), torch.nan))) == 0


def test_the_class_adds_cross_entropy() -> None:
    logits, targets = example()
    features = sphere(6)
    loss = SupervisedContrastive(strength=0.5)
    empty = torch.zeros(0, 5)
    value = loss.with_features(logits, targets, features=features, keys=empty, key_targets=torch.zeros(0, 4))
    expected = cross_entropy(logits, targets) + 0.5 * supervised_contrastive(features, targets)
    torch.testing.assert_close(value, expected)


def test_the_gradient_is_that_of_the_value() -> None:
    targets = torch.eye(3)[[0, 0, 1, 1, 2, 0]].double()
    keys, key_targets = sphere(4, seed=1).double(), torch.eye(3)[[2, 2, 1, 0]].double()
    key_targets[3] = torch.nan
    assert torch.autograd.gradcheck(
        lambda f: supervised_contrastive(f, targets, keys=keys, key_targets=key_targets),
        sphere(6).double().requires_grad_(),
    )


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="temperature > 0"):
        SupervisedContrastive(temperature=0.0)
    with pytest.raises(ConfigError, match="width >= 1"):
        SupervisedContrastive(width=0)
    with pytest.raises(ConfigError, match="momentum must lie"):
        SupervisedContrastive(momentum=1.0, queue=8)
    with pytest.raises(ConfigError, match="queue is 0"):
        SupervisedContrastive(momentum=0.9)
