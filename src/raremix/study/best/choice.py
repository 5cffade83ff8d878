"""Choose the simplest arm within one standard error of the best; pure functions of scores.

The one-standard-error rule: Breiman et al., Classification and Regression Trees, 1984, section 3.4.3.

How simple an arm is: the number of its ingredients, which are a mix other than "none", an augmentation other than
"none", a loss other than the task's plain one, a changed network, and whatever else an arm may hold; guided mixing
counts once more for its importance map. Another learning rate is no ingredient, and neither is a sampler: to show
classes as often as they were found is no simpler than to show them alike. Of equally simple arms the better one is
taken, and of equally good ones the first in the file.

Where the choice is made on out-of-fold rows no row is left to judge it. What the chosen arm scores there is then too
good by what choosing gains; the bootstrap bias correction of Tsamardinos et al. 2018 [1] repeats the choice on
resamples of the patients and judges it on those that were not drawn.

[1] "Bootstrapping the out-of-sample predictions for efficient and accurate cross-validation", Machine Learning 107,
https://doi.org/10.1007/s10994-018-5714-4
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from raremix.core.errors import RunError
from raremix.core.types import Task
from raremix.evaluate.bootstrap import blocks, patients
from raremix.evaluate.decide import decide
from raremix.evaluate.metrics import METRICS, mean_defined
from raremix.evaluate.sufficient import Sufficient, reduce_predictions
from raremix.study.arm_table import ArmSpec

PLAIN_LOSSES = frozenset({"auto", "cross_entropy", "binary_cross_entropy"})
RESAMPLES = 400
"""Enough for a standard error to about 4 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What is known about an arm when the choice is made.

    Attributes:
        arm: its name.
        ingredients: how many it has.
        value: the primary metric, mean over seeds.
        error: its standard error over patients and seeds.
        seeds: how many seeds.
        is_within: whether it is within one standard error of the best.
    """

    arm: str
    ingredients: int
    value: float
    error: float
    seeds: int
    is_within: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which arm was chosen, and from what.

    Attributes:
        arm: the chosen one.
        best: the arm with the best value.
        limit: the value that had to be reached.
        metric: the primary metric.
        rows: "validation" or "out-of-fold".
        candidates: all complete arms, in the file's order.
        corrected: the value to expect of this way of choosing, for out-of-fold rows; None for validation rows.
    """

    arm: str
    best: str
    limit: float
    metric: str
    rows: str
    candidates: tuple[Candidate, ...]
    corrected: float | None = None

    @property
    def chosen(self) -> Candidate:
        """The chosen candidate."""
        return next(one for one in self.candidates if one.arm == self.arm)


def ingredients(arm: ArmSpec) -> int:
    """Count what an arm adds to plain training; fewer is simpler.

    Example:
        ``ingredients(spec.arm("cutmix"))``
    """
    found = 0
    for part, table in arm.settings().items():
        if part in {"train", "sampler"}:
            continue
        name = table.get("name") if isinstance(table, dict) else None
        if part == "loss":
            found += name not in {*PLAIN_LOSSES, None} or table.get("class_weights", "none") != "none"
        elif name != "none":
            found += 1 + (part == "mix" and _is_guided(table))
    return found


