"""Real, generated and mixed images: in the plane, and in rows of pictures."""

import re
from types import ModuleType
from typing import Any

from raremix.report import Record, render
from raremix.report.figures.origins import plane
from raremix.report.images import Images, fit

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABc3UBGAAAAABJRU5ErkJggg=="
POINTS = [
    {"x": 0.0, "y": 0.0, "origin": "real", "label": "normal"},
    {"x": 1.0, "y": 1.0, "origin": "generated", "label": "pneumonia"},
    {"x": 0.5, "y": 0.5, "origin": "mixed", "label": "pneumonia"},
]


def made(records: ModuleType, points: list[dict[str, Any]]) -> Record:
    origins = {"arm": "mixup", "features": "baseline, seed 0", "points": points}
    return Record.model_validate({**records.binary(), "origins": origins})


def pictures(count: int) -> Images:
    rows = [{"label": "pneumonia", "origin": kind, "pngs": [PIXEL] * count} for kind in ("real", "generated")]
    evolutions = [{"generator": "dcgan", "png": PIXEL}]
    return Images.model_validate({"origins": {"arm": "mixup", "rows": rows, "evolutions": evolutions}})


def test_every_point_is_in_the_panel_of_its_class_and_in_that_of_all(records: ModuleType) -> None:
    record = made(records, POINTS)
    panels = plane(record.origins, record.data.ordered())
    assert [panel.heading for panel in panels] == ["All classes", "normal", "pneumonia"]
    assert [panel.drawing.count("<circle") for panel in panels] == [3, 1, 2]
    assert panels[2].note == "1 generated, 1 mixed"
    # From 10 to 290 for -0.04 to 1.04, y upwards.
    places = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', panels[0].drawing)
    assert places[0] == ("20.37", "279.63")
    assert places[2] == ("150", "150")
    assert plane(None, ("a",)) == []


def test_pictures_are_shown_and_cut_to_the_budget(records: ModuleType) -> None:
    page = render(made(records, POINTS), pictures(3))
    assert page.count('alt="pneumonia, generated"') == 3
    assert "How dcgan came to draw" in page
    kept, dropped = fit(pictures(8), budget=len(PIXEL) * 5)
    assert kept.origins is not None
    assert [len(row.pngs) for row in kept.origins.rows] == [2, 2]
    assert dropped == 12
    assert "Real, generated and mixed" not in render(Record.model_validate(records.binary()))
