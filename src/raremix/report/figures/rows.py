"""Figures that are rows: differences to the reference, values per class, counts per split.

Each row is a name, a strip of drawing as wide as the screen allows, and the numbers, so the page can stack them on a
phone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from raremix.report import notation, words
from raremix.report.figures import svg
from raremix.report.record import Comparison, Metric, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a figure.

    Args:
        name: what the row is about.
        strip: its drawing.
        numbers: the same in figures; may be empty.
        notes: small print below the name.
        slot: the arm's place in the palette, None where the row is not about one arm.
        is_faint: whether too little lies behind it for a ranking.
    """

    name: str
    strip: Markup
    numbers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    slot: int | None = None
    is_faint: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A figure of rows over one axis."""

    rows: tuple[Row, ...]
    axis: Markup


def differences(record: Record, comparisons: Sequence[Comparison], slots: Mapping[str, int]) -> Rows | None:
    """Draw each arm's difference to the reference with its interval, the zero line and the band that is not decidable.

    Args:
        record: the study.
        comparisons: of one metric to one reference.
        slots: each arm's place in the palette.

    Returns:
        The figure, in points (hundredths), or None where nothing was compared.
    """
    drawn = [c for c in comparisons if c.effect is not None]
    if not drawn:
        return None
    band = _band(record, drawn[0].metric)
    ends = [100 * v for c in drawn for v in (c.effect, c.low, c.high) if v is not None]
    axis = svg.scale([0.0, *ends, *([100 * band, -100 * band] if band else [])], count=8)
    return Rows(
        rows=tuple(_difference(c, axis, band, slots[c.arm], record) for c in drawn),
        axis=_axis(axis, label=_sides(drawn[0])),
    )


def values(
    record: Record,
    metrics: Sequence[Metric],
    slots: Mapping[str, int],
    *,
    names: Sequence[str],
    notes: Mapping[str, tuple[str, ...]],
) -> Rows | None:
    """Draw one metric as bars with intervals: a row per class or band, a bar per arm.

    Args:
        record: the study.
        metrics: values of one metric; their labels are the rows.
        slots: each arm's place in the palette.
        names: the rows, in their order.
        notes: small print for each row, by name.

    Returns:
        The figure, or None where no value is known.
    """
    known = [m for m in metrics if m.value is not None]
    if not known:
        return None
    seen = [v for m in known for v in (m.value, m.low) if v is not None]
    axis = svg.UNIT if min(seen) >= 0 else svg.Scale(low=-1.0, high=1.0, ticks=(-1.0, -0.5, 0.0, 0.5, 1.0))
    rows = []
    for name in names:
        of_row = {m.arm: m for m in known if m.label == name}
        if not of_row:
            continue
        few = any(m.positives is not None and m.positives < words.FEWEST_POSITIVES for m in of_row.values())
        present = [(arm.name, of_row[arm.name]) for arm in record.arms if arm.name in of_row]
        rows.append(Row(name=name, strip=_bars(name, present, axis, slots), notes=notes.get(name, ()), is_faint=few))
    return Rows(rows=tuple(rows), axis=_axis(axis)) if rows else None


def count_bar(count: int, largest: int, *, what: str) -> Markup:
    """Draw a tiny bar for a count in a table."""
    width = 0.0 if largest <= 0 else max(count / largest, 0.012 if count else 0.0)
    return svg.drawing(
        svg.node("rect", x=0, y=0, width="100%", height=5, rx=2.5, class_="trough"),
        svg.node("rect", x=0, y=0, width=svg.percent(width), height=5, rx=2.5, class_="count"),
        title=f"{what}: {count}",
        class_="tiny",
        width="100%",
        height=5,
    )


def key(slot: int) -> Markup:
    """Draw an arm's key for a legend: its line and its mark."""
    return svg.node(
        "svg",
        svg.node("line", x1=0, x2=26, y1=7, y2=7, class_="curve", stroke_dasharray=svg.dash(slot)),
        svg.mark(slot, x=13, y=7),
        class_=f"key {svg.arm_class(slot)}",
        width=26,
        height=14,
        aria_hidden="true",
    )


def _band(record: Record, metric: str) -> float | None:
    decidable = record.decidable
    if decidable is None or decidable.difference is None or decidable.metric not in (None, metric):
        return None
    return decidable.difference


