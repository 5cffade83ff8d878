"""S5: names that would be scripts, links or pictures go through everything that is written, and stay text."""

import re
import sys
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from html.parser import HTMLParser
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal

import markdown
import numpy as np
import polars as pl
import pytest
from PIL import Image
from pydicom.config import disable_value_validation
from tests.browser import Browser
from tests.core.faults import CountingDisk
from tests.data.dicoms import dicom
from tests.security.payloads import PAYLOADS

from raremix import cli
from raremix.core import files
from raremix.core.markdown import literal
from raremix.report.audit import AuditRecord, render_audit
from raremix.report.quality import QualityRecord, render_quality

# File and class names with characters that move the cursor are refused; a name of a file has no slash, and an end.
NAMES = [text for text in PAYLOADS if text.isprintable()]
FILES = [f"{text.replace('/', chr(0x2215))[:150]}.png" for text in NAMES]
CLASSES = ["<script>document.title='pwned'</script>", NAMES[6], "../x | [y](javascript:alert(1))", ".. | x"]
PICTURE = "iVBORw0KGgo="
STUDY = """
[study]
name = "s"
title = {title}
seeds = [0]
resamples = 100
[data]
source = "table"
path = "{path}"
label = "dx"
group = "who"
attributes = ["ward"]
name = {name}
notes = {notes}
citation = {notes}
licence = {notes}
size = 20
channels = 1
[model]
name = "resnet10t"
stem = "standard"
[train]
steps = 2
batch_size = 8
validations = 1
checkpoints = 1
workers = 0
[[arm]]
name = "plain"
"""
# Elements and attributes of our own pages; whatever else there is came from the data.
ELEMENTS = re.findall(
    r"\w+",
    "html head meta title style link body main header nav section footer article figure figcaption details summary h1 "
    "h2 h3 h4 p ul ol li dl dt dd div span small b i em strong bdi br a img table thead tbody tr th td svg title desc "
    "g path line rect circle polyline polygon text tspan code pre",
)
ATTRIBUTES = re.findall(
    r"[\w-]+",
    "lang charset name content http-equiv rel href class id role tabindex aria-label aria-hidden alt src scope colspan "
    "rowspan data-label open x y x1 x2 y1 y2 cx cy r rx ry width height viewbox preserveaspectratio d points "
    "text-anchor overflow transform stroke-dasharray dy dx fill fill-opacity stroke style opacity",
)


class Page(HTMLParser):
    """Collects elements with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.title, self.within = "", "", ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.within = tag

    def handle_data(self, data: str) -> None:
        self.text += data


def made_of(kind: Any, text: str, name: str = "") -> Any:  # noqa: PLR0911
    """Return a value of a type in which every text is the given one."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{one.name: made_of(hints[one.name], text, one.name) for one in fields(kind)})
    if kind is str:
        return PICTURE if name in {"picture", "jpeg", "png"} else text
    if kind in {int, float, bool}:
        return kind(1)
    if origin is Literal:
        return inner[0]
    if origin in {UnionType, typing.Union}:
        return made_of(next(one for one in inner if one is not NoneType), text, name)
    if origin is tuple and inner[-1] is not Ellipsis:
        return tuple(made_of(one, text) for one in inner)
    if issubclass(origin, Mapping):
        return {text: made_of(inner[1], text)}
    return (made_of(inner[0], text),)


