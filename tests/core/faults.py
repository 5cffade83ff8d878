"""Disks that fail: full ones, ones that die in the middle, and ones that lose what was not synced."""

import os
import random
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

from raremix.core import files


class Crash(BaseException):
    """The process is dead from here on."""


class CountingDisk(files.Disk):
    """A disk whose operations are counted; `before` is called ahead of each with its number and name."""

    def __init__(self) -> None:
        self.count = 0

    def before(self, number: int, name: str) -> None:
        """Do nothing; subclasses fail here."""

    def _tick(self, name: str) -> None:
        self.before(self.count, name)
        self.count += 1

    def make_folder(self, path: Path) -> None:
        self._tick("make_folder")
        super().make_folder(path)

    def write(self, file: BinaryIO, data: Any) -> None:
        self._tick("write")
        super().write(file, data)

    def sync(self, file: BinaryIO) -> None:
        self._tick("sync")
        file.flush()

    def replace(self, source: Path, target: Path) -> None:
        self._tick("replace")
        super().replace(source, target)

    def sync_folder(self, path: Path) -> None:
        self._tick("sync_folder")

    def remove(self, path: Path) -> None:
        self._tick("remove")
        super().remove(path)

    def remove_tree(self, path: Path) -> None:
        self._tick("remove_tree")
        super().remove_tree(path)


