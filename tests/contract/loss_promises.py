"""What every loss promises, as checks that take a class of losses and raise AssertionError where it breaks its word."""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from tests.contract.random_states import random_states
from torch import Tensor

from raremix.core.protocols import Loss
from raremix.losses import (
    ZLPR,
    Asymmetric,
    AUCMargin,
    BinaryCrossEntropy,
    BinaryFocal,
    DistributionBalanced,
    DualWeightedMetric,
    FocalEuclidean,
    PartialAUC,
    ProxyAnchor,
    TwoWay,
)

COMPARES_ROWS = {TwoWay, AUCMargin, PartialAUC, ProxyAnchor}
"""Losses of a whole batch, which are no mean over its rows."""

RANKS = {ZLPR, TwoWay, AUCMargin, PartialAUC, ProxyAnchor}
ASKS_EACH_CLASS = RANKS | {
    BinaryCrossEntropy,
    BinaryFocal,
    Asymmetric,
    DistributionBalanced,
    DualWeightedMetric,
    FocalEuclidean,
}
"""Losses in which a class has an answer of its own: a constant added to all logits of a row changes it."""

WEIGHS_BY_TARGETS = RANKS | {DistributionBalanced, DualWeightedMetric}
"""Losses whose soft form is no sum over the classes: logarithms of sums, or weights that depend on the targets."""

WITHOUT_WEIGHTS = {DualWeightedMetric: {"weighs_images": False}}
"""Settings under which the gradient is that of the value: weights that are held fixed are no part of it."""


def make(kind: type[Loss], counts: tuple[float, ...] = (40, 30, 20, 10), **settings: object) -> Loss:
    """Build a loss as a study does: what it knows of the training images is filled in where it has such a field."""
    if not dataclasses.is_dataclass(kind):
        return kind()
    names = {field.name for field in dataclasses.fields(kind)}
    known = {"class_counts": counts, "labelled_counts": tuple(2 * max(counts) for _ in counts)}
    return kind(**{name: value for name, value in known.items() if name in names}, **settings)  # type: ignore[call-arg]


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
    loss = make(kind)
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
    value, gradient = value_and_gradient(make(kind), logits, torch.full_like(targets, torch.nan))
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
                    make(kind), size * logits.sign(), torch.where(is_missing, torch.nan, labels)
                )
                assert bool(value.isfinite() & gradient.isfinite().all()), size


def order_does_not_matter(kind: type[Loss]) -> None:
    """Neither the order of the rows nor, with it, of the classes changes the loss."""
    logits, targets = example()
    targets[2] = torch.nan
    expected = make(kind)(logits, targets)
    rows, classes = torch.tensor([3, 1, 0, 5, 4, 2]), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(make(kind)(logits[rows], targets[rows]), expected)
    moved = make(kind, (20, 40, 10, 30))
    torch.testing.assert_close(moved(logits[:, classes], targets[:, classes]), expected)


def it_is_a_mean(kind: type[Loss]) -> None:
    """The loss of a batch is the mean of its rows' losses: no row's soft label is averaged with another's."""
    if kind in COMPARES_ROWS:
        return
    logits, targets = example()
    value = make(kind)(logits, targets)
    assert value.shape == ()
    alone = torch.stack([make(kind)(logits[i : i + 1], targets[i : i + 1]) for i in range(len(logits))])
    torch.testing.assert_close(value, alone.mean())


def right_is_better_than_wrong(kind: type[Loss]) -> None:
    """Surely right costs less than unsure, and that less than surely wrong."""
    targets = torch.eye(4)
    right, unsure, wrong = (float(make(kind)(size * (2 * targets - 1), targets)) for size in (5.0, 0.0, -5.0))
    assert right < unsure < wrong


