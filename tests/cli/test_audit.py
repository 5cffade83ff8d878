"""`raremix audit` as a user meets it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from raremix.core import files

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table with one patient in two splits."""
    for k in range(12):
        coarse = np.random.default_rng(k).integers(30, 220, (6, 6), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC)
        files.write_image(tmp_path / f"{k:02d}.png", np.asarray(image))
    columns = {
        "file": [f"{k:02d}.png" for k in range(12)],
        "dx": ["well", "sick"] * 6,
        "who": ["p", *(str(k) for k in range(1, 11)), "p"],
        "fold": ["train"] * 6 + ["test"] * 6,
    }
    pl.DataFrame(columns).write_csv(tmp_path / "labels.csv")
    return tmp_path / "labels.csv"


def test_it_prints_what_it_found_and_writes_the_page(run: Run, table: Path, tmp_path: Path) -> None:
    common = ("audit", table, "--label", "dx", "--group", "who", "--split", "fold", "--cache", tmp_path / "cache")
    page = tmp_path / "out" / "audit.html"
    code, said, _ = run(*common, "-o", page, "--markdown", tmp_path / "a.md", "--rows", tmp_path / "rows.csv")
    assert code == 0
    assert "1 group (patients, lesions) in more than one split" in " ".join(said.split())
    assert "rows 0 + 11" in said
    assert "Page: " in said
    assert page.read_text().startswith("<!doctype html>") or "<!doctype html>" in page.read_text()
    assert "| leak |" in (tmp_path / "a.md").read_text()
    assert pl.read_csv(tmp_path / "rows.csv")["path"].to_list()[0] == "00.png"


def test_json_holds_the_same_and_strict_ends_with_three(run: Run, table: Path, tmp_path: Path) -> None:
    common = ("audit", table, "--label", "dx", "--group", "who", "--split", "fold", "--cache", tmp_path / "cache")
    code, said, errors = run(*common, "--runs", tmp_path, "--json", "--strict", "--no-pictures")
    assert (code, errors) == (3, "")
    facts = json.loads(said)
    assert facts["page"] == str(tmp_path / "audits" / "labels.html")
    assert facts["problems"][0]["sets"] == [[0, 11]]
    assert "data:image/jpeg" not in (tmp_path / "audits" / "labels.html").read_text()


def test_a_dry_run_writes_nothing(run: Run, table: Path, tmp_path: Path) -> None:
    code, said, _ = run("audit", table, "--label", "dx", "--cache", tmp_path / "cache", "--runs", tmp_path, "--dry-run")
    assert (code, "would look at 12 images" in said) == (0, True)
    assert not (tmp_path / "audits").exists()


def test_errors_say_what_to_do(run: Run, table: Path, tmp_path: Path) -> None:
    assert run("audit", tmp_path / "nowhere")[0] == 2
    code, _, errors = run("audit", table, "--label", "dx", "-o", tmp_path / "page.pdf")
    assert (code, "expected a .html file" in errors) == (2, True)
    code, _, errors = run("audit", table, "--label", "diagnosis")
    assert code == 2
    assert "no column 'diagnosis'" in " ".join(errors.split())


def test_help_teaches(run: Run) -> None:
    code, said, _ = run("audit", "--help")
    assert code == 0
    assert "raremix audit labels.csv" in said
