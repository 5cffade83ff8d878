"""The report's tables as rows of text, for the page and for the command line alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from raremix.report import notation, words
from raremix.report.record import Comparison, Metric, Record

# What stands beside the primary metric, most telling first.
PREFERRED = (
    "balanced_accuracy",
    "auroc_macro",
    "auroc",
    "macro_auroc",
    "average_precision_macro",
    "average_precision",
    "macro_average_precision",
    "sensitivity",
    "sensitivity_macro",
    "specificity",
    "specificity_macro",
    "mcc",
    "f1",
    "f1_macro",
    "kappa",
    "cohen_kappa",
    "accuracy",
    "ece",
    "youden_j",
    "g_mean",
    "precision",
)
MOST_OTHERS = 6
"""Columns of the other measures; a task of two classes shows all, since its publications do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of text.

    Args:
        title: what it shows.
        columns: the headings.
        rows: one text per column; a line break parts a value from its interval.
        note: what a reader must know to read it.
        arms: the arm of each row where each row is one, else empty.
        faint: the rows (by number) that rest on too few cases for a ranking.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    arms: tuple[str, ...] = ()
    faint: tuple[int, ...] = ()


def tables(record: Record) -> tuple[Table, ...]:
    """Return the tables that sum a study up: the headline, then the other measures where there are any.

    Args:
        record: the study's record.

    Example:
        >>> from raremix.report import read_record, tables   # doctest: +SKIP
        >>> tables(read_record(Path("runs/ham10000-rare/record.json")))[0].columns[:2]   # doctest: +SKIP
        ('Arm', 'Difference to baseline, points')
    """
    others = other_measures(record)
    return (headline(record), others) if others else (headline(record),)


def headline(record: Record) -> Table:
    """Return each arm's difference in the primary metric: effect and interval first, then what they rest on, then p."""
    study, unit = record.study, record.data.unit
    kinds: dict[str, words.Kind] = {verdict.arm: verdict.kind for verdict in words.judge_all(record)}
    rows = []
    for arm in record.arms:
        value = record.overall(arm.name, study.primary_metric)
        found = record.primary_comparison(arm.name)
        is_reference = arm.name == study.reference
        # Where nothing may be claimed the numbers stay, and what would rank the arms goes.
        is_ranked = found is not None and kinds.get(arm.name) in ("better", "worse", "equal", "open")
        rows.append(
            (
                f"{arm.name}\n{'reference' if is_reference else words.LABELS[kinds[arm.name]]}",
                "–" if found is None else _difference(found),
                with_interval(value),
                _cases(record, value, found),
                _number(found.positives if found else value.positives if value else None),
                _number(found.seeds) if found else _number(len(study.seeds) or None) if is_reference else "–",
                notation.probability(found.probability_better) if found and is_ranked else "–",
                notation.p_value(found.p_holm) if found and is_ranked else "–",
            )
        )
    return Table(
        title=f"{notation.metric_name(study.primary_metric, capital=True)}, by arm",
        columns=(
            "Arm",
            f"Difference to {study.reference}, points",
            notation.metric_name(study.primary_metric, capital=True),
            notation.capitalised(unit),
            notation.capitalised(record.data.rare_cases),
            "Seeds",
            "P(better)",
            "p (Holm)",
        ),
        rows=tuple(rows),
        note=_headline_note(record),
        arms=tuple(arm.name for arm in record.arms),
    )


def other_measures(record: Record) -> Table | None:
    """Return every arm's other overall metrics, or None where none was measured."""
    measured = {m.metric for m in record.metrics if m.scope == "overall" and m.value is not None}
    measured.discard(record.study.primary_metric)
    known = [name for name in PREFERRED if name in measured]
    chosen = known + sorted(measured - set(known))
    chosen = chosen if record.data.task == "binary" else chosen[:MOST_OTHERS]
    if not chosen:
        return None
    return Table(
        title="Other measures",
        columns=("Arm", *(notation.metric_name(name, capital=True) for name in chosen)),
        rows=tuple(
            (arm.name, *(with_interval(record.overall(arm.name, name)) for name in chosen)) for arm in record.arms
        ),
        note=_others_note(chosen),
        arms=tuple(arm.name for arm in record.arms),
    )


