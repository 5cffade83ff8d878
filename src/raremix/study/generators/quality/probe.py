"""What a linear probe that saw synthetic images alone knows of real ones."""

import numpy as np
from jaxtyping import Float32, Int

from raremix.core.random import rng
from raremix.data.manifest import Manifest
from raremix.evaluate.generative import Probe, linear_probe


def probe_both(
    manifest: Manifest,
    targets: dict[str, np.ndarray],
    vectors: dict[str, Float32[np.ndarray, "_ d"]],
    groups: np.ndarray,
    *,
    seed: int,
) -> tuple[Probe | None, Probe | None]:
    """Return what a probe knows that saw synthetic images alone, and one that saw as many real ones, or all there are.

    Args:
        manifest: the data set.
        targets, vectors: of real training images ("real"), synthetic ones ("made") and held-out ones ("held").
        groups: patient of each held-out image.
        seed: which real images are taken, and of the intervals.

    Returns:
        Both None for several labels per image, or without two classes that can be asked.
    """
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
    held = {"unseen": vectors["held"][asked], "true": labels["held"][asked], "groups": groups[asked], "seed": seed}
    return (
        linear_probe(vectors["made"][seen], labels["made"][seen], **held),
        linear_probe(vectors["real"][real], labels["real"][real], **held),
    )
