"""Write small .xlsx workbooks, as Excel does."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from raremix.core import files

MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


def sheet_xml(rows: Sequence[Sequence[str | int | None]], shared: list[str]) -> str:
    """Return a sheet; texts go to `shared`, empty cells are left out."""
    lines = []
    for r, row in enumerate(rows, start=1):
        cells = []
        for c, value in enumerate(row):
            if value is None:
                continue
            place = f"{chr(65 + c)}{r}"
            if isinstance(value, int):
                cells.append(f'<c r="{place}"><v>{value}</v></c>')
            else:
                cells.append(f'<c r="{place}" t="s"><v>{len(shared)}</v></c>')
                shared.append(value)
        lines.append(f'<row r="{r}">{"".join(cells)}</row>')
    return f'<?xml version="1.0"?><worksheet {MAIN}><sheetData>{"".join(lines)}</sheetData></worksheet>'


def put_workbook(path: Path, rows: Sequence[Sequence[str | int | None]]) -> Path:
    """Write one sheet."""
    shared: list[str] = []
    sheet = sheet_xml(rows, shared)
    texts = "".join(f"<si><t>{escape(text)}</t></si>" for text in shared)
    return put_parts(
        path,
        {
            "xl/worksheets/sheet1.xml": sheet,
            "xl/sharedStrings.xml": f'<?xml version="1.0"?><sst {MAIN}>{texts}</sst>',
        },
    )


def put_parts(path: Path, parts: dict[str, str]) -> Path:
    """Write a zip of texts."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return files.write_bytes(path, buffer.getvalue())
