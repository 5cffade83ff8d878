"""From logits to probabilities that hold at a stated prevalence.

A classifier whose training images were sampled, weighed, mixed or drawn by a generator says how likely a class would be
in *that* mixture. Its ranking and its decisions may gain by it; its scores are no probabilities of the images that it
will see. Two steps bring them back:

1. On validation images, which are as frequent as found, logits are divided by a temperature and shifted by one number
   per class: logit or softmax of z_c / T + b_c. Bias-corrected temperature scaling: Alexandari et al., "Maximum
   Likelihood with Bias-Corrected Calibration is Hard-To-Beat at Label Shift Adaptation", ICML 2020,
   https://arxiv.org/abs/1901.06852. Departure: a weak penalty, `RIDGE` / 2 times the sum of b^2, keeps a class that no
   validation image shows off infinity.
2. From the prevalence of the validation images to the stated one, by the ratio of odds: see `prior`.

AUROC of a label and of a binary task cannot change: within a label all logits move alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import expit, log_expit, log_softmax, softmax

from raremix.core.errors import ConfigError, DataError
from raremix.core.types import Task
from raremix.evaluate.calibration import TEMPERATURE_RANGE, fit_temperature, scores_from_logits
from raremix.evaluate.decide import ValidationRows
from raremix.evaluate.prior import correct_prior
from raremix.evaluate.rows import checked_targets

RIDGE = 0.1
"""A shift of log 70, what a classifier balanced against 70:1 needs, costs as much as one surprise of 0.9 nats."""

FEWEST_ROWS = 2
"""Validation rows below which nothing is fitted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probabilities:
    """How logits of a classifier become probabilities.

    Attributes:
        temperature: what logits are divided by.
        offsets: what is added afterwards, per class.
        prevalence: share of each class among the validation images: what the probabilities are right for.
    """

    temperature: float
    offsets: tuple[float, ...]
    prevalence: tuple[float, ...]

    def of(
        self, logits: Float[np.ndarray, "N K"], *, task: Task, deployed: Sequence[float] | None = None
    ) -> Float[np.ndarray, "N K"]:
        """Return probabilities.

        Args:
            logits: the classifier's.
            task: softmax for binary and multiclass, sigmoid for multilabel.
            deployed: prevalence where they are used; that of the validation images by default.

        Raises:
            DataError: if the prevalence is none, or no validation image shows a class.
        """
        shifted = logits.astype(np.float64) / self.temperature + np.asarray(self.offsets)
        if deployed is not None:
            shifted = correct_prior(shifted, trained=self.prevalence, deployed=deployed, task=task)
        return scores_from_logits(shifted, task=task)


