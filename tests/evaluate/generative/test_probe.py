"""The linear probe."""

import numpy as np
import pytest

from raremix.core.errors import DataError
from raremix.evaluate.generative import probe_accuracy


def test_good_images_teach_and_images_with_shuffled_labels_do_not() -> None:
    stream = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    points = stream.normal(size=(100, 5)) + 3 * np.eye(3, 5)[labels]
    unseen = np.repeat([0, 1, 2], 40)
    asked = stream.normal(size=(120, 5)) + 3 * np.eye(3, 5)[unseen]
    assert probe_accuracy(points, labels, asked, unseen) > 0.8
    assert probe_accuracy(points, stream.permutation(labels), asked, unseen) < 0.6


def test_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="1 classes"):
        probe_accuracy(np.zeros((4, 2)), np.zeros(4, dtype=int), np.zeros((2, 2)), np.zeros(2, dtype=int))
