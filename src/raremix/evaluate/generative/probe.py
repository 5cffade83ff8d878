"""Whether a classifier that has seen generated images alone knows real ones."""

import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from raremix.core.errors import DataError


def probe_accuracy(
    seen: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    unseen: Float[np.ndarray, "m d"],
    true: Int[np.ndarray, " m"],
) -> float:
    """Return the balanced accuracy on images of a logistic regression that was fitted to others.

    With generated images seen and real ones unseen it is the classification accuracy score of Ravuri & Vinyals 2019
    (https://arxiv.org/abs/1905.10887), who train a ResNet-50; here the encoder stays as it is and one linear layer is
    fitted, on standardised vectors and with C = 0.1. Beside it belongs the same of as many real images.

    Args:
        seen, labels: what it is fitted to.
        unseen, true: what it is asked; classes that are not there do not count.

    Raises:
        DataError: if fewer than two classes are seen.
    """
    known = np.unique(labels)
    if len(known) < 2:
        raise DataError(f"{len(known)} classes to tell apart: expected at least two")
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000, class_weight="balanced"))
    answered = probe.fit(seen, labels).predict(unseen)
    return float(np.mean([(answered[true == k] == k).mean() for k in np.unique(true)]))
