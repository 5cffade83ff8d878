import errno
from pathlib import Path
from typing import BinaryIO

import pytest

from raremix.core import files
from raremix.core.errors import ReadError, StorageError


def accept(part: Path) -> None:
    assert part.is_file()


def test_what_was_written_stays_beside_the_target(tmp_path: Path) -> None:
    path = tmp_path / "d" / "a.bin"

    def first(file: BinaryIO) -> None:
        files.DISK.write(file, b"one ")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_resumable(path, first, verify=accept)
    assert not path.exists()
    seen = []

    def second(file: BinaryIO) -> None:
        seen.append(file.tell())
        files.DISK.write(file, b"two")

    assert files.write_resumable(path, second, verify=accept).read_bytes() == b"one two"
    assert seen == [4]
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]


def test_a_part_that_fails_its_check_is_removed(tmp_path: Path) -> None:
    def refuse(part: Path) -> None:
        raise ReadError(part.name, "damaged")

    with pytest.raises(ReadError):
        files.write_resumable(tmp_path / "a", lambda file: files.DISK.write(file, b"x"), verify=refuse)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(files.Disk):
        def write(self, file: BinaryIO, data: bytes | memoryview) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "DISK", Full())
    with pytest.raises(StorageError, match=r"a: No space left on device .*free some space"):
        files.write_resumable(tmp_path / "a", lambda file: files.DISK.write(file, b"x"), verify=accept)
    assert not (tmp_path / "a").exists()
