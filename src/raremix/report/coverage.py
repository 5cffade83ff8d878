"""The table of what each arm's sampler shows in an epoch."""

from raremix.report import notation
from raremix.report.record import Record
from raremix.report.tables import Table


def coverage_table(record: Record) -> Table | None:
    """Return how often an epoch of each arm shows each label, or None where every image simply comes once.

    Args:
        record: the study's record.
    """
    if not record.coverage:
        return None
    order = record.data.ordered()
    rows = []
    for entry in record.coverage:
        drawn = {found.label: found for found in entry.labels}
        cells = [
            f"{notation.grouped(round(drawn[name].drawn))}\n{notation.grouped(round(drawn[name].distinct))} different"
            if name in drawn
            else "–"
            for name in order
        ]
        rows.append(
            (
                f"{entry.arm}\n{entry.sampler}",
                f"{round(100 * entry.unseen)} %",
                notation.grouped(entry.most),
                notation.decimal(entry.labels_per_image[1], digits=2),
                f"{100 * entry.moved:.1f} %",
                *cells,
            )
        )
    images = record.coverage[0]
    there = ", ".join(f"{found.label} {notation.grouped(found.images)}" for found in images.labels)
    return Table(
        title="What an epoch shows",
        columns=("Arm", "Left out", "Most often", "Labels an image", "Moved", *order),
        rows=tuple(rows),
        note=(
            f'Images drawn per label in an epoch of as many draws as there are images; there are: {there}. "Left out" '
            'are images that an epoch does not show, "most often" is how often one image comes. "Moved" is the share '
            "of the draws that show labels together otherwise than the images do. Arms that are not listed show every "
            "image once."
        ),
        arms=tuple(entry.arm for entry in record.coverage),
    )
