"""The table of where importance maps lie, against true masks."""

from raremix.report import notation
from raremix.report.record import Record
from raremix.report.tables import Table

FIGURES = {
    "pointing": "Highest point on the lesion",
    "energy": "Share of the map on it",
    "iou_best": "Overlap, best threshold",
    "iou_half": "Overlap, at half",
    "auroc": "AUROC of pixels",
}


def lesion_table(record: Record) -> Table | None:
    """Return how well each map of the reference arm's classifier lies on the lesions, or None where none is known."""
    found = record.lesions
    if found is None or not found.rows:
        return None
    shown = [key for key in FIGURES if key in found.rows[0].figures]
    rows = []
    for row in found.rows:
        cells = []
        for key in shown:
            one = row.figures.get(key)
            if one is None or one.value is None:
                cells.append("–")
                continue
            interval = "" if one.low is None or one.high is None else f"\n{one.low:.2f} to {one.high:.2f}"
            cells.append(f"{notation.decimal(one.value)}{' *' if one.beats else ''}{interval}")
        rows.append((row.map, *cells))
    better = [row.map for row in found.rows if all(one.beats for one in row.figures.values())]
    verdict = f"By every figure better: {', '.join(better)}." if better else "No map is better by every figure."
    return Table(
        title="Where the classifier looks",
        columns=("Map", *(FIGURES[key] for key in shown)),
        rows=tuple(rows),
        note=(
            f"Maps of the classifier of {found.arm} on {notation.grouped(found.images)} test images of "
            f"{notation.grouped(found.patients)} patients, against true masks, with 95 % intervals over patients. "
            "“uniform” and “centre” look at no image; * marks what is better than both of them. "
            f"{verdict} A map on the lesion does not prove that the classifier decides by it."
        ),
    )
