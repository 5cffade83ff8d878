from pathlib import Path

import pytest
from tests.data.sources.spreadsheets import MAIN, put_parts, put_workbook

from raremix.core.errors import ManifestError
from raremix.data.sources.spreadsheet import read_spreadsheet


def test_cells(tmp_path: Path) -> None:
    path = put_workbook(
        tmp_path / "t.xlsx", [["File name", "Age ", None, "x"], ["a & b.png", 41], ["c.png", None, "n"], []]
    )
    table = read_spreadsheet(path)
    assert table.columns == ["File name", "Age", "column 3", "x"]
    assert table.rows() == [("a & b.png", "41", None, None), ("c.png", None, "n", None), (None, None, None, None)]


def test_inline_and_rich_text(tmp_path: Path) -> None:
    rich = (
        '<c r="A2" t="inlineStr"><is><r><t>two </t></r><r><t>runs</t></r><rPh sb="0" eb="1"><t>hint</t></rPh></is></c>'
    )
    sheet = f'<worksheet {MAIN}><row><c t="inlineStr"><is><t>name</t></is></c></row><row>{rich}</row></worksheet>'
    table = read_spreadsheet(put_parts(tmp_path / "t.xlsx", {"xl/worksheets/sheet1.xml": sheet}))
    assert table["name"].to_list() == ["two runs"]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"xl/other.xml": "<a/>"}, "holds no sheet"),
        ({"xl/worksheets/sheet1.xml": "<worksheet>"}, "is not a readable .xlsx"),
        ({"xl/worksheets/sheet1.xml": f"<worksheet {MAIN}/>"}, "is empty"),
        (
            {
                "xl/worksheets/sheet1.xml": '<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]>'
                "<worksheet>&b;</worksheet>"
            },
            "declares entities",
        ),
        (
            {"xl/worksheets/sheet1.xml": f'<worksheet {MAIN}><row><c t="s"><v>7</v></c></row></worksheet>'},
            "cannot be read",
        ),
        (
            {"xl/worksheets/sheet1.xml": f'<worksheet {MAIN}><row><c r="ZZZZ1"><v>7</v></c></row></worksheet>'},
            "in column",
        ),
        (
            {"xl/worksheets/sheet1.xml": f"<worksheet {MAIN}><row><c><v>7</v></c><c><v>7</v></c></row></worksheet>"},
            "two columns called '7'",
        ),
    ],
)
def test_refused(tmp_path: Path, parts: dict[str, str], words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        read_spreadsheet(put_parts(tmp_path / "t.xlsx", parts))


def test_no_workbook(tmp_path: Path) -> None:
    (tmp_path / "t.xlsx").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(ManifestError, match=r"is not a readable .xlsx .*: save it as CSV"):
        read_spreadsheet(tmp_path / "t.xlsx")


def test_a_bomb_is_not_unfolded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raremix.data.sources.spreadsheet.MAX_BYTES", 1 << 12)
    parts = {"xl/worksheets/sheet1.xml": "<worksheet>" + " " * (1 << 16) + "</worksheet>"}
    with pytest.raises(ManifestError, match="unpacks to more than"):
        read_spreadsheet(put_parts(tmp_path / "t.xlsx", parts))
