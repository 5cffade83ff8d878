import errno
import io
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import polars as pl
import pytest
import safetensors.torch
import torch
from PIL import Image
from tests.core.faults import CountingDisk, Crash, CrashingDisk, FailingDisk, PowerDisk, crash_points, power_cuts

from raremix.core import files
from raremix.core.errors import BusyError, CorruptError, StorageError
from raremix.core.files import claims
from raremix.core.files.temporary import birth, host

FRAME = pl.DataFrame({"a": [1, 2, 3], "b": ["x", "y", None]})
PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)

WRITERS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda path: files.write_bytes(path, b"new" * 100),
    "text": lambda path: files.write_text(path, "naïve " * 50),
    "json": lambda path: files.write_json(path, {"a": [1, 2.5, None], "é": "ü"}),
    "parquet": lambda path: files.write_parquet(path, FRAME),
    "csv": lambda path: files.write_csv(path, FRAME),
    "tensors": lambda path: files.write_tensors(path, {"w": torch.arange(6.0).reshape(2, 3)}, {"format": "pt"}),
    "image": lambda path: files.write_image(path, PIXELS),
    "array": lambda path: files.stream_array(path, [np.arange(5), np.arange(7)]),
    "records": lambda path: files.write_records(path, [{"n": 1}, {"n": 2}]),
}


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if files.TEMP_MARK in path.name)


@pytest.fixture
def umask_027() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


# What is written can be read


def test_everything_comes_back(tmp_path: Path) -> None:
    for name, write in WRITERS.items():
        write(tmp_path / "deep" / "er" / name)
    deep = tmp_path / "deep" / "er"
    assert (deep / "text").read_text(encoding="utf-8") == "naïve " * 50
    assert files.read_json(deep / "json") == {"a": [1, 2.5, None], "é": "ü"}
    assert pl.read_parquet(deep / "parquet").equals(FRAME)
    assert pl.read_csv(deep / "csv").equals(FRAME)
    assert safetensors.torch.load_file(deep / "tensors")["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    np.testing.assert_array_equal(np.asarray(Image.open(deep / "image")), PIXELS)
    np.testing.assert_array_equal(np.frombuffer((deep / "array").read_bytes(), dtype=np.int64), [*range(5), *range(7)])
    assert files.read_records(deep / "records") == [{"n": 1}, {"n": 2}]
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 3), (5, 4, 4)])
def test_images_of_any_channels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = np.asarray(Image.open(files.write_image(tmp_path / "i.png", image)))
    np.testing.assert_array_equal(found, image.squeeze())


def test_sixteen_bit_images(tmp_path: Path) -> None:
    image = np.array([[0, 65535], [1, 256]], dtype=np.uint16)
    np.testing.assert_array_equal(np.asarray(Image.open(files.write_image(tmp_path / "i.png", image))), image)


