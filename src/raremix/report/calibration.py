"""The table of what probabilities are worth: Brier score, slope, intercept."""

from raremix.report import notation
from raremix.report.record import Record
from raremix.report.tables import Table, with_interval

COLUMNS = ("brier", "log_loss", "ece", "calibration_slope", "calibration_intercept")
MOST_OFFSETS = 20
"""Classes beyond which shifts are not written out."""


def calibration_table(record: Record) -> Table | None:
    """Return every arm's metrics of probabilities, or None where slope and intercept were not measured.

    Args:
        record: the study's record.
    """
    measured = {m.metric for m in record.metrics if m.scope == "overall" and m.value is not None}
    if not measured & {"calibration_slope", "calibration_intercept"}:
        return None
    shown = [name for name in COLUMNS if name in measured]
    by_arm = {entry.arm: entry for entry in record.reliability}
    rows = []
    for arm in record.arms:
        entry = by_arm.get(arm.name)
        warmth = "–" if entry is None or entry.temperature is None else notation.decimal(entry.temperature)
        rows.append((arm.name, *(with_interval(record.overall(arm.name, name)) for name in shown), warmth))
    return Table(
        title="What the probabilities are worth",
        columns=("Arm", *(notation.metric_name(name, capital=True) for name in shown), "Temperature"),
        rows=tuple(rows),
        note=_note(record),
        arms=tuple(arm.name for arm in record.arms),
    )


def shifts_table(record: Record) -> Table | None:
    """Return by how much each class was shifted in each arm, or None where none was."""
    entries = [entry for entry in record.reliability if entry.offsets]
    classes = record.data.ordered()[:MOST_OFFSETS]
    if not entries:
        return None
    return Table(
        title="Shifts of the classes",
        columns=("Arm", *classes),
        rows=tuple(
            (entry.arm, *(notation.decimal(entry.offsets[name]) if name in entry.offsets else "–" for name in classes))
            for entry in entries
        ),
        note="Added to the logits after the temperature, fitted on validation images; mean over seeds. One is a factor "
        "of e in the odds.",
        arms=tuple(entry.arm for entry in entries),
    )


def _note(record: Record) -> str:
    over = {"binary": "of the last class", "multiclass": "mean over classes", "multilabel": "mean over labels"}
    return (
        "Values with 95 % intervals. Right probabilities have slope 1 (below: too extreme) and intercept 0 (above: the "
        f"class is more frequent than they say), {over[record.data.task]}; smaller is better for the others. They are "
        "measured at the frequencies of the test images. Decisions and rankings are those of the scores before the "
        "shift."
    )