class CrashingDisk(CountingDisk):
    """A process that is killed before its n-th operation, or halfway through if that is a write.

    Whatever it would do afterwards, cleaning up included, does not happen either.
    """

    def __init__(self, at: int, *, halfway: bool = False) -> None:
        super().__init__()
        self.at, self.halfway = at, halfway

    def before(self, number: int, name: str) -> None:
        if number >= self.at:
            raise Crash

    def write(self, file: BinaryIO, data: Any) -> None:
        if self.halfway and self.count == self.at:
            files.Disk.write(self, file, memoryview(data)[: len(data) // 2])
            file.flush()
        super().write(file, data)


class FailingDisk(CountingDisk):
    """A disk that refuses its n-th operation of a kind, and all that follow if it stays so."""

    def __init__(self, at: int, error: int, *, kinds: tuple[str, ...] = ("write", "sync", "replace")) -> None:
        super().__init__()
        self.at, self.error, self.kinds, self.seen = at, error, kinds, 0

    def before(self, number: int, name: str) -> None:
        if name in self.kinds:
            self.seen += 1
            if self.seen > self.at:
                raise OSError(self.error, os.strerror(self.error))


Loss = Literal["everything", "data", "any"]


class PowerDisk(CountingDisk):
    """A disk that knows what a power cut would leave below a folder.

    A file keeps what was in it when it was last synced. A folder keeps the names that it had when it was last synced.
    What came later may or may not have reached the disk, each name and each file by itself: `cut` writes one such
    outcome elsewhere.

    Args:
        root: the folder that is watched.
        at: number of the operation before which the power is cut.
        syncs_files, syncs_folders: whether these calls do anything, to test the tests.
    """

    def __init__(
        self, root: Path, *, at: int | None = None, syncs_files: bool = True, syncs_folders: bool = True
    ) -> None:
        super().__init__()
        self.root, self.at = root, at
        self.syncs_files, self.syncs_folders = syncs_files, syncs_folders
        # Every inode is held open, so that its number is not given to another file.
        self.held: dict[int, int] = {}
        self.data: dict[int, bytes] = {}
        self.names: dict[int, dict[str, int]] = {}
        self.top = self._hold(root)
        for path in [root, *root.rglob("*")]:
            inode = self._hold(path)
            if path.is_dir():
                self.names[inode] = self._list(inode)
            else:
                self.data[inode] = path.read_bytes()

    def before(self, number: int, name: str) -> None:
        if self.at is not None and number >= self.at:
            raise Crash

    def make_folder(self, path: Path) -> None:
        super().make_folder(path)
        self._hold(path)

    def write(self, file: BinaryIO, data: Any) -> None:
        super().write(file, data)
        self._hold(Path(file.name))

    def sync(self, file: BinaryIO) -> None:
        super().sync(file)
        if self.syncs_files:
            self.data[self._hold(Path(file.name))] = Path(file.name).read_bytes()

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        inode = self._hold(path)
        if self.syncs_folders:
            self.names[inode] = self._list(inode)

    def cut(self, out: Path, *, loss: Loss, seed: int = 0) -> Path:
        """Write what is left into a folder: nothing unsynced, all names but no unsynced data, or any mixture."""
        self._restore(self.top, out, loss, random.Random(seed))
        return out

    def close(self) -> None:
        """Let all files go."""
        for handle in self.held.values():
            os.close(handle)

    def _restore(self, inode: int, out: Path, loss: Loss, chance: random.Random) -> None:
        if not stat.S_ISDIR(os.fstat(self.held[inode]).st_mode):
            out.write_bytes(self._content(inode, loss, chance))
            return
        out.mkdir()
        old, new = self.names.get(inode, {}), self._list(inode)
        for name in sorted({*old, *new}):
            choice = {"everything": old, "data": new, "any": chance.choice([old, new])}[loss]
            if name in choice:
                self._restore(choice[name], out / name, loss, chance)

    def _content(self, inode: int, loss: Loss, chance: random.Random) -> bytes:
        synced = self.data.get(inode, b"")
        now = os.pread(self.held[inode], 1 << 30, 0)
        if now == synced or loss == "everything":
            return synced
        # Blocks that never came: missing, zero, or only some of them.
        outcomes = [synced, synced.ljust(len(now), b"\0"), now[: (len(synced) + len(now)) // 2], now]
        return outcomes[1] if loss == "data" else chance.choice(outcomes)

    def _list(self, inode: int) -> dict[str, int]:
        with os.scandir(self.held[inode]) as entries:
            found = {entry.name: entry.inode() for entry in entries}
        for name, child in found.items():
            if child not in self.held:
                self.held[child] = os.open(name, os.O_RDONLY, dir_fd=self.held[inode])
        return found

    def _hold(self, path: Path) -> int:
        inode = path.stat().st_ino
        if inode not in self.held:
            self.held[inode] = os.open(path, os.O_RDONLY)
        return inode


def crash_points(
    monkeypatch: Any, root: Path, act: Callable[[Path], object], *, begin: Callable[[Path], object] = lambda path: None
) -> Iterator[tuple[Path, bool]]:
    """Run `act` in fresh folders, killed at its n-th file operation for every n, and yield what each kill left.

    Args:
        monkeypatch: pytest's.
        root: where the folders go.
        act: what is killed.
        begin: makes the state before it.

    Yields:
        The folder, and whether `act` got to its end.
    """
    number = 0
    while True:
        done = True
        for halfway in (False, True):
            here = root / f"{number}{'h' if halfway else ''}"
            here.mkdir(parents=True)
            begin(here)
            with monkeypatch.context() as patch:
                patch.setattr(files, "DISK", CrashingDisk(number, halfway=halfway))
                try:
                    act(here)
                    finished = True
                except Crash:
                    finished = False
            done = done and finished
            yield here, finished
        if done:
            return
        number += 1


def power_cuts(
    monkeypatch: Any,
    root: Path,
    act: Callable[[Path], object],
    *,
    begin: Callable[[Path], object] = lambda path: None,
    mixtures: int = 4,
    syncs_files: bool = True,
    syncs_folders: bool = True,
) -> Iterator[tuple[Path, int, bool]]:
    """Run `act`, cut the power before its n-th file operation for every n, and yield what each cut may have left.

    Yields:
        The folder after the cut, the number of the cut, and whether `act` had got to its end.
    """
    number, finished = 0, False
    while not finished:
        here = root / f"live{number}"
        here.mkdir(parents=True)
        begin(here)
        disk = PowerDisk(here, at=number, syncs_files=syncs_files, syncs_folders=syncs_folders)
        with monkeypatch.context() as patch:
            patch.setattr(files, "DISK", disk)
            try:
                act(here)
                finished = True
            except Crash:
                finished = False
        outcomes: list[tuple[Loss, int]] = [
            ("everything", 0),
            ("data", 0),
            *(("any", seed) for seed in range(mixtures)),
        ]
        for loss, seed in outcomes:
            yield disk.cut(root / f"left{number}{loss}{seed}", loss=loss, seed=seed), number, finished
        disk.close()
        number += 1
