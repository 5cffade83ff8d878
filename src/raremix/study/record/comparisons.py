"""Paired differences of a study's arms: to the reference arm, and of arms with generated images to their controls and
to balanced sampling; and on which patients two arms decide differently.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from raremix.core.types import Task
from raremix.data.manifest import Manifest
from raremix.evaluate.classical import holm, mcnemar
from raremix.evaluate.compare import MIN_POSITIVES, Comparison, compare
from raremix.evaluate.decide import decide
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


def sampling_comparisons(
    spec: StudySpec, manifest: Manifest, rows: TestRows, primary: str, *, added: Mapping[str, Mapping[str, Any] | None]
) -> list[dict[str, Any]]:
    """Compare every arm with generated images with the first that draws real ones balanced by class, if there is one.

    It says whether making images did more than drawing those that are there in another order: a family of its own for
    Holm's correction. Arguments as for `control_comparisons`.
    """
    sampled = [
        arm.name
        for arm in spec.arms
        if arm.name in rows.scores
        and arm.images is None
        and arm.mix["name"] == "none"
        and arm.sampler["name"] == "balanced"
    ]
    made = [name for name, facts in added.items() if facts is not None and facts["kind"] == "generated"]
    pairs = [(name, sampled[0]) for name in made if name in rows.scores] if sampled else []
    return _family(spec, manifest, rows, pairs, primary)


def decision_tests(manifest: Manifest, rows: TestRows, pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Test, class by class, whether two arms are right about equally many patients (McNemar, mid-p).

    A patient counts as right where more than half of its images and the seeds that both arms have are.

    Args:
        manifest: the data, with one class per image.
        rows: what every arm said.
        pairs: arms, and what each is held against.

    Returns:
        One row per pair and class: arm, reference, label, patients, only_arm and only_reference (right about them
        alone), p, and p_holm over all rows.
    """
    task, classes = manifest.card.task, manifest.card.classes
    found: list[dict[str, Any]] = []
    for arm, other in pairs:
        shared = [seed for seed in rows.seeds[arm] if seed in rows.seeds[other]]
        if not shared:
            continue
        right: list[np.ndarray] = []
        for name in (arm, other):
            pick = [rows.seeds[name].index(seed) for seed in shared]
            said = decide(rows.scores[name][pick], task=task, thresholds=rows.thresholds[name][pick])
            right.append((said & (rows.targets == 1)).any(axis=-1).mean(axis=0))
        for k, label in enumerate(classes):
            mine = rows.targets[:, k] == 1
            patients, place = np.unique(rows.groups[mine], return_inverse=True)
            a, b = (np.bincount(place, share[mine]) / np.bincount(place) > 0.5 for share in right)
            only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
            found.append(
                {
                    "arm": arm,
                    "reference": other,
                    "label": label,
                    "patients": len(patients),
                    "only_arm": only_a,
                    "only_reference": only_b,
                    "p": mcnemar(only_a, only_b).mid_p,
                }
            )
    corrected = holm([row["p"] for row in found]) if found else []
    return [{**row, "p_holm": float(p)} for row, p in zip(found, corrected, strict=True)]


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
