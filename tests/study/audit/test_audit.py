"""From a study's data to an audit's page, facts and summary: the same findings in all of them, and nobody's name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from raremix.core import files
from raremix.core.errors import LeakageError, RaremixError
from raremix.data.audit import Problem
from raremix.data.suspects import Suspects
from raremix.report.audit import render_audit
from raremix.study.audit.record import Audited, audit_data, facts_of, record_of, row_names, sum_up, summary_of
from raremix.study.defaults import study_of
from raremix.study.spec import StudySpec

CANARY = "MRN-4711-Doe"


def scene(number: int) -> np.ndarray:
    coarse = np.random.default_rng(number).integers(30, 220, (6, 6), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((80, 64), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with a copy, a patient in two splits, a broken file, and a patient's name in file names and groups."""
    root = tmp_path_factory.mktemp("data")
    names = [f"{CANARY}-{k:02d}.png" for k in range(30)]
    for k, name in enumerate(names):
        files.write_image(root / name, scene(0 if k == 1 else k))
    (root / names[29]).write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    groups = [f"{CANARY}-{k // 3}" for k in range(30)]
    groups[25] = groups[0]
    columns: dict[str, Any] = {"file": names, "dx": ["well", "sick"] * 15, "who": groups}
    columns["fold"] = ["train"] * 15 + ["validation"] * 6 + ["test"] * 9
    pl.DataFrame(columns).write_csv(root / "labels.csv")
    return root


def spec_of(folder: Path) -> StudySpec:
    settings = ['data.label="dx"', 'data.group="who"', 'data.split="fold"']
    return study_of(str(folder / "labels.csv"), settings=settings)


@pytest.fixture(scope="module")
def audited(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Audited:
    return audit_data(spec_of(folder), cache=tmp_path_factory.mktemp("cache"), workers=1)


def test_what_loading_refuses_is_reported(folder: Path, audited: Audited, tmp_path: Path) -> None:
    with pytest.raises((LeakageError, RaremixError)):
        spec_of(folder).source.load(cache=tmp_path)
    problems = {problem.kind: problem for problem in audited.audit.problems}
    assert problems["group across splits"].sets == ((0, 1, 2, 25),)
    assert problems["copy"].sets == ((0, 1),)
    assert problems["labels in conflict"].sets == ((0, 1),)
    assert problems["unreadable file"].rows == (29,)


def test_page_facts_and_summary_agree_and_name_nobody(audited: Audited) -> None:
    page, facts, summary = render_audit(record_of(audited)), facts_of(audited), summary_of(audited)
    for problem in audited.audit.problems:
        title = problem.title
        assert title[1:].replace(" %", "\u00a0%") in page
        assert title in summary
        assert title in [entry["title"] for entry in facts["problems"]]
    for text in (page, json.dumps(facts), summary):
        assert "4711" not in text
        assert "Doe" not in text
    assert facts["splits"]["test"] == {"images": 9, "groups": 4}
    assert facts["counts"]["train"]["sick"]["images"] == 7
    assert facts["readable"] == 29
    assert json.loads(json.dumps(facts)) == facts


def test_only_the_table_that_was_asked_for_holds_file_names(audited: Audited) -> None:
    table = row_names(audited)
    assert table.filter(pl.col("id") == 29)["path"].to_list() == [f"{CANARY}-29.png"]
    assert "copy; " in table.filter(pl.col("id") == 0)["found"][0] + "; "
    assert set(table["id"]) == {row for problem in audited.audit.problems for row in problem.rows}


def test_pictures_show_each_split_of_a_set(audited: Audited) -> None:
    record = record_of(audited)
    leak = next(found for found in record.findings if found.sets == ((0, 1, 2, 25),))
    (shown,) = leak.strip.sets
    assert [picture.caption.split("\n")[0] for picture in shown] == [
        "row 0, train",
        "row 1, train",
        "row 2, train",
        "row 25, test",
    ]
    assert all(picture.picture for picture in shown)
    broken = next(found for found in record.findings if found.sets == ((29,),))
    assert broken.strip.sets[0][0].picture == ""
    assert "cannot be read" in broken.strip.sets[0][0].caption
    assert not any(found.strip.sets for found in record_of(audited, with_pictures=False).findings)


def test_the_same_audit_gives_the_same_page(audited: Audited) -> None:
    assert render_audit(record_of(audited)) == render_audit(record_of(audited))


def test_suspects_are_shown_ranked_and_side_by_side(audited: Audited) -> None:
    pairs = Suspects(
        kind="near-duplicate",
        ids=np.array([[3, 4], [5, 6], [7, 8]]),
        scores=np.array([0.9, 0.8, 0.1]),
        look_at=2,
        words="ranked by distance",
    )
    alone = Suspects(
        kind="label error", ids=np.array([9, 10]), scores=np.array([2.0, 1.0]), look_at=1, words="ranked by doubt"
    )
    both = Audited(audit=audited.audit, suspects=(pairs, alone), reading=audited.reading)
    first, second = record_of(both).ranked
    assert [len(shown) for shown in first.strip.sets] == [2, 2]
    assert first.strip.notes == ("1. score 0.900", "2. score 0.800")
    assert (first.look_at, first.total) == (2, 3)
    assert [picture.caption for picture in second.strip.sets[0]] == ["row 9, train\nsick"]
    assert facts_of(both)["suspects"][0]["ids"] == [[3, 4], [5, 6], [7, 8]]
    assert "suspect: label error" in row_names(both).filter(pl.col("id") == 9)["found"][0]


def test_the_sentence_above_all() -> None:
    assert sum_up((), 10) == "Nothing is wrong with these 10 images as far as can be seen without a network."
    problem = Problem(kind="no groups", level="unknown", title="no patients", cost="?", advice="name them")
    assert sum_up([problem], 10).startswith("No patients are named, so nobody can say")
    leak = Problem(kind="copy across splits", level="leak", title="2 copies", cost="?", advice="drop them")
    assert sum_up([problem, leak], 10).endswith("Results on this split would be too good: 2 copies.")


def test_phantoms_of_many_labels(tmp_path: Path) -> None:
    settings = ['data.modality="chest_xray"', "data.multilabel=true", "data.images=80", "data.size=28"]
    done = audit_data(study_of("phantom", settings=[*settings, "data.imbalance_ratio=4"]), cache=tmp_path, workers=1)
    record = record_of(done)
    assert record.noun == "label"
    counts = done.audit.census.together
    targets = done.audit.manifest.targets()
    assert counts[0, 1] == int(((targets[:, 0] == 1) & (targets[:, 1] == 1)).sum())
    assert (counts == counts.T).all()
    assert "Labels that go together" in render_audit(record)
    assert not [problem for problem in done.audit.problems if problem.level == "leak"]
