"""The linear probe."""

import numpy as np
import pytest

from raremix.core.errors import DataError
from raremix.evaluate.generative import linear_probe
from raremix.evaluate.intervals import wilson


def test_good_images_teach_and_images_with_shuffled_labels_do_not() -> None:
    stream = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    points = stream.normal(size=(100, 5)) + 3 * np.eye(3, 5)[labels]
    unseen = np.repeat([0, 1, 2], 40)
    asked = stream.normal(size=(120, 5)) + 3 * np.eye(3, 5)[unseen]
    who = np.arange(120)
    assert linear_probe(points, labels, asked, unseen, groups=who).accuracy.value > 0.8
    assert linear_probe(points, stream.permutation(labels), asked, unseen, groups=who).accuracy.value < 0.6


def test_recalls_are_counted_and_their_intervals_know_patients() -> None:
    """Four of ten images of class 1 lie on the other side; the same ten as those of five patients say less."""
    seen, labels = np.repeat([[0.0], [1.0]], 30, axis=0), np.repeat([0, 1], 30)
    unseen, true = np.array([0.0] * 20 + [1.0] * 6 + [0.0] * 4)[:, None], np.repeat([0, 1], [20, 10])
    alone = linear_probe(seen, labels, unseen, true, groups=np.arange(30))
    assert {k: one.value for k, one in alone.recall.items()} == {0: 1.0, 1: 0.6}
    assert alone.accuracy.value == pytest.approx(0.8)
    assert (alone.images, alone.patients) == ({0: 20, 1: 10}, {0: 20, 1: 10})
    assert alone.recall[0].low == wilson(20, 20).low
    assert alone.recall[1].low < 0.35
    assert alone.recall[1].high > 0.8
    assert alone.accuracy.low < 0.8 < alone.accuracy.high
    pairs = linear_probe(seen, labels, unseen, true, groups=np.repeat(np.arange(15), 2))
    assert pairs.patients == {0: 10, 1: 5}
    widths = [one.recall[1].high - one.recall[1].low for one in (pairs, alone)]
    assert widths[0] > 1.1 * widths[1]
    assert pairs.recall[0].low == wilson(10, 10).low


def test_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="1 classes"):
        linear_probe(
            np.zeros((4, 2)), np.zeros(4, dtype=int), np.zeros((2, 2)), np.zeros(2, dtype=int), groups=np.arange(2)
        )
