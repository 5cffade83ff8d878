"""raremix.data.inspection and the verb `raremix inspect`: one line per file, and the exit code."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from tests.data.dicoms import dicom
from typer.testing import CliRunner

from raremix.cli import app
from raremix.core.errors import ReadError
from raremix.data.inspection import find_files, inspect_files, to_markdown
from raremix.data.readers import Reading


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    (folder / "inner").mkdir(parents=True)
    Image.fromarray(np.zeros((3, 5), dtype=np.uint8)).save(folder / "a.png")
    frames = np.zeros((4, 6, 7), dtype=np.uint16)
    (folder / "inner" / "no_ending").write_bytes(dicom(frames, PatientName="Canary^Person", PatientID="MRN-CANARY"))
    (folder / "inner" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_every_file_gets_a_line(images: Path) -> None:
    paths = find_files([images])
    assert [path.name for path in paths] == ["a.png", "broken.jpg", "no_ending"]
    table, pictures = inspect_files(paths, reading=Reading(frames=1), thumbnails=True)
    rows = {row["file"]: row for row in table.to_dicts()}
    assert rows["a.png"] == {
        "file": "a.png", "kind": "PNG", "picture": "5 x 3 grey, 8 bit", "how": "mode L", "why not": ""
    }  # fmt: skip
    assert rows["inner/no_ending"]["picture"] == "7 x 6 grey, 16 bit"
    assert rows["inner/no_ending"]["how"] == "Explicit VR Little Endian; MONOCHROME2; frame 1 of 4; values 0 to 0"
    assert "header is damaged" in rows["inner/broken.jpg"]["why not"]
    assert len(pictures) == 2
    assert "2 of 3 files were read." in to_markdown(table)
    with pytest.raises(ReadError, match="no such file"):
        find_files([images / "gone"])
    with pytest.raises(ReadError, match="holds no images"):
        find_files([images / "notes.txt"] and [(images / "empty", (images / "empty").mkdir())[0]])


def test_the_verb(images: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    refused = run(app, ["inspect", str(images), "-o", str(tmp_path / "t.csv")])
    assert refused.exit_code == 1
    assert "[data] reading" in refused.output
    assert "1 of 3 files were read" in refused.output
    assert "--set frames=middle" in refused.output
    assert pl.read_csv(tmp_path / "t.csv").height == 3
    good = run(
        app,
        [
            *("inspect", str(images / "a.png"), str(images / "inner" / "no_ending"), "--json"),
            *("--set", "frames=middle", "--set", "window=[40, 400]"),
            *("--picture", str(tmp_path / "p.png"), "-o", str(tmp_path / "t.md")),
        ],
    )
    assert good.exit_code == 0
    facts = json.loads(good.stdout)
    assert (facts["read"], facts["failed"]) == (2, 0)
    assert "window 40/400" in facts["files"][1]["how"]
    with Image.open(tmp_path / "p.png") as sheet:
        assert sheet.size == (9 * 132, 132)
    text = (tmp_path / "t.md").read_text()
    assert "| inner/no_ending | DICOM |" in text
    assert "CANARY" not in (text + good.stdout + refused.output).upper().replace("NO CANARY", "")
    dry = run(app, ["inspect", str(images), "--dry-run", "--json"])
    assert json.loads(dry.stdout) == {"files": 3, "reading": {}}


def test_wrong_settings_are_refused(images: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    assert "did you mean 'frames'" in str(run(app, ["inspect", str(images), "--set", "frame=1"]).exception)
    assert "should be 'refuse', 'first'" in str(run(app, ["inspect", str(images), "--set", "frames=last"]).exception)
    assert "expected .csv" in str(run(app, ["inspect", str(images), "-o", str(tmp_path / "x.txt")]).exception)
