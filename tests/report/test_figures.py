"""Figures put every number where it belongs, and say it in words as well."""

import re
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raremix.report import Record
from raremix.report.figures import panels, rows, svg
from raremix.report.page import arm_slots


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.integers(2, 9))
def test_a_scale_holds_its_values_and_its_ticks(values: list[float], count: int):
    axis = svg.scale(values, count=count)
    assert axis.low <= min(values)
    assert max(values) <= axis.high
    assert 2 <= len(axis.ticks) <= 2 * count + 2
    assert all(axis.low - 1e-6 <= tick <= axis.high + 1e-6 for tick in axis.ticks)
    assert all(0 <= axis.at(value) <= 1 for value in values)


def test_an_empty_scale_is_drawable():
    assert svg.scale([]).low < svg.scale([]).high


@pytest.mark.parametrize("value", [0.0, 224216.0, 33633.0, -1e-9, 0.5])
def test_a_scale_of_one_value_has_ticks(value: float):
    assert len(svg.scale([value], count=2).ticks) >= 2


def test_elements_escape_texts_and_attributes():
    made = svg.node("text", '<script>"', svg.node("title", "a & b"), aria_label='"><img src=x>', x=None)
    assert made == ('<text aria-label="&#34;&gt;&lt;img src=x&gt;">&lt;script&gt;&#34;<title>a &amp; b</title></text>')


def test_differences_stand_where_they_were_measured(records: ModuleType):
    record = Record.model_validate(records.multiclass())
    primary = [c for c in record.comparisons if c.primary]
    figure = rows.differences(record, primary, arm_slots(record))
    assert figure is not None
    assert [row.name for row in figure.rows] == ["classical", "mixup", "cutmix"]
    # The scale is recovered from the figure itself: zero line and the ends of the band at +-3.1 points.
    strip = str(figure.rows[2].strip)
    zero = float(re.search(r'x1="([\d.]+)%"[^>]*class="zero"', strip)[1])
    left, width = re.search(r'x="([\d.]+)%" width="([\d.]+)%"[^>]*class="band"', strip).groups()
    point = (float(left) + float(width) - zero) / 3.1
    marks = [float(x) for x in re.findall(r'<svg x="([\d.]+)%" y="50%"', strip)]
    assert marks == [pytest.approx(zero + 5.8 * point, abs=0.05)]
    ends = [float(x) for x in re.findall(r'x1="([\d.]+)%" x2="\1%" y1="-5" y2="5" class="whisker"', strip)]
    assert ends == [pytest.approx(zero + 2.7 * point, abs=0.05), pytest.approx(zero + 8.9 * point, abs=0.05)]
    assert figure.rows[2].numbers == ("+5.8", "+2.7 to +8.9")
    assert "cutmix against baseline: +5.8 points (+2.7 to +8.9)" in strip


def test_bars_are_as_long_as_their_values(records: ModuleType):
    record = Record.model_validate(records.multilabel())
    found = [m for m in record.metrics if m.scope == "class" and m.metric == "sensitivity"]
    figure = rows.values(record, found, arm_slots(record), names=record.data.ordered(), notes={})
    assert figure is not None
    assert [row.name for row in figure.rows] == list(record.data.ordered())
    for row in figure.rows:
        expected = [100 * m.value for arm in record.arms for m in found if (m.arm, m.label) == (arm.name, row.name)]
        bars = [float(w) for w in re.findall(r'<rect[^>]* width="([\d.]+)%"[^>]*class="bar', str(row.strip))]
        assert bars == pytest.approx(expected, abs=0.01)
    assert [row.name for row in figure.rows if row.is_faint] == ["hernia"]
    assert "hollow" in str(figure.rows[-1].strip)
    assert "hollow" not in str(figure.rows[0].strip)


def test_nothing_measured_gives_no_figure(records: ModuleType):
    record = Record.model_validate(records.binary())
    assert rows.differences(record, [], {}) is None
    assert rows.values(record, [], {}, names=["normal"], notes={}) is None
    assert panels.history([], {}, is_loss=True) is None


def test_curves_start_and_end_in_their_corners(records: ModuleType):
    record = Record.model_validate(records.binary())
    found = [c for c in record.curves if c.kind == "roc" and c.label == "pneumonia"]
    panel = panels.curves(found, arm_slots(record), heading="pneumonia")
    lines = re.findall(r'<path d="M([\d. ]+)L[^"]*L([\d. ]+)" class="curve', str(panel.drawing))
    assert len(lines) == 3
    frame = panels.Frame(x=svg.UNIT, y=svg.UNIT)
    for start, end in lines:
        assert [float(v) for v in start.split()] == pytest.approx(frame.place(0, 0), abs=2.0)
        assert [float(v) for v in end.split()] == pytest.approx(frame.place(1, 1), abs=1.5)
    assert str(panel.drawing).count("halo") == 3


def test_a_confusion_matrix_says_each_cell(records: ModuleType):
    record = Record.model_validate(
        records.binary() | {"confusion": [{"arm": "baseline", "counts": [[90, 10], [4.5, 15.5]]}]}
    )
    drawn = str(panels.confusion(record.confusion[0], record.data.classes, record.data.ordered()).drawing)
    assert "true normal, predicted pneumonia: 10 of 100 (10%)" in drawn
    assert "true pneumonia, predicted pneumonia: 16 of 20 (78%)" in drawn
    shades = [float(v) for v in re.findall(r'fill-opacity="([\d.]+)"', drawn)]
    assert shades == pytest.approx([0.05 + 0.9 * s for s in (0.9, 0.1, 0.225, 0.775)], abs=0.011)


def test_a_confusion_matrix_is_turned_to_head_first(records: ModuleType):
    made = records.binary()
    made["data"]["counts"]["train"] = {"normal": 5, "pneumonia": 50}
    made["confusion"] = [{"arm": "baseline", "counts": [[1, 2], [3, 4]]}]
    record = Record.model_validate(made)
    drawn = str(panels.confusion(record.confusion[0], record.data.classes, record.data.ordered()).drawing)
    assert re.findall(r'class="in \w+">(\d)<', drawn) == ["4", "3", "2", "1"]


def test_the_kept_step_is_marked(records: ModuleType):
    record = Record.model_validate(records.binary())
    slots = arm_slots(record)
    best = {("baseline", 0): 2000}
    with_mark = panels.history(record.history, slots, is_loss=False, best=best)
    without = panels.history(record.history, slots, is_loss=False)
    assert with_mark is not None
    assert without is not None
    assert str(with_mark.drawing).count('class="mark"') == 1
    assert str(without.drawing).count('class="mark"') == 0


def test_arms_differ_in_shape_and_colour():
    keys = [str(rows.key(slot)) for slot in range(24)]
    assert len(set(keys)) == 24
    assert len({svg.arm_class(slot) for slot in range(7)}) == 7
    assert len({re.search(r' d="(.*?)"', key)[1] for key in keys[:5]}) == 5


def test_thinning_keeps_both_ends():
    kept = svg.thinned(1001, 90)
    assert (len(kept), kept[0], kept[-1]) == (90, 0, 1000)
    assert kept == sorted(set(kept))
