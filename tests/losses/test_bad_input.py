"""What a loss refuses instead of returning a number: shapes that torch would stretch, counts that fit nothing."""

import subprocess
import sys

import pytest
import torch

from raremix.core.errors import ConfigError, DataError
from raremix.losses import (
    GPaCo,
    SupervisedContrastive,
    asymmetric,
    balanced_softmax,
    class_balanced,
    distribution_balanced,
    dual_weighted_metric,
    gpaco,
    logit_adjustment,
)
from raremix.losses.distribution_balanced import DistributionBalanced
from raremix.losses.labelled import check_shapes
from raremix.losses.ldam import LDAM

LOGITS, TARGETS = torch.zeros(3, 2), torch.eye(2)[[0, 1, 1]]
FEATURES = torch.nn.functional.normalize(torch.ones(3, 4), dim=1)
BY_COUNTS = {
    "logit_adjustment": lambda counts: logit_adjustment(LOGITS, TARGETS, class_counts=counts),
    "balanced_softmax": lambda counts: balanced_softmax(LOGITS, TARGETS, class_counts=counts),
    "class_balanced": lambda counts: class_balanced(LOGITS, TARGETS, class_counts=counts),
    "gpaco": lambda counts: gpaco(LOGITS, TARGETS, FEATURES, class_counts=counts),
    "distribution_balanced": lambda counts: distribution_balanced(
        LOGITS, TARGETS, class_counts=counts, labelled_counts=[9.0] * len(counts)
    ),
}


@pytest.mark.parametrize("name", BY_COUNTS)
def test_functions_refuse_counts_that_do_not_go_with_the_logits(name: str) -> None:
    call = BY_COUNTS[name]
    with pytest.raises(ConfigError, match=f"{name}: class_counts is 0 for class 1"):
        call((3.0, 0.0))
    for counts in ((3.0,), (3.0, 1.0, 1.0)):
        with pytest.raises(ConfigError, match=f"class_counts has {len(counts)} entries, the logits have 2 classes"):
            call(counts)
    torch.testing.assert_close(call([3, 1]), call((3.0, 1.0)))


def test_a_label_that_is_always_there_is_refused_by_the_function_too() -> None:
    with pytest.raises(ConfigError, match=r"label 0 \(counted from 0\) is positive in every"):
        distribution_balanced(LOGITS, TARGETS, class_counts=(5.0, 1.0), labelled_counts=(5.0, 5.0))


@pytest.mark.parametrize("shape", [(3, 1), (3,), (2, 2), (1, 2)])
def test_targets_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"logits of shape \(3, 2\) and targets of shape"):
        check_shapes(LOGITS, torch.ones(shape))


def test_class_numbers_are_told_what_they_should_become() -> None:
    with pytest.raises(DataError, match=r"one_hot\(targets, 2\)"):
        check_shapes(LOGITS, torch.tensor([0, 1, 1]))


def test_every_loss_looks_at_shapes_where_nothing_else_does() -> None:
    """Types are checked while tests run: outside, each loss says it itself, and none returns a number."""
    code = """
import torch
from raremix.core.errors import DataError
from raremix.losses import LOSSES
counts = {"class_counts": (3, 1), "labelled_counts": (9, 9)}
for name, kind in LOSSES.items():
    fields = kind.__dataclass_fields__
    loss = kind(**{key: value for key, value in counts.items() if key in fields})
    for targets in (torch.ones(3, 1), torch.ones(1, 2), torch.tensor([0, 1, 1])):
        try:
            print(name, tuple(targets.shape), loss(torch.zeros(3, 2), targets))
        except DataError:
            pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_weights_of_another_length_are_refused() -> None:
    code = """
import torch
from raremix.core.errors import ConfigError
from raremix.losses import binary_cross_entropy, cross_entropy, dual_weighted_metric, focal, ldam
z, t, one = torch.zeros(3, 2), torch.ones(3, 2), torch.ones(1)
for loss, key in (
    (ldam, "margins"), (cross_entropy, "class_weights"), (focal, "class_weights"),
    (binary_cross_entropy, "positive_weights"), (dual_weighted_metric, "positive_weights"),
    (dual_weighted_metric, "negative_weights"),
):
    try:
        print(loss, loss(z, t, **{key: one}))
    except ConfigError as error:
        assert str(error) == f"{key} has 1 entries, the logits have 2 classes", error
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_weights_of_one_kind_alone_count() -> None:
    plain = dual_weighted_metric(LOGITS, TARGETS)
    heavy = torch.full((2,), 3.0)
    more = dual_weighted_metric(LOGITS, TARGETS, positive_weights=heavy)
    both = dual_weighted_metric(LOGITS, TARGETS, positive_weights=heavy, negative_weights=heavy)
    assert plain < more < both
    torch.testing.assert_close(both, 3 * plain)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: class_balanced(LOGITS, TARGETS, class_counts=(3.0, 1.0), beta=1.0), "beta must lie in"),
        (lambda: dual_weighted_metric(LOGITS, TARGETS, tau=0.0), "tau must be above 0"),
        (lambda: LDAM(class_counts=(3, 1), max_margin=float("inf")), "finite max_margin"),
        (lambda: GPaCo(class_counts=(3, 1), temperature=float("inf")), "finite numbers"),
        (lambda: SupervisedContrastive(temperature=float("inf")), "temperature > 0"),
        *(
            (
                lambda key=key, value=value: DistributionBalanced(
                    class_counts=(3, 1), labelled_counts=(9, 9), **{key: value}
                ),
                "distribution_balanced needs",
            )
            for key, value in (("steepness", float("nan")), ("centre", float("nan")), ("factor", -1.0))
        ),
    ],
)
def test_values_that_make_no_loss_are_refused(build: object, said: str) -> None:
    assert callable(build)
    with pytest.raises(ConfigError, match=said):
        build()


def test_a_sure_mistake_costs_a_finite_amount_however_little_is_clipped() -> None:
    assert asymmetric(torch.full((1, 2), 30.0), torch.zeros(1, 2), clip=1e-9).isfinite()
