"""Class weights: the formulas, by hand."""

import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.losses.class_weights import checked_counts, positive_weights, raw_weights, row_weights


def test_formulas() -> None:
    assert raw_weights([1, 4, 100], scheme="none").tolist() == [1, 1, 1]
    assert raw_weights([1, 4, 100], scheme="inverse").tolist() == [1, 0.25, 0.01]
    assert raw_weights([1, 4, 100], scheme="sqrt").tolist() == [1, 0.5, 0.1]
    # (1 - b) / (1 - b^n) is the inverse of 1 + b + ... + b^(n - 1)
    b = 0.9999
    assert raw_weights([1, 3], scheme="effective").tolist() == pytest.approx([1, 1 / (1 + b + b * b)])


def test_a_class_without_images_counts_as_one() -> None:
    assert raw_weights([0, 1], scheme="inverse").tolist() == [1, 1]


def test_row_weights_have_mean_one_over_the_images() -> None:
    weights = row_weights((90.0, 10.0), "inverse", torch.device("cpu"))
    assert weights.tolist() == pytest.approx([100 / 180, 5.0])
    assert float((weights * torch.tensor([90, 10])).sum() / 100) == pytest.approx(1)


def test_positive_weights_are_one_for_the_most_frequent() -> None:
    assert positive_weights((90.0, 10.0), "inverse", torch.device("cpu")).tolist() == pytest.approx([1.0, 9.0])


def test_counts_that_are_none_are_refused() -> None:
    assert checked_counts(None, scheme="none") is None
    with pytest.raises(ConfigError, match="finite"):
        checked_counts([1.0, float("nan")], scheme="none")