def decision_table(record: Record) -> Table | None:
    """Return about how many patients of each class only one of two arms is right, or None where nothing was tested."""
    if not record.decisions:
        return None
    return Table(
        title="Right about whom",
        columns=("Arm", "Against", "Class", "Patients", "Only this arm", "Only the other", "p (McNemar, Holm)"),
        rows=tuple(
            (
                one.arm,
                one.reference,
                one.label,
                _number(one.patients),
                _number(one.only_arm),
                _number(one.only_reference),
                notation.p_value(one.p_holm),
            )
            for one in record.decisions
        ),
        note=(
            "Test patients of a class about whom only one of the two arms decides rightly, at its threshold, in more "
            "than half of the seeds and of the patient's images. McNemar's mid-p, corrected over all rows; exploratory."
        ),
    )


def by_label(
    record: Record, metrics: Sequence[Metric], *, labels: Sequence[str], title: str, heading: str, note: str = ""
) -> Table | None:
    """Return one metric with a row per class, band or subgroup and a column per arm.

    Args:
        record: the study.
        metrics: values of one metric whose labels are the rows.
        labels: the rows, in their order.
        title: what the table shows.
        heading: the first column's.
        note: small print.
    """
    arms = [arm.name for arm in record.arms if any(m.arm == arm.name for m in metrics)]
    rows, faint = [], []
    for label in labels:
        of_row = {m.arm: m for m in metrics if m.label == label}
        if not of_row:
            continue
        one = next(iter(of_row.values()))
        positives = [m.positives for m in of_row.values() if m.positives is not None]
        if positives and min(positives) < words.FEWEST_POSITIVES:
            faint.append(len(rows))
        rows.append(
            (
                label,
                _cases(record, one, None),
                _number(one.positives),
                *(with_interval(of_row.get(arm)) for arm in arms),
            )
        )
    if not rows:
        return None
    unit = record.data.unit
    return Table(
        title=title,
        columns=(heading, notation.capitalised(unit), f"Positive {unit}", *arms),
        rows=tuple(rows),
        note=note,
        faint=tuple(faint),
    )


def _others_note(chosen: Sequence[str]) -> str:
    lower = [notation.metric_name(name) for name in chosen if notation.is_lower_better(name)]
    smaller = f" Smaller is better for {notation.enumerate_names(lower)}." if lower else ""
    return f"Values with 95 % intervals. None of these was decided on beforehand: read them as exploratory.{smaller}"


def _headline_note(record: Record) -> str:
    note = "One point is 0.01."
    if not any(found.low is not None for found in record.comparisons if found.primary):
        return note
    about = "and seeds were resampled in pairs: it is about the recipe"
    if record.study.claim == "weights":
        about = "were resampled in pairs: it is about these trained weights"
    return (
        f"{note} The interval holds the true difference in 95 of 100 such studies; {record.data.unit} {about}. "
        "P(better) is the share of resamples in which the arm was ahead; p is Holm-corrected for the number of arms."
    )


def _difference(found: Comparison) -> str:
    if found.effect is None:
        return "–"
    if found.low is None or found.high is None:
        return f"{notation.points(found.effect)}\nno interval"
    return f"{notation.points(found.effect)}\n{notation.points_between(found.low, found.high)}"


def with_interval(metric: Metric | None) -> str:
    """Write a value with its interval on a second line, as far as they are known."""
    if metric is None or metric.value is None:
        return "–"
    if metric.low is None or metric.high is None:
        return notation.decimal(metric.value)
    return f"{notation.decimal(metric.value)}\n{notation.decimal(metric.low)} to {notation.decimal(metric.high)}"


def _cases(record: Record, metric: Metric | None, comparison: Comparison | None) -> str:
    for found in (comparison, metric):
        if found is not None and (found.groups is not None or found.n is not None):
            count = found.groups if record.data.grouped and found.groups is not None else found.n
            return _number(count)
    return "–"


def _number(count: int | None) -> str:
    return "–" if count is None else notation.grouped(count)
