"""Figures that are square panels: ROC and precision-recall curves, reliability, confusion matrices, training curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from raremix.report import notation
from raremix.report.figures import svg
from raremix.report.record import Confusion, Curve, History, Reliability

# More points than this are not seen at this size, and 14 classes x 4 arms of full curves would be megabytes.
MOST_CURVE_POINTS = 90
MOST_HISTORY_POINTS = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One small figure with a heading, a word beside it, and a line of small print."""

    heading: str
    drawing: Markup
    tag: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Where a panel's axes lie inside its view box, in its own units."""

    x: svg.Scale
    y: svg.Scale
    width: float = 250.0
    height: float = 236.0
    left: float = 38.0
    right: float = 10.0
    top: float = 10.0
    bottom: float = 38.0

    def place(self, x: svg.Number, y: svg.Number) -> tuple[float, float]:
        """Return where a point lies in the view box."""
        across = self.left + self.x.at(x) * (self.width - self.left - self.right)
        down = self.height - self.bottom - self.y.at(y) * (self.height - self.top - self.bottom)
        return across, down

    @property
    def box(self) -> str:
        """The view box attribute."""
        return f"0 0 {svg.plain(self.width)} {svg.plain(self.height)}"

    def axes(self, x_name: str, y_name: str) -> list[Markup]:
        """Draw grid, numbers and names of both axes."""
        floor, ceiling = self.height - self.bottom, self.top
        middle = (floor + ceiling) / 2
        parts = []
        for tick in self.x.ticks:
            across, _ = self.place(tick, self.y.low)
            parts.append(svg.node("line", x1=across, x2=across, y1=ceiling, y2=floor, class_="grid"))
            parts.append(svg.text_at(across, floor + 14, svg.tick_text(tick)))
        for tick in self.y.ticks:
            _, down = self.place(self.x.low, tick)
            parts.append(svg.node("line", x1=self.left, x2=self.width - self.right, y1=down, y2=down, class_="grid"))
            parts.append(svg.text_at(self.left - 6, down + 3.5, svg.tick_text(tick), anchor="end"))
        parts.append(svg.text_at((self.left + self.width - self.right) / 2, self.height - 5, x_name, class_="name"))
        parts.append(
            svg.node(
                "text",
                y_name,
                transform=f"translate(10 {svg.plain(middle)}) rotate(-90)",
                text_anchor="middle",
                class_="name",
            )
        )
        return parts


