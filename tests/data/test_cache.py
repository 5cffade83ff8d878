import copy
import errno
import json
import os
import signal
import subprocess
import sys
import time
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.toys import pictures, toy_manifest

from raremix.core import files
from raremix.core.errors import ConfigError, CorruptError, ManifestError, ReadError, StorageError
from raremix.data import cache as cache_module
from raremix.data import decoding
from raremix.data.cache import ARRAY, CODE_VERSION, META, build_cache, cache_key, open_cache
from raremix.data.manifest import Manifest
from raremix.data.readers import fit_image
from raremix.data.sources.table import Table

FORM = {"size": 8, "channels": 3}


@pytest.fixture
def toy(tmp_path: Path) -> tuple[Manifest, np.ndarray]:
    """Ten noise images of 8 x 8 pixels, and their pixels as (n, C, H, W)."""
    pixels = pictures(tmp_path / "data", 10)
    return toy_manifest([0, 1] * 5, root=tmp_path / "data"), pixels.transpose(0, 3, 1, 2)


def entries(root: Path) -> list[Path]:
    folder = root / "images"
    return sorted(folder.iterdir()) if folder.exists() else []


def test_images_come_back_as_they_are(toy: tuple[Manifest, np.ndarray], tmp_path: Path) -> None:
    manifest, pixels = toy
    calls: list[tuple[str, int, int]] = []
    cache = build_cache(manifest, **FORM, root=tmp_path / "c", progress=lambda *call: calls.append(call))
    assert cache.shape == (10, 3, 8, 8)
    assert len(cache) == 10
    rows = np.array([3, 3, 9, 0])
    taken = cache.take(rows)
    np.testing.assert_array_equal(taken, pixels[rows])
    assert taken.flags.c_contiguous
    assert taken.flags.owndata or taken.base is not None
    taken[:] = 0
    np.testing.assert_array_equal(cache.take(rows), pixels[rows])
    assert calls == [("hash files", 10, 10), ("decode images", 10, 10)]
    assert cache.take(np.zeros(0, dtype=np.int64)).shape == (0, 3, 8, 8)


def test_sixteen_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (3, 8, 8), dtype=np.uint16)
    for i, image in enumerate(values):
        files.write_image(tmp_path / "d" / f"00{i}.png", image)
    manifest = toy_manifest([0, 1, 0], root=tmp_path / "d")
    cache = build_cache(manifest, size=8, channels=1, bits=16, root=tmp_path / "c")
    got = cache.take(np.array([2, 0]))
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got[:, 0], values[[2, 0]])


def test_many_blocks_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "BLOCK_BYTES", 3 * 64 * 2)
    pixels = pictures(tmp_path / "d", 37)
    manifest = toy_manifest([0, 1] * 18 + [0], root=tmp_path / "d")
    for workers in (1, 4):
        cache = build_cache(manifest, **FORM, root=tmp_path / f"c{workers}", workers=workers)
        np.testing.assert_array_equal(cache.take(np.arange(37)), pixels.transpose(0, 3, 1, 2))


def test_selected_rows_keep_their_ids(toy: tuple[Manifest, np.ndarray], tmp_path: Path) -> None:
    manifest, pixels = toy
    few = manifest.select(np.array([7, 2, 5]))
    cache = build_cache(few, **FORM, root=tmp_path / "c")
    assert len(cache) == 3
    np.testing.assert_array_equal(cache.take(np.array([2, 7])), pixels[[2, 7]])
    for wrong in ([3], [8], [-1], [99]):
        with pytest.raises(ManifestError, match="no image with id"):
            cache.take(np.array(wrong))
    whole = build_cache(manifest, **FORM, root=tmp_path / "c")
    with pytest.raises(ManifestError, match=r"no image with id \[10, -1\]"):
        whole.take(np.array([0, 10, -1]))


def test_another_process_is_sent_where_it_lies(toy: tuple[Manifest, np.ndarray], tmp_path: Path) -> None:
    """Copying asks the same of a value as sending it does."""
    manifest, pixels = toy
    chosen = manifest.select(manifest.ids[[2, 5, 7]])
    cache = build_cache(chosen, **FORM, root=tmp_path / "c")
    opened, sent = cache.__reduce__()
    assert sum(part.nbytes for part in sent if isinstance(part, np.ndarray)) == cache.ids.nbytes, "no pixels are sent"
    assert opened(*sent).folder == cache.folder
    np.testing.assert_array_equal(copy.copy(cache).take(chosen.ids), pixels[[2, 5, 7]])


