"""Figures with intervals."""

import numpy as np
import pytest

from raremix.core.errors import DataError
from raremix.evaluate.generative import FIGURES, frechet_distance, generative_figures, kernel_distance, neighbourhoods


def test_values_are_those_of_the_functions() -> None:
    stream = np.random.default_rng(0)
    real, made = stream.normal(size=(60, 6)), stream.normal(size=(50, 6)) + 0.5
    found = generative_figures(real, made)
    near = neighbourhoods(real, made)
    assert set(found) == set(FIGURES)
    assert found["frechet"].value == pytest.approx(frechet_distance(real, made))
    assert found["kernel"].value == pytest.approx(kernel_distance(real, made))
    for name in ("precision", "recall", "density", "coverage"):
        assert found[name].value == getattr(near, name)
    for one in found.values():
        assert one.low <= one.value <= one.high


def test_intervals_hold_the_true_kernel_distance() -> None:
    """Far more rows say what it is; the interval of few holds it about as often as promised."""
    stream = np.random.default_rng(1)
    true = kernel_distance(stream.normal(size=(3000, 3)), stream.normal(size=(3000, 3)) + 0.4)
    held = 0
    for _ in range(40):
        one = generative_figures(stream.normal(size=(40, 3)), stream.normal(size=(40, 3)) + 0.4)["kernel"]
        held += one.low <= true <= one.high
    assert held >= 34


def test_several_images_of_a_patient_widen_the_interval() -> None:
    stream = np.random.default_rng(2)
    patients = stream.permutation(np.repeat(np.arange(30), 6))
    real = stream.normal(size=(30, 4))[patients] + 0.1 * stream.normal(size=(180, 4))
    made = stream.normal(size=(200, 4))
    by_patient, by_image = generative_figures(real, made, groups=patients), generative_figures(real, made)
    widths = [found["kernel"].high - found["kernel"].low for found in (by_patient, by_image)]
    assert widths[0] > 1.5 * widths[1]


def test_too_few_are_refused() -> None:
    with pytest.raises(DataError, match="at least 7"):
        generative_figures(np.zeros((6, 2)), np.zeros((20, 2)))