def curves(found: Sequence[Curve], slots: Mapping[str, int], *, heading: str, tag: str = "") -> Panel:
    """Draw the ROC or the precision-recall curves of all arms for one class, with their bands.

    Args:
        found: at least one curve, all of one kind and one label.
        slots: each arm's place in the palette.
        heading: the class.
        tag: a word beside it, as the class's band.
    """
    is_roc = found[0].kind == "roc"
    frame = Frame(x=svg.UNIT, y=svg.UNIT)
    parts = frame.axes(
        "1 − specificity" if is_roc else "sensitivity (recall)", "sensitivity" if is_roc else "precision"
    )
    if is_roc:
        (x1, y1), (x2, y2) = frame.place(0, 0), frame.place(1, 1)
        parts.append(svg.node("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="chance"))
    ordered = sorted(found, key=lambda curve: slots[curve.arm] == 0)
    for curve in ordered:
        if curve.low and curve.high:
            kept = svg.thinned(len(curve.x), MOST_CURVE_POINTS)
            upper = [frame.place(curve.x[i], curve.high[i]) for i in kept]
            lower = [frame.place(curve.x[i], curve.low[i]) for i in reversed(kept)]
            parts.append(
                svg.node(
                    "path",
                    d=svg.path(upper + lower, is_closed=True),
                    class_=f"halo {svg.arm_class(slots[curve.arm])}",
                )
            )
    for curve in ordered:
        kept = svg.thinned(len(curve.x), MOST_CURVE_POINTS)
        line = svg.path(frame.place(curve.x[i], curve.y[i]) for i in kept)
        slot = slots[curve.arm]
        parts.append(svg.node("path", d=line, class_=f"curve {svg.arm_class(slot)}", stroke_dasharray=svg.dash(slot)))
    kind = "ROC curve" if is_roc else "Precision-recall curve"
    arms = notation.enumerate_names([curve.arm for curve in found])
    drawn = svg.drawing(
        *parts,
        title=f"{kind} for {heading}",
        description=f"One line per arm ({arms}); the shade is its 95 % band.",
        class_="panel",
        viewBox=frame.box,
    )
    return Panel(heading=heading, drawing=drawn, tag=tag)


def reliability(found: Reliability, slot: int) -> Panel:
    """Draw how often one arm was right against how sure it was, with the number of cases below."""
    frame = Frame(x=svg.UNIT, y=svg.UNIT, height=280.0, bottom=86.0)
    parts = frame.axes("", "how often it was true")
    parts.append(
        svg.text_at(
            (frame.left + frame.width - frame.right) / 2, frame.height - 5, "how sure the model was", class_="name"
        )
    )
    (x1, y1), (x2, y2) = frame.place(0, 0), frame.place(1, 1)
    parts.append(svg.node("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="chance"))
    filled = [part for part in found.bins if part.n > 0]
    colour = svg.arm_class(slot)
    for part in filled:
        if part.low is not None and part.high is not None:
            across, top = frame.place(part.confidence, part.high)
            _, low = frame.place(part.confidence, part.low)
            parts.append(svg.node("line", x1=across, x2=across, y1=top, y2=low, class_=f"whisker {colour}"))
    line = svg.path(frame.place(part.confidence, part.frequency) for part in filled)
    parts.append(svg.node("path", d=line, class_=f"curve {colour}"))
    for part in filled:
        across, down = frame.place(part.confidence, part.frequency)
        parts.append(svg.mark(slot, x=across, y=down))
    largest = max((part.n for part in filled), default=1)
    floor, room = frame.height - 24, 36
    places = sorted(frame.place(part.confidence, 0)[0] for part in filled)
    # Bins of equal size can lie close together: no bar is wider than the smallest gap.
    width = min(16.0, max(1.5, 0.8 * min([b - a for a, b in pairwise(places)], default=16.0)))
    for part in filled:
        across, _ = frame.place(part.confidence, 0)
        tall = max(1.0, room * part.n / largest)
        bar = svg.node(
            "rect",
            svg.node("title", f"{part.n} cases"),
            x=across - width / 2,
            y=floor - tall,
            width=width,
            height=tall,
            class_=f"bar {colour}",
        )
        parts.append(bar)
    parts.append(svg.text_at(frame.left - 6, floor - room + 8, str(largest), anchor="end"))
    parts.append(svg.text_at(frame.left - 6, floor, "0", anchor="end"))
    drawn = svg.drawing(
        *parts,
        title=f"Reliability of {found.arm}",
        description="Marks on the diagonal are well calibrated; lines are 95 % intervals; bars count the cases.",
        class_="panel",
        viewBox=frame.box,
    )
    said = [f"expected calibration error {notation.decimal(found.ece)}"] if found.ece is not None else []
    if found.temperature is not None:
        said.append(f"temperature {notation.decimal(found.temperature, digits=2)}")
    return Panel(heading=found.arm, drawing=drawn, note=", ".join(said))


def confusion(found: Confusion, classes: Sequence[str], order: Sequence[str]) -> Panel:
    """Draw one arm's confusion matrix, classes from head to tail; the shade is the share of the true class.

    Args:
        found: counts, rows true and columns predicted, in the order of `classes`.
        classes: names of the rows and columns.
        order: the same names in the order to draw.
    """
    K = len(order)
    at = [classes.index(name) for name in order]
    # Few classes share a row of small panels with the other figures; many get a wide one.
    names, size, letters = (96.0, 250.0, 15) if K <= 4 else (148.0, 440.0, 24)
    cell = (size - names) / K
    parts = []
    for row, i in enumerate(at):
        total = sum(found.counts[i])
        y = 22 + row * cell
        label = f"{row + 1} {order[row]}"
        parts.append(
            svg.node(
                "text",
                svg.node("title", order[row]),
                label if len(label) <= letters else label[: letters - 1] + "…",
                x=names - 7,
                y=y + cell / 2 + 3.5,
                text_anchor="end",
            )
        )
        parts.append(svg.text_at(names + (row + 0.5) * cell, 15, str(row + 1)))
        for column, j in enumerate(at):
            count = found.counts[i][j]
            share = count / total if total else 0.0
            x = names + column * cell
            told = f"true {order[row]}, predicted {order[column]}: {_count(count)} of {_count(total)} ({share:.0%})"
            kind = "right" if i == j else "wrong"
            parts.append(
                svg.node(
                    "rect", svg.node("title", told), x=x + 0.6, y=y + 0.6, width=cell - 1.2, height=cell - 1.2, rx=2,
                    class_=f"cell {kind}", fill_opacity=round(0.05 + 0.9 * share, 2) if count else 0.03,
                )
            )  # fmt: skip
            if K <= 12 and count >= 0.05:
                class_ = "on" if share > 0.55 else "off"
                parts.append(svg.text_at(x + cell / 2, y + cell / 2 + 3.5, _count(count), class_=f"in {class_}"))
    drawn = svg.drawing(
        *parts,
        title=f"Confusion matrix of {found.arm}",
        description="Rows are the true classes, columns the predicted ones; numbers are cases, averaged over seeds.",
        class_="panel matrix",
        viewBox=f"0 0 {svg.plain(size)} {svg.plain(24 + K * cell)}",
    )
    return Panel(heading=found.arm, drawing=drawn)


def history(
    runs: Sequence[History],
    slots: Mapping[str, int],
    *,
    is_loss: bool,
    best: Mapping[tuple[str, int], int] | None = None,
) -> Panel | None:
    """Draw the training loss, or the validation metric, of all arms: one thin line per seed.

    Args:
        runs: the training runs.
        slots: each arm's place in the palette.
        is_loss: whether to draw the loss rather than the metric.
        best: the step whose weights were kept, by arm and seed; marked on the metric.

    Returns:
        The panel, or None where nothing was recorded.
    """
    lines = []
    for run in runs:
        x, y = (run.steps, run.loss) if is_loss else (run.metric_steps, run.metric)
        seen = [(a, b) for a, b in zip(x, y, strict=True) if b is not None]
        if seen:
            lines.append((run, [seen[i] for i in svg.thinned(len(seen), MOST_HISTORY_POINTS)]))
    if not lines:
        return None
    name = "training loss" if is_loss else _metric_of(runs)
    frame = Frame(
        x=svg.scale([0.0] + [x for _, line in lines for x, _ in line], count=5, pad=0.0),
        y=svg.scale([y for _, line in lines for _, y in line], count=5),
        width=500.0,
        height=280.0,
        left=46.0,
    )
    parts = frame.axes("optimiser step", name)
    for run, line in sorted(lines, key=lambda entry: slots[entry[0].arm] == 0):
        slot = slots[run.arm]
        parts.append(
            svg.node(
                "path",
                svg.node("title", f"{run.arm}, seed {run.seed}"),
                d=svg.path(frame.place(x, y) for x, y in line),
                class_=f"thin {svg.arm_class(slot)}",
                stroke_dasharray=svg.dash(slot),
            )
        )
        chosen = (best or {}).get((run.arm, run.seed))
        values = [y for x, y in line if chosen is not None and x == chosen]
        if values and chosen is not None:
            across, down = frame.place(chosen, values[0])
            parts.append(svg.mark(slot, x=across, y=down))
    heading = "Training loss" if is_loss else f"{notation.capitalised(name)} on the validation rows"
    drawn = svg.drawing(
        *parts,
        title=heading,
        description="One line per arm and seed"
        + ("." if is_loss else "; the mark is the step whose weights were kept."),
        class_="panel",
        viewBox=frame.box,
    )
    return Panel(heading=heading, drawing=drawn)


def _count(value: svg.Number) -> str:
    return str(round(value)) if value >= 10 or abs(value - round(value)) < 0.05 else f"{value:.1f}"


def _metric_of(runs: Sequence[History]) -> str:
    return next((notation.metric_name(run.metric_name) for run in runs if run.metric_name), "metric")
