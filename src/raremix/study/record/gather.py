"""From the results of jobs to the study's record: every number of the report, and every prediction in one table."""

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from raremix.core import files
from raremix.core.types import SPLITS, Progress
from raremix.data.manifest import Manifest
from raremix.evaluate.bands import bands
from raremix.evaluate.calibration import reliability
from raremix.evaluate.curves import confusion, pr_curve, roc_curve
from raremix.evaluate.metrics import METRICS
from raremix.evaluate.summary import measure
from raremix.study.fitted import fitted_entries
from raremix.study.generators.own import generators_of, resolved
from raremix.study.prepare import Prepared, of_arm
from raremix.study.record.comparisons import (
    control_comparisons,
    decision_tests,
    reference_comparisons,
    sampling_comparisons,
)
from raremix.study.record.coverage import coverage_facts
from raremix.study.record.gates import translator_gates
from raremix.study.record.image_facts import describe_added, describe_quarantine, describe_rarity
from raremix.study.record.lesions import lesion_facts
from raremix.study.record.origins import origin_facts
from raremix.study.record.outcomes import Outcome, TestRows, all_predictions, collect
from raremix.study.record.pictures import pictures
from raremix.study.spec import StudySpec

PACKAGES = ("raremix", "torch", "torchvision", "timm", "lightning-fabric", "numpy", "scipy", "polars", "pillow")


