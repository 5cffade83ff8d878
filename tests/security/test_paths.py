"""S4: hostile names in archives, tables and manifests: nothing outside the root is written or read."""

import os
import stat
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.security.damage import cards

from raremix.core import files
from raremix.core.archive import unpack_zip
from raremix.core.errors import RaremixError
from raremix.data.manifest import Manifest
from raremix.data.sources import Folder, Table
from raremix.data.sources.assemble import admit

# Forty ways out. What only other systems understand is refused here as well: tables travel.
HOSTILE = [
    "../x.png",
    "../../x.png",
    "a/../../x.png",
    "a/b/../../../x.png",
    "./../x.png",
    "a/./../../x.png",
    "..",
    "a/..",
    "/x.png",
    "//x.png",
    "/etc/passwd",
    "/dev/zero",
    "/dev/stdin",
    "/proc/self/environ",
    "~/x.png",
    "~root/x.png",
    "C:\\x.png",
    "C:/x.png",
    "C:x.png",
    "c:..\\x.png",
    "\\x.png",
    "\\\\server\\share\\x.png",
    "//server/share/x.png",
    "\\\\?\\C:\\x.png",
    "\\\\.\\COM1",
    "..\\x.png",
    "a\\..\\..\\x.png",
    "a/..\\..\\x.png",
    "..\\../x.png",
    "x.png\0.txt",
    "\0",
    "a/\0/x.png",
    "x\n.png",
    "x\r\n.png",
    "\x1b[2Jx.png",
    "\x7fx.png",
    "x\x00\x00.png",
    "a/../../../../../../../../etc/passwd",
    "..//x.png",
    "a//..//..//x.png",
]
# Names that deceive the eye; they lead nowhere, and are refused where a person reads them.
DECEIVING = ["gnp.\u202excod.png", "\u2066x.png", "x\u200f.png", "x\x85.png"]


def root(tmp_path: Path) -> Path:
    """A folder of images, with a secret beside it."""
    inner = tmp_path / "outer" / "set"
    for number in range(4):
        files.write_image(inner / f"{number}.png", np.full((4, 4, 1), number, dtype=np.uint8))
    files.write_image(tmp_path / "outer" / "x.png", np.full((4, 4, 1), 99, dtype=np.uint8))
    return inner


def test_forty() -> None:
    assert len(set(HOSTILE)) >= 40


@pytest.mark.parametrize("name", HOSTILE)
def test_archives(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    # Names longer than ZipInfo's own cutting at NUL are put in afterwards.
    clean = name.replace("\0", "\x01")
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("ok")
        info.filename = clean
        archive.writestr("ok.txt", b"ok")
        archive.writestr(info, b"evil")
    path.write_bytes(path.read_bytes().replace(clean.encode(), name.encode()))
    if name.partition("\0")[0] in {"x.png", "a/", "x"}:
        # Python cuts names at NUL; what is left leads nowhere.
        unpack_zip(path, tmp_path / "in" / "t")
    else:
        with pytest.raises(RaremixError, match=r"x\.zip"):
            unpack_zip(path, tmp_path / "in" / "t")
    inside = tmp_path / "in" / "t"
    assert {found for found in tmp_path.rglob("*") if found.is_file()} <= {
        path,
        inside / "ok.txt",
        inside / "x.png",
        inside / "x",
    }


@pytest.mark.parametrize("name", [*HOSTILE, *DECEIVING])
@pytest.mark.parametrize("how", ["table", "manifest", "mask"])
def test_tables(name: str, how: str, tmp_path: Path) -> None:
    place = root(tmp_path)
    paths = ["0.png", "1.png", "2.png", name]
    if how == "table":
        pl.DataFrame({"file": paths, "dx": ["a", "b", "a", "b"]}).write_csv(place / "t.csv")
        use = lambda: Table(path=place / "t.csv", label="dx").load(cache=tmp_path / "cache")  # noqa: E731
    else:
        columns = {"path": paths} if how == "manifest" else {"path": [f"{i}.png" for i in range(4)], "mask": paths}
        frame = pl.DataFrame({**columns, "target:a": [1, 0, 1, 0], "target:b": [0, 1, 0, 1]})
        frame.write_csv(place / "m.csv")
        (place / "card.json").write_bytes(cards()["json"])
        use = lambda: admit(Manifest.read(place / "m.csv"), cache=tmp_path / "cache")  # noqa: E731
    with pytest.raises(RaremixError) as caught:
        use()
    assert caught.value.exit_code == 2
    # Nothing that moves a terminal's cursor is printed.
    assert not any(mark in str(caught.value) for mark in ("\x1b", "\u202e", "\u2066"))
    assert "99" not in str(caught.value)


@pytest.mark.parametrize("kind", ["file", "folder", "absolute", "chain"])
def test_links(kind: str, tmp_path: Path) -> None:
    place = root(tmp_path)
    for name in "ab":
        for number in range(2):
            value = ord(name) + number
            files.write_image(place / name / f"{number}.png", np.full((4, 4, 1), value, dtype=np.uint8))
    for number in range(4):
        (place / f"{number}.png").unlink()
    if kind == "file":
        (place / "a" / "l.png").symlink_to("../../x.png")
    elif kind == "absolute":
        (place / "a" / "l.png").symlink_to(tmp_path / "outer" / "x.png")
    elif kind == "chain":
        (place / "a" / "m.png").symlink_to(tmp_path / "outer" / "x.png")
        (place / "a" / "l.png").symlink_to("m.png")
    else:
        (tmp_path / "outer" / "other").mkdir()
        (tmp_path / "outer" / "x.png").rename(tmp_path / "outer" / "other" / "x.png")
        (place / "c").symlink_to(tmp_path / "outer" / "other")
    with pytest.raises(RaremixError, match="links that lead out of"):
        Folder(path=place).load(cache=tmp_path / "cache")


def test_a_manifest_through_a_link(tmp_path: Path) -> None:
    """A link that a table names is followed to where it really leads."""
    place = root(tmp_path)
    (place / "3.png").unlink()
    (place / "3.png").symlink_to(tmp_path / "outer" / "x.png")
    frame = pl.DataFrame({"path": [f"{i}.png" for i in range(4)], "target:a": [1, 0, 1, 0], "target:b": [0, 1, 0, 1]})
    frame.write_csv(place / "m.csv")
    (place / "card.json").write_bytes(cards()["json"])
    with pytest.raises(RaremixError, match="links that lead out of"):
        admit(Manifest.read(place / "m.csv"), cache=tmp_path / "cache")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_members_that_are_no_files(kind: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("innocent.png")
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, b"/etc/passwd")
    with pytest.raises(RaremixError, match="would leave its folder"):
        unpack_zip(tmp_path / "x.zip", tmp_path / "t")
    assert not os.path.lexists(tmp_path / "t")


@pytest.mark.parametrize("pair", [("a.png", "A.PNG"), ("a", "a/b.png"), ("a.png", "a.png")])
def test_members_that_clash(pair: tuple[str, str], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive, pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *args, **options: None)
        for name in pair:
            archive.writestr(name, name.encode())
    with pytest.raises(RaremixError, match=r"x\.zip"):
        unpack_zip(tmp_path / "x.zip", tmp_path / "t")
    assert not (tmp_path / "t").exists()
