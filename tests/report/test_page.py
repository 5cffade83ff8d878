"""The page is one file that asks nothing of anybody, whatever names the data bring."""

import json
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from raremix.core.errors import UsageError
from raremix.report import Images, Record, render, write_report
from raremix.report.images import fit
from raremix.report.page import IMAGE_BUDGET

LIMIT = 5_000_000
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
FORBIDDEN = {
    "script",
    "iframe",
    "object",
    "embed",
    "form",
    "base",
    "audio",
    "video",
    "source",
    "use",
    "image",
    "foreignobject",
}
PAYLOADS = (
    "<script>console.log('pwned')</script>",
    "</title><script>console.log('pwned')</script>",
    "</style><script>console.log('pwned')</script>",
    "</svg><script>console.log('pwned')</script>",
    "</desc></svg><img src=x onerror=console.log('pwned')>",
    '"><img src=x onerror=console.log("pwned")>',
    "'><svg/onload=console.log('pwned')>",
    "\" onmouseover=\"console.log('pwned')",
    "' autofocus onfocus='console.log(1)",
    "<img src='http://127.0.0.1:9/pixel.png'>",
    "<link rel=stylesheet href=http://127.0.0.1:9/a.css>",
    "<iframe src='javascript:console.log(1)'></iframe>",
    "<a href='javascript:console.log(1)'>x</a>",
    "<style>@import 'http://127.0.0.1:9/b.css';</style>",
    "<style>*{background:url(http://127.0.0.1:9/c)}</style>",
    "background:url(http://127.0.0.1:9/d)",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>",
    "<base href='http://127.0.0.1:9/'>",
    "<object data='http://127.0.0.1:9/e'></object>",
    "<svg><use href='http://127.0.0.1:9/f#g'/></svg>",
    "<math><mtext><script>console.log(1)</script></mtext></math>",
    "{{ 7 * 7 }}{% raw %}",
    "{{ ''.__class__.__mro__ }}",
    "<!--<script>console.log(1)</script>-->",
    "]]><script>console.log(1)</script>",
    "&lt;script&gt;console.log(1)&lt;/script&gt;",
    "&#60;script&#62;console.log(1)&#60;/script&#62;",
    "\u202e<script>console.log(1)</script>",
    "a\nb\r\n<script>console.log(1)</script>",
    "<details open ontoggle=console.log(1)><summary>x</summary>",
    "`${console.log(1)}`",
    "x" * 300,
)


