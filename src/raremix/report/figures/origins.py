"""The figure of real, generated and mixed images as a classifier sees them."""

from raremix.report import notation
from raremix.report.figures import svg
from raremix.report.figures.panels import Frame, Panel
from raremix.report.parts import Origins

SLOTS = {"real": 0, "generated": 1, "mixed": 2}
EDGE = svg.Scale(low=-0.04, high=1.04, ticks=())


def plane(origins: Origins | None, classes: tuple[str, ...]) -> list[Panel]:
    """Draw the features of each origin in the plane: all classes together, then each by itself.

    Args:
        origins: the points, or None.
        classes: in order.
    """
    if origins is None or not origins.points:
        return []
    shown = [("All classes", None), *((name, name) for name in classes)]
    return [_panel(origins, heading, label) for heading, label in shown[:7]]


def _panel(origins: Origins, heading: str, label: str | None) -> Panel:
    frame = Frame(x=EDGE, y=EDGE, width=300.0, height=300.0, left=10.0, right=10.0, top=10.0, bottom=10.0)
    parts = []
    counts = {}
    for origin, slot in SLOTS.items():
        own = [p for p in origins.points if p.origin == origin and label in (None, p.label)]
        counts[origin] = len(own)
        dots = []
        for point in own:
            x, y = frame.place(point.x, point.y)
            dots.append(svg.node("circle", cx=x, cy=y, r=2.6, class_="mark"))
        parts.append(svg.node("g", svg.node("title", origin), *dots, class_=svg.arm_class(slot)))
    told = ", ".join(f"{notation.grouped(count)} {origin}" for origin, count in counts.items() if count)
    drawn = svg.drawing(
        *parts,
        title=f"Features of {heading.lower() if label is None else heading} by origin",
        description=told,
        class_="panel",
        viewBox=frame.box,
    )
    return Panel(heading=heading, drawing=drawn, note=told)
