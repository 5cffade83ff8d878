"""Files named after what data say: within their folder, and one for each text."""

from itertools import product
from pathlib import Path

import pytest

from raremix.core import files

NAMES = [
    "..",
    ".",
    "",
    "/",
    "../x",
    "a/b",
    "a_b",
    "a b",
    "-rf",
    ".hidden",
    "C:\\x",
    "x\x00",
    "\u202egnp",
    "x" * 400,
    "血管",
]


@pytest.mark.parametrize("text", ["nevus", "bkl+", "stage_2.1", "血管"])
def test_a_fit_name_stays(text: str) -> None:
    assert files.file_name(text) == text


@pytest.mark.parametrize("text", NAMES)
def test_the_file_lies_in_its_folder(text: str, tmp_path: Path) -> None:
    path = files.write_text(tmp_path / "in" / files.file_name(text), "x")
    assert [*(tmp_path / "in").iterdir()] == [path]
    assert [*tmp_path.iterdir()] == [tmp_path / "in"]
    assert not path.name.startswith((".", "-"))
    assert len(path.name.encode()) < 200


def test_different_texts_have_different_files() -> None:
    texts = {"".join(letters) for letters in product("a_/ .-", repeat=4)} | set(NAMES)
    assert len({files.file_name(text) for text in texts}) == len(texts)
    # A text that looks like another one's file does not take its place.
    assert files.file_name(files.file_name("a/b")) != files.file_name("a/b")
