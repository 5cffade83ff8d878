"""Is one recipe better than another? Two-level paired bootstrap, and the classical tests as second opinions.

A t-test over seeds on one fixed test set calls half of all null differences significant, because seeds are not a
sample of patients; resampling patients alone calls 9 to 15 %. Resampling both keeps the level. See
docs/concepts/evidence.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from raremix.core.errors import ConfigError, DataError
from raremix.core.registry import look_up
from raremix.core.types import Task
from raremix.evaluate.bootstrap import Patients, patients, replicate
from raremix.evaluate.decide import decide
from raremix.evaluate.metrics import METRICS, PROBABILITY_FAMILIES, mean_defined
from raremix.evaluate.rows import (
    OtherScores,
    OtherThresholds,
    Scores,
    Thresholds,
    broadcast_thresholds,
    checked_scores,
    checked_targets,
    labelled_rows,
)
from raremix.evaluate.seeds import deviations, seed_draws, spread
from raremix.evaluate.sufficient import Sufficient, reduce_predictions

Claim = Literal["recipe", "weights"]
Combine = Literal["metric", "scores"]

MIN_SEEDS = 3
MIN_POSITIVES = 10
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A paired difference between two arms on the same rows.

    Attributes:
        metric: what was compared.
        value_a, value_b: means over seeds; None where undefined.
        effect: value_a - value_b; for an error metric, negative means that A is better.
        low, high: 95 % interval of the effect; it excludes 0 exactly where p < .05.
        p: two-sided, uncorrected; None where refused, and `note` says why.
        probability_better: share of resamples in which A is better (equal ones count half).
        n: rows.
        groups: patients.
        positives: patients of the rarest class concerned.
        seeds: of the arm that has fewer.
        claim: "recipe" (patients and seeds resampled) or "weights" (patients).
        note: refusals and what is to be known when reading; "" if nothing.
    """

    metric: str
    value_a: float | None
    value_b: float | None
    effect: float | None
    low: float | None
    high: float | None
    p: float | None
    probability_better: float | None
    n: int
    groups: int
    positives: int
    seeds: int
    claim: Claim
    note: str


