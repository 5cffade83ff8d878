"""The page of an audit: one file that asks for nothing, whatever the data say, and that stays small."""

import base64
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from raremix.report import audit as page
from raremix.report.audit import (
    AuditRecord,
    Finding,
    Ranked,
    fit,
    render_audit,
    rows_in_words,
    write_audit,
)
from raremix.report.strip import Shown, Strip

PAYLOADS = (
    "<script>console.log(1)</script>",
    '"><img src=x onerror=console.log(1)>',
    "'-alert(1)-'",
    "</style><script>console.log(1)</script>",
    "{{ 7 * 7 }}",
    "javascript:console.log(1)",
    "&lt;script&gt;",
    "\u202e<svg onload=console.log(1)>",
)
PICTURE = base64.b64encode(b"jpeg" * 300).decode()


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(html: str) -> Elements:
    parser = Elements()
    parser.feed(html)
    parser.close()
    return parser


def strip(sets: int, *, of: int = 2, caption: str = "row 1, test\nsick") -> Strip:
    one = tuple(Shown(picture=PICTURE, caption=caption) for _ in range(of))
    return Strip(sets=(one,) * sets, notes=("similarity 0.99",) * sets)


def record(text: str = "sick", **changes: object) -> AuditRecord:
    finding = Finding(
        level="leak", title=text, cost=text, advice=text, sets=((1, 2), (7,)), strip=strip(2, caption=f"{text}\n{text}")
    )
    made = AuditRecord(
        name=text,
        created=text,
        version=text,
        lead=text,
        facts=((text, text),),
        findings=(finding, replace(finding, level="harm"), replace(finding, level="note", sets=(), strip=Strip())),
        noun="label",
        splits=(text, f"{text}2"),
        counts={text: [(5, 3), (2, 1)], "other": [(1, 1), (0, 0)]},
        totals=[(6, 4), (2, 1)],
        is_grouped=True,
        labels=(text, "other"),
        together=[[7, 1], [1, 1]],
        sizes=((text, 8),),
        kinds=((text, 8),),
        brightness=(0, 3, 5, 0),
        ranked=(Ranked(title=text, words=text, total=9, look_at=4, strip=strip(4)),),
        provenance=((text, text),),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_the_page_refers_to_nothing_outside_itself() -> None:
    found = parsed(render_audit(record())).found
    tags = {tag for tag, _ in found}
    assert not tags & {"script", "iframe", "object", "embed", "form", "base", "video", "audio", "input"}
    policy = [a["content"] for tag, a in found if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policy) == 1
    assert str(policy[0]).startswith("default-src 'none'")
    for tag, attributes in found:
        assert not any(key.startswith("on") or key == "style" for key in attributes)
        if "src" in attributes:
            assert str(attributes["src"]).startswith("data:image/jpeg;base64,")
        if "href" in attributes:
            assert tag == "link" or str(attributes["href"]).startswith("#")


def test_whatever_the_data_say_is_text() -> None:
    plain = [(tag, tuple(sorted(a))) for tag, a in parsed(render_audit(record())).found]
    for payload in PAYLOADS:
        seen = parsed(render_audit(record(payload)))
        assert [(tag, tuple(sorted(a))) for tag, a in seen.found] == plain
        assert payload[0].upper() + payload[1:] in seen.text
        assert "49" not in seen.text.split("Figure")[0]


def test_pairs_stand_side_by_side_with_their_rows_and_labels() -> None:
    html = render_audit(record("X"))
    assert "1 + 2, 7" in html
    assert html.count("similarity 0.99") == 2 + 2 + 4
    assert "Look at the first 4" in html
    assert html.count('class="set"') == 2 + 2 + 4


def test_a_clean_data_set_says_so() -> None:
    html = render_audit(record(findings=(), ranked=(), labels=(), together=()))
    assert "Nothing: every file can be read" in html
    assert 'id="suspects"' not in html


def test_too_many_pictures_are_cut_evenly_and_told(monkeypatch) -> None:
    made = record()
    assert fit(made, budget=10**7)[1] == 0
    kept, dropped = fit(made, budget=8 * len(PICTURE))
    # Two findings with two sets of two, and four pairs of suspects: one set each is six pictures, two are twelve.
    assert [len(found.strip.sets) for found in kept.findings] == [1, 1, 0]
    assert len(kept.ranked[0].strip.sets) == 1
    assert dropped == 16 - 6
    assert fit(made, budget=0)[1] == 16
    monkeypatch.setattr(page, "IMAGE_BUDGET", 0)
    assert "16 more pictures were left out" in render_audit(made)


def test_very_many_rows_are_not_all_written() -> None:
    words = rows_in_words([(k, k + 1) for k in range(0, 20_000, 2)])
    assert words.startswith("0 + 1, 2 + 3")
    assert words.endswith("see --json")
    assert len(words) < 40_000


def test_a_large_audit_stays_small(tmp_path: Path) -> None:
    big = Finding(
        level="leak", title="t", cost="c", advice="a", sets=tuple((k,) for k in range(30_000)), strip=strip(8, of=4)
    )
    path = write_audit(tmp_path / "audit.html", record(findings=(big,) * 4))
    assert path.stat().st_size < 5_000_000
