"""The figure of what added images did: the primary metric against their number, or against the strength of drawing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from raremix.report import notation
from raremix.report.figures import svg
from raremix.report.figures.panels import Frame, Panel
from raremix.report.parts import Added
from raremix.report.record import Arm, Metric, Record

LEGEND = 15.0
"""Height of a line of the legend, which stands above the curves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    name: str
    slot: int
    points: tuple[tuple[float, Metric], ...]


def dose_response(record: Record, slots: Mapping[str, int]) -> list[Panel]:
    """Draw the primary metric of arms that add images, in one way, in several numbers or at several strengths.

    Args:
        record: the study.
        slots: each arm's place in the palette; a curve has that of its first arm.

    Returns:
        A panel against the number of images, and one against the strength, where there is anything to draw.
    """
    drawn = [
        _panel(record, slots, heading="By how many images were added", name="added per real image", of=_dose),
        _panel(record, slots, heading="By the strength of drawing", name="strength", of=_strength),
    ]
    return [panel for panel in drawn if panel is not None]


def added_words(record: Record) -> tuple[str, ...]:
    """Say of every arm what it added, and warn of those that chose on images that are partly made up."""
    sentences = []
    for arm in record.arms:
        if arm.added is None:
            continue
        sentences.append(f"{arm.name}: {arm.added.series}; {_listed(arm.added.train)} more for training.")
        if arm.added.validation:
            sentences.append(
                f"{arm.name}: {_listed(arm.added.validation)} of its validation images are generated, by what was "
                "fitted on training images, or begun with some: the moment and the thresholds were chosen on images "
                "that are partly made up and no independent witnesses."
            )
    return tuple(sentences)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{notation.grouped(count)} {name}" for name, count in counts.items()) or "none"


def _dose(added: Added) -> tuple[str, float]:
    how = "" if added.strength is None else f", strength {added.strength:g}"
    return added.series + how, added.dose


def _strength(added: Added) -> tuple[str, float] | None:
    return None if added.strength is None else (f"{added.series}, {added.dose:.3g} per real image", added.strength)


def _panel(
    record: Record,
    slots: Mapping[str, int],
    *,
    heading: str,
    name: str,
    of: Callable[[Added], tuple[str, float] | None],
) -> Panel | None:
    metric = record.study.primary_metric
    values = {m.arm: m for m in record.metrics if m.metric == metric and m.scope == "overall" and m.value is not None}
    lines = _lines(record.arms, values, slots, of)
    if not lines:
        return None
    across = [x for line in lines for x, _ in line.points]
    heights = [h for line in lines for _, m in line.points for h in (m.low, m.value, m.high) if h is not None]
    reference = values.get(record.study.reference)
    heights += [] if reference is None else [h for h in (reference.low, reference.high) if h is not None]
    frame = Frame(
        x=svg.scale([0.0, *across], count=5, pad=0.02),
        y=svg.scale(heights, count=5),
        width=500.0,
        height=300.0 + LEGEND * len(lines),
        left=46.0,
        top=10.0 + LEGEND * len(lines),
    )
    parts = frame.axes(name, notation.metric_name(metric))
    parts += [] if reference is None else _reference(frame, reference)
    for number, line in enumerate(lines):
        parts += _line(frame, line)
        down = 8.0 + LEGEND * number
        parts.append(svg.mark(line.slot, x=frame.left + 5, y=down))
        parts.append(svg.text_at(frame.left + 14, down + 3.5, line.name, anchor="start"))
    told = "; ".join(f"{line.name}: " + ", ".join(_said(x, m) for x, m in line.points) for line in lines)
    drawn = svg.drawing(
        *parts,
        title=f"{notation.capitalised(notation.metric_name(metric))} against {name}",
        description=f"{told}. The shades are 95 % intervals; the dashed line is {record.study.reference}.",
        class_="panel",
        viewBox=frame.box,
    )
    return Panel(heading=heading, drawing=drawn)


def _lines(
    arms: Sequence[Arm],
    values: Mapping[str, Metric],
    slots: Mapping[str, int],
    of: Callable[[Added], tuple[str, float] | None],
) -> list[_Series]:
    found: dict[str, list[tuple[float, Metric, int]]] = {}
    for arm in arms:
        place = None if arm.added is None or arm.name not in values else of(arm.added)
        if place is not None:
            found.setdefault(place[0], []).append((place[1], values[arm.name], slots.get(arm.name, 0)))
    return [
        _Series(name=name, slot=points[0][2], points=tuple((x, m) for x, m, _ in sorted(points, key=lambda p: p[0])))
        for name, points in found.items()
        if len({x for x, _, _ in points}) > 1
    ]


def _reference(frame: Frame, metric: Metric) -> list[Markup]:
    assert metric.value is not None
    ends = (frame.x.low, frame.x.high)
    (x1, y1), (x2, y2) = (frame.place(x, metric.value) for x in ends)
    parts = []
    if metric.low is not None and metric.high is not None:
        high, low = metric.high, metric.low
        band = [*(frame.place(x, high) for x in ends), *(frame.place(x, low) for x in reversed(ends))]
        parts.append(svg.node("path", d=svg.path(band, is_closed=True), class_="halo a0"))
    parts.append(svg.node("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="curve a0", stroke_dasharray="6 3"))
    return parts


def _line(frame: Frame, line: _Series) -> list[Markup]:
    colour, parts = svg.arm_class(line.slot), []
    banded = [(x, m.low, m.high) for x, m in line.points if m.low is not None and m.high is not None]
    if len(banded) > 1:
        upper = [frame.place(x, high) for x, _, high in banded]
        lower = [frame.place(x, low) for x, low, _ in reversed(banded)]
        parts.append(svg.node("path", d=svg.path(upper + lower, is_closed=True), class_=f"halo {colour}"))
    points = [(frame.place(x, m.value), x, m) for x, m in line.points if m.value is not None]
    curve = svg.path(place for place, _, _ in points)
    parts.append(svg.node("path", svg.node("title", line.name), d=curve, class_=f"curve {colour}"))
    parts += [svg.mark(line.slot, x=place[0], y=place[1]) for place, _, _ in points]
    return parts


def _said(x: float, metric: Metric) -> str:
    return f"{x:.3g} gives {notation.decimal(metric.value)}"
