import io
import stat
import zipfile
from pathlib import Path

import pytest

from raremix.core import archive as module
from raremix.core.archive import unpack_zip
from raremix.core.errors import ReadError


def put(path: Path, members: dict[str, bytes], *, mode: int | None = None) -> Path:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if mode is not None:
                info.external_attr = mode << 16
            opened.writestr(info, data)
    path.write_bytes(buffer.getvalue())
    return path


def test_files_and_folders(tmp_path: Path) -> None:
    members = {"a/": b"", "a/b/1.txt": b"one", "2.txt": b"", "__MACOSX/a/._1.txt": b"x"}
    path = put(tmp_path / "t.zip", members)
    target = unpack_zip(path, tmp_path / "out" / "t")
    assert sorted(p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()) == ["2.txt", "a/b/1.txt"]
    assert (target / "a/b/1.txt").read_bytes() == b"one"
    (target / "2.txt").write_bytes(b"mine")
    assert unpack_zip(path, target) == target
    assert (target / "2.txt").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "/etc/x", "~/x", "C:/x", "C:x", "..\\x", "a\\..\\x", "a/..", "x\x1b[2J", "x\ny"],
)
def test_names_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    path = put(tmp_path / "t.zip", {"ok.txt": b"ok", name: b"evil"})
    with pytest.raises(ReadError, match=r"would leave its folder: do not use it"):
        unpack_zip(path, tmp_path / "in" / "t")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["t.zip"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices(tmp_path: Path, kind: int) -> None:
    path = put(tmp_path / "t.zip", {"link": b"/etc/passwd"}, mode=kind | 0o777)
    with pytest.raises(ReadError, match="would leave its folder"):
        unpack_zip(path, tmp_path / "t")


def test_names_that_clash(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="twice"):
        unpack_zip(put(tmp_path / "t.zip", {"a.txt": b"", "A.TXT": b""}), tmp_path / "t")


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "t.zip", {"zeros": bytes(8 << 20)})
    with pytest.raises(ReadError, match="unpacks more than 200-fold: a bomb"):
        unpack_zip(path, tmp_path / "t")
    path = put(tmp_path / "u.zip", {f"{i}": bytes(1000) for i in range(10)})
    with pytest.raises(ReadError, match="unpacks to 10,000 bytes, expected at most 9,999"):
        unpack_zip(path, tmp_path / "u", max_bytes=9_999)
    monkeypatch.setattr(module, "MAX_FILES", 9)
    with pytest.raises(ReadError, match="holds 10 files, expected at most 9"):
        unpack_zip(path, tmp_path / "u")


def test_a_damaged_archive_leaves_nothing(tmp_path: Path) -> None:
    path = put(tmp_path / "t.zip", {"a": b"one" * 100, "b": bytes(range(256)) * 30})
    data = path.read_bytes()
    for damaged in (b"", data[: len(data) // 2], data.replace(b"one", b"two", 1), data[:60] + bytes(20) + data[80:]):
        if damaged == data:
            continue
        path.write_bytes(damaged)
        with pytest.raises(ReadError, match="fetch it again"):
            unpack_zip(path, tmp_path / "t")
        assert [p.name for p in tmp_path.iterdir()] == ["t.zip"]


def test_progress(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    path = put(tmp_path / "t.zip", {f"{i}": b"x" for i in range(65)})
    unpack_zip(path, tmp_path / "t", progress=lambda *call: seen.append(call))
    assert seen == [("unpack", 64, 65), ("unpack", 65, 65)]
