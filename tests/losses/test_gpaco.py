"""GPaCo: the formula written out with loops, soft labels, and what it is without images."""

import numpy as np
import pytest
import torch
from tests.contract.loss_promises import example
from torch import Tensor
from torch.nn import functional

from raremix.core.errors import ConfigError
from raremix.losses import GPaCo, logit_adjustment
from raremix.losses.gpaco import gpaco

COUNTS = (40.0, 30.0, 20.0, 10.0)


def sphere(rows: int, *, seed: int = 0) -> Tensor:
    return functional.normalize(torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed)), dim=1)


def written_out(
    logits: np.ndarray,
    classes: list[int],
    features: np.ndarray,
    keys: np.ndarray,
    key_classes: list[int],
    *,
    alpha: float = 0.05,
    beta: float = 1.0,
    gamma: float = 1.0,
) -> float:
    losses = []
    prior = np.log(np.array(COUNTS) / 100)
    for i, own in enumerate(classes):
        pairs = [(features[i] @ features[j] / 0.2, classes[j]) for j in range(len(classes)) if j != i]
        pairs += [(features[i] @ key / 0.2, c) for key, c in zip(keys, key_classes, strict=True)]
        centres = logits[i] + prior
        log_total = np.log(np.exp(centres).sum() + gamma * sum(np.exp(e) for e, _ in pairs))
        near = [e for e, c in pairs if c == own]
        total = beta * (centres[own] - log_total) + alpha * sum(e - log_total for e in near)
        losses.append(-total / (beta + alpha * len(near)))
    return float(np.mean(losses))


@pytest.mark.parametrize("settings", [{}, {"gamma": 0.3}, {"alpha": 1.0, "beta": 0.5}])
def test_it_is_the_formula(settings: dict[str, float]) -> None:
    logits, _ = example()
    classes, key_classes = [0, 1, 2, 1, 3, 0], [3, 0, 1, 1]
    features, keys = sphere(6), sphere(4, seed=1)
    value = gpaco(
        logits,
        torch.eye(4)[classes],
        features,
        class_counts=COUNTS,
        keys=keys,
        key_targets=torch.eye(4)[key_classes],
        **settings,  # type: ignore[arg-type]
    )
    arrays = [logits.double().numpy(), classes, features.double().numpy(), keys.double().numpy(), key_classes]
    assert float(value) == pytest.approx(written_out(*arrays, **settings), rel=1e-5)  # type: ignore[arg-type]


def test_hand_computed_case() -> None:
    """One row, even prior, logits 0, one key of its class at a right angle: of 1/2 + 1/2 + e^0."""
    value = gpaco(
        torch.zeros(1, 2),
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([[1.0, 0.0]]),
        class_counts=(5.0, 5.0),
        keys=torch.tensor([[0.0, 1.0]]),
        key_targets=torch.tensor([[1.0, 0.0]]),
    )
    assert float(value) == pytest.approx((np.log(4) + 0.05 * np.log(2)) / 1.05, rel=1e-6)


def test_without_other_images_it_is_logit_adjustment() -> None:
    logits, targets = example()
    expected = logit_adjustment(logits, targets, class_counts=COUNTS)
    torch.testing.assert_close(gpaco(logits, targets, sphere(6), class_counts=COUNTS, alpha=0.0, gamma=0.0), expected)
    torch.testing.assert_close(GPaCo(class_counts=COUNTS)(logits, targets), expected)


def test_a_soft_row_is_the_sum_of_its_classes() -> None:
    logits, _ = example(rows=1)
    keys, shown = sphere(4, seed=1), torch.eye(4)[[3, 0, 1, 1]]

    def of(targets: Tensor) -> Tensor:
        return gpaco(logits, targets, sphere(1), class_counts=COUNTS, keys=keys, key_targets=shown)

    share = torch.tensor([0.1, 0.2, 0.3, 0.4])
    parts = torch.stack([of(torch.eye(4)[c : c + 1]) for c in range(4)])
    torch.testing.assert_close(of(share[None]), (share * parts).sum())


def test_rows_without_label_and_empty_places_do_not_count() -> None:
    logits, targets = example()
    features, keys, shown = sphere(6), sphere(4, seed=1), torch.eye(4)[[3, 0, 1, 1]]
    whole = gpaco(logits[:5], targets[:5], features[:5], class_counts=COUNTS, keys=keys[:2], key_targets=shown[:2])
    targets[5], shown[2:] = torch.nan, torch.nan
    features.requires_grad_()
    value = gpaco(logits, targets, features, class_counts=COUNTS, keys=keys, key_targets=shown)
    torch.testing.assert_close(value, whole)
    (gradient,) = torch.autograd.grad(value, features)
    assert bool((gradient[5] == 0).all())
    nothing = gpaco(logits, torch.full_like(targets, torch.nan), features, class_counts=COUNTS)
    assert float(nothing.detach()) == 0


def test_the_gradient_is_that_of_the_value() -> None:
    logits, targets = (value.double() for value in example())
    keys, shown = sphere(4, seed=1).double(), torch.eye(4)[[3, 0, 1, 1]].double()
    assert torch.autograd.gradcheck(
        lambda z, f: gpaco(z, targets, f, class_counts=COUNTS, keys=keys, key_targets=shown),
        (logits.requires_grad_(), sphere(6).double().requires_grad_()),
    )


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="gpaco needs class_counts"):
        GPaCo()
    with pytest.raises(ConfigError, match="beta > 0"):
        GPaCo(class_counts=(1, 2), beta=0.0)
    with pytest.raises(ConfigError, match="4 classes"):
        GPaCo(class_counts=(1, 2))(*example())
