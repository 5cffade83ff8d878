"""Figures of an audit: which labels go together, and how bright the images are."""

from collections.abc import Sequence

from markupsafe import Markup

from raremix.report.figures import svg

# More labels than this are drawn without numbers, which would not fit into their cells.
MOST_NUMBERED = 14


def together(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Markup:
    """Draw how many images carry both of two labels: a matrix whose shade is the share of the row's label.

    Args:
        labels: names, in the order of the matrix.
        counts: images with both labels; on the diagonal, with the one.
    """
    K = len(labels)
    names, size = 150.0, 640.0
    cell = min((size - names) / K, 44.0)
    parts = []
    for i, row in enumerate(labels):
        y = 22 + i * cell
        shown = f"{i + 1} {row}"
        parts.append(
            svg.node(
                "text",
                svg.node("title", row),
                shown if len(shown) <= 24 else shown[:23] + "…",
                x=names - 7,
                y=y + cell / 2 + 3.5,
                text_anchor="end",
            )
        )
        parts.append(svg.text_at(names + (i + 0.5) * cell, 15, str(i + 1)))
        for j, column in enumerate(labels):
            count, own = int(counts[i][j]), max(int(counts[i][i]), 1)
            share = 1.0 if i == j and count else count / own
            said = f"{row}: {count}" if i == j else f"{row} with {column}: {count} of {own} ({share:.0%})"
            x = names + j * cell
            parts.append(
                svg.node(
                    "rect", svg.node("title", said), x=x + 0.6, y=y + 0.6, width=cell - 1.2, height=cell - 1.2, rx=2,
                    class_="cell right" if i != j else "cell own",
                    fill_opacity=0.12 if i == j else round(0.04 + 0.9 * share, 2) if count else 0.03,
                )
            )  # fmt: skip
            if K <= MOST_NUMBERED and count:
                shade = "on" if i != j and share > 0.55 else "off"
                parts.append(svg.text_at(x + cell / 2, y + cell / 2 + 3.5, str(count), class_=f"in {shade}"))
    width = names + K * cell
    return svg.drawing(
        *parts,
        title="Labels that go together",
        description="Rows and columns are the labels; numbers are images that carry both.",
        class_="together",
        viewBox=f"0 0 {svg.plain(width)} {svg.plain(26 + K * cell)}",
    )


def histogram(counts: Sequence[int]) -> Markup:
    """Draw how many images are how bright, from black on the left to white on the right.

    Args:
        counts: images in equal bins of the mean grey value.
    """
    width, height, floor = 640.0, 150.0, 128.0
    step, largest = width / len(counts), max(counts)
    parts = []
    for i, count in enumerate(counts):
        tall = 0.0 if not count else max(1.5, (floor - 18) * count / largest)
        low, high = 100 * i / len(counts), 100 * (i + 1) / len(counts)
        parts.append(
            svg.node(
                "rect",
                svg.node("title", f"{low:.0f} to {high:.0f} % of full brightness: {count} images"),
                x=i * step + 1,
                y=floor - tall,
                width=step - 2,
                height=tall,
                rx=1.5,
                class_="count",
            )
        )
    parts.append(svg.node("line", x1=0, x2=width, y1=floor, y2=floor, class_="zero"))
    parts.append(svg.text_at(0, height - 6, "black", anchor="start"))
    parts.append(svg.text_at(width / 2, height - 6, "mean grey value"))
    parts.append(svg.text_at(width, height - 6, "white", anchor="end"))
    parts.append(svg.text_at(width, 11, f"tallest bar: {largest} images", anchor="end"))
    return svg.drawing(
        *parts,
        title="Brightness of the images",
        description="One bar per range of mean grey values.",
        class_="brightness",
        viewBox=f"0 0 {svg.plain(width)} {svg.plain(height)}",
    )
