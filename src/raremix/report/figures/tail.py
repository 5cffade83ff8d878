"""The figure of a long tail that was made on purpose: training images per class, before and after, on a log scale."""

import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from raremix.report.figures import svg
from raremix.report.figures.panels import Frame, Panel
from raremix.report.notation import grouped
from raremix.report.parts import Rarity
from raremix.report.record import Record


def long_tail(record: Record, slots: Mapping[str, int]) -> Panel | None:
    """Draw the training images per class before and after classes were made rare.

    Args:
        record: the study.
        slots: each arm's place in the palette; an arm with a tail of its own has its colour.

    Returns:
        The panel, or None where no class was made rare.
    """
    made = _made(record)
    if not made:
        return None
    first = made[0][1]
    names = sorted(record.data.classes, key=lambda name: -first.before.get(name, 0))
    lines = [("as found", None, first.before)]
    lines += [(told, slots.get(arm, 0), rarity.after) for arm, rarity, told in _told(made)]
    top = math.ceil(math.log10(max(10, *first.before.values())))
    frame = Frame(
        x=svg.Scale(low=0.5, high=len(names) + 0.5, ticks=tuple(float(k + 1) for k in range(len(names)))),
        y=svg.Scale(low=0.0, high=float(top), ticks=tuple(float(k) for k in range(top + 1))),
        width=500.0,
        height=280.0,
        left=58.0,
    )
    parts = _axes(frame)
    for told, slot, counts in lines:
        points = [frame.place(k + 1, math.log10(max(1, counts.get(name, 0)))) for k, name in enumerate(names)]
        colour = "found" if slot is None else svg.arm_class(slot)
        parts.append(svg.node("path", svg.node("title", told), d=svg.path(points), class_=f"curve {colour}"))
        if slot is not None:
            marks = zip(points, names, strict=True)
            parts += [svg.mark(slot, x=x, y=y, is_hollow=not counts.get(name, 0)) for (x, y), name in marks]
    drawn = svg.drawing(
        *parts,
        title="Training images per class: " + "; ".join(f"{told}: {_listed(names, c)}" for told, _, c in lines),
        description="Classes from the most to the least frequent as found; the vertical axis is logarithmic.",
        class_="panel",
        viewBox=frame.box,
    )
    numbered = ", ".join(f"{k + 1} {name}" for k, name in enumerate(names))
    return Panel(heading="Training images per class", drawing=drawn, note=numbered)


def tail_words(record: Record) -> tuple[str, ...]:
    """Say of each long tail how it was made, and which ratio was asked for and reached."""
    sentences = []
    for arm, rarity, _ in _told(_made(record)):
        whose = f"{arm}: " if arm else ""
        reached = "a class has no image" if rarity.reached is None else f"{rarity.reached:.4g} to one was reached"
        asked = "" if rarity.asked is None else f"; {rarity.asked:.4g} to one was asked for"
        profile = "" if rarity.profile is None else f"{rarity.profile} profile; "
        sentences.append(f"{whose}{profile}{reached}{asked}.")
    return tuple(text[:1].upper() + text[1:] for text in sentences)


def _made(record: Record) -> list[tuple[str, Rarity]]:
    own = [(arm.name, arm.rarity) for arm in record.arms if arm.rarity is not None]
    return ([("", record.data.rarity)] if record.data.rarity is not None else []) + own


def _told(made: list[tuple[str, Rarity]]) -> list[tuple[str, Rarity, str]]:
    return [(arm, rarity, arm or "made rare") for arm, rarity in made]


def _listed(names: list[str], counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {grouped(counts.get(name, 0))}" for name in names)


def _axes(frame: Frame) -> list[Markup]:
    floor, parts = frame.height - frame.bottom, []
    for tick in frame.x.ticks:
        across, _ = frame.place(tick, 0.0)
        parts.append(svg.text_at(across, floor + 14, f"{tick:.0f}"))
    for tick in frame.y.ticks:
        _, down = frame.place(1.0, tick)
        parts.append(svg.node("line", x1=frame.left, x2=frame.width - frame.right, y1=down, y2=down, class_="grid"))
        parts.append(svg.text_at(frame.left - 6, down + 3.5, grouped(round(10**tick)), anchor="end"))
    parts.append(svg.text_at((frame.left + frame.width - frame.right) / 2, frame.height - 5, "class", class_="name"))
    return parts