def gather(
    spec: StudySpec,
    prepared: Mapping[int | None, Prepared],
    outcomes: Mapping[Any, Outcome],
    *,
    missing: Sequence[str],
    failed: Mapping[str, str],
    decidable: Mapping[str, Any],
    folder: Path,
    unmade: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compute the record.

    Args:
        spec: the study.
        prepared: its data, by fold.
        outcomes: the results that are there.
        missing: jobs without a result.
        failed: why jobs failed.
        decidable: the smallest decidable difference, from before training.
        folder: the run folder, where tables are written.
        unmade: why arms lack images or translators in the first fold, by name; these arms are shown without pictures.
        progress: called as arms are done.

    Returns:
        {"record": ..., "images": ..., "tables": ...}, ready to be written.
    """
    first, unmade = next(iter(prepared.values())), unmade or {}
    manifest, card = first.manifest, first.manifest.card
    metric = spec.primary_metric(card.task)
    rows = collect(spec, first.untouched, outcomes)
    arms = [arm for arm in spec.arms if arm.name in rows.scores]
    openings = _count_openings(folder, sorted(o.facts["key"] for o in outcomes.values()))
    record: dict[str, Any] = {
        "study": {
            "name": spec.name,
            "title": spec.title,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "reference": spec.reference,
            "primary_metric": metric,
            "seeds": list(spec.seeds),
            "folds": spec.folds,
            "claim": "recipe" if len(spec.seeds) > 1 else "weights",
            "test_openings": openings,
            "status": "incomplete" if missing else "complete",
            "missing": [f"{name}: {failed[name]}" if name in failed else name for name in missing],
        },
        "data": _describe_data(spec, first),
        "arms": [_describe_arm(spec, arm.name, outcomes, first) for arm in spec.arms],
        "decidable": dict(decidable),
        "fitted_on": fitted_entries({o.folder.name: o.facts.get("fitted_on", {}) for o in outcomes.values()}),
        "coverage": coverage_facts(spec, first),
        "lesions": lesion_facts(spec, first, outcomes, folder=folder, progress=progress),
        "translators": translator_gates(spec, first, outcomes, folder=folder, progress=progress),
        "history": [_history(outcome, metric) for outcome in outcomes.values()],
        "warnings": _warnings(spec, first, outcomes, unmade),
        "spec": spec.to_toml(),
        "versions": {**{name: version(name) for name in PACKAGES}, "python": platform.python_version()},
        "environment": _environment(outcomes),
        "metrics": [],
        "comparisons": [],
        "curves": [],
        "reliability": [],
        "confusion": [],
    }
    tables: dict[str, pl.DataFrame] = {"predictions": all_predictions(outcomes)}
    for number, arm in enumerate(arms):
        if progress is not None:
            progress("measuring", number, len(arms) + 1)
        record["metrics"] += _metrics(spec, manifest, rows, arm.name)
        record["curves"] += _curves(spec, manifest, rows, arm.name)
        record["reliability"].append(_reliability(manifest, rows, arm.name, record["metrics"]))
        if card.task != "multilabel":
            counts = confusion(
                rows.targets, rows.scores[arm.name], task=card.task, thresholds=rows.thresholds[arm.name]
            )
            record["confusion"].append({"arm": arm.name, "counts": counts.tolist()})
    if spec.reference in rows.scores:
        record["comparisons"] = reference_comparisons(spec, manifest, rows, metric)
    added = {entry["name"]: entry["added"] for entry in record["arms"]}
    record["controls"] = control_comparisons(spec, manifest, rows, metric, added=added)
    record["samplings"] = sampling_comparisons(spec, manifest, rows, metric, added=added)
    if card.task == "binary":
        compared = [c for c in record["comparisons"] if c["primary"]] + record["controls"]
        record["decisions"] = decision_tests(manifest, rows, [(c["arm"], c["reference"]) for c in compared])
    record["origins"], origins = origin_facts(spec, first, outcomes, unmade=unmade)
    said = {name: values.mean(axis=0) for name, values in rows.scores.items()}
    shown = pictures(resolved(spec, first), first, rows.ids, rows.targets, said, unmade=unmade)
    images = {**shown, "origins": origins}
    if progress is not None:
        progress("measuring", len(arms) + 1, len(arms) + 1)
    if record["metrics"]:
        tables["metrics"] = pl.DataFrame(record["metrics"], infer_schema_length=None)
    if record["comparisons"]:
        tables["comparisons"] = pl.DataFrame(record["comparisons"], infer_schema_length=None)
    return {"record": record, "images": images, "tables": tables}


def write_record(folder: Path, gathered: Mapping[str, Any]) -> None:
    """Write record, pictures and tables into the run folder."""
    tables = gathered["tables"]
    files.write_parquet(folder / "predictions.parquet", tables["predictions"])
    for name in ("metrics", "comparisons"):
        if name in tables:
            files.write_csv(folder / f"{name}.csv", tables[name])
    files.write_json(folder / "images.json", gathered["images"])
    files.write_json(folder / "record.json", gathered["record"])


def _metrics(spec: StudySpec, manifest: Manifest, rows: TestRows, arm: str) -> list[dict[str, Any]]:
    table = measure(
        rows.targets,
        rows.scores[arm],
        task=manifest.card.task,
        classes=manifest.card.classes,
        groups=rows.groups,
        thresholds=rows.thresholds[arm],
        probabilities=rows.probabilities[arm],
        train_counts=manifest.class_counts("train"),
        attributes=rows.attributes,
        resamples=min(2000, spec.resamples),
    )
    return [{"arm": arm, **row, "label": row["label"] or None} for row in table.iter_rows(named=True)]


def _curves(spec: StudySpec, manifest: Manifest, rows: TestRows, arm: str) -> list[dict[str, Any]]:
    card = manifest.card
    labels = [len(card.classes) - 1] if card.task == "binary" else list(range(len(card.classes)))
    entries = []
    for label in labels:
        for kind, draw in (("roc", roc_curve), ("pr", pr_curve)):
            curve = draw(rows.targets, rows.scores[arm], task=card.task, label=label, groups=rows.groups, points=51)
            if not len(curve.x):
                continue
            entries.append(
                {
                    "arm": arm,
                    "label": card.classes[label],
                    "kind": kind,
                    "x": _rounded(curve.x),
                    "y": _rounded(curve.y),
                    "low": _rounded(curve.low),
                    "high": _rounded(curve.high),
                }
            )
    return entries


def _reliability(manifest: Manifest, rows: TestRows, arm: str, metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = reliability(rows.targets, rows.probabilities[arm], task=manifest.card.task, groups=rows.groups)
    ece = [m["value"] for m in metrics if m["arm"] == arm and m["metric"] == "ece" and m["scope"] == "overall"]
    fitted = rows.calibrations[arm]
    offsets = np.mean([one.offsets for one in fitted], axis=0)
    bins = zip(found.confidence, found.observed, found.low, found.high, found.n, strict=True)
    return {
        "arm": arm,
        "bins": [
            {"confidence": float(c), "frequency": float(f), "low": float(lo), "high": float(hi), "n": round(float(n))}
            for c, f, lo, hi, n in bins
        ],
        "ece": ece[0] if ece else None,
        "temperature": float(np.mean([one.temperature for one in fitted])),
        "offsets": dict(zip(manifest.card.classes, _rounded(offsets), strict=True)) if offsets.any() else {},
    }


def _describe_data(spec: StudySpec, prepared: Prepared) -> dict[str, Any]:
    manifest, card = prepared.manifest, prepared.manifest.card
    train = manifest.class_counts("train")
    return {
        "name": card.name,
        "task": card.task,
        "classes": list(card.classes),
        "modality": card.modality,
        "licence": card.licence or None,
        "source": card.source or None,
        "citation": card.citation or None,
        "images": len(manifest),
        "groups": manifest.frame["group"].n_unique(),
        "grouped": prepared.grouped,
        "counts": {
            split: dict(zip(card.classes, (int(n) for n in manifest.class_counts(split)), strict=True))
            for split in SPLITS
        },
        "group_counts": {
            split: manifest.frame["group"].gather(manifest.positions(manifest.rows(split))).n_unique()
            for split in SPLITS
        },
        "imbalance_ratio": float(train.max() / max(1, train.min())),
        "bands": dict(zip(card.classes, bands(train.astype(np.float64)), strict=True)),
        "manifest_hash": manifest.hash(),
        "thinned": prepared.thinned,
        "rarity": describe_rarity(prepared, spec.data.imbalance),
        "quarantine": describe_quarantine(prepared),
    }


def _describe_arm(spec: StudySpec, name: str, outcomes: Mapping[Any, Outcome], prepared: Prepared) -> dict[str, Any]:
    mine = [o for job, o in outcomes.items() if job.arm == name]
    arm = spec.arm(name)
    return {
        "name": name,
        "settings": spec.arm(name).settings(),
        "steps": spec.train.steps,
        "learning_rate": spec.train_of(arm).learning_rate,
        "seconds": float(np.mean([o.timing["seconds"] for o in mine])) if mine else None,
        "images_per_second": float(np.mean([o.timing["images_per_second"] for o in mine])) if mine else None,
        "best_step": {
            f"{o.facts['seed']}" + ("" if o.facts["fold"] is None else f", fold {o.facts['fold']}"): o.facts[
                "best_step"
            ]
            for o in mine
        },
        "rarity": None if arm.imbalance is None else describe_rarity(of_arm(prepared, arm), arm.imbalance),
        "added": describe_added(prepared, arm),
    }


def _history(outcome: Outcome, metric: str) -> dict[str, Any]:
    losses = [(r["step"], r["loss"]) for r in outcome.history if "loss" in r]
    name = f"validation/{metric}"
    values = [(r["step"], r[name]) for r in outcome.history if name in r]
    # A curve of a report needs no more points than it has pixels.
    losses = losses[:: max(1, len(losses) // 60)]
    return {
        "arm": outcome.facts["arm"],
        "seed": outcome.facts["seed"],
        "steps": [s for s, _ in losses],
        "loss": [round(v, 5) for _, v in losses],
        "metric_steps": [s for s, _ in values],
        "metric": [round(v, 5) for _, v in values],
        "metric_name": METRICS[metric].title if metric in METRICS else metric,
    }


def _warnings(
    spec: StudySpec, prepared: Prepared, outcomes: Mapping[Any, Outcome], unmade: Mapping[str, str]
) -> list[str]:
    warnings = _what_is_gone(spec, prepared, outcomes, unmade)
    if not prepared.grouped:
        warnings.append(
            "Every image counts as a patient of its own, because the data name no groups. If several images are of one "
            "patient, these figures are too good: name the column with [data] group."
        )
    for outcome in outcomes.values():
        warnings += [f"{outcome.folder.name}: {note}" for note in outcome.facts["notes"]]
    return warnings


def _what_is_gone(
    spec: StudySpec, prepared: Prepared, outcomes: Mapping[Any, Outcome], unmade: Mapping[str, str]
) -> list[str]:
    """Say of which arms with results not everything can be shown, since what they were trained with was deleted."""
    arms = list(dict.fromkeys(job.arm for job in outcomes))
    found = [
        f"{arm}: its results stand, but its batch, and what it added, are not shown here ({unmade[arm]})"
        for arm in arms
        if arm in unmade
    ]
    gone = [name for name in sorted(generators_of(spec, arms)) if name not in prepared.generators]
    return found + [
        f"The generator {name} is not in the run folder: how it came to draw, and what its translations change, is "
        "not shown here."
        for name in gone
    ]


def _environment(outcomes: Mapping[Any, Outcome]) -> dict[str, Any]:
    keys = ("device", "precision", "threads")
    return {key: ", ".join(sorted({str(o.timing[key]) for o in outcomes.values()})) for key in keys} | {
        "machine": platform.machine(),
        "system": platform.system(),
    }


def _count_openings(folder: Path, keys: list[str]) -> int:
    """Count how often test rows were scored by another set of classifiers; the count is kept in the run folder."""
    path = folder / "test_openings.jsonl"
    known = files.read_records(path)
    digest = files.hash_value(keys)
    if keys and digest not in {entry["classifiers"] for entry in known}:
        files.append_record(path, {"classifiers": digest, "count": len(keys)})
        known = files.read_records(path)
    return len(known)


def _rounded(values: Any) -> list[float]:
    return [round(float(v), 4) for v in values]