def _difference(comparison: Comparison, axis: svg.Scale, band: float | None, slot: int, record: Record) -> Row:
    # The strip grows with the name beside it, so that strips join to one figure: heights are per cent as well.
    effect = comparison.effect or 0.0
    parts = []
    if band:
        left, right = axis.at(-100 * band), axis.at(100 * band)
        parts.append(
            svg.node("rect", x=svg.percent(left), width=svg.percent(right - left), y=0, height="100%", class_="band")
        )
    parts += [_vertical(axis.at(tick), "100%", "grid") for tick in axis.ticks]
    parts.append(_vertical(axis.at(0.0), "100%", "zero"))
    if comparison.low is not None and comparison.high is not None:
        low, high = axis.at(100 * comparison.low), axis.at(100 * comparison.high)
        parts.append(_whisker(low, high, "50%", slot, cap=5))
        numbers = (f"{notation.points(effect)}", f"{notation.points_between(comparison.low, comparison.high)}")
    else:
        numbers = (f"{notation.points(effect)}", "no interval")
    parts.append(svg.mark(slot, x=svg.percent(axis.at(100 * effect)), y="50%"))
    kind = words.judge(comparison, record)
    strip = svg.drawing(
        *parts,
        title=f"{comparison.arm} against {comparison.reference}: {numbers[0]} points ({numbers[1]})",
        description="The mark is the difference, the line its 95 % interval; the vertical line is no difference.",
        class_="strip tall",
        width="100%",
    )
    return Row(name=comparison.arm, strip=strip, numbers=numbers, notes=(words.LABELS[kind],), slot=slot)


def _bars(name: str, present: Sequence[tuple[str, Metric]], axis: svg.Scale, slots: Mapping[str, int]) -> Markup:
    pitch, thick, top = 13, 8, 8
    height = 2 * top + pitch * len(present) - (pitch - thick)
    parts = [_vertical(axis.at(tick), height, "grid") for tick in axis.ticks]
    told = []
    for i, (arm, metric) in enumerate(present):
        y, value = top + i * pitch, metric.value or 0.0
        few = metric.positives is not None and metric.positives < words.FEWEST_POSITIVES
        left, right = sorted((axis.at(0.0), axis.at(value)))
        colour = svg.arm_class(slots[arm])
        parts.append(
            svg.node(
                "rect",
                x=svg.percent(left),
                width=svg.percent(right - left),
                y=y,
                height=thick,
                class_=f"bar {colour}" + (" few" if few else ""),
            )
        )
        interval = "no interval"
        if metric.low is not None and metric.high is not None:
            parts.append(_whisker(axis.at(metric.low), axis.at(metric.high), y + thick / 2, slots[arm], cap=3))
            interval = f"{notation.decimal(metric.low)} to {notation.decimal(metric.high)}"
        parts.append(svg.mark(slots[arm], x=svg.percent(axis.at(value)), y=y + thick / 2, is_hollow=few))
        told.append(f"{arm} {notation.decimal(value)} ({interval})")
    metric_name = notation.metric_name(present[0][1].metric)
    return svg.drawing(
        *parts,
        title=f"{name}, {metric_name}: " + "; ".join(told),
        description="One bar per arm; the thin line is its 95 % interval.",
        class_="strip",
        width="100%",
        height=height,
    )


def _axis(axis: svg.Scale, *, label: tuple[str, str] | None = None) -> Markup:
    parts = []
    for tick in axis.ticks:
        place = axis.at(tick)
        anchor = "start" if place < 0.02 else "end" if place > 0.98 else "middle"
        parts.append(svg.text_at(svg.percent(place), 14, svg.tick_text(tick), anchor=anchor))
    if label:
        zero = axis.at(0.0)
        if zero > 0.22:
            parts.append(svg.text_at(svg.percent(zero - 0.012), 32, f"← {label[0]}", anchor="end", class_="side"))
        if zero < 0.78:
            parts.append(svg.text_at(svg.percent(zero + 0.012), 32, f"{label[1]} →", anchor="start", class_="side"))
    return svg.node("svg", *parts, class_="axis", width="100%", height=38 if label else 20, aria_hidden="true")


def _sides(comparison: Comparison) -> tuple[str, str]:
    return ("better", "worse") if notation.is_lower_better(comparison.metric) else ("worse", "better")


def _vertical(place: svg.Number, height: svg.Value, class_: str) -> Markup:
    return svg.node("line", x1=svg.percent(place), x2=svg.percent(place), y1=0, y2=height, class_=class_)


def _whisker(low: svg.Number, high: svg.Number, y: svg.Value, slot: int, *, cap: svg.Number) -> Markup:
    left, right = svg.percent(low), svg.percent(high)
    return svg.node(
        "svg",
        svg.node("line", x1=left, x2=right, y1=0, y2=0, class_="whisker"),
        *(svg.node("line", x1=x, x2=x, y1=-cap, y2=cap, class_="whisker") for x in (left, right)),
        y=y,
        overflow="visible",
        class_=svg.arm_class(slot),
    )
