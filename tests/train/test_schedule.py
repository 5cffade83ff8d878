import math

import pytest
import torch
from tests.train.toys import Toy
from torch import nn

from raremix.train.average import start_averages, update_averages
from raremix.train.schedule import average_decay, rate_factor


def test_cosine_by_hand() -> None:
    found = [round(rate_factor(step, steps=8, warmup=0), 6) for step in (0, 2, 4, 6, 8)]
    assert found == [1.0, round(0.5 + 0.5 / math.sqrt(2), 6), 0.5, round(0.5 - 0.5 / math.sqrt(2), 6), 0.0]


def test_warm_up_rises_to_one() -> None:
    found = [rate_factor(step, steps=20, warmup=4) for step in range(6)]
    assert found[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert found[5] < 1.0


def test_constant_and_final() -> None:
    assert {rate_factor(step, steps=10, warmup=0, schedule="constant") for step in range(11)} == {1.0}
    assert rate_factor(10, steps=10, warmup=0, final=0.1) == pytest.approx(0.1)
    assert rate_factor(99, steps=10, warmup=0, final=0.1) == pytest.approx(0.1)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (2, 2), (3, 5), (100, 5)])
def test_factors_stay_between_zero_and_one(steps: int, warmup: int) -> None:
    found = [rate_factor(step, steps=steps, warmup=warmup) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in found)
    assert found[min(warmup, steps) :] == sorted(found[min(warmup, steps) :], reverse=True)


def test_decay_starts_small() -> None:
    assert [round(average_decay(step, decay=0.998), 4) for step in (0, 1, 90, 10**6)] == [0.1, 0.1818, 0.91, 0.998]


def test_the_average_by_hand() -> None:
    """Weights move by 1 - decay of the step, counters at once; the average itself is never trained."""
    task = Toy().task()
    averages = start_averages(task, decay=0.998)
    before = {key: value.clone() for key, value in averages["classifier"].state_dict().items()}
    net = task.modules["classifier"]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    norms[0].num_batches_tracked += 7  # type: ignore[operator]
    update_averages(task, averages, decay=0.998, step=0)
    after = averages["classifier"].state_dict()
    for key, value in net.state_dict().items():
        expected = before[key] + 0.9 * (value - before[key]) if value.is_floating_point() else value
        torch.testing.assert_close(after[key], expected)
    assert not any(p.requires_grad for p in averages["classifier"].parameters())
    assert not averages["classifier"].training


def test_no_average() -> None:
    assert start_averages(Toy().task(), decay=None) == {}