def half_precision_is_computed_in_float32(kind: type[Loss]) -> None:
    """Logits of half precision, and targets too, give the loss of the same numbers in float32."""
    logits, targets = example(rows=64)
    for dtype in (torch.bfloat16, torch.float16):
        value, gradient = value_and_gradient(make(kind), logits.to(dtype), targets)
        assert value.dtype == torch.float32
        assert gradient.dtype == dtype
        torch.testing.assert_close(value, make(kind)(logits.to(dtype).float(), targets), rtol=1e-6, atol=0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(make(kind)(logits.to(dtype), targets), value, rtol=1e-6, atol=0)


def equal_counts_weigh_nothing(kind: type[Loss]) -> None:
    """Classes of equal size have the weight 1 under every scheme; the rarer a class, the more its mistakes cost."""
    if "class_weights" not in {field.name for field in dataclasses.fields(kind)}:  # type: ignore[arg-type]
        return
    logits, targets = example()
    hard = torch.eye(4)
    expected = make(kind)(logits, targets)
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
    loss = make(kind, (70, 20, 11), **({"class_weights": "sqrt"} if "class_weights" in settings else {}))
    with torch.inference_mode():
        loss(logits, targets)
    _, gradient = value_and_gradient(loss, logits, targets)
    assert bool(gradient.isfinite().all())


def inputs_and_randomness_are_untouched(kind: type[Loss]) -> None:
    """Nothing that goes in is written to, and no global random state moves."""
    logits, targets = example()
    targets[0, 0] = torch.nan
    before = (logits.clone(), targets.clone())
    loss = make(kind)
    states = random_states()
    loss(logits, targets)
    assert random_states() == states
    assert torch.equal(logits, before[0])
    assert torch.equal(targets.nan_to_num(9.0), before[1].nan_to_num(9.0))


def settings_are_values(kind: type[Loss]) -> None:
    """A loss is a frozen, keyword-only dataclass: equal settings are equal losses."""
    assert dataclasses.is_dataclass(kind)
    assert all(field.kw_only for field in dataclasses.fields(kind))
    assert make(kind) == make(kind)
    assert hash(make(kind)) == hash(make(kind))


def unlabelled_cells_have_no_gradient(kind: type[Loss]) -> None:
    """The logit of a cell that is not labelled has a gradient of zero, and its value does not matter."""
    logits, targets = example()
    is_missing = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) < 0.4
    targets = targets.masked_fill(is_missing, torch.nan)
    loss = make(kind)
    value, gradient = value_and_gradient(loss, logits, targets)
    assert bool((gradient[is_missing] == 0).all())
    torch.testing.assert_close(loss(torch.where(is_missing, 7.0, logits), targets), value)


def a_column_may_be_empty(kind: type[Loss]) -> None:
    """A class that nobody labelled leaves loss and gradient finite, and its own logits alone."""
    logits, targets = example()
    targets[:, 1] = torch.nan
    value, gradient = value_and_gradient(make(kind), logits, targets)
    assert bool(value.isfinite() & gradient.isfinite().all())
    assert bool((gradient[:, 1] == 0).all())


def soft_is_the_expanded_sum(kind: type[Loss]) -> None:
    """A soft target costs what its classes cost, each by its share: a margin is never that of half a class."""
    if kind in WEIGHS_BY_TARGETS:
        return
    loss, (logits, targets) = make(kind), example()
    for i in range(len(logits)):
        parts = [loss(logits[i : i + 1], torch.eye(4)[c : c + 1]) for c in range(4)]
        expected = (targets[i] * torch.stack(parts)).sum()
        torch.testing.assert_close(loss(logits[i : i + 1], targets[i : i + 1]), expected)


def a_shared_shift_changes_nothing(kind: type[Loss]) -> None:
    """A constant added to all logits of a row leaves a loss of softmax scores as it is."""
    if kind in ASKS_EACH_CLASS:
        return
    logits, targets = example()
    shift = torch.arange(6.0)[:, None] - 2
    torch.testing.assert_close(make(kind)(logits + shift, targets), make(kind)(logits, targets))


def the_gradient_is_that_of_the_value(kind: type[Loss]) -> None:
    """In float64 the gradient is what the value says, by finite differences."""
    logits, targets = example()
    targets[2] = torch.nan
    loss = make(kind, **WITHOUT_WEIGHTS.get(kind, {}))
    assert torch.autograd.gradcheck(lambda z: loss(z, targets.double()), logits.double().requires_grad_())


def a_step_changes_no_settings(kind: type[Loss]) -> None:
    """The loss in force at a step is a loss as well, and asking for it leaves the one that was asked as it is."""
    loss, (logits, targets) = make(kind), example()
    for step in (0, 50, 99):
        in_force = loss.at_step(step, steps=100)
        assert bool(in_force(logits, targets).isfinite())
        assert in_force.at_step(step, steps=100) == in_force
    assert loss == make(kind)


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
    unlabelled_cells_have_no_gradient,
    a_column_may_be_empty,
    soft_is_the_expanded_sum,
    a_shared_shift_changes_nothing,
    the_gradient_is_that_of_the_value,
    a_step_changes_no_settings,
]
