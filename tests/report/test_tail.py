"""Classes made rare on purpose, files that were left out, and what saw which rows: drawn and told."""

import math
import re
from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError

from raremix.report import Record, render
from raremix.report.figures.tail import long_tail, tail_words
from raremix.report.held_out import left_out, seen
from raremix.report.page import arm_slots


def rarity(**changes: Any) -> dict[str, Any]:
    return {
        "profile": "exponential",
        "asked": 50.0,
        "reached": 49.6,
        "before": {"normal": 3500, "pneumonia": 390},
        "after": {"normal": 3500, "pneumonia": 70},
        **changes,
    }


def made(records: ModuleType, **data: Any) -> dict[str, Any]:
    record = records.binary()
    record["data"] |= data
    return record


def test_nothing_made_rare_draws_nothing(records: ModuleType):
    record = Record.model_validate(records.binary())
    assert long_tail(record, arm_slots(record)) is None
    assert tail_words(record) == ()
    page = render(record)
    assert "made rare on purpose" not in page
    assert "quarantine" not in page


def test_counts_stand_on_a_logarithmic_scale(records: ModuleType):
    record = Record.model_validate(made(records, rarity=rarity()))
    panel = long_tail(record, arm_slots(record))
    assert panel is not None
    lines = re.findall(r'd="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)" class="curve (\w+)"', panel.drawing)
    assert [line[4] for line in lines] == ["found", "a0"]
    # Four decades, 1 to 10,000, between 10 and 242 units from above.
    down = [242 - 232 * math.log10(count) / 4 for count in (3500, 390, 3500, 70)]
    drawn = [float(value) for line in lines for value in (line[1], line[3])]
    assert drawn == pytest.approx(down, abs=0.06)
    assert "normal 3\u202f500, pneumonia 70" in panel.drawing
    assert panel.note == "1 normal, 2 pneumonia"
    assert tail_words(record) == ("Exponential profile; 49.6 to one was reached; 50 to one was asked for.",)
    page = render(record)
    assert "Classes made rare on purpose" in page
    assert "49.6 to one was reached" in page


def test_an_arm_with_a_tail_of_its_own_has_its_colour(records: ModuleType):
    record = made(records, rarity=None)
    record["arms"][2]["rarity"] = rarity(profile="step", asked=10.0, reached=10.0)
    checked = Record.model_validate(record)
    panel = long_tail(checked, arm_slots(checked))
    assert panel is not None
    assert 'class="curve a2"' in panel.drawing
    assert tail_words(checked) == ("Mixup: step profile; 10 to one was reached; 10 to one was asked for.",)


def test_a_class_without_images_is_drawn_hollow_and_told(records: ModuleType):
    empty = rarity(profile=None, asked=None, reached=None, after={"normal": 3500, "pneumonia": 0})
    record = Record.model_validate(made(records, rarity=empty))
    panel = long_tail(record, arm_slots(record))
    assert panel is not None
    assert panel.drawing.count("mark hollow") == 1
    assert tail_words(record) == ("A class has no image.",)


def test_more_images_after_than_before_are_no_record(records: ModuleType):
    with pytest.raises(ValidationError, match="more images of"):
        Record.model_validate(made(records, rarity=rarity(after={"normal": 9999, "pneumonia": 1})))


def test_files_that_were_left_out_are_counted_by_split_and_class(records: ModuleType):
    counts = {"train": {"normal": 1200, "pneumonia": 3}, "validation": {}, "test": {"normal": 1}}
    record = Record.model_validate(made(records, quarantine={"files": 1204, "of": 5000, "counts": counts}))
    assert left_out(record) == "train: normal 1\u202f200, pneumonia 3; test: normal 1"
    page = render(record)
    assert "1\u202f204 of 5\u202f000 files could not be read and were left out: train: normal" in page


def test_rows_are_told_once_for_all_that_saw_them(records: ModuleType):
    record = records.binary()
    one, two = {"rows": 900, "hash": "aa", "results": 3}, {"rows": 1200, "hash": "bb", "results": 3}
    record["fitted_on"] = [
        {"what": "classifier", "split": "train", **one},
        {"what": "temperature", "split": "validation", **two},
        {"what": "thresholds", "split": "validation", **two},
    ]
    told = seen(Record.model_validate(record))
    assert [(entry.what, entry.rows, entry.hash) for entry in told] == [
        ("classifier", "900 train rows", "aa"),
        ("temperature and thresholds", "1\u202f200 validation rows", "bb"),
    ]
    assert "Seen by the temperature and thresholds" in render(Record.model_validate(record))
