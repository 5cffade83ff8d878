"""What every loss promises, as checks that take a class of losses and raise AssertionError where it breaks its word."""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from tests.contract.random_states import random_states
from torch import Tensor

from raremix.core.protocols import Loss


def example(rows: int = 6, classes: int = 4, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return random logits and soft targets whose rows sum to 1."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, classes, generator=generator)
    targets = torch.rand(rows, classes, generator=generator)
    return logits, targets / targets.sum(dim=1, keepdim=True)


def value_and_gradient(loss: Loss, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss and its gradient by the logits."""
    logits = logits.clone().requires_grad_()
    value = loss(logits, targets)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


def unlabelled_rows_are_dropped(kind: type[Loss]) -> None:
    """A row without labels changes nothing, as if it were not there; its logits have a gradient of zero."""
    loss = kind()
    logits, targets = example()
    targets[[1, 4]] = torch.nan
    kept = [0, 2, 3, 5]
    value, gradient = value_and_gradient(loss, logits, targets)
    expected, expected_gradient = value_and_gradient(loss, logits[kept], targets[kept])
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient[kept], expected_gradient)
    assert bool((gradient[[1, 4]] == 0).all())


def nothing_labelled_is_zero(kind: type[Loss]) -> None:
    """Where nothing is labelled the loss is 0, with a gradient of 0."""
    logits, targets = example()
    value, gradient = value_and_gradient(kind(), logits, torch.full_like(targets, torch.nan))
    assert float(value) == 0
    assert bool((gradient == 0).all())


def gradients_are_finite(kind: type[Loss]) -> None:
    """Logits of any size have a finite loss and gradient, whichever cells are labelled."""
    for size in (0.0, 1.0, 100.0, 1e4):
        logits, targets = example()
        hard = torch.nn.functional.one_hot(targets.argmax(dim=1), 4).float()
        for labels in (targets, hard):
            for is_missing in (torch.zeros(6, 4).bool(), torch.eye(6, 4).bool()):
                value, gradient = value_and_gradient(
                    kind(), size * logits.sign(), torch.where(is_missing, torch.nan, labels)
                )
                assert bool(value.isfinite() & gradient.isfinite().all()), size


def order_does_not_matter(kind: type[Loss]) -> None:
    """Neither the order of the rows nor, with it, of the classes changes the loss."""
    logits, targets = example()
    targets[2] = torch.nan
    expected = kind()(logits, targets)
    rows, classes = torch.tensor([3, 1, 0, 5, 4, 2]), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(kind()(logits[rows], targets[rows]), expected)
    torch.testing.assert_close(kind()(logits[:, classes], targets[:, classes]), expected)


def it_is_a_mean(kind: type[Loss]) -> None:
    """The loss of a batch is the mean of its rows' losses: no row's soft label is averaged with another's."""
    logits, targets = example()
    value = kind()(logits, targets)
    assert value.shape == ()
    alone = torch.stack([kind()(logits[i : i + 1], targets[i : i + 1]) for i in range(len(logits))])
    torch.testing.assert_close(value, alone.mean())


def right_is_better_than_wrong(kind: type[Loss]) -> None:
    """Surely right costs less than unsure, and that less than surely wrong."""
    targets = torch.eye(4)
    right, unsure, wrong = (float(kind()(size * (2 * targets - 1), targets)) for size in (5.0, 0.0, -5.0))
    assert right < unsure < wrong


def half_precision_is_computed_in_float32(kind: type[Loss]) -> None:
    """Logits of half precision, and targets too, give the loss of the same numbers in float32."""
    logits, targets = example(rows=64)
    for dtype in (torch.bfloat16, torch.float16):
        value, gradient = value_and_gradient(kind(), logits.to(dtype), targets)
        assert value.dtype == torch.float32
        assert gradient.dtype == dtype
        torch.testing.assert_close(value, kind()(logits.to(dtype).float(), targets), rtol=1e-6, atol=0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(kind()(logits.to(dtype), targets), value, rtol=1e-6, atol=0)


def equal_counts_weigh_nothing(kind: type[Loss]) -> None:
    """Classes of equal size have the weight 1 under every scheme; the rarer a class, the more its mistakes cost."""
    if "class_weights" not in {field.name for field in dataclasses.fields(kind)}:  # type: ignore[arg-type]
        return
    logits, targets = example()
    hard = torch.eye(4)
    expected = kind()(logits, targets)
    for scheme in ("none", "inverse", "sqrt", "effective"):
        for counts in ((500, 500, 500, 500), np.full(4, 7), [0, 0, 0, 0]):
            weighted = kind(class_weights=scheme, class_counts=counts)  # type: ignore[call-arg]
            torch.testing.assert_close(weighted(logits, targets), expected)
        if scheme != "none":
            tailed = kind(class_weights=scheme, class_counts=(1000, 100, 10, 0))  # type: ignore[call-arg]
            costs = [float(tailed(-5 * hard[k : k + 1], hard[k : k + 1])) for k in range(4)]
            assert costs == sorted(costs)
            assert costs[0] < costs[1] < costs[2]


def validation_first_is_no_trap(kind: type[Loss]) -> None:
    """What a loss keeps from a call in inference mode is fit for training."""
    logits, targets = example(classes=3)
    settings = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    loss = kind(class_weights="sqrt", class_counts=(70, 20, 11)) if "class_weights" in settings else kind()  # type: ignore[call-arg]
    with torch.inference_mode():
        loss(logits, targets)
    _, gradient = value_and_gradient(loss, logits, targets)
    assert bool(gradient.isfinite().all())


def inputs_and_randomness_are_untouched(kind: type[Loss]) -> None:
    """Nothing that goes in is written to, and no global random state moves."""
    logits, targets = example()
    targets[0, 0] = torch.nan
    before = (logits.clone(), targets.clone())
    loss = kind()
    states = random_states()
    loss(logits, targets)
    assert random_states() == states
    assert torch.equal(logits, before[0])
    assert torch.equal(targets.nan_to_num(9.0), before[1].nan_to_num(9.0))


def settings_are_values(kind: type[Loss]) -> None:
    """A loss is a frozen, keyword-only dataclass: equal settings are equal losses."""
    assert dataclasses.is_dataclass(kind)
    assert all(field.kw_only for field in dataclasses.fields(kind))
    assert kind() == kind()
    assert hash(kind()) == hash(kind())


PROMISES: list[Callable[[type[Loss]], None]] = [
    unlabelled_rows_are_dropped,
    nothing_labelled_is_zero,
    gradients_are_finite,
    order_does_not_matter,
    it_is_a_mean,
    right_is_better_than_wrong,
    half_precision_is_computed_in_float32,
    equal_counts_weigh_nothing,
    validation_first_is_no_trap,
    inputs_and_randomness_are_untouched,
    settings_are_values,
]
