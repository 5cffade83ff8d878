"""Some test rows, measured: values, replicates, and which interval is honest for which figure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

from raremix.core.types import Task
from raremix.evaluate.bootstrap import Patients, patients, percentile_interval, replicate
from raremix.evaluate.compare import CONFIDENCE, MIN_POSITIVES, MIN_SEEDS, Claim
from raremix.evaluate.decide import decide
from raremix.evaluate.intervals import (
    Interval,
    auroc_interval,
    delong,
    effective_wilson,
    logit_interval,
    square_and_add,
    wilson,
)
from raremix.evaluate.metrics import METRICS, mean_defined, why_undefined
from raremix.evaluate.rows import labelled_rows
from raremix.evaluate.seeds import seed_draws, two_level
from raremix.evaluate.sufficient import columns, reduce_predictions

FEW = f"fewer than {MIN_POSITIVES} patients of a kind: counts only, no ranking"
FEW_IN_MEAN = f"a class has fewer than {MIN_POSITIVES} patients: no ranking"
NO_SPREAD = "no resample differs: no interval"
SUMS_OF_SHARES = {"sensitivity", "specificity", "balanced_accuracy", "youden_j"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of a table.

    Attributes:
        metric: its name.
        values: one per seed.
        replicates: of the recipe's (or the weights') value.
        classes: whose mean it is; one for a class and for a binary task.
        all_rows: it looks at all classes of a row at once.
    """

    metric: str
    values: Float[np.ndarray, " S"]
    replicates: Float[np.ndarray, " R"]
    classes: tuple[int, ...]
    all_rows: bool

    @property
    def value(self) -> float:
        """The mean over seeds."""
        return float(self.values.mean())

    def ends(self) -> tuple[float, float]:
        """Return the percentile interval of the replicates that are defined."""
        return percentile_interval(self.replicates[~np.isnan(self.replicates)], confidence=CONFIDENCE)

    def variance(self, patients_of_rarest: int) -> float:
        """Return the variance that would give a normal interval the width of the percentile interval.

        Tails of the seeds' deviations are too heavy for a variance proper. Within strata of m patients resampling
        brings (m - 1) / m of the variance.
        """
        low, high = self.ends()
        m = patients_of_rarest
        return ((high - low) / (2 * float(ndtri((1 + CONFIDENCE) / 2)))) ** 2 * (m / (m - 1) if m > 1 else 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some rows, measured.

    Attributes:
        truth: targets.
        scores: per seed.
        task: what the columns mean.
        classes: their names.
        who: the patients.
        two_level: seeds are drawn too.
        claim: what is to be said.
        values: per metric and seed, the overall value before those of the classes.
        replicates: the same in each resample of the patients.
        draws: for the seeds' deviations.
        counts: TP, FP, FN, TN per seed and class.
        called_patients: patients with a row that is called, per class, mean over seeds.
    """

    truth: Float[np.ndarray, "N K"]
    scores: Float[np.ndarray, "S N K"]
    task: Task
    classes: tuple[str, ...]
    who: Patients
    two_level: bool
    claim: Claim
    values: dict[str, Float[np.ndarray, "S K1"]]
    replicates: dict[str, Float[np.ndarray, "R S K1"]]
    draws: tuple[Float[np.ndarray, " R"], Float[np.ndarray, " R"]]
    counts: Float[np.ndarray, "S K 4"]
    called_patients: Float[np.ndarray, " K"]

    @classmethod
    def of(
        cls,
        truth: Float[np.ndarray, "N K"],
        scores: Float[np.ndarray, "S N K"],
        limits: Float[np.ndarray, "S N K"],
        groups: np.ndarray,
        *,
        task: Task,
        classes: Sequence[str],
        metrics: Sequence[str],
        claim: Claim,
        resamples: int,
        seed: int,
        probabilities: Float[np.ndarray, "S N K"] | None = None,
    ) -> "Part":
        """Measure rows that have been checked and put in order."""
        who = patients(groups, truth)
        S, K = len(scores), truth.shape[1]
        called = decide(scores, task=task, thresholds=limits)
        units = [
            reduce_predictions(
                truth,
                scores[s],
                called[s],
                task=task,
                metrics=metrics,
                group=who.index,
                G=who.count,
                probabilities=None if probabilities is None else probabilities[s],
            )
            for s in range(S)
        ]
        whole = [unit.under(np.ones((1, who.count))) for unit in units]
        cells = [columns("counts", truth, scores[s], called[s], task=task).sum(axis=0) for s in range(S)]
        touched = np.zeros((S, who.count, K), dtype=bool)
        for s in range(S):
            row, label = np.nonzero(called[s] & ~np.isnan(truth))
            touched[s, who.index[row], label] = True
        return cls(
            truth=truth,
            scores=scores,
            task=task,
            classes=tuple(classes),
            who=who,
            two_level=claim == "recipe" and S >= MIN_SEEDS,
            claim=claim,
            values={name: np.stack([one[name][0] for one in whole]) for name in metrics},
            replicates=replicate(units, who, resamples=resamples, seed=seed),
            draws=seed_draws(resamples, seed=seed),
            counts=np.stack(cells).reshape(S, K, 4),
            called_patients=touched.sum(axis=1).mean(axis=0),
        )

    def row(self, name: str, scope: str, label: str, ks: Sequence[int], column: int | None) -> tuple[object, ...]:
        """Return one row of the table.

        Args:
            name: the metric.
            scope: "overall", "class", "band" or "subgroup".
            label: of the scope.
            ks: the classes concerned.
            column: of the values: 0 overall, 1 + k a class; None is the mean over `ks`.
        """
        figure = self._figure(name, ks, column, alone=scope == "class" or self.task == "binary")
        one = figure.classes[0] if len(figure.classes) == 1 and not figure.all_rows else None
        known = labelled_rows(self.truth if one is None else self.truth[:, [one]])
        positives = self.who.positives[list(figure.classes)]
        notes = self._reasons(figure)
        value, interval, method = figure.value, None, ""
        if np.isnan(value):
            notes = notes or ["undefined for a seed"]
        else:
            interval, method, remark = self._interval(figure)
            notes += [remark] if remark else []
            S = len(self.scores)
            if interval is not None and self.claim == "recipe" and not self.two_level:
                notes.append(f"{S} seed{'s' if S > 1 else ''}: over patients only, no claim about the recipe")
            lost = int(np.isnan(figure.replicates).sum())
            if interval is not None and lost:
                notes.append(f"undefined in {lost} of {len(figure.replicates)} resamples")
        return (
            name,
            scope,
            label,
            None if np.isnan(value) else value,
            None if interval is None else interval.low,
            None if interval is None else interval.high,
            int(known.sum()),
            len(np.unique(self.who.index[known])),
            int(positives.min() if one is not None else min(positives[positives > 0], default=0)),
            "; ".join(notes),
            method,
        )

    def _figure(self, name: str, ks: Sequence[int], column: int | None, *, alone: bool) -> Figure:
        what = METRICS[name]
        found, copies = self.values[name], self.replicates[name]
        if column is None:
            at = [1 + k for k in ks]
            values, drawn = mean_defined(found[:, at]), mean_defined(copies[:, :, at])
        else:
            values, drawn = found[:, column], copies[:, :, column]
        middle = drawn.mean(axis=1)
        if self.two_level:
            middle = np.clip(two_level(values, drawn, self.draws), what.lowest, what.highest)
        return Figure(
            metric=name,
            values=values,
            replicates=middle,
            classes=(list(ks)[-1],) if alone else tuple(ks),
            all_rows=what.micro and self.task == "multiclass" and column == 0,
        )

    def _reasons(self, figure: Figure) -> list[str]:
        """Say what is undefined or a convention; for a mean, which classes that concerns."""
        if figure.all_rows:
            return []
        found: dict[str, list[str]] = {}
        for k in figure.classes:
            reason = why_undefined(figure.metric, self.counts.mean(axis=0), k)
            if reason:
                found.setdefault(reason, []).append(self.classes[k])
        if len(figure.classes) == 1:
            return list(found)
        return [f"{reason}: {', '.join(labels)}" for reason, labels in found.items()]

    def _interval(self, figure: Figure) -> tuple[Interval | None, str, str]:
        """Return interval, method and remark of a figure that is defined."""
        what = METRICS[figure.metric]
        single = len(figure.classes) == 1
        if what.proportion and (single or figure.all_rows):
            return self._share(figure)
        fewest = self._fewest(figure)
        if fewest < MIN_POSITIVES and single:
            return None, "", FEW
        remark = FEW_IN_MEAN if fewest < MIN_POSITIVES else ""
        if self.who.count < 2 or (~np.isnan(figure.replicates)).sum() < 2:
            return None, "", remark or "one patient: no interval"
        interval, method = self._wide(figure, fewest)
        if interval is None:
            return None, "", "; ".join(filter(None, [remark, NO_SPREAD]))
        return interval, method, remark

    def _wide(self, figure: Figure, fewest: int) -> tuple[Interval | None, str]:
        """Return interval and method of a figure that is no share of rows and has the patients for it."""
        what = METRICS[figure.metric]
        if figure.metric == "auroc" and len(figure.classes) == 1:
            return self._area(figure, fewest), "logit-DeLong and Newcombe 5"
        if what.family == "ranking":
            return logit_interval(figure.value, figure.variance(fewest)), "bootstrap, logit scale"
        low, high = figure.ends()
        interval = Interval(min(low, figure.value), max(high, figure.value))
        if figure.metric in SUMS_OF_SHARES:
            return interval.union(self._sum_of_shares(figure)), "bootstrap and square-and-add"
        return (interval if low < high else None), "percentile bootstrap"

    def _fewest(self, figure: Figure) -> int:
        """Return the patients of the rarest kind that the figure rests on."""
        if METRICS[figure.metric].needs == "rows":
            return self.who.count
        if figure.all_rows:
            return self.who.count - int(self.who.positives.max())
        ends = np.minimum(self.who.positives, self.who.negatives)[list(figure.classes)]
        return int(min(ends[ends > 0], default=0))

    def _share(self, figure: Figure) -> tuple[Interval | None, str, str]:
        """Return Wilson's interval of a share of rows, with an effective size where rows are not independent."""
        rows, members = self._denominator(figure.metric, None if figure.all_rows else figure.classes[0])
        if rows <= 0 or members <= 0:
            return None, "", ""
        if not self.two_level and self.who.count == len(self.truth):
            return wilson(figure.value * rows, rows), "Wilson", ""
        variance = figure.variance(members) if (~np.isnan(figure.replicates)).sum() > 1 else 0.0
        interval = effective_wilson(figure.value, variance, groups=members, rows=rows, confidence=CONFIDENCE)
        return interval, "Wilson, effective size", ""

    def _denominator(self, name: str, k: int | None) -> tuple[float, int]:
        """Return the rows and patients of which a share is taken, means over seeds; all rows for no class."""
        if k is None:
            return float(labelled_rows(self.truth).sum()), self.who.count
        tp, fp, fn, tn = self.counts.mean(axis=0)[k]
        match name:
            case "sensitivity":
                return float(tp + fn), int(self.who.positives[k])
            case "specificity":
                return float(fp + tn), int(self.who.negatives[k])
            case "precision":
                return float(tp + fp), round(float(self.called_patients[k]))
            case _:
                return float(tp + fp + fn + tn), len(np.unique(self.who.index[~np.isnan(self.truth[:, k])]))

    def _area(self, figure: Figure, fewest: int) -> Interval:
        k = figure.classes[0]
        found = delong(self.truth[:, k], self.scores[:, :, k], groups=self.who.index)
        closed = float(found.covariance.mean())
        return auroc_interval(
            figure.value,
            max(closed, figure.variance(fewest)) if self.two_level else closed,
            positives=float(self.who.positives[k]),
            negatives=float(self.who.negatives[k]),
            confidence=CONFIDENCE,
        )

    def _sum_of_shares(self, figure: Figure) -> Interval:
        """Return the square-and-add interval of a mean of sensitivities, specificities or both."""
        both = figure.metric == "youden_j" or (
            figure.metric == "balanced_accuracy" and not (self.task == "multiclass" and len(figure.classes) > 1)
        )
        kinds = ["sensitivity", "specificity"] if both else [figure.metric]
        kinds = ["sensitivity"] if kinds == ["balanced_accuracy"] else kinds
        counts = self.counts.mean(axis=0)
        shares, intervals = [], []
        for k in figure.classes:
            if both and min(self.who.positives[k], self.who.negatives[k]) == 0:
                continue
            for kind in kinds:
                rows, members = self._denominator(kind, k)
                if rows > 0:
                    share = counts[k][0 if kind == "sensitivity" else 3] / rows
                    size = min(float(members), rows)
                    shares.append(share)
                    intervals.append(wilson(share * size, size, confidence=CONFIDENCE))
        doubled = 2 if figure.metric == "youden_j" else 1
        found = square_and_add(np.array(shares), intervals, scale=doubled / len(shares))
        return Interval(found.low - doubled + 1, found.high - doubled + 1)
