"""Pictures of a generator: what it draws while it learns, and how that came about."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

CELL, GAP, TITLE, MARGIN = 72, 4, 16, 92
"""Pixels: smallest side of a picture, between pictures, of the columns' titles, of the rows' titles."""

Cells = Sequence[Sequence[UInt8[np.ndarray, "C H W"]]]


def draw_sheet(
    cells: Cells, *, rows: Sequence[str], columns: Sequence[str] = (), title: str = ""
) -> UInt8[np.ndarray, "height width 3"]:
    """Lay pictures out in rows, each with a title to its left, under the titles of the columns.

    Args:
        cells: one list of uint8 images per row; rows may differ in length.
        rows, columns: titles.
        title: above everything.
    """
    side = max(CELL, cells[0][0].shape[-1])
    head = TITLE * (bool(title) + bool(columns)) + GAP
    wide = MARGIN + max(len(row) for row in cells) * (side + GAP) + GAP
    sheet = Image.new("RGB", (wide, head + len(cells) * (side + GAP) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    if title:
        pen.text((GAP, 2), title, fill="black")
    for c, name in enumerate(columns):
        pen.text((MARGIN + c * (side + GAP), head - TITLE), _cut(pen, name, side), fill="black")
    for r, (name, row) in enumerate(zip(rows, cells, strict=True)):
        top = head + r * (side + GAP)
        pen.text((GAP, top + side // 2 - 6), _cut(pen, name, MARGIN - 2 * GAP), fill="black")
        for c, image in enumerate(row):
            picture = Image.fromarray(as_rgb(image)).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(picture, (MARGIN + c * (side + GAP), top))
    return np.asarray(sheet)


def as_rgb(image: UInt8[np.ndarray, "C H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Return an image as colours: of two channels the first, of four the first three."""
    shown = np.repeat(image[:1], 3, axis=0) if image.shape[0] < 3 else image[:3]
    return np.ascontiguousarray(shown.transpose(1, 2, 0))


def evenly(count: int, *, most: int) -> list[int]:
    """Return at most `most` of `count` places, the first and the last among them."""
    return sorted({round(i * (count - 1) / max(1, min(most, count) - 1)) for i in range(min(most, count))})


def _cut(pen: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """Shorten a text to a width in pixels."""
    if pen.textlength(text) <= width:
        return text
    while text and pen.textlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