def choose(
    arms: Sequence[ArmSpec],
    scores: Mapping[str, Float[np.ndarray, "S N K"]],
    thresholds: Mapping[str, Float[np.ndarray, "S N K"]],
    targets: Float[np.ndarray, "N K"],
    *,
    groups: np.ndarray,
    task: Task,
    metric: str,
    labels: Sequence[int] | None = None,
    rows: str = "validation",
    seed: int = 0,
) -> Choice:
    """Choose the simplest arm within one standard error of the best.

    Args:
        arms: in the order of the study file.
        scores: probabilities of the rows per arm and seed; an arm that is not there is no candidate.
        thresholds: the same for decision thresholds.
        targets: labels of the rows.
        groups: the patient of each row.
        task: what the columns mean.
        metric: the primary metric.
        labels: classes whose mean decides; None is the overall value.
        rows: "validation", or "out-of-fold", for which the value is also corrected for the choice.
        seed: of the resampling.

    Raises:
        RunError: if no arm has a value.
    """
    who = patients(groups, targets)
    present = [arm for arm in arms if arm.name in scores]
    needed = list(labels) if labels is not None else [targets.shape[1] - 1] if task == "binary" else None
    units = {
        arm.name: [
            reduce_predictions(
                targets,
                own,
                decide(own, task=task, thresholds=limit[None]),
                task=task,
                metrics=[metric],
                group=who.index,
                G=who.count,
                classes=needed,
            )
            for own, limit in zip(scores[arm.name], thresholds[arm.name], strict=True)
        ]
        for arm in present
    }
    sign = 1.0 if METRICS[metric].higher_is_better else -1.0
    whole = np.ones((1, who.count))
    drawn = np.concatenate(list(blocks(who, resamples=RESAMPLES, seed=seed)))
    single = {name: _values(units[name], whole, metric, labels)[:, 0] for name in units}
    inside = {name: _values(units[name], drawn, metric, labels) for name in units}
    candidates = [
        Candidate(
            arm=arm.name,
            ingredients=ingredients(arm),
            value=float(single[arm.name].mean()),
            error=standard_error(single[arm.name], inside[arm.name]),
            seeds=len(single[arm.name]),
        )
        for arm in present
        if not np.isnan(single[arm.name]).any()
    ]
    if not candidates:
        raise RunError(
            f"no arm has a {METRICS[metric].title.lower()} on the {rows} rows, so none can be chosen: "
            "look at the jobs that failed, or choose another [study] metric"
        )
    arm, best, limit = simplest(candidates, sign=sign)
    marked = tuple(replace(one, is_within=sign * one.value >= sign * limit) for one in candidates)
    corrected = None
    if rows == "out-of-fold":
        outside = {name: _values(units[name], (drawn == 0).astype(np.float64), metric, labels) for name in units}
        corrected = _corrected(candidates, inside, outside, sign=sign)
    return Choice(arm=arm, best=best, limit=limit, metric=metric, rows=rows, candidates=marked, corrected=corrected)


def simplest(candidates: Sequence[Candidate], *, sign: float = 1.0) -> tuple[str, str, float]:
    """Return the chosen arm, the best one, and the value that had to be reached.

    Args:
        candidates: at least one.
        sign: 1 where more is better, -1 for errors.

    Example:
        >>> plain = Candidate(arm="plain", ingredients=0, value=0.78, error=0.03, seeds=3)
        >>> rich = Candidate(arm="rich", ingredients=2, value=0.80, error=0.03, seeds=3)
        >>> simplest([plain, rich])[:2]
        ('plain', 'rich')
    """
    best = max(candidates, key=lambda one: sign * one.value)
    limit = best.value - sign * best.error
    within = [one for one in candidates if sign * one.value >= sign * limit]
    return min(within, key=lambda one: (one.ingredients, -sign * one.value)).arm, best.arm, limit


def standard_error(single: Float[np.ndarray, " S"], drawn: Float[np.ndarray, "S R"]) -> float:
    """Return the standard error of a mean over seeds: that of the patients, and that of the seeds where there are some.

    Args:
        single: the metric per seed.
        drawn: the same under resamples of the patients.

    Example:
        >>> float(round(standard_error(np.array([0.7, 0.9]), np.full((2, 5), 0.8)), 6))
        0.1
    """
    variance = float(np.nanvar(np.nanmean(drawn, axis=0))) if np.isfinite(drawn).any() else 0.0
    if len(single) > 1:
        variance += float(single.var(ddof=1)) / len(single)
    return variance**0.5


def _values(
    units: Sequence[Sufficient], weights: Float[np.ndarray, "R G"], metric: str, labels: Sequence[int] | None
) -> Float[np.ndarray, "S R"]:
    found = np.stack([unit.under(weights)[metric] for unit in units])
    return found[..., 0] if labels is None else mean_defined(found[..., [1 + k for k in labels]])


def _corrected(
    candidates: Sequence[Candidate],
    inside: Mapping[str, Float[np.ndarray, "S R"]],
    outside: Mapping[str, Float[np.ndarray, "S R"]],
    *,
    sign: float,
) -> float | None:
    """Return the mean value outside a resample of the arm that would have been chosen inside it."""
    found: list[float] = []
    means = {name: values.mean(axis=0) for name, values in inside.items()}
    for r in range(RESAMPLES):
        copies = [replace(one, value=float(means[one.arm][r])) for one in candidates]
        copies = [one for one in copies if not np.isnan(one.value)]
        if copies:
            found.append(float(outside[simplest(copies, sign=sign)[0]][:, r].mean()))
    known = [value for value in found if not np.isnan(value)]
    return float(np.mean(known)) if known else None


def _is_guided(table: Mapping[str, Any]) -> bool:
    inner = table.get("mixer")
    return "importance" in table or (isinstance(inner, dict) and _is_guided(inner))