def table(folder: Path, *, count: int = 48) -> Path:
    """Write images and a table in which every name is a payload."""
    names = [FILES[k] if k < len(FILES) else f"{k}.png" for k in range(count)]
    for k, name in enumerate(names):
        image = np.random.default_rng(k).integers(0, 255, (24, 24), dtype=np.uint8)
        image[:, : 6 * (k % 4)] = 0
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name)
    (folder / names[9]).write_bytes((folder / names[5]).read_bytes())
    columns = {
        "file": names,
        "dx": [CLASSES[k % 4] for k in range(count)],
        "who": [f"{k}{PAYLOADS[k % len(PAYLOADS)]}" for k in range(count)],
        "ward": [PAYLOADS[k % 3] for k in range(count)],
    }
    pl.DataFrame(columns).write_csv(folder / "labels.csv")
    return folder / "labels.csv"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all that the commands write about a hostile table, and of hostile DICOM files."""
    root = tmp_path_factory.mktemp("scripts")
    data, out = table(root / "set"), root / "out"
    quoted = {key: f"'''{PAYLOADS[k]}'''" for key, k in {"title": 1, "name": 5, "notes": 28}.items()}
    study = root / "s.toml"
    study.write_text(STUDY.format(path=data, **quoted))
    tags = ("Modality", "PatientSex", "Manufacturer", "ManufacturerModelName")
    hostile = dict(zip(tags, NAMES, strict=False))
    for k in range(8):
        place = root / "dicom" / f"<img src=x onerror=alert({k % 2})>" / f"{k}.dcm"
        place.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(k).integers(0, 4000, (20, 20), dtype=np.uint16)
        with disable_value_validation():
            place.write_bytes(dicom(values, PatientID=f"{k}{NAMES[6]}", **hostile))
    places = ["--runs", str(out / "runs"), "--cache", str(root / "cache")]
    generator = out / "generator"
    small = [
        "generator.width=2", "generator.latent=4", "train.batch_size=2", "train.steps=2", "train.validations=1",
        "train.checkpoints=1", "train.workers=0", "train.accelerator=cpu", 'train.precision="32"',
    ]  # fmt: skip
    sets = [word for setting in small for word in ("--set", setting)]
    commands = [
        ["study", str(study), "--best", *places],
        ["audit", str(study), *places, "--markdown", str(out / "audit.md"), "-o", str(out / "audit.html")],
        ["audit", str(root / "dicom"), *places, "--markdown", str(out / "dicom.md"), "-o", str(out / "dicom.html"),
         "--set", 'data.source="dicom"', "--set", 'data.header=["sex", "modality", "manufacturer", "model"]'],
        ["show", "mixes", str(study), "-m", "cutmix", "-o", str(out / "gallery"), "--cache", str(root / "cache")],
        ["inspect", str(root / "set"), "-o", str(out / "inspected.md")],
        ["inspect", str(root / "dicom"), "-o", str(out / "inspected_dicom.md")],
        ["generator", "fit", str(study), "-m", "dcgan", "-o", str(generator), "--cache", str(root / "cache"), *sets],
        ["generator", "sample", str(generator), "--class", CLASSES[2], "-n", "2", "-o", str(out / "drawn")],
        ["synthesize", str(study), str(generator), "--to", "14", "-o", str(out / "synthetic"), "--cache",
         str(root / "cache")],
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "DISK", CountingDisk())
        for words in commands:
            patch.setattr(sys, "argv", ["raremix", *words])
            try:
                cli.main()
            except SystemExit as end:
                assert not end.code, words[:2]
    for number, payload in enumerate(PAYLOADS):
        if number % 6 == 0:
            (out / f"quality{number}.html").write_text(render_quality(made_of(QualityRecord, payload)))
    return out


def pages(written: Path) -> dict[str, str]:
    found = {path.relative_to(written).as_posix(): path.read_text() for path in sorted(written.rglob("*.html"))}
    assert {path.rpartition("/")[2] for path in found} >= {"audit.html", "dicom.html", "gallery.html", "report.html"}
    return found


def test_no_element_comes_from_the_data(written: Path) -> None:
    for name, html in pages(written).items():
        page = Page(html)
        for tag, attributes in page.elements:
            assert tag in ELEMENTS, (name, tag)
            assert not set(attributes) - {*ATTRIBUTES}, (name, tag, attributes)
            for key in ("src", "href"):
                value = attributes.get(key) or "#"
                assert re.match(r"data:(image/(png|jpeg);base64,|,$)|#", value), (name, value)
            if "style" in attributes:
                assert attributes["style"] == "display:inline;border:0;padding:0", (name, attributes)
        assert [tag for tag, _ in page.elements].count("style") == 1
        policies = [a["content"] or "" for _, a in page.elements if "http-equiv" in a]
        assert [policy[:18] for policy in policies] == ["default-src 'none'"], name


def test_names_are_shown_letter_by_letter(written: Path) -> None:
    found = pages(written)
    for name in ("audit.html", "runs/s/best/report.html"):
        text = Page(found[name]).text
        assert all(label in text for label in CLASSES), name
    assert PAYLOADS[1] in Page(found["runs/s/best/report.html"]).text


@pytest.mark.parametrize("payload", PAYLOADS)
def test_every_field_of_a_page_is_text(payload: str) -> None:
    """Whatever fields a record has: all of them carry the payload, and the elements are those of a harmless one."""
    for kind, render in ((AuditRecord, render_audit), (QualityRecord, render_quality)):
        harmless, hostile = Page(render(made_of(kind, "x"))), Page(render(made_of(kind, payload)))
        if "\n" not in payload:
            assert [(tag, sorted(a)) for tag, a in hostile.elements] == [(t, sorted(a)) for t, a in harmless.elements]
        assert not {tag for tag, _ in hostile.elements} - {*ELEMENTS}
        assert "49" not in hostile.text.split("Provenance")[-1]


def test_no_element_comes_from_the_data_in_markdown(written: Path) -> None:
    found = {path.relative_to(written).as_posix(): path for path in sorted(written.rglob("*.md"))}
    wanted = {"audit.md", "dicom.md", "inspected.md", "inspected_dicom.md", "index.md", "README.md"}
    assert {name.rpartition("/")[2] for name in found} == wanted
    assert {"generator/README.md", "runs/s/best/README.md", "runs/s/best/classifier/README.md"} <= set(found)
    for name, path in found.items():
        text = path.read_text()
        assert re.fullmatch(r"[^\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]*", text), name
        page = Page(rendered(text))
        for tag, attributes in page.elements:
            assert tag in {*ELEMENTS, "hr", "blockquote"}, (name, tag)
            assert set(attributes) <= {"class", "style", "src", "alt"}, (name, attributes)
            assert (attributes.get("src") or "cutmix.png") == "cutmix.png", (name, attributes)
            assert attributes.get("style") in {None, "text-align: right;"}, (name, attributes)
    for name in ("audit.md", "generator/README.md", "runs/s/best/README.md"):
        said = Page(rendered(found[name].read_text())).text
        assert all(" ".join(label.split()) in said for label in CLASSES), name


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("around", ["{}", "* {}", "| a |\n| --- |\n| {} |", "x\n{}", "1. {}\n2. b", "**{}**"])
def test_markdown_shows_a_name_as_text(payload: str, around: str) -> None:
    plain, hostile = (Page(rendered(around.format(literal(text)))) for text in ("x", payload))
    assert hostile.elements == plain.elements
    assert "<" not in payload or "<" in hostile.text


def test_files_are_named_within_their_folder(written: Path) -> None:
    drawn = sorted(path.name for path in (written / "drawn").iterdir())
    assert len(drawn) == 4, "two images, a sheet, and the record of what was drawn"
    assert all(re.fullmatch(r"_x_[\w.+-]*\.(png|jsonl)", name) for name in drawn), drawn
    frame = pl.read_parquet(written / "synthetic" / "manifest.parquet").filter(pl.col("origin") == "synthetic")
    assert frame["path"].n_unique() == frame.height > 4
    assert len(list((written / "synthetic" / "images").iterdir())) == 4
    outside = {path.parent for path in written.parent.rglob("*.png") if not path.is_relative_to(written)}
    assert outside == {written.parent / "set"}


def test_a_browser_runs_loads_and_follows_nothing(written: Path, browser: Browser, tmp_path: Path) -> None:
    """Without the policy that forbids scripts and requests: it is the second wall, and must not be needed."""
    shown = {name: html for name, html in pages(written).items() if "quality" not in name or "quality6" in name}
    markdowns = "".join(rendered(path.read_text()) for path in sorted(written.rglob("*.md")))
    shown["md.html"] = markdowns.replace('src="cutmix.png"', "")
    for number, html in enumerate(shown.values()):
        page = tmp_path / f"{number}.html"
        page.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html))
        visit = browser.visit(page)
        assert "Content-Security-Policy" not in visit.dom
        assert visit.console == []
        assert [url for url in visit.requests if not url.startswith("data:")] == []
        assert "<title>pwned" not in visit.dom


def test_the_browser_would_have_seen_it(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "x.html"
    page.write_text(f"<html><title>x</title>{PAYLOADS[0]}{PAYLOADS[10]}")
    visit = browser.visit(page)
    assert any("pwned" in line for line in visit.console)
    assert "<title>pwned" in visit.dom
    assert "http://127.0.0.1:9/pixel.png" in visit.requests


def rendered(text: str) -> str:
    """Return Markdown as HTML, without the lines that a site's generator takes from its top."""
    body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.S)
    return markdown.markdown(body, extensions=["tables", "fenced_code"])
