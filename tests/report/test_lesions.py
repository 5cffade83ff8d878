"""Where importance maps lie: a table, or why there is none."""

from types import ModuleType
from typing import Any

from raremix.report import Record, render

ROW = {"map": "difference (stars)", "figures": {"pointing": {"value": 0.5, "low": 0.4, "high": 0.6, "beats": True}}}


def page(records: ModuleType, **lesions: Any) -> str:
    found = {"arm": "baseline", "images": 3, "patients": 2, **lesions}
    return render(Record.model_validate({**records.binary(), "lesions": found}))


def test_the_table_names_every_map(records: ModuleType) -> None:
    shown = page(records, rows=[ROW])
    assert shown.count('<section id="lesions">') == 1
    assert "difference (stars)" in shown


def test_figures_without_a_mask_stand_apart_from_the_verdict(records: ModuleType) -> None:
    both = {**ROW["figures"], "insertion": {"value": 0.9, "beats": False}, "deletion": {"value": 0.2, "beats": False}}
    assert "Better by every figure: difference (stars)." in page(records, rows=[ROW])
    shown = page(records, rows=[{**ROW, "figures": both}])
    assert "Better by every figure of the mask: difference (stars)." in shown
    assert "Deletion (lower is better)" in shown
    worse = {"map": "m", "figures": {"pointing": {"value": 0.5, "beats": False}}}
    assert "No map is better by every figure." in page(records, rows=[worse])


def test_where_there_is_no_table_the_page_says_why(records: ModuleType) -> None:
    shown = page(records, rows=[], note="Importance maps were not scored: <b>no masks</b>")
    assert "Where the classifier looks" in shown
    assert "Importance maps were not scored: &lt;b&gt;no masks" in shown
    assert "Where the classifier looks" not in page(records, rows=[])
    assert "Where the classifier looks" not in render(Record.model_validate(records.binary()))
