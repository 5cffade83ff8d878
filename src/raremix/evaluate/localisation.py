"""Does a map lie where the lesion is? Scores of importance maps against true masks, with intervals over patients.

Of a map m >= 0 and a mask M of one image:

- pointing: 1 if the highest pixel lies in M, else 0; of several equally high ones, the share that does [1]
- energy: sum of m in M over sum of m, the energy-based pointing game [2]
- iou_best: the largest |S & M| / |S or M| over all S = {m >= t}: what the map could do, with t chosen by the truth
- iou_half: the same at t = half of the map's peak, which is chosen without it [3]
- auroc: probability that a pixel of M is higher than one outside, half for equals

A flat map, of zeros or of any other value, points nowhere: it scores what a uniform one does, the mask's share of the
image (auroc: .5). It is not punished with 0, which would reward maps that guess, and `is_flat` counts it.

[1] Zhang et al., "Top-down Neural Attention by Excitation Backprop", IJCV 126, 2018, https://arxiv.org/abs/1608.00507
(there the point may miss by 15 pixels; here by none). [2] Wang et al., "Score-CAM", CVPR Workshops 2020,
https://arxiv.org/abs/1910.01279. [3] Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right",
CVPR 2020, https://arxiv.org/abs/2001.07437, on why a threshold that is chosen by the truth flatters.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from raremix.core.errors import DataError
from raremix.evaluate.bootstrap import bootstrap, percentile_interval
from raremix.evaluate.intervals import Interval

FIGURES = ("pointing", "energy", "iou_best", "iou_half", "auroc")
"""Scores of a map against a mask, by the names of `Localisation`; all in [0, 1], higher is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Localisation:
    """How well the map of one image lies on its mask; see the module.

    Attributes:
        area: the mask's share of the image, which is what a flat map scores.
        pointing, energy, iou_best, iou_half, auroc: in [0, 1], higher is better.
        is_flat: whether all pixels of the map are alike.
    """

    area: float
    pointing: float
    energy: float
    iou_best: float
    iou_half: float
    auroc: float
    is_flat: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A mean over images.

    Attributes:
        value: the mean; NaN where there is no image.
        interval: 95 % percentile interval over resampled patients; None with a single patient.
        images, groups: how many images and patients it is over.
    """

    value: float
    interval: Interval | None
    images: int
    groups: int


def localise(importance: Float[np.ndarray, "H W"], mask: Bool[np.ndarray, "h w"]) -> Localisation | None:
    """Score one map against one mask; None where the mask is empty or full, since there is nothing to find.

    Raises:
        DataError: if the map is negative or not finite, or the two differ in size.

    Example:
        >>> found = localise(np.array([[0.0, 1.0], [0.0, 3.0]]), np.array([[False, False], [False, True]]))
        >>> (found.pointing, found.energy, found.iou_best, found.auroc)
        (1.0, 0.75, 1.0, 1.0)
    """
    if importance.shape != mask.shape:
        raise DataError(f"the map has shape {importance.shape}, the mask {mask.shape}: resize the map")
    if not np.isfinite(importance).all() or importance.min(initial=0) < 0:
        raise DataError("a map must be finite and not negative: clip it, or take its size")
    values, inside = importance.astype(np.float64).ravel(), mask.ravel()
    lesion = int(inside.sum())
    if lesion in {0, inside.size}:
        return None
    area, peak = lesion / inside.size, values.max()
    total = values.sum()
    others = inside.size - lesion
    ranks = rankdata(values)[inside].sum()
    return Localisation(
        area=area,
        pointing=float(inside[values == peak].mean()),
        energy=float(values[inside].sum() / total) if total > 0 else area,
        iou_best=_best_overlap(values, inside),
        iou_half=_overlap(values >= peak / 2, inside),
        auroc=float((ranks - lesion * (lesion + 1) / 2) / (lesion * others)),
        is_flat=bool(values.min() == peak),
    )


def _overlap(shown: Bool[np.ndarray, " P"], inside: Bool[np.ndarray, " P"]) -> float:
    return float((shown & inside).sum() / (shown | inside).sum())


def _best_overlap(values: Float[np.ndarray, " P"], inside: Bool[np.ndarray, " P"]) -> float:
    """Return the best intersection over union of all thresholds: the last of equal pixels stands for them all."""
    order = np.argsort(-values, kind="stable")
    hits, shown = np.cumsum(inside[order]), np.arange(1, len(values) + 1)
    is_last = np.append(np.diff(values[order]) != 0, True)
    return float((hits / (shown + hits[-1] - hits))[is_last].max())


def mean_by_patient(
    values: Float[np.ndarray, " N"], groups: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> Mean:
    """Return the mean over images, with an interval from resampling their patients.

    The mean of a resample is over its images: sum_g w_g S_g / sum_g w_g n_g, w_g how often patient g was drawn, S_g the
    sum over the n_g images. The same seed and patients give the same resamples, so that differences of two maps are
    paired when `values` are the differences.

    Args:
        values: one per image; NaN are left out.
        groups: the patient of each image, any type that sorts.
        resamples: of the patients.
        seed: of the resamples.

    Raises:
        DataError: if there is not one group per image.

    Example:
        >>> found = mean_by_patient(np.array([0.0, 1.0, 1.0]), np.array(["a", "a", "b"]))
        >>> (round(found.value, 3), found.interval.high, found.groups)
        (0.667, 1.0, 2)
    """
    if groups.shape != values.shape:
        raise DataError(f"expected one group for each of {len(values)} images, got {groups.shape}")
    known = ~np.isnan(values)
    names, index = np.unique(groups[known], return_inverse=True)
    G = len(names)
    if G == 0:
        return Mean(value=float("nan"), interval=None, images=0, groups=0)
    sums, counts = np.bincount(index, weights=values[known], minlength=G), np.bincount(index, minlength=G)
    interval = None
    if G > 1:
        found = bootstrap(lambda w: (w @ sums) / (w @ counts), G, resamples=resamples, seed=seed)
        interval = Interval(*percentile_interval(found))
    return Mean(value=float(values[known].mean()), interval=interval, images=int(known.sum()), groups=G)


def beats(
    values: Float[np.ndarray, " N"],
    baselines: Mapping[str, Float[np.ndarray, " N"]],
    groups: np.ndarray,
    *,
    is_lower_better: bool = False,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Mean]:
    """Return, for each baseline, by how much the values are better than its on the same images; > 0 is better.

    A map says something where the interval against every baseline lies above 0.

    Args:
        values: one per image.
        baselines: the same figure of maps that know nothing, by name.
        groups: the patient of each image.
        is_lower_better: whether small values are good.
        resamples, seed: of `mean_by_patient`.

    Example:
        >>> gain = beats(np.array([0.5, 0.75]), {"uniform": np.array([0.25, 0.25])}, np.array([0, 1]))["uniform"]
        >>> (gain.value, gain.interval.low)
        (0.375, 0.25)
    """
    sign = -1 if is_lower_better else 1
    return {
        name: mean_by_patient(sign * (values - other), groups, resamples=resamples, seed=seed)
        for name, other in baselines.items()
    }