def test_tensors_that_share_memory_are_written_once_each(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    shared = {"a": base[:6].view(2, 3), "b": base[6:], "c": base, "empty": torch.zeros(0), "none": torch.zeros(0, 3)}
    files.write_tensors(tmp_path / "t", shared)
    loaded = safetensors.torch.load_file(tmp_path / "t")
    for name, tensor in shared.items():
        assert torch.equal(loaded[name], tensor), name


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_hashes_do_not_depend_on_order() -> None:
    assert files.hash_value({"a": 1, "b": [2, {"c": 3, "d": 4}]}) == files.hash_value(
        {"b": [2, {"d": 4, "c": 3}], "a": 1}
    )
    assert files.hash_value({"a": 1}) != files.hash_value({"a": "1"}) != files.hash_value({"a": 1.0})


# D1: killed at the n-th file operation


@pytest.mark.parametrize("name", WRITERS)
def test_a_kill_leaves_the_old_or_the_new_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = WRITERS[name]
    new = tmp_path / "reference"
    write(new)
    points = 0
    for here, finished in crash_points(
        monkeypatch, tmp_path / "kills", lambda p: write(p / "f"), begin=lambda p: (p / "f").write_bytes(b"old")
    ):
        found = (here / "f").read_bytes()
        assert found in {b"old", new.read_bytes()}
        assert not finished or found == new.read_bytes()
        files.sweep(here)
        assert left_in(here) == []
        points += 1
    assert points >= 6


def test_a_kill_leaves_a_whole_folder_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(here: Path) -> None:
        with files.atomic_folder(here / "new" / "folder") as draft:
            files.write_text(draft / "a", "A")
            files.write_text(draft / "deep" / "b", "B")

    for here, finished in crash_points(monkeypatch, tmp_path, act):
        target = here / "new" / "folder"
        if target.exists():
            assert (target / "a").read_text() + (target / "deep" / "b").read_text() == "AB"
        assert not finished or target.exists()
        files.sweep(here, recursive=True)
        assert left_in(here) == []


def test_a_kill_never_costs_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(here: Path) -> None:
        files.append_record(here / "log", {"n": 2})
        files.append_record(here / "log", {"n": 3})

    for here, finished in crash_points(
        monkeypatch, tmp_path, act, begin=lambda p: files.append_record(p / "log", {"n": 1})
    ):
        found = [r["n"] for r in files.read_records(here / "log")]
        assert found == [1, 2, 3][: len(found)]
        assert len(found) >= 1
        assert not finished or len(found) == 3
        files.append_record(here / "log", {"n": 9})
        assert [r["n"] for r in files.read_records(here / "log")] == [*found, 9]


# D2: the power is cut


def test_what_was_written_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(here: Path) -> None:
        files.write_json(here / "a" / "b" / "f", {"n": 2})

    cuts = 0
    for left, _, finished in power_cuts(
        monkeypatch, tmp_path, act, begin=lambda p: files.write_json(p / "a" / "b" / "f", {"n": 1})
    ):
        found = files.read_json(left / "a" / "b" / "f")["n"]
        assert found in {1, 2}
        assert not finished or found == 2
        cuts += 1
    assert cuts >= 24


def test_new_folders_survive_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(here: Path) -> None:
        with files.atomic_folder(here / "a" / "b") as draft:
            files.write_text(draft / "inner" / "f", "whole")
        files.append_record(here / "c" / "log", {"n": 1})
        files.stream_array(here / "d" / "array", [np.ones(9)])

    for left, _, finished in power_cuts(monkeypatch, tmp_path, act):
        target = left / "a" / "b"
        assert not target.exists() or (target / "inner" / "f").read_text() == "whole"
        records = files.read_records(left / "c" / "log")
        assert records in ([], [{"n": 1}])
        array = left / "d" / "array"
        assert not array.exists() or array.read_bytes() == np.ones(9).tobytes()
        if finished:
            assert target.exists()
            assert len(records) == 1
            assert array.exists()


@pytest.mark.parametrize("broken", ["files", "folders"])
def test_without_fsync_the_power_cut_is_noticed(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the two tests above: they must be able to fail."""
    bad = 0
    for left, _, finished in power_cuts(
        monkeypatch,
        tmp_path,
        lambda p: files.write_text(p / "f", "new"),
        begin=lambda p: files.write_text(p / "f", "old"),
        syncs_files=broken != "files",
        syncs_folders=broken != "folders",
    ):
        found = (left / "f").read_text() if (left / "f").exists() else "gone"
        bad += found not in {"old", "new"} or (finished and found != "new")
    assert bad


def test_records_that_are_synced_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = PowerDisk(tmp_path)
    monkeypatch.setattr(files, "DISK", disk)
    log = tmp_path / "log"
    for n in range(3):
        files.append_record(log, {"n": n}, durable=False)
    files.sync(log)
    files.append_record(log, {"n": 3}, durable=False)
    for seed in range(8):
        left = disk.cut(tmp_path.parent / f"{tmp_path.name}-{seed}", loss="any", seed=seed)
        assert [r["n"] for r in files.read_records(left / "log")] in ([0, 1, 2], [0, 1, 2, 3])
    disk.close()


# D3: full, broken and read-only disks


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_failing_disk_says_so_and_keeps_the_old(
    name: str, error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "f"
    target.write_bytes(b"old")
    failures = 0
    for n in range(20):
        with monkeypatch.context() as patch:
            patch.setattr(files, "DISK", FailingDisk(n, error))
            try:
                WRITERS[name](target)
                break
            except StorageError as caught:
                text, code = str(caught), caught.exit_code
        failures += 1
        assert code == 1
        assert str(target) in text
        assert "\n" not in text
        if error in {errno.ENOSPC, errno.EDQUOT}:
            assert "MiB free" in text
            assert name == "array" or "MiB needed" in text
        assert target.read_bytes() == b"old"
        assert left_in(tmp_path) == []
    assert failures >= 3


def test_a_full_disk_under_a_folder_and_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.append_record(tmp_path / "log", {"n": 1})
    for n in range(8):
        with monkeypatch.context() as patch:
            patch.setattr(files, "DISK", FailingDisk(n, errno.ENOSPC))
            with pytest.raises(StorageError, match="No space left"), files.atomic_folder(tmp_path / "x") as draft:
                files.write_text(draft / "a", "A")
                files.write_text(draft / "b", "B")
                files.append_record(tmp_path / "log", {"n": 2})
        assert not (tmp_path / "x").exists()
        assert left_in(tmp_path) == []
        assert files.read_records(tmp_path / "log")[0] == {"n": 1}


def test_a_write_that_takes_a_part(tmp_path: Path) -> None:
    """An unbuffered file may take fewer bytes than it was given."""

    class Slow(io.FileIO):
        def write(self, data: Any) -> int:
            return super().write(bytes(data[:3]))

    with Slow(tmp_path / "f", "wb") as file:
        files.Disk().write(cast(BinaryIO, file), b"0123456789")
    assert (tmp_path / "f").read_bytes() == b"0123456789"


def test_unreadable_and_missing(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such file or folder"):
        files.read_json(tmp_path / "none.json")
    with pytest.raises(StorageError, match="no such file or folder"):
        files.hash_file(tmp_path / "none")
    with pytest.raises(StorageError, match="Is a directory"):
        files.read_records(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="file"):
        files.write_text(tmp_path / "file" / "below", "x")
    (tmp_path / "bad.json").write_bytes(b"\xff{")
    with pytest.raises(CorruptError, match=r"bad\.json is not JSON"):
        files.read_json(tmp_path / "bad.json")


# D5: damage


def test_a_flipped_bit_of_a_record_is_found_or_drops_it(tmp_path: Path) -> None:
    """Only the last newline may be lost without a word: then the line looks as if a kill had cut it short."""
    path = tmp_path / "log"
    records = [{"step": 1, "loss": 0.25}, {"step": 2, "loss": 0.125}, {"step": 3, "loss": 1e-8}]
    whole = files.write_records(path, records).read_bytes()
    silent = []
    for place in range(len(whole)):
        for bit in (place % 8, 5) if place < len(whole) - 1 else range(8):
            data = bytearray(whole)
            data[place] ^= 1 << bit
            path.write_bytes(bytes(data))
            try:
                found = files.read_records(path)
            except CorruptError as error:
                assert str(path) in str(error)
            else:
                assert found in (records, records[:-1])
                if found != records:
                    silent.append(place)
    assert set(silent) == {len(whole) - 1}


def test_a_torn_line_is_dropped_and_stays_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    whole = files.write_records(path, [{"n": 1}, {"n": 2}]).read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        before = files.read_records(path)
        files.append_record(path, {"n": 3})
        files.append_record(path, {"n": 4})
        assert files.read_records(path) == [*before, {"n": 3}, {"n": 4}]
    path.write_bytes(whole + b"\0" * 40)
    files.append_record(path, {"n": 5})
    assert files.read_records(path) == [{"n": 1}, {"n": 2}, {"n": 5}]


def test_several_writers_of_one_log(tmp_path: Path) -> None:
    path = tmp_path / "log"

    def write(who: int) -> None:
        for n in range(40):
            files.append_record(path, {"who": who, "n": n, "pad": "x" * 500}, durable=False)

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = files.read_records(path)
    assert len(found) == 160
    assert all([r["n"] for r in found if r["who"] == who] == list(range(40)) for who in range(4))


def test_sealed_folders(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a", "A" * 100)
    files.write_text(tmp_path / "b", "B")
    files.write_text(tmp_path / "notes", "not vouched for")
    files.seal(tmp_path, ["a", "b"])
    assert files.verify(tmp_path, advice="x") == ["a", "b"]
    (tmp_path / "notes").write_text("changed")
    files.verify(tmp_path, advice="x")
    for name in ("a", "b", files.MANIFEST):
        whole = (tmp_path / name).read_bytes()
        for place in range(0, len(whole), 7):
            data = bytearray(whole)
            data[place] ^= 4
            (tmp_path / name).write_bytes(bytes(data))
            with pytest.raises(CorruptError, match=rf"{tmp_path}/.*restore it"):
                files.verify(tmp_path, advice="restore it")
        (tmp_path / name).unlink()
        with pytest.raises(CorruptError, match=f"{name} is missing or damaged"):
            files.verify(tmp_path, advice="restore it")
        (tmp_path / name).write_bytes(whole)
    files.verify(tmp_path, advice="x")


# D7: what dead processes left


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_janitor(tmp_path: Path) -> None:
    here, mark, dead = host(), files.TEMP_MARK, dead_pid()
    mine = [f".f~{here}~{dead}~0a1b2c3d{mark}", f".g~{here}~{os.getpid()}~0a1b2c3d{mark}"]
    foreign = [
        f".f~elsewhere~{dead}~0a1b2c3d{mark}",
        f".f~{here}~1~0a1b2c3d{mark}",
        f".f{mark}",
        f".f~{here}~x~0a1b2c3d{mark}",
        ".somebody.tmp",
        "f.tmp",
        f"f~{here}~{dead}~0a1b2c3d{mark}",
        ".f.swp",
    ]
    (tmp_path / "deep").mkdir()
    for name in [*mine, *foreign]:
        (tmp_path / name).write_text("x")
        (tmp_path / "deep" / name).write_text("x")
    inside = tmp_path / f".folder~{here}~{dead}~0a1b2c3d{mark}" / "a" / f".b~{here}~{dead}~0a1b2c3d{mark}"
    inside.mkdir(parents=True)
    (inside / "f").write_text("x")
    assert files.sweep(tmp_path) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*foreign, "deep"])
    assert files.sweep(tmp_path, recursive=True) == 2
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == sorted(foreign)


def test_the_janitor_leaves_work_in_progress(tmp_path: Path) -> None:
    with files.atomic_folder(tmp_path / "f") as draft:
        assert files.sweep(tmp_path) == 0
        assert draft.exists()
        files.write_text(draft / "a", "A")
        assert files.sweep(tmp_path, recursive=True) == 0
    assert (tmp_path / "f" / "a").exists()


# D8: modes and links


@pytest.mark.usefixtures("umask_027")
def test_modes_follow_the_umask(tmp_path: Path) -> None:
    for name, write in WRITERS.items():
        write(tmp_path / "new" / name)
    files.append_record(tmp_path / "new" / "log", {"n": 1})
    with files.atomic_folder(tmp_path / "new" / "folder") as draft:
        files.write_text(draft / "a", "A")
    for path in (tmp_path / "new").rglob("*"):
        expected = 0o750 if path.is_dir() else 0o640
        assert stat.S_IMODE(path.stat().st_mode) == expected, path
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o750


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    files.write_text(tmp_path / "link" / "f", "x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "f").read_text() == "x"
    (tmp_path / "g").symlink_to("real/f")
    files.write_text(tmp_path / "g", "y")
    assert (tmp_path / "g").is_symlink()
    assert (tmp_path / "real" / "f").read_text() == "y"
    with files.atomic_folder(tmp_path / "link" / "sub") as draft:
        files.write_text(draft / "a", "A")
    assert (tmp_path / "real" / "sub" / "a").exists()


# Folders


def test_the_first_writer_of_a_folder_wins(tmp_path: Path) -> None:
    with files.atomic_folder(tmp_path / "f") as first:
        with files.atomic_folder(tmp_path / "f") as second:
            files.write_text(second / "who", "second")
        files.write_text(first / "who", "first")
    assert (tmp_path / "f" / "who").read_text() == "second"
    with pytest.raises(KeyError), files.atomic_folder(tmp_path / "g") as draft:
        files.write_text(draft / "who", "nobody")
        raise KeyError
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f"]


def test_removing_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.remove_folder(tmp_path / "none")
    files.remove_file(tmp_path / "none")
    files.write_text(tmp_path / "f" / "a", "A")
    monkeypatch.setattr(files, "DISK", CountingDisk())
    files.remove_folder(tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_a_removed_folder_is_whole_or_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(here: Path) -> None:
        files.write_text(here / "f" / "a", "A")
        files.write_text(here / "f" / "b", "B")

    for here, _ in crash_points(monkeypatch, tmp_path, lambda p: files.remove_folder(p / "f"), begin=begin):
        found = sorted(p.name for p in (here / "f").iterdir()) if (here / "f").exists() else []
        assert found in ([], ["a", "b"])
        files.sweep(here)
        assert left_in(here) == []


# Claims


def test_a_claim_is_held_and_released(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".claim"
    with files.claim(path, what="study x"):
        pattern = rf"study x is being done by process {os.getpid()} on .*delete {path}"
        with pytest.raises(BusyError, match=pattern) as caught, files.claim(path, what="study x"):
            pass
        assert caught.value.exit_code == 1
    assert list(path.parent.iterdir()) == []
    with pytest.raises(KeyError), files.claim(path, what="x"):
        raise KeyError
    assert list(path.parent.iterdir()) == []


def forge(path: Path, **changes: object) -> None:
    born = birth(os.getpid())
    entry = {"host": host(), "pid": os.getpid(), "born": born, "token": "theirs", **changes}
    path.write_text(json.dumps(entry))


def test_whose_claim_may_be_taken_over(tmp_path: Path) -> None:
    path = tmp_path / ".claim"
    long_ago = time.time() - 7 * files.BEAT
    alive: list[dict[str, object]] = [{}, {"pid": 1, "born": None}, {"host": "elsewhere"}]
    for changes in alive:
        forge(path, **changes)
        with pytest.raises(BusyError), files.claim(path, what="x"):
            pass
        assert json.loads(path.read_text())["token"] == "theirs"
    # The same process, silent since long: it may only be suspended.
    forge(path)
    os.utime(path, (long_ago, long_ago))
    with pytest.raises(BusyError), files.claim(path, what="x"):
        pass
    dead: list[dict[str, object]] = [{"pid": dead_pid()}, {"born": "another boot:1"}, {"host": "elsewhere"}]
    for changes in dead:
        forge(path, **changes)
        os.utime(path, (long_ago, long_ago))
        with files.claim(path, what="x"):
            assert json.loads(path.read_text())["token"] != "theirs"
        assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"\0" * 40, b"[]", b"not json", b"{}"])
def test_a_damaged_claim_is_respected_while_it_is_fresh(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / ".claim"
    path.write_bytes(content)
    with pytest.raises(BusyError, match="unknown"), files.claim(path, what="x"):
        pass
    long_ago = time.time() - 7 * files.BEAT
    os.utime(path, (long_ago, long_ago))
    with files.claim(path, what="x"):
        pass
    assert not path.exists()


def test_a_claim_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT", 0.01)
    with files.claim(tmp_path / ".claim", what="x"):
        os.utime(tmp_path / ".claim", (1, 1))
        end = time.time() + 5  # less than the beat of a claim that is not hurried
        while (tmp_path / ".claim").stat().st_mtime < 2 and time.time() < end:
            time.sleep(0.01)
        assert (tmp_path / ".claim").stat().st_mtime > 2


@pytest.mark.parametrize("links", [True, False])
def test_of_many_that_claim_one_wins(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round begins with a dead process's claim, so that all try to take it over at once."""
    if not links:

        def refuse(source: object, target: object) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", refuse)
    dead = dead_pid()
    for number in range(15):
        path = tmp_path / f"claim{number}"
        forge(path, pid=dead)
        inside, most, won = [0], [0], [0]
        gate, counting = threading.Barrier(4), threading.Lock()

        def attempt(path: Path = path, inside=inside, most=most, won=won, gate=gate, counting=counting) -> None:
            gate.wait()
            try:
                with files.claim(path, what="x"):
                    with counting:
                        won[0] += 1
                        inside[0] += 1
                        most[0] = max(most[0], inside[0])
                    time.sleep(0.005)
                    with counting:
                        inside[0] -= 1
            except BusyError:
                pass

        threads = [threading.Thread(target=attempt) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most[0] == 1
        assert won[0] >= 1
        assert not path.exists()


def test_no_other_code_of_raremix_writes() -> None:
    """Every writing call of the package is in files.py, so that what is tested here holds for all of it."""
    banned = (
        ".write_bytes(",
        ".write_text(",
        'open("w',
        'open("a',
        'open("x',
        'mode="w',
        "np.save",
        ".tofile(",
        "savefig(",
        "save_file(",
        ".write_parquet(",
        ".write_csv(",
        "json.dump(",
    )
    source = Path(files.__file__).parents[1]
    found = []
    for path in source.rglob("*.py"):
        if not path.is_relative_to(Path(files.__file__).parent):
            for number, line in enumerate(path.read_text().splitlines(), start=1):
                if any(word in line.replace(f"files{word}", "") for word in banned if word in line):
                    found.append(f"{path.relative_to(source)}:{number}: {line.strip()}")
    assert found == []


def test_faults_are_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead process cleans nothing up: the disk that crashes leaves its temporary file."""
    monkeypatch.setattr(files, "DISK", CrashingDisk(1, halfway=True))
    with pytest.raises(Crash):
        files.write_bytes(tmp_path / "f", b"x" * 10)
    assert left_in(tmp_path) != []
