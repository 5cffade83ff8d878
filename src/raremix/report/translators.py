"""The table of what translators do, as a classifier that knows only real images sees it."""

from raremix.report import notation
from raremix.report.record import Record
from raremix.report.tables import Table


def translator_table(record: Record) -> Table | None:
    """Return how often translations are taken for the class that they are to show, or None where there are none."""
    measured = [entry for entry in record.translators if entry.flipped is not None]
    if not measured:
        return None
    rows = []
    for entry in measured:
        assert entry.flipped is not None
        interval = "" if entry.low is None or entry.high is None else f"\n{_share(entry.low)} to {_share(entry.high)}"
        kernel = "–" if entry.kernel is None else notation.decimal(entry.kernel)
        before = "–" if entry.kernel_before is None else notation.decimal(entry.kernel_before)
        area = "–" if entry.area is None else _share(entry.area)
        area += "" if entry.tenth is None else f"\n10 % below {_share(entry.tenth)}"
        rows.append(
            (
                f"{entry.translator}\nto {entry.to}",
                "–" if entry.before is None else _share(entry.before),
                "–" if entry.redrawn is None else _share(entry.redrawn),
                f"{_share(entry.flipped)}{interval}",
                notation.decimal(entry.change),
                notation.decimal(entry.cycle),
                area,
                f"{kernel}\n{before} before",
            )
        )
    return Table(
        title="What the translators change",
        columns=(
            "Translator",
            "Taken for it before",
            "redrawn",
            "translated",
            "Change",
            "There and back",
            "Area of masks",
            "Distance to real ones",
        ),
        rows=tuple(rows),
        note=(
            f"Validation images of other classes, translated, as seen by the classifier of {record.study.reference}, "
            'which knows only real images. "Redrawn": the images as the translator draws them when nothing is to '
            'change. "Change" and "there and back" are mean absolute differences of pixels, 0 to 1. The area is the '
            "mean of a difference map, which is that of a mask by it at a random threshold. The distance is the kernel "
            "distance to real images of the class in that classifier's features, less is better."
        ),
    )


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"
