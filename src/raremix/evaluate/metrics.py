"""The metrics by name, as functions of counts: vectorised over resamples, with NaN inside for what is undefined.

Every decision metric is a function of the one-against-rest counts TP, FP, FN, TN of each class, every probability
metric of sums over rows. So a resample of patients needs one matrix product, and no metric has a second implementation.

Overall values: binary is that of the last class; multilabel is the mean over labels; multiclass is the mean over
classes (macro), but for accuracy, MCC (Gorodkin's R_K, https://doi.org/10.1016/j.compbiolchem.2004.09.006), Cohen's
kappa, Brier score, log loss and ECE (of the called class), which look at all classes of a row at once, and for the
G-mean, the geometric mean of the classes' sensitivities. Multilabel accuracy is the mean of the labels' accuracies,
as in MedMNIST.

What a class without positives (or negatives) leaves undefined is left out of a mean, and a note says so; precision
and MCC are 0, not undefined, where a class has positives and the model never calls it.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from raremix.core.types import Task

Family = Literal["counts", "ranking", "brier", "log_loss", "ece", "slope", "intercept"]
Needs = Literal["rows", "positives", "negatives", "both"]

PROBABILITY_FAMILIES: frozenset[Family] = frozenset({"brier", "log_loss", "ece", "slope", "intercept"})
"""Families that look at probabilities as such, and not at what is decided or ranked by them."""

ECE_BINS = 15
"""Guo et al. 2017."""

EPSILON = float(np.finfo(np.float64).eps)
"""Scores are held this far off 0 and 1 in the log loss, as in scikit-learn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What is to be known about a metric beside its value.

    Attributes:
        title: how a table calls it.
        family: what it is computed from.
        needs: what a class must have for it to be defined.
        higher_is_better: False for errors.
        ideal: the value of right probabilities, where more is not better and less neither; such a metric ranks nothing.
        micro: in a multiclass task the overall value looks at all rows at once and is no mean over classes.
        proportion: per class it is a share of rows, so that a Wilson interval fits.
        lowest, highest: what it can be.
    """

    title: str
    family: Family
    needs: Needs
    higher_is_better: bool = True
    ideal: float | None = None
    micro: bool = False
    proportion: bool = False
    lowest: float = 0.0
    highest: float = 1.0


METRICS: dict[str, Metric] = {
    "accuracy": Metric(title="Accuracy", family="counts", needs="rows", micro=True, proportion=True),
    "balanced_accuracy": Metric(title="Balanced accuracy", family="counts", needs="both"),
    "sensitivity": Metric(title="Sensitivity (recall)", family="counts", needs="positives", proportion=True),
    "specificity": Metric(title="Specificity", family="counts", needs="negatives", proportion=True),
    "precision": Metric(title="Precision (PPV)", family="counts", needs="positives", proportion=True),
    "f1": Metric(title="F1", family="counts", needs="positives"),
    "mcc": Metric(title="Matthews correlation", family="counts", needs="both", micro=True, lowest=-1.0),
    "cohen_kappa": Metric(title="Cohen's kappa", family="counts", needs="both", micro=True, lowest=-1.0),
    "youden_j": Metric(title="Youden's J", family="counts", needs="both", lowest=-1.0),
    "g_mean": Metric(title="G-mean", family="counts", needs="both"),
    "auroc": Metric(title="AUROC", family="ranking", needs="both"),
    "average_precision": Metric(title="Average precision", family="ranking", needs="both"),
    "ece": Metric(title="Calibration error (ECE)", family="ece", needs="rows", higher_is_better=False, micro=True),
    "brier": Metric(title="Brier score", family="brier", needs="rows", higher_is_better=False, micro=True, highest=2.0),
    "log_loss": Metric(
        title="Log loss", family="log_loss", needs="rows", higher_is_better=False, micro=True, highest=np.inf
    ),
    "calibration_slope": Metric(
        title="Calibration slope", family="slope", needs="both", ideal=1.0, lowest=-np.inf, highest=np.inf
    ),
    "calibration_intercept": Metric(
        title="Calibration intercept", family="intercept", needs="both", ideal=0.0, lowest=-np.inf, highest=np.inf
    ),
}


def mean_defined(values: Float[np.ndarray, "... K"]) -> Float[np.ndarray, "..."]:
    """Return the mean over the last axis of what is not NaN; NaN where nothing is left.

    Sorted before it is summed, so that the order of the classes cannot move the last bit.

    Example:
        >>> float(mean_defined(np.array([1.0, np.nan, 2.0])))
        1.5
    """
    ordered = np.sort(values, axis=-1)
    known = ~np.isnan(ordered)
    total, count = np.where(known, ordered, 0.0).sum(axis=-1), known.sum(axis=-1, dtype=np.float64)
    return divide(np.asarray(total), np.asarray(count))


def divide(
    above: Float[np.ndarray, "..."], below: Float[np.ndarray, "..."], *, otherwise: float = np.nan
) -> Float[np.ndarray, "..."]:
    """Divide without warnings; `otherwise` where the divisor is 0.

    Example:
        >>> divide(np.array([1.0, 1.0]), np.array([2.0, 0.0]), otherwise=0.0).tolist()
        [0.5, 0.0]
    """
    shape = np.broadcast_shapes(above.shape, below.shape)
    return np.divide(above, below, out=np.full(shape, otherwise), where=np.broadcast_to(below != 0, shape))


def from_counts(name: str, counts: Float[np.ndarray, "... K 4"], *, task: Task) -> Float[np.ndarray, "... K1"]:
    """Compute a decision metric from one-against-rest counts.

    Args:
        name: a metric of the family "counts".
        counts: TP, FP, FN, TN of every class, of any leading shape.
        task: what the classes mean.

    Returns:
        The overall value first, then one per class; NaN where undefined.

    Example:
        >>> from_counts("f1", np.array([[[3.0, 1.0, 1.0, 5.0]]]), task="multilabel").tolist()
        [[0.75, 0.75]]
    """
    per_class = _per_class(name, counts)
    if task == "binary":
        overall = per_class[..., -1]
    elif task == "multilabel":
        overall = mean_defined(per_class)
    else:
        overall = _multiclass(name, counts, per_class)
    return np.concatenate([overall[..., None], per_class], axis=-1)


def _per_class(name: str, counts: Float[np.ndarray, "... K 4"]) -> Float[np.ndarray, "... K"]:
    tp, fp, fn, tn = (counts[..., i] for i in range(4))
    positives, negatives = tp + fn, fp + tn
    both = np.where((positives > 0) & (negatives > 0), 0.0, np.nan)
    sensitivity, specificity = divide(tp, positives), divide(tn, negatives)
    some = np.where(positives > 0, 0.0, np.nan)
    match name:
        case "accuracy":
            value = divide(tp + tn, positives + negatives)
        case "sensitivity":
            value = sensitivity
        case "specificity":
            value = specificity
        case "precision":
            value = divide(tp, tp + fp, otherwise=0.0) + some
        case "f1":
            value = divide(2 * tp, 2 * tp + fp + fn) + some
        case "balanced_accuracy":
            value = (sensitivity + specificity) / 2
        case "youden_j":
            value = sensitivity + specificity - 1
        case "g_mean":
            value = np.sqrt(sensitivity * specificity)
        case "mcc":
            spread = np.sqrt((tp + fp) * (fn + tn)) * np.sqrt(positives * negatives)
            value = divide(tp * tn - fp * fn, spread, otherwise=0.0) + both
        case "cohen_kappa":
            value = divide(2 * (tp * tn - fp * fn), (tp + fp) * negatives + positives * (fn + tn)) + both
        case _:
            raise KeyError(name)
    return value


def _multiclass(
    name: str, counts: Float[np.ndarray, "... K 4"], per_class: Float[np.ndarray, "... K"]
) -> Float[np.ndarray, "..."]:
    tp, fp, fn = (counts[..., i] for i in range(3))
    rows, right = counts[..., 0, :].sum(axis=-1), tp.sum(axis=-1)
    truth, called = tp + fn, tp + fp
    agree_by_chance = (truth * called).sum(axis=-1)
    several = np.where((truth > 0).sum(axis=-1) > 1, 0.0, np.nan)
    match name:
        case "accuracy":
            value = divide(right, rows)
        case "balanced_accuracy":
            value = mean_defined(divide(tp, truth))
        case "g_mean":
            recall = np.sort(divide(tp, truth), axis=-1)
            known = ~np.isnan(recall)
            product = np.where(known, recall, 1.0).prod(axis=-1)
            value = product ** divide(np.ones(known.shape[:-1]), known.sum(axis=-1).astype(np.float64))
        case "mcc":
            spread = np.sqrt(rows**2 - (called**2).sum(axis=-1)) * np.sqrt(rows**2 - (truth**2).sum(axis=-1))
            value = divide(right * rows - agree_by_chance, spread, otherwise=0.0) + several
        case "cohen_kappa":
            value = divide(right * rows - agree_by_chance, rows**2 - agree_by_chance) + several
        case _:
            value = mean_defined(per_class)
    return value


def from_sums(name: Family, sums: Float[np.ndarray, "... C"], *, task: Task, K: int) -> Float[np.ndarray, "... K1"]:
    """Compute a probability metric from the column sums that `sufficient.columns` describes.

    Args:
        name: "brier", "log_loss" or "ece", each its own family.
        sums: column sums, of any leading shape.
        task: what the classes mean.
        K: number of classes.

    Returns:
        The overall value first, then one per class; NaN where undefined.

    Example:
        >>> from_sums("brier", np.array([0.5, 2.0]), task="multilabel", K=1).tolist()
        [0.25, 0.25]
    """
    lead = sums.shape[:-1]
    if name == "ece":
        cells = sums.reshape(*lead, -1, ECE_BINS + 1)
        value = divide(np.abs(cells[..., :-1]).sum(axis=-1), cells[..., -1])
        per_class = value[..., :K]
        overall = value[..., K] if task == "multiclass" else _overall(per_class, task)
        return np.concatenate([overall[..., None], per_class], axis=-1)
    cells = sums[..., : 2 * K].reshape(*lead, K, 2)
    per_class = divide(cells[..., 0], cells[..., 1])
    if task == "multiclass" and name == "brier":
        overall = divide(np.sort(cells[..., 0], axis=-1).sum(axis=-1), cells[..., 0, 1])
    elif task == "multiclass":
        overall = divide(sums[..., -1], cells[..., 0, 1])
    else:
        overall = _overall(per_class, task)
    return np.concatenate([overall[..., None], per_class], axis=-1)


def with_overall(per_class: Float[np.ndarray, "... K"], *, task: Task) -> Float[np.ndarray, "... K1"]:
    """Put the overall value before those of the classes: their mean, or for binary tasks that of the last.

    Example:
        >>> with_overall(np.array([0.5, 1.0]), task="multiclass").tolist()
        [0.75, 0.5, 1.0]
    """
    return np.concatenate([_overall(per_class, task)[..., None], per_class], axis=-1)


def _overall(per_class: Float[np.ndarray, "... K"], task: Task) -> Float[np.ndarray, "..."]:
    return per_class[..., -1] if task == "binary" else mean_defined(per_class)


def why_undefined(name: str, counts: Float[np.ndarray, "K 4"], label: int) -> str:
    """Name the reason why a metric of one class is undefined or a convention, or return "".

    Args:
        name: a metric.
        counts: TP, FP, FN, TN of every class.
        label: the class.

    Example:
        >>> why_undefined("auroc", np.array([[0.0, 1.0, 0.0, 4.0]]), 0)
        'no positive row'
    """
    tp, fp, fn, tn = counts[label]
    needs = METRICS[name].needs
    if tp + fp + fn + tn == 0:
        return "no labelled row"
    if tp + fn == 0 and needs in {"positives", "both"}:
        return "no positive row"
    if fp + tn == 0 and needs in {"negatives", "both"}:
        return "no negative row"
    if name in {"precision", "mcc"} and tp + fp == 0:
        return "never called, counted as 0"
    if name == "mcc" and fn + tn == 0:
        return "always called, counted as 0"
    return ""
