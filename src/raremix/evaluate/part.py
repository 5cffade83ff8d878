"""Some test rows, measured: values, replicates, and which interval is honest for which figure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import logit

from raremix.core.types import Task
from raremix.evaluate.bootstrap import Patients, patients, percentile_interval, replicate, seed_blocks
from raremix.evaluate.compare import MIN_POSITIVES, MIN_SEEDS, Claim
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
from raremix.evaluate.sufficient import columns, reduce_predictions

FEW = f"fewer than {MIN_POSITIVES} patients of a kind: counts only, no ranking"
SUMS_OF_SHARES = {"sensitivity", "specificity", "balanced_accuracy", "youden_j"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some rows, measured: values (S, 1 + K) and replicates (R, 1 + K) by metric."""

    truth: Float[np.ndarray, "N K"]
    scores: Float[np.ndarray, "S N K"]
    task: Task
    classes: list[str]
    who: Patients
    claim: Claim
    values: dict[str, Float[np.ndarray, "S K1"]]
    replicates: dict[str, Float[np.ndarray, "R K1"]]
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
        classes: list[str],
        metrics: list[str],
        claim: Claim,
        resamples: int,
        seed: int,
    ) -> "Part":
        who = patients(groups, truth)
        S, K = len(scores), truth.shape[1]
        called = decide(scores, task=task, thresholds=limits)
        units = [
            reduce_predictions(truth, scores[s], called[s], task=task, metrics=metrics, group=who.index, G=who.count)
            for s in range(S)
        ]
        cells = [columns("counts", truth, scores[s], called[s], task=task).reshape(-1, K, 4) for s in range(S)]
        found = replicate(units, who, resamples=resamples, seed=seed)
        if claim == "recipe" and S >= MIN_SEEDS:
            shares = np.concatenate(list(seed_blocks(S, resamples=resamples, seed=seed, stream=0))) / S
        else:
            shares = np.full((resamples, S), 1 / S)
        kept = shares[..., None] > 0
        whole = np.ones((1, who.count))
        single = [unit.under(whole) for unit in units]
        labelled = ~np.isnan(truth)
        touched = np.zeros((S, who.count, K), dtype=bool)
        for s in range(S):
            row, label = np.nonzero(called[s] & labelled)
            touched[s, who.index[row], label] = True
        return cls(
            truth=truth,
            scores=scores,
            task=task,
            classes=classes,
            who=who,
            claim=claim,
            values={name: np.stack([one[name][0] for one in single]) for name in metrics},
            replicates={n: np.where(kept, found[n] * shares[..., None], 0.0).sum(axis=1) for n in metrics},
            counts=np.stack([cell.sum(axis=0) for cell in cells]),
            called_patients=touched.sum(axis=1).mean(axis=0),
        )

    def row(self, name: str, scope: str, label: str, ks: Sequence[int], column: int | None) -> tuple[object, ...]:
        """Return one row of the table: of a column of the values, or (None) of the mean over some classes."""
        what, S = METRICS[name], len(self.scores)
        by_class, found = self.values[name][:, 1:], self.replicates[name]
        if column is None:
            value = float(mean_defined(by_class[:, list(ks)]).mean())
            drawn = mean_defined(found[:, [1 + k for k in ks]])
        else:
            value, drawn = float(self.values[name][:, column].mean()), found[:, column]
        one = list(ks)[-1] if scope == "class" or self.task == "binary" else None
        rows = labelled_rows(self.truth if one is None else self.truth[:, [one]])
        positives = [int(self.who.positives[k]) for k in ([one] if one is not None else ks)]
        there = [count for count in positives if count] if one is None else positives
        notes = self._reasons(name, [one] if one is not None else list(ks), alone=one is not None)
        low = high = None
        method = ""
        if np.isnan(value):
            notes = notes or ["undefined for a seed"]
        else:
            interval, method, remark = self._interval(name, value, drawn, ks=list(ks), one=one, column=column)
            notes += [remark] if remark else []
            if interval is not None:
                low, high = interval.low, interval.high
                if self.claim == "recipe" and S < MIN_SEEDS:
                    notes.append(
                        f"{S} seed{'s' if S > 1 else ''}: interval over patients only, no claim about the recipe"
                    )
                lost = int(np.isnan(drawn).sum())
                if lost:
                    notes.append(f"undefined in {lost} of {len(drawn)} resamples")
        return (
            name,
            scope,
            label,
            None if np.isnan(value) else value,
            low,
            high,
            int(rows.sum()),
            len(np.unique(self.who.index[rows])),
            min(there, default=0),
            "; ".join(notes),
            method,
        )

    def _reasons(self, name: str, ks: list[int], *, alone: bool) -> list[str]:
        """Say what is undefined or a convention; for a mean, which classes that concerns."""
        found: dict[str, list[str]] = {}
        for k in ks:
            reason = why_undefined(name, self.counts.mean(axis=0), k)
            if reason:
                found.setdefault(reason, []).append(self.classes[k])
        if alone:
            return list(found)
        if METRICS[name].micro and self.task == "multiclass":
            return []
        return [f"{reason}: {', '.join(labels)}" for reason, labels in found.items()]

    def _interval(
        self,
        name: str,
        value: float,
        drawn: Float[np.ndarray, " R"],
        *,
        ks: list[int],
        one: int | None,
        column: int | None,
    ) -> tuple[Interval | None, str, str]:
        """Return interval, method and remark of a figure that is defined."""
        what = METRICS[name]
        if one is not None and what.proportion:
            return self._share(name, value, drawn, one)
        if name == "accuracy" and column == 0 and self.task == "multiclass":
            return self._share(name, value, drawn, None)
        ends = [int(min(self.who.positives[k], self.who.negatives[k])) for k in ([one] if one is not None else ks)]
        fewest = self.who.count if what.needs == "rows" else min((e for e in ends if e), default=0)
        if fewest < MIN_POSITIVES and one is not None:
            return None, "", FEW
        remark = f"a class has fewer than {MIN_POSITIVES} patients: no ranking" if fewest < MIN_POSITIVES else ""
        known = drawn[~np.isnan(drawn)]
        if self.who.count < 2 or len(known) < 2:
            return None, "", remark or "one patient: no interval"
        # within strata of m patients the bootstrap's variance is too small by (m - 1) / m
        inflate = fewest / (fewest - 1) if fewest > 1 else 1.0
        if name == "auroc" and one is not None:
            return self._area(value, float(known.var()) * inflate, one), "logit-DeLong and Newcombe 5", remark
        if what.family == "ranking":
            spread = logit(np.clip(known, 1e-6, 1 - 1e-6)).var() * inflate
            found = logit_interval(value, float(spread) * (value * (1 - value)) ** 2)
            if found is None:
                return None, "", "; ".join(filter(None, [remark, "no resample differs: no interval"]))
            return found, "logit bootstrap", remark
        low, high = percentile_interval(known)
        interval = Interval(min(low, value), max(high, value))
        if name in SUMS_OF_SHARES:
            return interval.union(self._sum_of_shares(name, ks, one, column)), "bootstrap and square-and-add", remark
        if low == high:
            return None, "", "; ".join(filter(None, [remark, "no resample differs: no interval"]))
        return interval, "percentile bootstrap", remark

    def _share(
        self, name: str, value: float, drawn: Float[np.ndarray, " R"], one: int | None
    ) -> tuple[Interval | None, str, str]:
        """Return Wilson's interval of a share of rows, with an effective size where rows are not independent."""
        rows, members = self._denominator(name, one)
        if rows <= 0:
            return None, "", ""
        if self.claim == "weights" and self.who.count == len(self.truth):
            return wilson(value * rows, rows), "Wilson", ""
        known = drawn[~np.isnan(drawn)]
        inflate = members / (members - 1) if members > 1 else 1.0
        variance = float(known.var()) * inflate if len(known) > 1 else 0.0
        return effective_wilson(value, variance, groups=max(members, 1), rows=rows), "Wilson, effective size", ""

    def _denominator(self, name: str, one: int | None) -> tuple[float, int]:
        """Return the rows and patients of which a share is taken, means over seeds."""
        if one is None:
            return float(labelled_rows(self.truth).sum()), self.who.count
        tp, fp, fn, tn = self.counts.mean(axis=0)[one]
        known = ~np.isnan(self.truth[:, one])
        match name:
            case "sensitivity":
                return float(tp + fn), int(self.who.positives[one])
            case "specificity":
                return float(fp + tn), int(self.who.negatives[one])
            case "precision":
                return float(tp + fp), round(float(self.called_patients[one]))
            case _:
                return float(tp + fp + fn + tn), len(np.unique(self.who.index[known]))

    def _area(self, value: float, variance: float, k: int) -> Interval:
        found = delong(self.truth[:, k], self.scores[:, :, k], groups=self.who.index)
        closed = float(found.covariance.mean())
        return auroc_interval(
            value,
            max(closed, variance) if self.claim == "recipe" and len(self.scores) >= MIN_SEEDS else closed,
            positives=float(self.who.positives[k]),
            negatives=float(self.who.negatives[k]),
        )

    def _sum_of_shares(self, name: str, ks: list[int], one: int | None, column: int | None) -> Interval:
        """Return the square-and-add interval of a sum of sensitivities and specificities."""
        members = [one] if one is not None else ks
        two_sided = name == "youden_j" or (name == "balanced_accuracy" and (column != 0 or self.task != "multiclass"))
        parts = (
            ["sensitivity", "specificity"] if two_sided else ["specificity" if name == "specificity" else "sensitivity"]
        )
        shares, intervals = [], []
        for k in members:
            for part in parts:
                share = float(np.nanmean(self._plain_share(part, k))) if self._denominator(part, k)[0] > 0 else np.nan
                if np.isnan(share):
                    continue
                rows, patients_there = self._denominator(part, k)
                size = min(float(patients_there), rows)
                shares.append(share)
                intervals.append(wilson(share * size, size))
        halves = 1 if name == "youden_j" or not two_sided else 2
        scale = len(parts) / (halves * max(len(shares), 1))
        found = square_and_add(np.array(shares), intervals, scale=scale)
        return Interval(found.low - 1, found.high - 1) if name == "youden_j" else found

    def _plain_share(self, name: str, k: int) -> Float[np.ndarray, " S"]:
        tp, fp, fn, tn = self.counts[:, k].T
        return tp / (tp + fn) if name == "sensitivity" else tn / (fp + tn)
