from hashlib import sha256
from pathlib import Path

import pytest
from tests.data.toys import pictures, toy_manifest

from raremix.core import files
from raremix.core.errors import ReadError
from raremix.data import digests
from raremix.data.digests import with_digests


def test_files_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path / "data", 5)
    manifest = toy_manifest([0, 1, 0, 1, 0], root=tmp_path / "data")
    seen: list[tuple[str, int, int]] = []
    hashed = with_digests(manifest, cache=tmp_path / "cache", progress=lambda *call: seen.append(call))
    expected = [sha256((tmp_path / "data" / f"00{i}.png").read_bytes()).hexdigest() for i in range(5)]
    assert hashed.frame["sha256"].to_list() == expected
    assert seen == [("hash files", 5, 5)]

    read: list[str] = []
    real = digests.read_bytes
    monkeypatch.setattr(digests, "read_bytes", lambda path, **options: read.append(path.name) or real(path, **options))
    again = with_digests(manifest, cache=tmp_path / "cache")
    assert again.frame.equals(hashed.frame)
    assert read == []
    files.write_bytes(tmp_path / "data" / "003.png", b"other")
    changed = with_digests(manifest, cache=tmp_path / "cache")
    assert read == ["003.png"]
    assert changed.frame["sha256"][3] == sha256(b"other").hexdigest()


def test_given_hashes_are_kept(tmp_path: Path) -> None:
    pictures(tmp_path, 2)
    manifest = toy_manifest([0, 1], root=tmp_path, sha256=["a" * 64, None])
    hashed = with_digests(manifest, cache=tmp_path / "cache")
    assert hashed.frame["sha256"][0] == "a" * 64
    assert hashed.frame["sha256"].null_count() == 0


def test_a_damaged_index_is_made_again(tmp_path: Path) -> None:
    pictures(tmp_path / "data", 2)
    manifest = toy_manifest([0, 1], root=tmp_path / "data")
    hashed = with_digests(manifest, cache=tmp_path / "cache")
    (index,) = (tmp_path / "cache" / digests.INDEX).iterdir()
    index.write_bytes(b"rubbish")
    assert with_digests(manifest, cache=tmp_path / "cache").frame.equals(hashed.frame)


def test_the_index_names_no_file(tmp_path: Path) -> None:
    pictures(tmp_path / "data", 2)
    with_digests(toy_manifest([0, 1], root=tmp_path / "data"), cache=tmp_path / "cache")
    (index,) = (tmp_path / "cache" / digests.INDEX).iterdir()
    assert b"000.png" not in index.read_bytes()


def test_missing_file_is_named(tmp_path: Path) -> None:
    pictures(tmp_path, 1)
    manifest = toy_manifest([0, 1, 0, 1, 0, 1, 1], root=tmp_path)
    with pytest.raises(
        ReadError, match=r"row 1 \(001.png\): cannot be read .*; look also at row 2 .* and 1 more"
    ) as caught:
        with_digests(manifest, cache=tmp_path / "cache")
    assert "(6 of 7 files cannot be read); or leave them out on purpose with --on-unreadable skip" in str(caught.value)
    hashed, reasons = digests.try_digests(manifest, cache=tmp_path / "cache")
    assert sorted(reasons) == [1, 2, 3, 4, 5, 6]
    assert hashed.frame["sha256"].null_count() == 6
