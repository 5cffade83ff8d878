"""Draw SVG elements: escaped, deterministic, coloured by the page's style sheet.

Wide figures give x in per cent of their width and y in pixels, so that they fit any screen while their text keeps its
size. Square panels use a view box. Nothing here knows what is drawn.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Number = int | float
Value = str | int | float

# Colours of the arms in style.css: 0 is the reference, the others are Okabe and Ito's for colour-blind readers
# (https://jfly.uni-koeln.de/color/), but black and yellow, which do not carry on both a light and a dark page.
ARM_COLOURS = 7
_DASHES = ("", "6 3", "2 2.5", "8 3 2 3")
# Five, so that six colours with five marks give thirty arms that differ.
_MARKS = (
    "M-4.2 0a4.2 4.2 0 1 0 8.4 0a4.2 4.2 0 1 0 -8.4 0z",
    "M-3.8 -3.8h7.6v7.6h-7.6z",
    "M0 -5.2L5.2 0L0 5.2L-5.2 0z",
    "M0 -4.8L4.8 3.8H-4.8z",
    "M0 4.8L4.8 -3.8H-4.8z",
)


def node(tag: str, *children: str, **attributes: Value | None) -> Markup:
    """Build one element; texts and attribute values are escaped unless they are Markup already.

    Args:
        tag: the element's name.
        *children: texts, or elements that this function built.
        **attributes: an underscore at the end is dropped, others become hyphens; None leaves the attribute out.

    Example:
        >>> node("text", "a < b", x=1.50, text_anchor="end")
        Markup('<text x="1.5" text-anchor="end">a &lt; b</text>')
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(plain(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    inner = "".join(escape(child) for child in children)
    return Markup(f"<{tag}{written}>{inner}</{tag}>" if inner else f"<{tag}{written}/>")


def plain(value: Value) -> str:
    """Write a number with at most two decimals; pass a text on.

    Example:
        >>> plain(1.0), plain(2.345), plain("none")
        ('1', '2.35', 'none')
    """
    if isinstance(value, str):
        return value
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def percent(fraction: Number) -> str:
    """Write a fraction of the width as a percentage.

    Example:
        >>> percent(0.125)
        '12.5%'
    """
    return plain(fraction * 100) + "%"


def drawing(*children: str, title: str, description: str = "", **attributes: Value | None) -> Markup:
    """Wrap a drawing with its title and description, which a screen reader speaks and a mouse shows."""
    described = [node("title", title)] + ([node("desc", description)] if description else [])
    return node("svg", *described, *children, role="img", aria_label=title, **attributes)


def text_at(x: Value, y: Number, text: str, *, anchor: str = "middle", class_: str | None = None) -> Markup:
    """Write a text at a place."""
    return node("text", text, x=x, y=y, text_anchor=anchor, class_=class_)


def path(points: Iterable[tuple[Number, Number]], *, is_closed: bool = False) -> str:
    """Write the path data of a line through points, dropping those that do not move the pen.

    Example:
        >>> path([(0, 0), (1, 2), (1, 2)])
        'M0 0L1 2'
    """
    written: list[str] = []
    for x, y in points:
        place = f"{x:.1f}".removesuffix(".0") + " " + f"{y:.1f}".removesuffix(".0")
        if not written or place != written[-1]:
            written.append(place)
    return "M" + "L".join(written) + ("z" if is_closed else "") if written else ""


def mark(slot: int, *, x: Value, y: Value, is_hollow: bool = False) -> Markup:
    """Draw an arm's mark: its shape tells arms apart where colour cannot."""
    return node(
        "svg",
        node("path", d=_MARKS[slot % len(_MARKS)], class_="mark hollow" if is_hollow else "mark"),
        x=x,
        y=y,
        overflow="visible",
        class_=arm_class(slot),
    )


def arm_class(slot: int) -> str:
    """Name the style class that sets an arm's colour; slot 0 is the reference."""
    return "a0" if slot == 0 else f"a{(slot - 1) % (ARM_COLOURS - 1) + 1}"


def dash(slot: int) -> str | None:
    """Choose an arm's dash pattern: the reference and every colour's second use are dashed."""
    if slot == 0:
        return _DASHES[1]
    return _DASHES[((slot - 1) // (ARM_COLOURS - 1)) % len(_DASHES)] or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A linear axis.

    Args:
        low: the value at the left (or lower) end.
        high: the value at the right (or upper) end, above `low`.
        ticks: where a number stands.
    """

    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: Number) -> float:
        """Return where a value lies, as a fraction of the axis, held inside it."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


UNIT = Scale(low=0.0, high=1.0, ticks=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0))


def scale(values: Sequence[Number], *, count: int = 5, pad: float = 0.04) -> Scale:
    """Choose an axis that holds all values, with round ticks.

    Args:
        values: what must lie on it; may be empty.
        count: about how many ticks.
        pad: share of the range added at both ends.

    Example:
        >>> scale([0.0, 9.0], pad=0.0).ticks
        (0.0, 2.0, 4.0, 6.0, 8.0)
    """
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low < 1e-12:
        room = abs(low) * 0.1 or 1.0
        low, high = low - room, high + room
    low, high = low - pad * (high - low), high + pad * (high - low)
    raw = (high - low) / max(1, count)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    wide = next((m for m in (1.0, 2.0, 5.0) if m * magnitude >= raw * 0.999), 10.0)
    # A wide step can pass over a short range: then the next smaller round one.
    steps = [m * magnitude for m in (10.0, 5.0, 2.0, 1.0, 0.5) if m <= wide]
    step = next((step for step in steps if len(_multiples(low, high, step)) > 1), steps[-1])
    # Multiples, not sums, so that the ticks carry no accumulated rounding.
    return Scale(low=low, high=high, ticks=tuple(round(i * step, 10) + 0.0 for i in _multiples(low, high, step)))


def _multiples(low: float, high: float, step: float) -> range:
    return range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)


def tick_text(value: Number) -> str:
    """Write a tick's number: thousands as k, a true minus sign.

    Example:
        >>> tick_text(-2.5), tick_text(4000), tick_text(0.2)
        ('−2.5', '4k', '0.2')
    """
    size = abs(value)
    text = f"{size / 1000:g}k" if size >= 1000 else f"{size:.6g}"
    return ("−" if value < 0 else "") + text


def thinned(count: int, most: int) -> list[int]:
    """Choose at most `most` of `count` positions, evenly spread, with both ends.

    Example:
        >>> thinned(5, 3), thinned(3, 9)
        ([0, 2, 4], [0, 1, 2])
    """
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]
