"""A record is checked at the door: what does not fit is named by its place."""

import base64
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from raremix.core.errors import CorruptError, UsageError
from raremix.report import read_images, read_record


def write(folder: Path, record: dict[str, Any]) -> Path:
    path = folder / "record.json"
    path.write_text(json.dumps(record))
    return path


@pytest.mark.parametrize("name", ["multiclass", "binary", "multilabel"])
def test_made_up_records_are_read(records: ModuleType, tmp_path: Path, name: str):
    record = read_record(write(tmp_path, getattr(records, name)()))
    assert record.study.reference == "baseline"
    assert record.data.ordered()[0] == max(record.data.classes, key=record.data.counts["train"].__getitem__)


def test_unknown_keys_and_missing_parts_do_not_matter(records: ModuleType, tmp_path: Path):
    record = records.binary()
    record["later"] = {"any": "thing"}
    record["study"]["later"] = 1
    for part in ("curves", "reliability", "confusion", "history", "warnings", "spec", "decidable", "versions"):
        record[part] = None
    assert read_record(write(tmp_path, record)).curves == ()


def test_no_record_says_what_to_do(tmp_path: Path):
    with pytest.raises(UsageError, match="raremix study FILE"):
        read_record(tmp_path / "record.json")


def test_no_pictures_are_no_error(tmp_path: Path):
    assert read_images(tmp_path / "images.json") is None


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("study", "reference"), "nobody", "reference arm 'nobody' is not one of the arms"),
        (("study", "claim"), "everything", "study.claim"),
        (("arms",), [], "arms"),
        (("arms",), [{"name": "baseline"}] * 2, "arms named more than once: ['baseline']"),
        (("arms", 2, "steps"), "many", "arms.2.steps"),
        (("metrics", 3, "arm"), "nobody", "metrics name arms that the study does not have: ['nobody']"),
        (("metrics", 3, "low"), 1.5, "low end 1.5 is above its high end"),
        (("comparisons", 0, "effect"), float("nan"), "comparisons.0.effect"),
        (("comparisons", 0, "low"), 0.3, "low end 0.3 is above its high end 0.057"),
        (("comparisons", 2, "effect"), -0.1, "different sides of zero"),
        (("comparisons", 0, "p_holm"), 0.01, "a correction never makes p smaller"),
        (("comparisons", 0, "p"), 1.2, "comparisons.0.p"),
        (("comparisons", 0, "arm"), "baseline", "compares 'baseline' with itself"),
        (
            ("comparisons", 0, "metric"),
            "accuracy",
            "should be in 'balanced_accuracy' to 'baseline', but is in 'accuracy'",
        ),
        (("comparisons", 0, "arm"), "mixup", "arms with a primary comparison named more than once: ['mixup']"),
        (("curves", 0, "y"), [0.0, 1.0], "x has 101 points, y has 2"),
        (("curves", 0, "low"), [0.0], "x has 101 points, low has 1"),
        (("confusion", 0, "counts"), [[1, 2], [3, 4]], "should be 7 x 7"),
        (("history", 0, "loss"), [1.0], "200 steps but 1 values of the loss"),
    ],
)
def test_what_does_not_fit_is_named(records: ModuleType, tmp_path: Path, place: tuple[Any, ...], value: Any, said: str):
    record = records.multiclass()
    part = record
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    with pytest.raises(CorruptError) as caught:
        read_record(write(tmp_path, record))
    assert said in str(caught.value)
    assert "record.json" in str(caught.value)
    assert "Run the study again" in str(caught.value)


def test_a_half_written_record_is_an_error(tmp_path: Path):
    path = tmp_path / "record.json"
    path.write_text('{"study": {"name"')
    with pytest.raises(CorruptError):
        read_record(path)


def test_many_faults_are_counted(records: ModuleType, tmp_path: Path):
    record = records.multiclass()
    for metric in record["metrics"]:
        metric["value"] = "high"
    with pytest.raises(CorruptError, match=r"and \d+ more"):
        read_record(write(tmp_path, record))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("basal\ncell\tcarcinoma ", "basal cell carcinoma"),
        ("a\x00b\x1b[31m", "a\ufffdb\ufffd[31m"),
        ("evil\u202egnp.exe", "evil\ufffdgnp.exe"),
        ("half \ud800 surrogate", "half \ufffd surrogate"),
        ("naïve café 病変", "naïve café 病変"),
    ],
)
def test_names_are_one_printable_line(records: ModuleType, tmp_path: Path, text: str, shown: str):
    record = records.binary()
    record["data"]["name"] = text
    assert read_record(write(tmp_path, record)).data.name == shown


@pytest.mark.parametrize("png", ["not base64!", base64.b64encode(b"GIF89a").decode(), '"><script>', ""])
def test_only_png_pictures_are_taken(tmp_path: Path, png: str):
    path = tmp_path / "images.json"
    path.write_text(json.dumps({"classes": [{"label": "a", "pngs": [png]}]}))
    with pytest.raises(CorruptError, match=r"classes\.0\.pngs\.0"):
        read_images(path)