def fit_probabilities(rows: ValidationRows, *, task: Task, shifts: bool) -> Probabilities:
    """Fit a temperature, and where it is asked for shifts of the classes, to validation rows.

    Args:
        rows: validation rows, with logits as outputs.
        task: softmax for binary and multiclass, sigmoid for multilabel.
        shifts: for classifiers whose training images were not as frequent as found; else the temperature alone.

    Raises:
        TargetError: if the targets do not fit the task.
        DataError: if a logit is not finite.

    Example:
        >>> targets = np.repeat(np.eye(2), [90, 10], axis=0)
        >>> rows = ValidationRows(targets=targets, outputs=np.zeros((100, 2)), split="validation")
        >>> found = fit_probabilities(rows, task="binary", shifts=True)
        >>> found.of(np.zeros((1, 2)), task="binary").round(2).tolist()
        [[0.9, 0.1]]
    """
    targets = checked_targets(rows.targets, task=task)
    known = ~np.isnan(targets)
    prevalence = shares_of(targets)
    temperature = fit_temperature(rows, task=task)
    keep = known.any(axis=1)
    if not shifts or keep.sum() < FEWEST_ROWS:
        return Probabilities(temperature=temperature, offsets=(0.0,) * targets.shape[1], prevalence=prevalence)
    logits, known, truth = rows.outputs[keep].astype(np.float64), known[keep], np.nan_to_num(targets[keep])

    def loss(values: Float[np.ndarray, " K1"]) -> tuple[float, Float[np.ndarray, " K1"]]:
        inverse, offsets = values[0], values[1:]
        scaled = logits * inverse + offsets
        if task == "multilabel":
            share = expit(scaled)
            said = truth * log_expit(scaled) + (1 - truth) * log_expit(-scaled)
        else:
            share, said = softmax(scaled, axis=1), truth * log_softmax(scaled, axis=1)
        rest = np.where(known, share - truth, 0.0)
        value = -np.where(known, said, 0.0).sum() + RIDGE / 2 * np.sum(offsets**2)
        return float(value), np.concatenate([[np.sum(rest * logits)], rest.sum(axis=0) + RIDGE * offsets])

    low, high = 1 / TEMPERATURE_RANGE[1], 1 / TEMPERATURE_RANGE[0]
    found = minimize(
        loss,
        np.concatenate([[1 / temperature], np.zeros(targets.shape[1])]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(low, high), *[(None, None)] * targets.shape[1]],
        options={"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-8},
    )
    return Probabilities(
        temperature=float(1 / found.x[0]), offsets=tuple(float(b) for b in found.x[1:]), prevalence=prevalence
    )


def shares_of(targets: Float[np.ndarray, "N K"]) -> tuple[float, ...]:
    """Return the share of each class among the rows in which it is known.

    Example:
        >>> shares_of(np.array([[1.0, np.nan], [0.0, 1.0]]))
        (0.5, 1.0)
    """
    known = ~np.isnan(targets)
    shares = np.where(known, targets, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return tuple(float(share) for share in shares)


def stated_prevalence(
    stated: Mapping[str, float], *, classes: Sequence[str], task: Task, prevalence: Sequence[float]
) -> tuple[float, ...] | None:
    """Return a stated prevalence as one share per class, or None where nothing is stated.

    Args:
        stated: share by class. Multilabel: labels that are not named keep the share that they have. Else all classes
            are named, or all but one, which has the rest.
        classes: names of the logits.
        task: what the classes mean.
        prevalence: share of each class where nothing is stated.

    Raises:
        ConfigError: if a class does not exist, is missing, a share is none, or the shares do not sum to 1.

    Example:
        >>> stated_prevalence({"ill": 0.01}, classes=["well", "ill"], task="binary", prevalence=[0.5, 0.5])
        (0.99, 0.01)
    """
    if not stated:
        return None
    unknown = [name for name in stated if name not in classes]
    if unknown:
        raise ConfigError(f"prevalence of {', '.join(unknown)}: the classes are {', '.join(classes)}")
    wrong = {name: share for name, share in stated.items() if not 0 < share < 1}
    if wrong:
        name, share = next(iter(wrong.items()))
        raise ConfigError(f"prevalence of {name} = {share}: expected a share above 0 and below 1, for example 0.02")
    missing = [name for name in classes if name not in stated]
    if task == "multilabel":
        return tuple(stated.get(name, share) for name, share in zip(classes, prevalence, strict=True))
    total = sum(stated.values())
    if len(missing) > 1 or (missing and total >= 1):
        raise ConfigError(
            f"prevalence: one class is true of each image, so the shares sum to 1; they sum to {total:.6g} without "
            f"{', '.join(missing)}: name all classes, or all but one, which gets the rest"
        )
    if not missing and not np.isclose(total, 1.0, atol=1e-6):
        raise ConfigError(f"prevalence: the shares of classes of which one is true sum to 1, and these to {total:.6g}")
    return tuple(float(stated.get(name, 1 - total)) for name in classes)


def check_known(prevalence: Sequence[float], *, classes: Sequence[str]) -> None:
    """Refuse to shift from a prevalence that has no odds.

    Raises:
        DataError: naming the class that no validation image shows, or all do.
    """
    for name, share in zip(classes, prevalence, strict=True):
        if not 0 < share < 1:
            raise DataError(
                f"{share:.0%} of the validation images show {name}, so that there are no odds to bring to a stated "
                "prevalence: enlarge [split] validation, or leave the prevalence out"
            )
