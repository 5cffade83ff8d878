"""Looking at all files: resumed after a kill, repeated without reading, and never by a file's name alone."""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.data.toys import pictures, toy_manifest

from raremix.core import files
from raremix.data.audit import looks as looks_module
from raremix.data.audit.look import Look, look_at
from raremix.data.audit.looks import look_at_all


class Counter:
    """Counts the files that are decoded, and ends everything at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.stop = 0, 10**9
        monkeypatch.setattr(looks_module, "look_at", self)

    def __call__(self, data: bytes, **options: object) -> Look:
        self.count += 1
        if self.count > self.stop:
            raise KeyboardInterrupt
        return look_at(data, **options)  # type: ignore[arg-type]


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(monkeypatch)


def test_a_second_audit_decodes_nothing_and_sees_the_same(tmp_path: Path, counter: Counter) -> None:
    pictures(tmp_path / "data", 40)
    manifest = toy_manifest([0, 1] * 20, root=tmp_path / "data")
    first = look_at_all(manifest, cache=tmp_path / "cache")
    assert (counter.count, first.reused) == (40, 0)
    again = look_at_all(manifest, cache=tmp_path / "cache", workers=1)
    assert (counter.count, again.reused) == (40, 40)
    assert again.frame.equals(first.frame)
    assert (again.thumbnails == first.thumbnails).all()
    assert first.is_readable.all()


def test_a_killed_audit_resumes(tmp_path: Path, counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks_module, "PART", 8)
    monkeypatch.setattr(looks_module, "CHUNK", 4)
    pictures(tmp_path / "data", 40)
    manifest = toy_manifest([0, 1] * 20, root=tmp_path / "data")
    counter.stop = 30
    with pytest.raises(KeyboardInterrupt):
        look_at_all(manifest, cache=tmp_path / "cache", workers=1)
    counter.stop, counter.count = 10**9, 0
    resumed = look_at_all(manifest, cache=tmp_path / "cache", workers=1)
    assert resumed.reused >= 16
    assert counter.count == 40 - resumed.reused
    assert resumed.frame.equals(look_at_all(manifest, cache=tmp_path / "other").frame)


def test_a_renamed_file_is_known_by_its_content(tmp_path: Path, counter: Counter) -> None:
    pictures(tmp_path, 4)
    manifest = toy_manifest([0, 1, 0, 1], root=tmp_path)
    look_at_all(manifest, cache=tmp_path / "cache")
    (tmp_path / "000.png").rename(tmp_path / "x")
    (tmp_path / "001.png").rename(tmp_path / "000.png")
    (tmp_path / "x").rename(tmp_path / "001.png")
    os.utime(tmp_path / "000.png", (1, 1))
    os.utime(tmp_path / "001.png", (2, 2))
    swapped = look_at_all(manifest, cache=tmp_path / "cache")
    assert counter.count == 4
    expected = look_at_all(manifest, cache=tmp_path / "other")
    assert swapped.frame.equals(expected.frame)
    assert (swapped.thumbnails == expected.thumbnails).all()


def test_a_changed_file_is_looked_at_again(tmp_path: Path) -> None:
    pictures(tmp_path, 3)
    manifest = toy_manifest([0, 1, 0], root=tmp_path)
    before = look_at_all(manifest, cache=tmp_path / "cache")
    files.write_image(tmp_path / "001.png", np.zeros((5, 9), dtype=np.uint8))
    after = look_at_all(manifest, cache=tmp_path / "cache")
    assert after.reused == 2
    assert after.frame["width"].to_list() == [8, 9, 8]
    assert before.frame["width"].to_list() == [8, 8, 8]


def test_missing_and_broken_files_are_told_and_tried_again(tmp_path: Path) -> None:
    pictures(tmp_path, 4)
    (tmp_path / "001.png").unlink()
    (tmp_path / "002.png").write_bytes((tmp_path / "000.png").read_bytes()[:60])
    (tmp_path / "003.png").write_bytes(b"")
    manifest = toy_manifest([0, 1, 0, 1], root=tmp_path)
    seen = look_at_all(manifest, cache=tmp_path / "cache")
    assert seen.is_readable.tolist() == [True, False, False, False]
    assert not any(".png" in reason for reason in seen.frame["reason"])
    pictures(tmp_path, 4)
    assert look_at_all(manifest, cache=tmp_path / "cache").is_readable.all()


def test_a_damaged_cache_is_made_again_and_holds_no_name(tmp_path: Path) -> None:
    pictures(tmp_path / "canary-4711", 3)
    manifest = toy_manifest([0, 1, 0], root=tmp_path / "canary-4711")
    look_at_all(manifest, cache=tmp_path / "cache")
    parts = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(parts) == 1
    assert "4711" not in str(pl.read_parquet(parts[0]).drop("thumbnail").rows())
    assert not any("000.png" in str(row) for row in pl.read_parquet(parts[0]).rows())
    parts[0].write_bytes(b"broken")
    assert look_at_all(manifest, cache=tmp_path / "cache").reused == 0


def test_a_data_set_without_rows_left(tmp_path: Path) -> None:
    empty = toy_manifest([0, 1], root=tmp_path).select(np.zeros(0, dtype=np.int64))
    assert look_at_all(empty, cache=tmp_path / "cache").frame.height == 0
