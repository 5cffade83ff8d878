"""Read the first sheet of an .xlsx workbook as text: some public sets publish their tables so.

The format is a zip of XML (ECMA-376, https://ecma-international.org/publications-and-standards/standards/ecma-376/).
Only cells are read: no formulas are computed, no links followed, and a document type declaration, which could define
entities that unfold without end, is refused.
"""

import re
import zipfile
import zlib
from pathlib import Path
from xml.etree import ElementTree

import polars as pl

from raremix.core.errors import ManifestError

MAX_BYTES = 1 << 27
MAX_COLUMNS = 1 << 10
_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def read_spreadsheet(path: Path) -> pl.DataFrame:
    """Return the first sheet as a table of text; its first row names the columns, and empty cells are null.

    Raises:
        ManifestError: if the file is missing, is no workbook, or is too large.

    Example:
        ``read_spreadsheet(Path("COVID-CT-MetaInfo.xlsx")).columns``
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            sheets = sorted(n for n in names if re.fullmatch(r"xl/worksheets/sheet\d+\.xml", n))
            if not sheets:
                raise ManifestError(f"{path.name} holds no sheet: save it as CSV")
            first = "xl/worksheets/sheet1.xml" if "xl/worksheets/sheet1.xml" in sheets else sheets[0]
            shared = _strings(_parse(archive, "xl/sharedStrings.xml", path)) if "xl/sharedStrings.xml" in names else []
            rows = _rows(_parse(archive, first, path), shared)
    except (OSError, zipfile.BadZipFile, zlib.error, ElementTree.ParseError, EOFError, RuntimeError) as error:
        raise ManifestError(f"{path.name} is not a readable .xlsx ({error}): save it as CSV") from None
    except (ValueError, IndexError, NotImplementedError) as error:
        raise ManifestError(f"{path.name} holds cells that cannot be read ({error}): save it as CSV") from None
    if not rows:
        raise ManifestError(f"{path.name} is empty: expected a first row of names")
    width = max(rows[0], default=-1) + 1
    names = [(rows[0].get(c) or f"column {c + 1}").strip() for c in range(width)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ManifestError(f"{path.name} has two columns called {twice[0]!r}: rename one")
    data = {name: [row.get(c) for row in rows[1:]] for c, name in enumerate(names)}
    return pl.DataFrame(data, schema=dict.fromkeys(names, pl.Utf8))


def _parse(archive: zipfile.ZipFile, name: str, path: Path) -> ElementTree.Element:
    with archive.open(name) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ManifestError(f"{path.name} unpacks to more than {MAX_BYTES >> 20} MiB: save it as CSV")
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise ManifestError(f"{path.name} declares entities, which no spreadsheet needs: save it as CSV")
    return ElementTree.fromstring(data)


def _strings(root: ElementTree.Element) -> list[str]:
    return [_text(item) for item in root.iter(f"{_MAIN}si")]


def _text(item: ElementTree.Element) -> str:
    # Phonetic hints of Asian scripts (rPh) are no part of the text.
    hints = {id(t) for hint in item.iter(f"{_MAIN}rPh") for t in hint.iter(f"{_MAIN}t")}
    return "".join(t.text or "" for t in item.iter(f"{_MAIN}t") if id(t) not in hints)


def _rows(root: ElementTree.Element, shared: list[str]) -> list[dict[int, str | None]]:
    rows = []
    for row in root.iter(f"{_MAIN}row"):
        cells: dict[int, str | None] = {}
        for place, cell in enumerate(row.iter(f"{_MAIN}c")):
            letters = re.match(r"[A-Z]+", cell.get("r", ""))
            column = place if letters is None else _number(letters[0])
            if column >= MAX_COLUMNS:
                raise ValueError(f"a cell in column {column + 1}")
            kind = cell.get("t")
            value = cell.findtext(f"{_MAIN}v")
            if kind == "inlineStr":
                value = _text(cell)
            elif kind == "s" and value is not None:
                value = shared[int(value)]
            cells[column] = None if value is None or not value.strip() else value.strip()
        rows.append(cells)
    return rows


def _number(letters: str) -> int:
    """Return the number of a column from 0: A is 0, Z 25, AA 26."""
    number = 0
    for letter in letters[:8]:
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1
