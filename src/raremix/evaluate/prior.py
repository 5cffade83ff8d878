"""Probabilities at another prevalence, and logits of classes as if they were equally frequent.

A classifier's scores carry the class frequencies that it was trained under, by its images, its sampler and its loss.
Where it is used, others hold. If only these frequencies change, and not how each class looks, the correction is exact:
odds are multiplied by the ratio of the priors. Saerens et al., "Adjusting the outputs of a classifier to new a priori
probabilities", Neural Computation 14, 2002, https://doi.org/10.1162/089976602753284446.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from raremix.core.errors import DataError
from raremix.core.types import Task


def correct_prior(
    logits: Float[np.ndarray, "N K"],
    *,
    trained: Sequence[float] | Float[np.ndarray, " K"],
    deployed: Sequence[float] | Float[np.ndarray, " K"],
    task: Task,
) -> Float[np.ndarray, "N K"]:
    """Bring logits from the prevalence that a classifier was trained under to that of its use.

    Softmax tasks: z_c + log(deployed_c / trained_c). Multilabel, per label: z_c + logit(deployed_c) - logit(trained_c).
    Scores follow by `scores_from_logits`. Rankings within a label stay as they are; decisions of a softmax may change.

    Args:
        logits: calibrated on images of the `trained` prevalence: divide by the temperature first.
        trained: prevalence that the scores carry: class shares of the training images; under a balanced sampler, logit
            adjustment or a balanced softmax, 1 / K each.
        deployed: prevalence where the classifier is used.
        task: softmax for binary and multiclass, where both sum to 1; for multilabel each label has its own.

    Returns:
        Logits, in float64.

    Raises:
        DataError: if a prevalence is no probability, or the numbers of classes differ.

    Example:
        >>> logits = np.array([[0.0, 0.0]])  # even odds, in training as many ill as well
        >>> at_1_percent = correct_prior(logits, trained=[0.5, 0.5], deployed=[0.99, 0.01], task="binary")
        >>> float(np.exp(at_1_percent[0, 1] - at_1_percent[0, 0]).round(4))  # odds 1:99
        0.0101
    """
    before = checked_prior(trained, classes=logits.shape[1], task=task, what="trained")
    after = checked_prior(deployed, classes=logits.shape[1], task=task, what="deployed")
    shift = np.log(after) - np.log(before)
    if task == "multilabel":
        shift = shift - (np.log1p(-after) - np.log1p(-before))
    return logits.astype(np.float64) + shift


def adjust_logits(
    logits: Float[np.ndarray, "N K"],
    *,
    trained: Sequence[float] | Float[np.ndarray, " K"],
    task: Task,
    tau: float = 1.0,
) -> Float[np.ndarray, "N K"]:
    """Take the training prior off logits, after training: post-hoc logit adjustment [1].

    Softmax tasks: z_c - tau log trained_c; multilabel: z_c - tau logit(trained_c). With tau = 1 this is the correction
    to classes that are equally frequent, and the argmax minimises the balanced error of a calibrated classifier.

    [1] Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, https://arxiv.org/abs/2007.07314.

    Args:
        logits: of a classifier that was trained by plain cross-entropy.
        trained: class shares of the training images.
        task: softmax for binary and multiclass, where shares sum to 1; for multilabel each label has its own.
        tau: strength, >= 0; choose it on validation images.

    Returns:
        Logits, in float64.

    Raises:
        DataError: if a share is no probability, the numbers of classes differ, or tau is negative.

    Example:
        >>> adjust_logits(np.log([[0.9, 0.1]]), trained=[0.9, 0.1], task="binary").round(6).tolist()
        [[0.0, 0.0]]
    """
    if not tau >= 0:
        raise DataError(f"expected tau >= 0, got {tau}: 0 leaves logits as they are, 1 takes the prior off")
    before = checked_prior(trained, classes=logits.shape[1], task=task, what="trained")
    shift = np.log(before) - (np.log1p(-before) if task == "multilabel" else 0.0)
    return logits.astype(np.float64) - tau * shift


def prior_of(targets: Float[np.ndarray, "N K"], *, task: Task) -> Float[np.ndarray, " K"]:
    """Return the prevalence of each class among labelled rows: what `trained` is for images shown as they are.

    Args:
        targets: 1, 0 or NaN.
        task: for softmax tasks only rows that are labelled count; for multilabel, each label's own labelled rows.

    Raises:
        DataError: if a class is nowhere shown, or a label nowhere known or nowhere absent.

    Example:
        >>> prior_of(np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), task="binary").tolist()
        [0.75, 0.25]
    """
    known = ~np.isnan(targets)
    if task != "multilabel":
        known = np.broadcast_to(known.all(axis=1, keepdims=True), targets.shape)
    rows = known.sum(axis=0)
    shares = np.where(known, targets, 0.0).sum(axis=0) / np.maximum(rows, 1)
    return checked_prior(shares, classes=targets.shape[1], task=task, what="the targets'")


def checked_prior(
    prior: Sequence[float] | Float[np.ndarray, " K"], *, classes: int, task: Task, what: str
) -> Float[np.ndarray, " K"]:
    """Return a prevalence as an array.

    Raises:
        DataError: if it is none.
    """
    values = np.asarray(prior, dtype=np.float64)
    if values.shape != (classes,):
        raise DataError(f"{what} prevalence: expected {classes} values, one per class, got {values.size}")
    outside = np.flatnonzero(~((values > 0) & (values < 1)))
    if len(outside):
        raise DataError(
            f"{what} prevalence of class {outside[0]} (counted from 0) is {values[outside[0]]}: expected more than 0 "
            "and less than 1; a class that never occurs, or always, has no odds"
        )
    if task != "multilabel" and not np.isclose(values.sum(), 1.0, atol=1e-6):
        raise DataError(f"{what} prevalence sums to {values.sum():.6g}: the classes of one answer sum to 1")
    return values