def compare(
    targets: Float[np.ndarray, "N K"],
    scores_a: Scores,
    scores_b: OtherScores,
    *,
    metric: str,
    task: Task,
    groups: np.ndarray,
    thresholds_a: Thresholds | None = None,
    thresholds_b: OtherThresholds | None = None,
    probabilities_a: Scores | None = None,
    probabilities_b: OtherScores | None = None,
    labels: Sequence[int] | None = None,
    paired_seeds: bool = False,
    combine: Combine = "metric",
    claim: Claim = "recipe",
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare two arms on the same test rows by a two-level paired bootstrap.

    Patients are resampled within strata, the same draw for both arms and all seeds; for a claim about recipes the
    seeds are drawn too (see `seeds`). With effect e and replicates e*, p = (1 + #{|e* - e| >= |e|}) / (1 + B), and the
    interval is e plus and minus the matching quantile of |e* - e|, so that interval and p never disagree.

    Args:
        targets: 1, 0 or NaN, (N, K).
        scores_a, scores_b: probabilities, (S, N, K), or (N, K) for one set of weights.
        metric: a name of `METRICS`.
        task: what the columns mean.
        groups: the patient of each row, (N,).
        thresholds_a, thresholds_b: from validation, per class, per seed and class, or per seed, row and class.
        probabilities_a, probabilities_b: what metrics of probabilities look at, where it is not the scores.
        labels: compare the mean over these classes (a tail class, a band) and not the overall value.
        paired_seeds: seed s of both arms shares more than a number (the same folds, say), so that both rise and fall
            together: the variance is then that of the seeds' differences. Sharing the initialisation is not enough, and
            costs half of the degrees of freedom.
        combine: "metric" averages the metric over seeds; "scores" averages the seeds' scores of each row first, as
            for pooled out-of-fold predictions (the seeds' part is then that of the jackknife over seeds).
        claim: what is to be said: "recipe" (another training would do it again) or "weights" (these files are better).
        resamples: B.
        seed: of the random stream.

    Raises:
        DataError: if the arms do not fit each other.
        TargetError: if the targets do not fit the task.
        UnknownNameError: if there is no such metric.
        ConfigError: if more of the metric is not better.

    Example:
        >>> targets = np.tile(np.eye(2), (20, 1))
        >>> good, poor = np.clip(targets, 0.1, 0.9), np.full((40, 2), 0.5)
        >>> found = compare(targets, good, poor, metric="auroc", task="binary", groups=np.arange(40), claim="weights")
        >>> (found.effect, found.p < 0.001)
        (0.5, True)
    """
    what = look_up(METRICS, metric, kind="metric")
    check_ranks(metric)
    truth = checked_targets(targets, task=task)
    arms = [checked_scores(scores, like=truth) for scores in (scores_a, scores_b)]
    if what.family in PROBABILITY_FAMILIES:
        believed = (probabilities_a, probabilities_b)
        arms = [a if p is None else checked_scores(p, like=truth) for a, p in zip(arms, believed, strict=True)]
    limits = [
        broadcast_thresholds(t, (len(a), a.shape[1], a.shape[2]))
        for a, t in zip(arms, (thresholds_a, thresholds_b), strict=True)
    ]
    counts = [len(arm) for arm in arms]
    if paired_seeds and counts[0] != counts[1]:
        raise DataError(
            f"expected as many seeds in both arms to pair them, got {counts[0]} and {counts[1]}: "
            "give both the same seeds, or set paired_seeds=False"
        )
    who = patients(groups, truth)
    K = truth.shape[1]
    needed = list(labels) if labels is not None else [K - 1] if task == "binary" else list(range(K))
    units: list[list[Sufficient]] = []
    for arm, limit in zip(arms, limits, strict=True):
        # an order of its own for each arm, so that exchanging them cannot move a bit
        order = canonical_order(groups, truth, arm)
        units.append([])
        for share in _mixtures(len(arm), combine):
            scores = np.tensordot(share, arm, axes=1)[order]
            called = decide(scores, task=task, thresholds=np.tensordot(share, limit, axes=1)[order][None])
            units[-1].append(
                reduce_predictions(
                    truth[order],
                    scores,
                    called,
                    task=task,
                    metrics=[metric],
                    group=who.index[order],
                    G=who.count,
                    classes=needed,
                )
            )
    whole = np.ones((1, who.count))
    singles = [np.stack([_chosen(unit.under(whole)[metric], labels)[0] for unit in arm]) for arm in units]
    means = [_mean(values[None], combine)[0] for values in singles]
    effect = float(means[0] - means[1])
    positives = fewest_patients(who, metric, task=task, labels=labels)
    notes = _refusals(effect, seeds=min(counts), positives=positives, claim=claim)
    result = Comparison(
        metric=metric,
        value_a=None if np.isnan(means[0]) else float(means[0]),
        value_b=None if np.isnan(means[1]) else float(means[1]),
        effect=None if np.isnan(effect) else effect,
        low=None,
        high=None,
        p=None,
        probability_better=None,
        n=int(labelled_rows(truth).sum()),
        groups=who.count,
        positives=positives,
        seeds=min(counts),
        claim=claim,
        note="; ".join(notes),
    )
    if notes:
        return result
    found = _chosen(replicate(units[0] + units[1], who, resamples=resamples, seed=seed)[metric], labels)
    drawn = [found[:, : len(units[0])], found[:, len(units[0]) :]]
    steps = _mean(drawn[0], combine) - _mean(drawn[1], combine)
    if claim == "recipe":
        values = [_by_seed(single, combine) for single in singles]
        copies = [_by_seed(copy, combine) for copy in drawn]
        if paired_seeds:
            between = spread(values[0] - values[1], copies[0] - copies[1])
        else:
            between = spread(values[0], copies[0]).plus(spread(values[1], copies[1]))
        aside = deviations(between, seed_draws(resamples, seed=seed))
        # both signs, so that exchanging the arms mirrors every replicate
        steps = np.concatenate([steps + aside, steps - aside])
    return _conclude(result, effect, steps, higher_is_better=what.higher_is_better)


def check_ranks(metric: str) -> None:
    """Refuse to choose or rank by a metric of which neither more nor less is better.

    Raises:
        ConfigError: naming metrics that rank probabilities.

    Example:
        >>> check_ranks("brier")
    """
    ideal = METRICS[metric].ideal
    if ideal is not None:
        raise ConfigError(
            f"{metric} is best at {ideal:g}, so that neither more nor less of it is better: it cannot rank or choose; "
            "take brier or log_loss"
        )


def _mixtures(S: int, combine: Combine) -> Float[np.ndarray, "U S"]:
    """Return the shares of the seeds in each set of scores: every seed by itself, or all together and all but one."""
    if combine == "metric":
        return np.eye(S)
    if S == 1:
        return np.ones((1, 1))
    return np.concatenate([np.full((1, S), 1 / S), (1 - np.eye(S)) / (S - 1)])


def _mean(values: Float[np.ndarray, "R U"], combine: Combine) -> Float[np.ndarray, " R"]:
    """Return the arm's value: the mean over seeds, or the value of the averaged scores."""
    return values.mean(axis=1) if combine == "metric" else values[:, 0]


def _by_seed(values: Float[np.ndarray, "... U"], combine: Combine) -> Float[np.ndarray, "... S"]:
    """Return a value per seed: its own, or the jackknife's pseudo-value S all - (S - 1) without the seed."""
    if combine == "metric":
        return values
    S = values.shape[-1] - 1
    return S * values[..., :1] - (S - 1) * values[..., 1:]


def _chosen(values: Float[np.ndarray, "... K1"], labels: Sequence[int] | None) -> Float[np.ndarray, "..."]:
    """Pick the overall value, or the mean over some classes."""
    return values[..., 0] if labels is None else mean_defined(values[..., [1 + k for k in labels]])


def _refusals(effect: float, *, seeds: int, positives: int, claim: Claim) -> list[str]:
    notes = []
    if np.isnan(effect):
        notes.append("undefined in an arm: a class has no positive or no negative row")
    if claim == "recipe" and seeds < MIN_SEEDS:
        notes.append(
            f"{seeds} seed{'s' if seeds != 1 else ''}: a claim about a recipe needs {MIN_SEEDS}; "
            "run more, or claim these weights only"
        )
    if positives < MIN_POSITIVES:
        notes.append(
            f"{positives} patients of the rarest class: a ranking needs {MIN_POSITIVES}; "
            "pool folds, or compare over the classes that have them"
        )
    return notes


def _conclude(
    result: Comparison, effect: float, steps: Float[np.ndarray, " R"], *, higher_is_better: bool
) -> Comparison:
    known = steps[~np.isnan(steps)]
    if not len(known):
        return replace(result, note="undefined in every resample")
    away = np.sort(np.abs(known - effect))
    B = len(known)
    # rounding must not tell an equal difference from a smaller one
    p = (1 + int(np.sum(away >= abs(effect) - 1e-12))) / (1 + B)
    half = float(away[min(int(np.ceil(CONFIDENCE * (B + 1))), B) - 1])
    ahead = known if higher_is_better else -known
    better = (np.sum(ahead > 1e-12) + np.sum(np.abs(ahead) <= 1e-12) / 2) / B
    lost = len(steps) - B
    return replace(
        result,
        low=effect - half,
        high=effect + half,
        p=p,
        probability_better=float(better),
        note=f"{lost} of {len(steps)} resamples had a class without rows" if lost else "",
    )


def canonical_order(
    groups: np.ndarray, targets: Float[np.ndarray, "N K"], scores: Float[np.ndarray, "S N K"]
) -> Int[np.ndarray, " N"]:
    """Return an order of the rows that depends on what they hold and not on how they came, so that no sum can differ.

    Example:
        >>> canonical_order(np.array(["b", "a"]), np.zeros((2, 1)), np.zeros((1, 2, 1))).tolist()
        [1, 0]
    """
    if len(np.unique(groups)) == len(groups):
        return np.argsort(groups, kind="stable")
    keys = [*targets.T, *(column for seed in scores for column in seed.T)]
    return np.lexsort((*keys, np.unique(groups, return_inverse=True)[1]))


def fewest_patients(who: Patients, metric: str, *, task: Task, labels: Sequence[int] | None = None) -> int:
    """Return how many patients the rarest class has that decides about a metric.

    Binary: of the rarer class. Multiclass, mean over classes: of the rarest that has any. Multiclass, all rows at
    once: those who are not of the commonest class. Multilabel: positives or negatives of the rarest label; for errors
        over all rows,
    patients with any positive label.

    Args:
        who: the patients.
        metric: a name of `METRICS`.
        task: what the classes mean.
        labels: the classes that are compared, if not all.
    """
    what = METRICS[metric]
    both = np.minimum(who.positives, who.negatives)
    if labels is not None:
        return int(both[list(labels)].min())
    if task == "binary":
        return int(both.min())
    if task == "multiclass":
        present = who.positives[who.positives > 0]
        return int(who.count - present.max() if what.micro else present.min()) if len(present) else 0
    if what.needs == "rows":
        return who.affected
    return int(both.min())