class Elements(HTMLParser):
    """Collects every tag with its attributes."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def elements(html: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Elements()
    parser.feed(html)
    parser.close()
    return parser.found


def text(html: str) -> str:
    parser = Elements()
    parser.feed(html)
    return re.sub(r"[ \n\t]+", " ", "".join(parser.text))


def structure(html: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(tag, tuple(sorted(attributes))) for tag, attributes in elements(html)]


@cache
def rendered(records: ModuleType, name: str) -> str:
    """The page of a made-up record; made once, as it is the same every time."""
    made = getattr(records, name)()
    pictures = Images.model_validate(records.images(made, size=24, per_class=3))
    return render(Record.model_validate(made), pictures)


def renamed(value: Any, names: dict[str, str]) -> Any:
    """Replace names everywhere in a record: as values and as keys."""
    if isinstance(value, dict):
        return {names.get(key, key): renamed(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [renamed(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


def poisoned(records: ModuleType) -> tuple[dict[str, Any], dict[str, Any]]:
    """A record in which every payload stands where the data, the study file or the machine put text."""
    made = records.multilabel()
    pictures = records.images(made, size=16, per_class=1)
    payloads = iter(PAYLOADS)
    names = {name: next(payloads) for name in (*made["data"]["classes"], *(arm["name"] for arm in made["arms"]))}
    made, pictures = renamed(made, names), renamed(pictures, names)
    rest = list(payloads)
    made["study"] |= {"title": rest[0], "created": rest[1], "name": rest[2], "status": "incomplete", "missing": rest}
    made["data"] |= dict(zip(("name", "modality", "licence", "source", "citation", "thinned"), rest, strict=False))
    made["data"] |= {"manifest_hash": rest[3], "group_name": rest[4]}
    made["warnings"], made["spec"] = list(PAYLOADS), "\n".join(PAYLOADS)
    made["versions"] = {payload: payload for payload in rest}
    made["environment"] = {payload: {payload: [payload]} for payload in rest}
    made["arms"][0]["settings"] = {payload: {"name": payload, payload: payload} for payload in PAYLOADS}
    made["decidable"]["text"] = rest[5]
    made["reliability"][0]["arm"] = made["arms"][0]["name"]
    for metric, payload in zip(made["metrics"], PAYLOADS, strict=False):
        metric["note"] = metric["method"] = payload
    made["metrics"][-1]["label"] = rest[6]
    made["history"][0]["metric_name"] = rest[7]
    for picture in pictures["arms"]:
        picture["captions"] = rest[:8]
    for error, payload in zip(pictures["errors"], PAYLOADS, strict=False):
        error["true"] = error["predicted"] = payload
    return made, pictures


@pytest.mark.parametrize("name", ["multiclass", "binary", "multilabel"])
def test_the_page_refers_to_nothing_outside_itself(records: ModuleType, name: str):
    assert_self_contained(rendered(records, name))


def assert_self_contained(html: str) -> None:
    found = elements(html)
    assert not FORBIDDEN & {tag for tag, _ in found}
    policies = [a["content"] for tag, a in found if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == [POLICY]
    assert [tag for tag, _ in found if tag == "style"] == ["style"]
    ids = {a["id"] for _, a in found if "id" in a}
    for tag, attributes in found:
        assert not any(key.startswith("on") for key in attributes), attributes
        for key in ("src", "href", "srcset", "data", "action", "poster", "background", "xlink:href", "style"):
            value = attributes.get(key)
            if value is None:
                continue
            if tag == "img":
                assert value.startswith("data:image/png;base64,")
            elif tag == "a":
                assert value.removeprefix("#") in ids
            else:
                assert (tag, value) == ("link", "data:,")
    style = re.search(r"<style>(.*?)</style>", html, re.S)[1]
    assert "url(" not in style
    assert "@import" not in style


def test_the_check_itself_sees_what_it_should():
    with pytest.raises(AssertionError):
        assert_self_contained("<img src='http://127.0.0.1/x.png'>")


def test_the_same_record_gives_the_same_bytes(records: ModuleType, tmp_path: Path):
    made = records.multiclass()
    pages = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        (folder / "record.json").write_text(json.dumps(made))
        (folder / "images.json").write_text(json.dumps(records.images(made)))
        path = write_report(folder)
        assert path == folder / "report.html"
        pages.append(path.read_bytes())
    assert pages[0] == pages[1]


@pytest.mark.parametrize("name", ["multiclass", "binary", "multilabel"])
def test_realistic_pages_are_small(records: ModuleType, name: str):
    assert len(rendered(records, name).encode()) < LIMIT / 2


def test_a_report_without_pictures_is_written(records: ModuleType, tmp_path: Path):
    (tmp_path / "record.json").write_text(json.dumps(records.binary()))
    html = write_report(tmp_path).read_text()
    assert "<img" not in html
    assert "What each arm is trained on" not in html


def test_no_record_is_an_error_that_says_what_to_do(tmp_path: Path):
    with pytest.raises(UsageError, match=r"record\.json"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_minimal_record_gives_a_page():
    record = Record.model_validate(
        {
            "study": {"name": "first try", "reference": "only", "primary_metric": "auroc"},
            "data": {"name": "d", "task": "binary", "classes": ["no", "yes"]},
            "arms": [{"name": "only"}],
        }
    )
    html = render(record)
    assert_self_contained(html)
    assert "Only only was trained, so nothing was compared." in text(html)


@pytest.mark.parametrize("name", ["multiclass", "binary", "multilabel"])
def test_every_section_is_there(records: ModuleType, name: str):
    html = rendered(records, name)
    sections = {a["id"] for tag, a in elements(html) if tag == "section"}
    wanted = {
        "compared",
        "result",
        "classes",
        "curves",
        "calibration",
        "confusion",
        "batches",
        "errors",
        "subgroups",
        "training",
        "provenance",
    }
    assert sections == wanted - ({"confusion"} if name == "multilabel" else set())
    told = text(html)
    assert "<dt>Test rows opened</dt><dd>1 time</dd>" in html
    assert "2.13.0" in told
    assert 'name = "ham10000-rare"' in told


def test_effect_and_interval_come_before_what_they_rest_on(records: ModuleType):
    html = rendered(records, "binary")
    headings = [
        re.sub("<.*?>", "", cell) for cell in re.findall(r"<th scope=\"col\".*?</th>", html.split('id="result"')[1])
    ]
    assert headings[:8] == [
        "Arm",
        "Difference to baseline, points",
        "AUROC",
        "Patients",
        "Positive patients",
        "Seeds",
        "P(better)",
        "p (Holm)",
    ]


def test_every_drawing_is_described(records: ModuleType):
    html = rendered(records, "multiclass")
    for drawing in re.findall(r"<svg[^>]*role=\"img\"[^>]*>.{0,40}", html, re.S):
        assert "<title>" in drawing
    named = [a for tag, a in elements(html) if tag == "svg" and a.get("role") == "img"]
    assert len(named) > 40
    assert all(a.get("aria-label") for a in named)
    assert all(a.get("alt") for tag, a in elements(html) if tag == "img")


def test_an_incomplete_study_says_so_before_anything_else(records: ModuleType):
    made = records.multiclass()
    made["study"] |= {"status": "incomplete", "missing": ["cutmix, seed 4: disk full"]}
    told = text(render(Record.model_validate(made)))
    at = told.index("This study is incomplete. Missing: cutmix, seed 4: disk full.")
    assert at < told.index("What is there so far allows no conclusion") < told.index("What was compared")
    assert "improved" not in told


def test_few_positives_are_counts_without_ranks(records: ModuleType):
    made = records.binary()
    for comparison in made["comparisons"]:
        comparison["positives"] = 9
    html = render(Record.model_validate(made))
    result = text(html.split('id="result"')[1].split("<figure>")[0])
    assert "too few positives" in result
    assert result.count("too few positives") == 2
    assert not re.search(r"\b0\.(57|96)\b", result)
    assert not re.search(r"\b(better|worse|equal)\b", result.replace("P(better)", ""))


def test_a_note_that_every_class_shares_is_told_once(records: ModuleType):
    made = records.binary()
    made["curves"] = []
    for metric in made["metrics"]:
        if metric["metric"] == "sensitivity" and metric["scope"] == "class":
            metric["note"] = "over patients only"
            if metric["label"] == "normal" and metric["arm"] == "mixup":
                metric["note"] = "never positive"
    told = text(render(Record.model_validate(made)))
    assert told.count("Over patients only.") == 1
    assert told.count("never positive") == 1


def test_different_budgets_are_told(records: ModuleType):
    made = records.binary()
    assert "for the same 4\u202f000 optimiser steps" in text(render(Record.model_validate(made)))
    made["arms"][1]["steps"] = 8000
    assert "different numbers of optimiser steps" in text(render(Record.model_validate(made)))


def test_learning_rates_are_told(records: ModuleType):
    made = records.binary()
    told = text(render(Record.model_validate(made)))
    assert "3e-05" not in told
    made["arms"][1]["learning_rate"] = 3e-5
    page = render(Record.model_validate(made))
    assert text(page).count("3e-05") == 1
    assert 'data-label="Learning rate"><span>3e-05</span>' in page
    assert 'data-label="Time"><span>3e-05</span>' not in page


def test_too_many_pictures_are_cut_evenly_and_told(records: ModuleType):
    made = records.multilabel()
    pictures = Images.model_validate(records.images(made, size=112, per_class=12))
    assert sum(len(png) for entry in pictures.classes for png in entry.pngs) > IMAGE_BUDGET
    kept, dropped = fit(pictures, budget=IMAGE_BUDGET)
    assert len({len(entry.pngs) for entry in kept.classes}) == 1
    assert len(kept.classes[0].pngs) > 1
    assert dropped > 0
    html = render(Record.model_validate(made), pictures)
    assert len(html.encode()) < LIMIT
    assert f"{dropped} more pictures were left out" in text(html)


def test_pictures_that_fit_are_all_kept(records: ModuleType):
    pictures = Images.model_validate(records.images(records.binary(), size=24))
    kept, dropped = fit(pictures, budget=IMAGE_BUDGET)
    assert dropped == 0
    assert kept.classes == pictures.classes
    assert set(kept.errors) == set(pictures.errors)


def test_one_giant_picture_does_not_break_the_page(records: ModuleType):
    giant = records.png(np.random.default_rng(0), 1400)
    pictures = Images.model_validate({"classes": [{"label": "normal", "pngs": [giant]}]})
    assert len(giant) > IMAGE_BUDGET
    assert fit(pictures, budget=IMAGE_BUDGET)[1] == 1


def test_hostile_names_leave_the_structure_of_the_page_alone(records: ModuleType):
    made, pictures = poisoned(records)
    harmless = {payload: f"name {i}" for i, payload in enumerate(PAYLOADS)}
    hostile = render(Record.model_validate(made), Images.model_validate(pictures))
    # What is replaced in the printable form only must have its harmless twin as well.
    tame = render(
        Record.model_validate(renamed(made, harmless) | {"spec": "tame"}),
        Images.model_validate(renamed(pictures, harmless)),
    )
    assert structure(hostile) == structure(tame)
    assert_self_contained(hostile)
    assert "7 * 7" in hostile


@pytest.mark.parametrize("name", ["multiclass", "binary", "multilabel"])
def test_a_browser_asks_for_nothing(records: ModuleType, browser: Any, tmp_path: Path, name: str):
    page = tmp_path / "report.html"
    page.write_text(rendered(records, name))
    visit = browser.visit(page)
    assert visit.requests == []
    assert visit.console == []
    assert "Provenance" in visit.dom


def test_a_browser_runs_nothing_of_hostile_names(records: ModuleType, browser: Any, tmp_path: Path):
    made, pictures = poisoned(records)
    page = tmp_path / "hostile.html"
    page.write_text(render(Record.model_validate(made), Images.model_validate(pictures)))
    visit = browser.visit(page)
    assert visit.console == []
    assert visit.requests == []
    assert structure(visit.dom) == structure(page.read_text())


def test_the_browser_would_have_seen_it(browser: Any, tmp_path: Path):
    page = tmp_path / "control.html"
    addresses = ["http://127.0.0.1:9/pixel.png", "https://fonts.googleapis.com/css"]
    images = "".join(f"<img src='{address}'>" for address in addresses)
    page.write_text(f"{images}<script>console.log('pwned')</script>")
    visit = browser.visit(page)
    assert visit.requests == addresses
    assert any("pwned" in line for line in visit.console)
