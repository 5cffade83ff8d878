"""What a linear probe that saw synthetic images alone knows of real ones."""

import numpy as np
from jaxtyping import Float32, Int

from raremix.core.random import rng
from raremix.data.manifest import Manifest
from raremix.evaluate.generative import probe_accuracy


def probe_both(
    manifest: Manifest,
    targets: dict[str, np.ndarray],
    vectors: dict[str, Float32[np.ndarray, "_ d"]],
    *,
    seed: int,
) -> tuple[float | None, float | None]:
    """Return the accuracy of a probe that saw synthetic images, and of one that saw as many real ones."""
    labels = {kind: rows.argmax(axis=1) for kind, rows in targets.items()}
    both = np.intersect1d(np.unique(labels["made"]), np.unique(labels["real"]))
    if manifest.card.task == "multilabel" or len(both) < 2 or not len(labels["held"]):
        return None, None
    asked = np.isin(labels["held"], both)
    if len(np.unique(labels["held"][asked])) < 2:
        return None, None
    seen = np.isin(labels["made"], both)
    as_many: list[Int[np.ndarray, " k"]] = []
    for label in both:
        own = np.flatnonzero(labels["real"] == label)
        as_many.append(rng(seed, "sample", 8, int(label)).permutation(own)[: int((labels["made"] == label).sum())])
    real = np.concatenate(as_many)
    unseen, true = vectors["held"][asked], labels["held"][asked]
    return (
        probe_accuracy(vectors["made"][seen], labels["made"][seen], unseen, true),
        probe_accuracy(vectors["real"][real], labels["real"][real], unseen, true),
    )
