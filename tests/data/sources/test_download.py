from hashlib import md5, sha256
from pathlib import Path

import pytest
from tests.data.sources.web import Web

from raremix.core.errors import ConfigError, ReadError, StorageError
from raremix.data.sources import download as module
from raremix.data.sources.download import download

DATA = bytes(range(256)) * 20_000
SUM = f"md5:{md5(DATA).hexdigest()}"


def test_whole_file(web: Web, tmp_path: Path) -> None:
    web.files["/a.zip"] = DATA
    seen: list[tuple[str, int, int]] = []
    path = download(
        f"{web.url}/a.zip", tmp_path / "d" / "a.zip", checksum=SUM, progress=lambda *call: seen.append(call)
    )
    assert path.read_bytes() == DATA
    assert seen[-1] == ("fetch a.zip (MiB)", 4, 4)
    assert [p.name for p in path.parent.iterdir()] == ["a.zip"]
    # It is there: nothing is asked again.
    download(f"{web.url}/a.zip", path, checksum=f"sha256:{sha256(DATA).hexdigest()}")
    assert web.asked == [("/a.zip", None)]


def test_goes_on_where_the_connection_broke(web: Web, tmp_path: Path) -> None:
    web.files["/a"] = DATA
    web.breaks = [1_000_000, 2_500_000]
    path = download(f"{web.url}/a", tmp_path / "a", checksum=SUM, pause=0.0)
    assert path.read_bytes() == DATA
    assert [span for _, span in web.asked] == [None, "bytes=1000000-", "bytes=3500000-"]


def test_goes_on_in_a_later_run(web: Web, tmp_path: Path) -> None:
    web.files["/a"] = DATA
    web.breaks = [300_000] * module.ATTEMPTS
    with pytest.raises(StorageError, match="try again later, which goes on where it broke off"):
        download(f"{web.url}/a", tmp_path / "a", checksum=SUM, pause=0.0)
    assert (tmp_path / "a.part").stat().st_size == 300_000 * module.ATTEMPTS
    assert not (tmp_path / "a").exists()
    web.asked.clear()
    assert download(f"{web.url}/a", tmp_path / "a", checksum=SUM, pause=0.0).read_bytes() == DATA
    assert web.asked == [("/a", "bytes=1500000-")]
    assert not (tmp_path / "a.part").exists()


def test_a_server_that_knows_no_ranges(web: Web, tmp_path: Path) -> None:
    web.files["/a"] = DATA
    web.ranges = False
    web.breaks = [1_000_000]
    assert download(f"{web.url}/a", tmp_path / "a", checksum=SUM, pause=0.0).read_bytes() == DATA


def test_wrong_checksum(web: Web, tmp_path: Path) -> None:
    web.files["/a"] = DATA[:-1] + b"x"
    with pytest.raises(ReadError, match=r"a: md5 .*, expected .*: the download is damaged, try again"):
        download(f"{web.url}/a", tmp_path / "a", checksum=SUM)
    # Nothing of it stays, so that the next attempt begins anew.
    assert list(tmp_path.iterdir()) == []
    web.files["/a"] = DATA
    download(f"{web.url}/a", tmp_path / "a", checksum=SUM)
    (tmp_path / "a").write_bytes(b"changed")
    with pytest.raises(ReadError, match="damaged"):
        download(f"{web.url}/a", tmp_path / "a", checksum=SUM)


def test_a_part_that_is_whole_or_too_long(web: Web, tmp_path: Path) -> None:
    web.files["/a"] = DATA
    (tmp_path / "a.part").write_bytes(DATA)
    assert download(f"{web.url}/a", tmp_path / "a", checksum=SUM).read_bytes() == DATA
    (tmp_path / "b.part").write_bytes(DATA + b"more")
    assert download(f"{web.url}/a", tmp_path / "b", checksum=SUM).read_bytes() == DATA


def test_an_answer_that_is_an_error(web: Web, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="answers 404 Not Found: look whether it has moved"):
        download(f"{web.url}/gone", tmp_path / "a", checksum=None, pause=0.0)
    assert len(web.asked) == 1
    with pytest.raises(StorageError, match="cannot be reached"):
        download("http://127.0.0.1:9/a", tmp_path / "a", checksum=None, pause=0.0)


def test_redirects(web: Web, tmp_path: Path) -> None:
    web.files["/a"] = DATA
    web.redirects["/b"] = f"{web.url}/a"
    assert download(f"{web.url}/b", tmp_path / "a", checksum=SUM).read_bytes() == DATA
    web.redirects["/c"] = "file:///etc/hostname"
    with pytest.raises(StorageError, match="answers 302"):
        download(f"{web.url}/c", tmp_path / "c", checksum=None)


def test_what_is_refused(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="begins with https"):
        download("file:///etc/hostname", tmp_path / "a", checksum=None)
    web.files["/a"] = DATA
    with pytest.raises(ConfigError, match=r"expected md5:... or sha256:..."):
        download(f"{web.url}/a", tmp_path / "a", checksum="crc32:1")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1 << 20})())
    with pytest.raises(StorageError, match="MiB needed, 1 MiB free: choose another folder"):
        download(f"{web.url}/a", tmp_path / "b", checksum=SUM)
