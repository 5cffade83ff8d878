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
MASK_FREE = {"insertion": "Insertion", "deletion": "Deletion (lower is better)"}


def lesion_table(record: Record) -> Table | None:
    """Return how well each map of the reference arm's classifier lies on the lesions, or None where none is known."""
    found = record.lesions
    if found is None or not found.rows:
        return None
    titles = FIGURES | MASK_FREE
    shown = [key for key in titles if key in found.rows[0].figures]
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
    masked = [key for key in shown if key in FIGURES]
    better = [row.map for row in found.rows if all((one := row.figures.get(key)) and one.beats for key in masked)]
    by = "every figure" if len(masked) == len(shown) else "every figure of the mask"
    verdict = f"Better by {by}: {', '.join(better)}." if better else f"No map is better by {by}."
    if len(masked) < len(shown):
        verdict += (
            " Insertion and deletion need no mask: the area under the probability of the class as the highest pixels "
            "come into a blurred image, or are replaced by its mean colour."
        )
    return Table(
        title="Where the classifier looks",
        columns=("Map", *(titles[key] for key in shown)),
        rows=tuple(rows),
        note=(
            f"Maps of the classifier of {found.arm} on {notation.grouped(found.images)} test images of "
            f"{notation.grouped(found.patients)} patients, against true masks, with 95 % intervals over patients. "
            "“uniform” and “centre” look at no image; * marks what is better than both of them. "
            f"{verdict} A map on the lesion does not prove that the classifier decides by it."
        ),
    )
