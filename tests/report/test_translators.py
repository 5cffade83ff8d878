"""What translators change: a table, and the verdict in words."""

from types import ModuleType
from typing import Any

from raremix.report import Record, render
from raremix.report.translators import translator_table

MEASURED = {
    "translator": "stars",
    "to": "pneumonia",
    "words": "80 % of the translations to pneumonia are taken for it.",
    "flipped": 0.8,
    "low": 0.7,
    "high": 0.88,
    "before": 0.1,
    "redrawn": 0.15,
    "change": 0.05,
    "cycle": 0.02,
    "area": 0.2,
    "tenth": 0.04,
    "kernel": None,
    "kernel_before": 0.4,
}


def made(records: ModuleType, *entries: dict[str, Any]) -> Record:
    return Record.model_validate({**records.binary(), "translators": list(entries)})


def test_shares_stand_with_their_interval_and_what_is_unknown_is_a_dash(records: ModuleType) -> None:
    table = translator_table(made(records, MEASURED))
    assert table is not None
    assert table.rows == (
        (
            "stars\nto pneumonia",
            "10 %",
            "15 %",
            "80 %\n70 % to 88 %",
            "0.050",
            "0.020",
            "20 %\n10 % below 4 %",
            "–\n0.400 before",
        ),
    )
    older = {key: value for key, value in MEASURED.items() if key not in {"redrawn", "area", "tenth"}}
    table = translator_table(made(records, older))
    assert table is not None
    assert (table.rows[0][2], table.rows[0][6]) == ("–", "–")
    page = render(made(records, MEASURED))
    assert "80\u00a0% of the translations to pneumonia" in page


def test_what_could_not_be_measured_is_told_without_a_table(records: ModuleType) -> None:
    failed = {"translator": "stars", "to": None, "words": "It could not be told: <b>no images</b>"}
    assert translator_table(made(records, failed)) is None
    page = render(made(records, failed))
    assert "It could not be told: &lt;b&gt;" in page
    assert "What the translators change" not in render(made(records))
