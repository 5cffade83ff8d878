"""Tables hold what the record holds, and examples in docstrings are true."""

import doctest
import importlib
from types import ModuleType

import pytest
from pydantic import ValidationError

from raremix.report import Record, notation, render, tables
from raremix.report.tables import decision_table


def test_the_headline_has_a_row_per_arm_in_order(records: ModuleType):
    headline, others = tables(Record.model_validate(records.multiclass()))
    assert [row[0] for row in headline.rows] == [
        "baseline\nreference",
        "classical\nno difference shown",
        "mixup\npractically equal",
        "cutmix\nbetter",
    ]
    assert headline.rows[3][1] == "+5.8\n+2.7 to +8.9"
    assert headline.rows[3][5:] == ("5", "> 0.99", "< 0.001")
    assert headline.rows[0][1] == "–"
    assert all(len(row) == len(headline.columns) for row in headline.rows)
    assert 5 <= len(others.columns) <= 7
    assert "Balanced accuracy" not in others.columns


@pytest.mark.parametrize(("positives", "seeds"), [(9, 5), (None, 5), (40, 2), (40, None)])
def test_what_may_not_be_ranked_has_no_p(records: ModuleType, positives: int | None, seeds: int | None):
    made = records.multiclass()
    for comparison in made["comparisons"]:
        comparison |= {"positives": positives, "seeds": seeds}
    for row in tables(Record.model_validate(made))[0].rows:
        assert row[-2:] == ("–", "–")


def test_a_refused_comparison_keeps_its_effect(records: ModuleType):
    made = records.multiclass()
    made["comparisons"][0] |= {"low": None, "high": None, "p": None, "p_holm": None, "positives": 4}
    row = tables(Record.model_validate(made))[0].rows[1]
    assert row[:2] == ("classical\ntoo few positives", "+2.6\nno interval")


def test_a_lone_arm_has_its_value():
    record = Record.model_validate(
        {
            "study": {"name": "s", "reference": "only", "primary_metric": "auroc", "seeds": [0]},
            "data": {"name": "d", "task": "binary", "classes": ["no", "yes"]},
            "arms": [{"name": "only"}],
            "metrics": [{"arm": "only", "metric": "auroc", "value": 0.8, "low": 0.7, "high": 0.9, "n": 1200}],
        }
    )
    (headline,) = tables(record)
    assert headline.rows == (("only\nreference", "–", "0.800\n0.700 to 0.900", "1\u202f200", "–", "1", "–", "–"),)


@pytest.mark.parametrize(
    "module", ["notation", "record", "tables", "words", "page", "figures.svg", "figures.rows", "figures.panels"]
)
def test_examples_in_docstrings_hold(module: str):
    result = doctest.testmod(importlib.import_module(f"raremix.report.{module}"))
    assert result.failed == 0


def test_two_classes_show_every_measure(records: ModuleType) -> None:
    raw = records.binary()
    extra = ["kappa", "f1", "mcc", "specificity", "sensitivity", "g_mean", "youden_j"]
    raw["metrics"] += [
        {"arm": arm["name"], "metric": name, "scope": "overall", "value": 0.5} for arm in raw["arms"] for name in extra
    ]
    others = tables(Record.model_validate(raw))[1]
    assert {notation.metric_name(name, capital=True) for name in extra} <= set(others.columns)


def test_on_whom_arms_differ_stands_in_a_table(records: ModuleType) -> None:
    assert decision_table(Record.model_validate(records.binary())) is None
    raw = records.binary()
    first, second = (arm["name"] for arm in raw["arms"][:2])
    entry = {
        "arm": second,
        "reference": first,
        "label": "<b>normal",
        "patients": 90,
        "only_arm": 9,
        "only_reference": 2,
    }
    raw["decisions"] = [{**entry, "p": 0.0386, "p_holm": 0.0772}]
    record = Record.model_validate(raw)
    table = decision_table(record)
    assert table is not None
    assert table.rows == ((second, first, "<b>normal", "90", "9", "2", "0.077"),)
    page = render(record)
    assert "Right about whom" in page
    assert "&lt;b&gt;normal" in page
    with pytest.raises(ValidationError, match="differ"):
        Record.model_validate({**raw, "decisions": [{**raw["decisions"][0], "patients": 10}]})
