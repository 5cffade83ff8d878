"""How good logits are on validation images."""

import numpy as np
from jaxtyping import Float

from raremix.evaluate.calibration import scores_from_logits
from raremix.evaluate.metrics import METRICS
from raremix.evaluate.score import score
from raremix.study.recipes.kinds import Trained


def merit_of(logits: Float[np.ndarray, "N K"], trained: Trained) -> float:
    """Return the metric that chooses, of other logits of the validation images; larger is better.

    What the images leave undefined is worse than anything.
    """
    found = score(
        trained.rows.targets, scores_from_logits(logits, task=trained.task), metric=trained.metric, task=trained.task
    )
    if found is None:
        return -np.inf
    return found if METRICS[trained.metric].higher_is_better else -found