def test_a_second_build_reads_no_file(toy: tuple[Manifest, np.ndarray], tmp_path: Path) -> None:
    manifest, pixels = toy
    build_cache(manifest, **FORM, root=tmp_path / "c")
    hashed = cache_module.with_digests(manifest, cache=tmp_path / "c")
    for path in manifest.paths():
        path.unlink()
    again = build_cache(hashed, **FORM, root=tmp_path / "c")
    np.testing.assert_array_equal(again.take(np.array([4])), pixels[[4]])


def test_the_key_names_what_went_in(
    toy: tuple[Manifest, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = cache_module.with_digests(toy[0], cache=tmp_path / "c")
    form = {"size": 8, "channels": 3, "bits": 8, "resize": "stretch"}
    base = cache_key(manifest, **form)
    moved = Manifest(frame=manifest.frame, card=manifest.card, root=tmp_path / "elsewhere")
    relabelled = manifest.with_split(["train"] * 10)
    assert cache_key(moved, **form) == base == cache_key(relabelled, **form)
    others = [
        cache_key(manifest, **{**form, "size": 9}),
        cache_key(manifest, **{**form, "channels": 1}),
        cache_key(manifest, **{**form, "bits": 16}),
        cache_key(manifest, **{**form, "resize": "crop"}),
        cache_key(manifest.select(np.arange(10)[::-1]), **form),
        cache_key(manifest.select(np.arange(9)), **form),
    ]
    monkeypatch.setattr(cache_module, "CODE_VERSION", CODE_VERSION + 1)
    others.append(cache_key(manifest, **form))
    assert len({base, *others}) == 8
    with pytest.raises(ManifestError, match="needs its sha256"):
        cache_key(toy[0], **form)


def test_code_version_is_raised_when_pixels_change() -> None:
    """If this fails, the pixels of a cache have changed: raise CODE_VERSION, then write the new hash here."""
    stream = np.random.default_rng(7)
    digest = blake2b(digest_size=8)
    for shape, kind in (((9, 13, 3), np.uint8), ((30, 20, 1), np.uint8), ((21, 17, 1), np.uint16)):
        pixels = stream.integers(0, np.iinfo(kind).max, shape, dtype=kind, endpoint=True)
        for resize in ("stretch", "crop", "pad"):
            for channels, bits in ((1, 8), (3, 8), (1, 16)):
                digest.update(fit_image(pixels, size=12, channels=channels, bits=bits, resize=resize).tobytes())
    assert (CODE_VERSION, digest.hexdigest()) == (2, "02764708b4b60bd5")


@pytest.mark.parametrize("name", [ARRAY, META])
@settings(max_examples=25, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found(tmp_path_factory: pytest.TempPathFactory, name: str, place: float, bit: int) -> None:
    tmp_path = tmp_path_factory.mktemp("flip")
    pictures(tmp_path / "d", 2)
    manifest = toy_manifest([0, 1], root=tmp_path / "d")
    cache = build_cache(manifest, **FORM, root=tmp_path / "c")
    path = cache.folder / name
    before = path.read_bytes()
    data = bytearray(before)
    data[int(place * len(data))] ^= 1 << bit
    time.sleep(0.002)
    path.write_bytes(bytes(data))
    if name == META and is_same_table(path, before):
        return
    with pytest.raises(CorruptError, match=rf"{name}.*delete the folder") as caught:
        build_cache(manifest, **FORM, root=tmp_path / "c")
    assert str(cache.folder) in str(caught.value)


def is_same_table(path: Path, before: bytes) -> bool:
    """Whether a flip left the values alone, because it turned one kind of space into another."""
    try:
        return json.loads(path.read_bytes()) == json.loads(before)
    except ValueError:
        return False


@pytest.mark.parametrize("damage", ["truncated", "longer", "no array", "no meta", "not a table", "wrong shape"])
def test_a_damaged_entry_is_refused(toy: tuple[Manifest, np.ndarray], tmp_path: Path, damage: str) -> None:
    folder = build_cache(toy[0], **FORM, root=tmp_path / "c").folder
    array, meta = folder / ARRAY, folder / META
    facts = json.loads(meta.read_text())
    if damage == "truncated":
        array.write_bytes(array.read_bytes()[:-1])
    elif damage == "longer":
        array.write_bytes(array.read_bytes() + b"x")
    elif damage == "no array":
        array.unlink()
    elif damage == "no meta":
        meta.unlink()
    elif damage == "not a table":
        meta.write_text("[1, 2]")
    else:
        meta.write_text(json.dumps({**facts, "shape": [10, 3, 8, 4]}))
    words = "bytes, expected" if damage in {"truncated", "longer"} else "missing or damaged|missing"
    with pytest.raises(CorruptError, match=rf"({words}).*: delete the folder"):
        open_cache(folder)


def test_a_file_that_is_not_what_its_hash_says(toy: tuple[Manifest, np.ndarray], tmp_path: Path) -> None:
    manifest = cache_module.with_digests(toy[0], cache=tmp_path / "c")
    files.write_image(manifest.paths()[6], np.zeros((8, 8, 3), dtype=np.uint8))
    with pytest.raises(ReadError, match=r"row 6 \(006.png\): the content is not what its recorded sha256 says"):
        build_cache(manifest, **FORM, root=tmp_path / "c")
    skipped = build_cache(manifest, **FORM, root=tmp_path / "c", on_unreadable="skip")
    assert list(skipped.unreadable) == [6]
    # Once the file is what its hash says, the entry is made again.
    files.write_image(manifest.paths()[6], toy[1][6].transpose(1, 2, 0))
    assert not build_cache(manifest, **FORM, root=tmp_path / "c").unreadable


def test_bad_files_are_named_together(toy: tuple[Manifest, np.ndarray], tmp_path: Path) -> None:
    manifest = toy[0]
    paths = manifest.paths()
    for i in (1, 4, 8):
        paths[i].write_bytes(paths[i].read_bytes()[:60])
    with pytest.raises(
        ReadError, match=r"row 1 \(001.png\): it is truncated.*look also at row 4 \(004.png\), row 8"
    ) as caught:
        build_cache(manifest, **FORM, root=tmp_path / "c", workers=1)
    assert caught.value.exit_code == 2
    assert "(3 of 10 files cannot be read); or leave them out" in str(caught.value)
    for i in range(10):
        paths[i].write_bytes(b"no image")
    before = entries(tmp_path / "c")
    with pytest.raises(ReadError, match="and 5 more"):
        build_cache(manifest, **FORM, root=tmp_path / "c")
    assert entries(tmp_path / "c") == before


def test_what_could_be_read_is_kept_and_nothing_is_decoded_twice(
    toy: tuple[Manifest, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, pixels = toy
    for i in (0, 7):
        manifest.paths()[i].write_bytes(b"\x89PNG\r\n\x1a\n rubbish")
    with pytest.raises(ReadError, match="2 of 10"):
        build_cache(manifest, **FORM, root=tmp_path / "c")
    monkeypatch.setattr(cache_module, "decoded_blocks", None)
    made = build_cache(manifest, **FORM, root=tmp_path / "c", on_unreadable="skip")
    assert sorted(made.unreadable) == [0, 7]
    assert all("its header is damaged" in reason for reason in made.unreadable.values())
    np.testing.assert_array_equal(made.take(np.array([1, 9])), pixels[[1, 9]])
    with pytest.raises(ManifestError, match=r"no image with id \[7\] in the cache"):
        made.take(np.array([1, 7]))
    # The same files in a manifest of other ids.
    other = manifest.select(manifest.ids)
    with pytest.raises(ReadError, match="2 of 10"):
        build_cache(other, **FORM, root=tmp_path / "c")


def test_refusals(toy: tuple[Manifest, np.ndarray], tmp_path: Path) -> None:
    for wrong in ({"channels": 5}, {"bits": 12}, {"size": 0}):
        with pytest.raises(ConfigError, match="a cache needs"):
            build_cache(toy[0], **{**FORM, "root": tmp_path, **wrong})
    with pytest.raises(ManifestError, match="no images to cache"):
        build_cache(toy[0].select(np.zeros(0, dtype=np.int64)), **FORM, root=tmp_path)


class FullDisk(files.Disk):
    """A disk that is full at the n-th operation."""

    def __init__(self, after: int, error: int) -> None:
        self.left = after
        self.error = error

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(self.error, os.strerror(self.error))

    def write(self, file, data) -> None:
        self._count()
        super().write(file, data)

    def sync(self, file) -> None:
        self._count()
        super().sync(file)

    def replace(self, source, target) -> None:
        self._count()
        super().replace(source, target)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_full_disk_leaves_nothing(
    toy: tuple[Manifest, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    manifest, pixels = toy
    monkeypatch.setattr(decoding, "BLOCK_BYTES", 3 * 64 * 2)
    failures = 0
    for n in range(40):
        root = tmp_path / f"c{n}"
        monkeypatch.setattr(files, "DISK", FullDisk(n, error))
        try:
            cache = build_cache(manifest, **FORM, root=root)
        except StorageError as caught:
            failures += 1
            assert caught.exit_code == 1
            assert str(root) in str(caught)
            assert entries(root) == []
            assert [p for p in root.rglob("*") if p.is_file() and files.TEMP_MARK in p.name] == []
        else:
            np.testing.assert_array_equal(cache.take(np.arange(10)), pixels)
            break
        monkeypatch.setattr(files, "DISK", files.Disk())
        np.testing.assert_array_equal(build_cache(manifest, **FORM, root=root).take(np.arange(10)), pixels)
    assert failures >= 10


def test_too_little_space_is_said_before_decoding(
    toy: tuple[Manifest, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match="needs 0 MiB, and 0 MiB are free: free some space"):
        build_cache(toy[0], **FORM, root=tmp_path / "c")


RACE = """
import sys
from hashlib import blake2b
from pathlib import Path
import numpy as np
from raremix.data.cache import build_cache
from tests.data.toys import toy_manifest
manifest = toy_manifest([0, 1] * 20, root=Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
cache = build_cache(manifest, size=8, channels=3, root=Path(sys.argv[2]))
print(blake2b(cache.take(np.arange(40)).tobytes()).hexdigest(), flush=True)
"""


def run(script: str, *arguments: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def test_two_builders_at_once(tmp_path: Path) -> None:
    pixels = pictures(tmp_path / "d", 40)
    expected = blake2b(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).tobytes()).hexdigest()
    processes = [run(RACE, tmp_path / "d", tmp_path / "c") for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        got, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert got.strip() == expected
    assert len(entries(tmp_path / "c")) == 1


def test_the_loser_of_a_race_uses_the_winner(toy: tuple[Manifest, np.ndarray], tmp_path: Path) -> None:
    manifest, pixels = toy
    inside: list[Path] = []

    def other_finishes_first(what: str, done: int, total: int) -> None:
        if what == "decode images" and not inside:
            inside.append(build_cache(manifest, **FORM, root=tmp_path / "c").folder)

    cache = build_cache(manifest, **FORM, root=tmp_path / "c", progress=other_finishes_first)
    assert [cache.folder] == inside == entries(tmp_path / "c")
    np.testing.assert_array_equal(cache.take(np.arange(10)), pixels)


SLOW = """
import sys, time
from pathlib import Path
from raremix.data import cache, decoding
from tests.data.toys import toy_manifest
decoding.BLOCK_BYTES = 3 * 64 * 2
def slow(what, done, total):
    if what == "decode images":
        print(done, flush=True)
        time.sleep(0.05)
manifest = toy_manifest([0, 1] * 20, root=Path(sys.argv[1]))
cache.build_cache(manifest, size=8, channels=3, root=Path(sys.argv[2]), progress=slow)
print("end", flush=True)
"""


def test_a_kill_in_the_middle_leaves_nothing_believed(tmp_path: Path) -> None:
    pixels = pictures(tmp_path / "d", 40)
    root = tmp_path / "c"
    process = run(SLOW, tmp_path / "d", root)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "10":
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    strays = [p for p in (root / "images").iterdir() if files.TEMP_MARK in p.name]
    assert len(strays) == len(list((root / "images").iterdir())) == 1
    foreign = root / "images" / ".somebody-elses.tmp"
    foreign.write_text("x")
    cache = build_cache(toy_manifest([0, 1] * 20, root=tmp_path / "d"), **FORM, root=root)
    np.testing.assert_array_equal(cache.take(np.arange(40)), pixels.transpose(0, 3, 1, 2))
    assert entries(root) == sorted([foreign, cache.folder])


def test_pages_are_given_back(
    toy: tuple[Manifest, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, pixels = toy
    monkeypatch.setattr(cache_module, "RESIDENT_BYTES", 500)
    cache = build_cache(manifest, **FORM, root=tmp_path / "c")
    for i in range(30):
        np.testing.assert_array_equal(cache.take(np.array([i % 10])), pixels[[i % 10]])


def test_kermany(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "kermany_cxr_224"
    manifest = Table(path=folder / "labels.csv", images_root="images", label="label").load(cache=tmp_path)
    few = manifest.select(manifest.ids[::50])
    cache = build_cache(few, size=64, channels=1, root=tmp_path)
    images = cache.take(few.ids)
    assert images.shape == (len(few), 1, 64, 64)
    assert 60 < images.mean() < 180
    assert images.std(axis=(1, 2, 3)).min() > 10
