"""Paired differences of a study's arms: to the reference arm, and of arms with generated images to their controls."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from raremix.core.types import Task
from raremix.data.manifest import Manifest
from raremix.evaluate.classical import holm
from raremix.evaluate.compare import MIN_POSITIVES, Comparison, compare
from raremix.study.record.outcomes import TestRows
from raremix.study.spec import StudySpec

SECONDARY = ("balanced_accuracy", "auroc", "average_precision", "f1", "sensitivity", "ece", "brier")
"""Metrics whose differences are reported as exploratory beside the primary one."""


def reference_comparisons(spec: StudySpec, manifest: Manifest, rows: TestRows, primary: str) -> list[dict[str, Any]]:
    """Compare every arm with the reference arm, in the primary metric and in those that are exploratory."""
    names = [primary, *(name for name in SECONDARY if name != primary)]
    pairs = [(arm.name, spec.reference) for arm in spec.arms if arm.name != spec.reference and arm.name in rows.scores]
    found = [(metric, entry) for metric in names for entry in _family(spec, manifest, rows, pairs, metric)]
    return [{**entry, "primary": metric == primary} for metric, entry in found]


def control_comparisons(
    spec: StudySpec, manifest: Manifest, rows: TestRows, primary: str, *, added: Mapping[str, Mapping[str, Any] | None]
) -> list[dict[str, Any]]:
    """Compare every arm with generated images with the one that repeats real images to the same counts.

    It says what the images are worth beyond showing the class more often: a family of its own for Holm's correction.

    Args:
        spec: the study.
        manifest: its data.
        rows: what every arm said.
        primary: the primary metric.
        added: what each arm added, as `raremix.study.record.image_facts.describe_added` says.
    """
    controls = {
        tuple(sorted(facts["train"].items())): name
        for name, facts in reversed(list(added.items()))
        if facts is not None and facts["kind"] == "repeated" and name in rows.scores
    }
    pairs = []
    for name, facts in added.items():
        if facts is not None and facts["kind"] == "generated" and name in rows.scores:
            control = controls.get(tuple(sorted(facts["train"].items())))
            pairs += [(name, control)] if control is not None else []
    return _family(spec, manifest, rows, pairs, primary)


def _family(
    spec: StudySpec, manifest: Manifest, rows: TestRows, pairs: Sequence[tuple[str, str]], metric: str
) -> list[dict[str, Any]]:
    """Compare pairs of arms in one metric, with Holm's correction over them."""
    task = manifest.card.task
    ranked = rankable_labels(rows.targets, rows.groups, task=task)
    kept: list[tuple[str, str, Comparison]] = []
    for arm, other in pairs:
        shared = [seed for seed in rows.seeds[arm] if seed in rows.seeds[other]]
        if not shared:
            continue
        pick_a = [rows.seeds[arm].index(seed) for seed in shared]
        pick_b = [rows.seeds[other].index(seed) for seed in shared]
        found = compare(
            rows.targets,
            rows.scores[arm][pick_a],
            rows.scores[other][pick_b],
            metric=metric,
            task=task,
            groups=rows.groups,
            thresholds_a=rows.thresholds[arm][pick_a],
            thresholds_b=rows.thresholds[other][pick_b],
            probabilities_a=rows.probabilities[arm][pick_a],
            probabilities_b=rows.probabilities[other][pick_b],
            labels=ranked,
            # Out-of-fold rows: the seeds of a case are averaged before the pairing.
            combine="metric" if spec.folds is None else "scores",
            claim="recipe" if len(spec.seeds) > 1 else "weights",
            resamples=spec.resamples,
        )
        kept.append((arm, other, found))
    corrected = iter(holm([one.p for _, _, one in kept if one.p is not None]))
    return [
        {
            "arm": arm,
            "reference": other,
            "metric": metric,
            "effect": one.effect,
            "low": one.low,
            "high": one.high,
            "p": one.p,
            "p_holm": None if one.p is None else float(next(corrected)),
            "probability_better": one.probability_better,
            "n": one.n,
            "groups": one.groups,
            "positives": one.positives,
            "seeds": one.seeds,
            "note": "; ".join(text for text in (one.note, _left_out(manifest, ranked)) if text),
        }
        for arm, other, one in kept
    ]


def rankable_labels(targets: Float[np.ndarray, "N K"], groups: np.ndarray, *, task: Task) -> list[int] | None:
    """Return the labels that arms are compared on: of a multilabel task, those with enough positive patients.

    One finding with three positive patients would forbid a verdict on all the others; it is reported by itself instead.
    None is the metric's own overall value.
    """
    if task != "multilabel":
        return None
    counts = [len(np.unique(groups[targets[:, k] == 1])) for k in range(targets.shape[1])]
    enough = [k for k, count in enumerate(counts) if count >= MIN_POSITIVES]
    return enough if 0 < len(enough) < len(counts) else None


def _left_out(manifest: Manifest, ranked: list[int] | None) -> str:
    if ranked is None:
        return ""
    names = ", ".join(name for k, name in enumerate(manifest.card.classes) if k not in ranked)
    return f"mean over {len(ranked)} labels; left out, with fewer than {MIN_POSITIVES} positive patients: {names}"
