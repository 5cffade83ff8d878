"""Put a study's record on one page: a single HTML file that opens offline and asks nothing of anybody."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from raremix.core import files
from raremix.report import notation, words
from raremix.report.calibration import calibration_table, shifts_table
from raremix.report.coverage import coverage_table
from raremix.report.figures import dose, panels, rows, tail
from raremix.report.figures.origins import plane
from raremix.report.figures.panels import Panel
from raremix.report.figures.rows import Rows
from raremix.report.held_out import left_out, seen
from raremix.report.images import ClassImages, Images, fit, read_images
from raremix.report.lesions import lesion_table
from raremix.report.notation import grouped
from raremix.report.opening import counts, facts, fairness, when
from raremix.report.record import Arm, Metric, Record, read_record
from raremix.report.tables import Table, by_label, decision_table, headline, other_measures
from raremix.report.translators import translator_table

# The page must stay below 5 MB (it is mailed); text and figures take at most about 1 MB of that.
IMAGE_BUDGET = 3_600_000
MOST_CURVE_PANELS = 20

# Class metrics that are drawn as bars, where they were measured: the first two of these.
CLASS_METRICS = ("sensitivity", "recall", "auroc", "average_precision", "f1", "specificity", "precision")

BANDS = ("head", "medium", "tail")


def write_report(folder: Path) -> Path:
    """Write a study's report beside its record.

    Args:
        folder: a study's folder, which holds `record.json` and, where pictures were kept, `images.json`.

    Returns:
        The path of `report.html`.

    Raises:
        UsageError: if the folder holds no record.
        CorruptError: if the record does not fit, naming each place.
        StorageError: if the file cannot be written.

    Example:
        >>> write_report(Path("runs/ham10000-rare"))   # doctest: +SKIP
        PosixPath('runs/ham10000-rare/report.html')
    """
    record = read_record(folder / "record.json")
    images = read_images(folder / "images.json")
    path = folder / "report.html"
    files.write_text(path, render(record, images))
    return path


def render(record: Record, images: Images | None = None) -> str:
    """Render a record as one self-contained HTML page; the same record gives the same bytes.

    Args:
        record: the study.
        images: its pictures, or None.

    Returns:
        HTML without scripts, without addresses, with a policy that forbids both.
    """
    conclusion = words.conclude(record)
    is_complete = record.study.is_complete
    slots = arm_slots(record)
    kept, dropped = fit(images, budget=IMAGE_BUDGET) if images else (Images(), 0)
    return environment().get_template("page.html.j2").render(
        style=Markup(resource("style.css")),
        record=record,
        study=record.study,
        data=record.data,
        lead=conclusion[0 if is_complete else 1],
        incomplete=None if is_complete else conclusion[0],
        sentences=conclusion[1 if is_complete else 2 :],
        slots=slots,
        keys={arm: rows.key(slot) for arm, slot in slots.items()},
        arm_class={arm: f"a{slot if slot == 0 else (slot - 1) % 6 + 1}" for arm, slot in slots.items()},
        verdicts={verdict.arm: verdict.kind for verdict in words.judge_all(record)},
        created=when(record.study.created),
        facts=facts(record),
        fairness=fairness(record),
        counts=counts(record),
        tail=tail.long_tail(record, slots),
        tail_words=tail.tail_words(record),
        doses=dose.dose_response(record, slots),
        added=dose.added_words(record),
        controls=words.control_sentences(record),
        samplings=words.sampling_sentences(record),
        decisions=decision_table(record),
        translators=translator_table(record),
        lesions=lesion_table(record),
        planes=plane(record.origins, record.data.ordered()),
        origins=kept.origins,
        left_out=left_out(record),
        seen=seen(record),
        headline=headline(record),
        others=other_measures(record),
        differences=rows.differences(record, [c for c in record.comparisons if c.primary], slots),
        decides=words.decides(record),
        exploratory=_exploratory(record, slots),
        classes=_class_figures(record, slots),
        bands=_band_table(record),
        rocs=_curve_panels(record, slots, kind="roc"),
        prs=_curve_panels(record, slots, kind="pr"),
        reliability=[panels.reliability(entry, slots[entry.arm]) for entry in record.reliability if entry.bins],
        calibration=calibration_table(record),
        shifts=shifts_table(record),
        coverage=coverage_table(record),
        confusions=[panels.confusion(entry, record.data.classes, record.data.ordered()) for entry in record.confusion],
        images=kept,
        errors=[(arm.name, kept.errors_of(arm.name)) for arm in record.arms if kept.errors_of(arm.name)],
        class_images=_in_order(kept.classes, record.data.ordered()),
        dropped=dropped,
        subgroups=_subgroup_table(record),
        history=_history_panels(record, slots),
        settings=_settings(record),
        environment=[(key.replace("_", " "), _written(value)) for key, value in record.environment.items()],
        methods="; ".join(dict.fromkeys(m.method for m in record.metrics if m.method)),
        metric=notation.metric_name(record.study.primary_metric),
        metric_name=notation.metric_name,
        grouped=grouped,
    )  # fmt: skip


def arm_slots(record: Record) -> dict[str, int]:
    """Give every arm its place in the palette: 0 for the reference, then the record's order.

    Args:
        record: the study.
    """
    others = [arm.name for arm in record.arms if arm.name != record.study.reference]
    return {record.study.reference: 0} | {name: i + 1 for i, name in enumerate(others)}


def environment() -> Environment:
    """Return the templates of the pages; what is put into them is escaped."""
    templates = Environment(
        loader=FunctionLoader(lambda name: resource(f"templates/{name}")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # A number and its per cent sign stay on one line; escaping comes after.
    templates.filters["typeset"] = lambda text: text.replace(" %", "\u00a0%")
    templates.filters["sentence"] = lambda text: text[:1].upper() + text[1:].rstrip(".") + "."
    return templates


def resource(name: str) -> str:
    """Read a file that comes with this package."""
    return resources("raremix.report").joinpath(*name.split("/")).read_text(encoding="utf-8")


def _exploratory(record: Record, slots: Mapping[str, int]) -> list[tuple[str, Rows]]:
    """Differences in metrics that were not the primary one, one figure per metric."""
    metrics = list(dict.fromkeys(c.metric for c in record.comparisons if not c.primary))
    drawn = []
    for metric in metrics:
        of_metric = [c for c in record.comparisons if c.metric == metric and not c.primary]
        if (figure := rows.differences(record, of_metric, slots)) is not None:
            drawn.append((notation.metric_name(metric, capital=True), figure))
    return drawn


def _class_figures(record: Record, slots: Mapping[str, int]) -> list[dict[str, Any]]:
    of_class = [m for m in record.metrics if m.scope == "class" and m.value is not None]
    measured = {m.metric for m in of_class}
    chosen = [name for name in CLASS_METRICS if name in measured][:2] or sorted(measured)[:1]
    names = record.data.ordered()
    drawn = []
    for metric in chosen:
        values = [m for m in of_class if m.metric == metric]
        remarks = [{m.note for m in values if m.label == name and m.note} for name in names]
        shared = set.intersection(*remarks)
        notes = {name: _class_notes(record, name, values, without=shared) for name in names}
        figure = rows.values(record, values, slots, names=names, notes=notes)
        table = by_label(
            record, values, labels=names, title=notation.metric_name(metric, capital=True), heading="Class"
        )
        if figure is not None and table is not None:
            has_few = any(row.is_faint for row in figure.rows)
            drawn.append(
                {"metric": metric, "figure": figure, "table": table, "has_few": has_few, "notes": sorted(shared)}
            )
    return drawn


def _class_notes(record: Record, name: str, values: Sequence[Metric], *, without: Set[str]) -> tuple[str, ...]:
    data = record.data
    train = data.counts.get("train", {}).get(name)
    known = [data.bands.get(name), None if train is None else f"{grouped(train)} training images"]
    notes = [" · ".join(part for part in known if part)] if any(known) else []
    positives = [m.positives for m in values if m.label == name and m.positives is not None]
    if positives and min(positives) < words.FEWEST_POSITIVES:
        return (*notes, f"{min(positives)} positive test {data.unit}: read as counts, no ranking")
    if positives:
        notes.append(f"{min(positives)} positive test {data.unit}")
    notes += dict.fromkeys(m.note for m in values if m.label == name and m.note and m.note not in without)
    return tuple(notes)


def _band_table(record: Record) -> Table | None:
    metric = _most_telling(record, "band")
    if metric is None:
        return None
    values = [m for m in record.metrics if m.scope == "band" and m.metric == metric]
    others = [m.label for m in values if m.label and m.label not in BANDS]
    return by_label(
        record,
        values,
        labels=[*BANDS, *dict.fromkeys(others)],
        title=f"{notation.metric_name(metric, capital=True)}: head, medium and tail",
        heading="Band",
        note="Head, medium and tail are the classes with many, some and few training images.",
    )


def _subgroup_table(record: Record) -> Table | None:
    metric = _most_telling(record, "subgroup")
    if metric is None:
        return None
    values = [m for m in record.metrics if m.scope == "subgroup" and m.metric == metric]
    return by_label(
        record,
        values,
        labels=list(dict.fromkeys(m.label for m in values if m.label)),
        title=f"{notation.metric_name(metric, capital=True)} in subgroups",
        heading="Subgroup",
    )


def _most_telling(record: Record, scope: str) -> str | None:
    """The primary metric where it was measured in this scope, else the one that was measured most often."""
    measured = Counter(m.metric for m in record.metrics if m.scope == scope and m.value is not None)
    if record.study.primary_metric in measured:
        return record.study.primary_metric
    return max(measured, key=lambda name: (measured[name], name), default=None)


def _curve_panels(record: Record, slots: Mapping[str, int], *, kind: str) -> list[Panel]:
    found = [curve for curve in record.curves if curve.kind == kind and curve.x]
    labels = list(dict.fromkeys(curve.label for curve in found))
    order = record.data.ordered()
    averages = [label for label in labels if label not in order]
    drawn = []
    for label in [*averages, *(name for name in order if name in labels)][:MOST_CURVE_PANELS]:
        of_label = [curve for curve in found if curve.label == label]
        drawn.append(panels.curves(of_label, slots, heading=label, tag=record.data.bands.get(label, "")))
    return drawn


def _history_panels(record: Record, slots: Mapping[str, int]) -> list[Panel]:
    best = {
        (arm.name, int(seed)): step
        for arm in record.arms
        for seed, step in arm.best_step.items()
        if step is not None and seed.lstrip("-").isdigit()
    }
    drawn = (
        panels.history(record.history, slots, is_loss=True),
        panels.history(record.history, slots, is_loss=False, best=best),
    )
    return [panel for panel in drawn if panel is not None]


def _in_order(found: Sequence[ClassImages], order: Sequence[str]) -> list[ClassImages]:
    rank = {name: i for i, name in enumerate(order)}
    return sorted((entry for entry in found if entry.pngs), key=lambda entry: rank.get(entry.label, len(rank)))


def _settings(record: Record) -> list[tuple[str, list[tuple[str, str]], tuple[str, ...]]]:
    """Each arm's name, its settings, and its budget: steps, time, images per second, best steps."""
    return [
        (arm.name, [(key, _written(value)) for key, value in arm.settings.items()], _budget(arm)) for arm in record.arms
    ]


def _written(value: Any) -> str:
    if isinstance(value, dict):
        named = [f"{key} = {_written(inner)}" for key, inner in value.items() if key != "name"]
        return (
            f"{value['name']} ({', '.join(named)})"
            if "name" in value and named
            else str(value.get("name", ", ".join(named)))
        )
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _budget(arm: Arm) -> tuple[str, ...]:
    best = sorted({step for step in arm.best_step.values() if step is not None})
    ends = [grouped(step) for step in (best if len(best) < 2 else (best[0], best[-1]))]
    return (
        "–" if arm.steps is None else grouped(arm.steps),
        "–" if arm.learning_rate is None else f"{arm.learning_rate:g}",
        "–" if arm.seconds is None else _duration(arm.seconds),
        "–" if arm.images_per_second is None else grouped(round(arm.images_per_second)),
        " to ".join(ends) or "–",
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
