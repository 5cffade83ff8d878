"""Decode once: all images of a manifest at one size, as one array on disk that every later epoch reads.

A cache entry is a folder that appears by one rename and holds `images.raw` (uint8 or uint16, shape (n, C, H, W)) and
`meta.json`, written last, with the array's size and BLAKE2b hash. Its name is a hash of what went in: the content of
every file in order, the size, channels, depth and way to resize, and `CODE_VERSION`. It may be deleted at any time.
"""

import mmap
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int, UInt8, UInt16

from raremix.core import files
from raremix.core.errors import ConfigError, CorruptError, ManifestError, ReadError, StorageError
from raremix.core.types import Progress
from raremix.data.decoding import decoded_blocks
from raremix.data.digests import with_digests
from raremix.data.manifest import NAMED, Manifest
from raremix.data.quarantine import Reasons, refuse_unreadable
from raremix.data.readers import Reading, Resize, read_bytes
from raremix.data.readers.block import Failure, Form

# Raise when the pixels of an entry would change: other decoding, scaling or conversion.
CODE_VERSION = 2
ARRAY, META = "images.raw", "meta.json"
# Mapped pages that may stay in memory, whatever n is.
RESIDENT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageCache:
    """Decoded images on disk, read by row.

    Attributes:
        folder: the cache entry.
        ids: manifest ids in the order of the array.
        shape: (n, C, H, W).
        bits: 8 or 16.
        unreadable: rows whose file could not be read, with the reason; they cannot be taken.

    Example:
        ``build_cache(manifest, size=64, channels=3, root=Path("cache")).take(manifest.rows("train")[:8])``
    """

    folder: Path
    ids: Int[np.ndarray, " n"]
    shape: tuple[int, int, int, int]
    bits: int
    unreadable: Reasons = field(default_factory=dict, repr=False)
    _images: np.ndarray = field(repr=False)
    _map: mmap.mmap = field(repr=False)
    _place: np.ndarray | None = field(repr=False)
    _touched: list[int] = field(repr=False, default_factory=lambda: [0])

    def __len__(self) -> int:
        return self.shape[0]

    def __reduce__(self) -> tuple[Any, ...]:
        """Send another process where the entry lies, and not the images: it opens the entry, and verifies it."""
        return _reopened, (self.folder, self.ids)

    @property
    def key(self) -> str:
        """Hash of the images that the entry holds, in order, and of how they were prepared."""
        return self.folder.name

    def take(self, ids: Int[np.ndarray, " B"]) -> UInt8[np.ndarray, "B C H W"] | UInt16[np.ndarray, "B C H W"]:
        """Return copies of the images with these manifest ids, in this order.

        Args:
            ids: rows of the manifest that the cache was built for; repeats are allowed.

        Raises:
            ManifestError: naming ids that the cache does not hold.
        """
        rows = ids if self._place is None else self._place[np.clip(ids, 0, len(self._place) - 1)]
        limit = len(self) if self._place is None else len(self._place)
        wrong = ids[(ids < 0) | (ids >= limit) | (rows < 0)]
        if len(wrong):
            raise ManifestError(f"no image with id {wrong[:NAMED].tolist()} in the cache: build it for this manifest")
        # One long row per image: numpy gathers these twice as fast as small three-dimensional blocks.
        images = self._images[rows].reshape(len(ids), *self.shape[1:])
        self._release(images.nbytes)
        return images

    def _release(self, nbytes: int) -> None:
        # Mapped pages count as this process's memory until they are given back; they stay in the system's page cache.
        self._touched[0] += nbytes
        if self._touched[0] > RESIDENT_BYTES and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
            self._touched[0] = 0


def build_cache(
    manifest: Manifest,
    *,
    size: int,
    channels: int,
    root: Path,
    bits: int = 8,
    resize: Resize = "stretch",
    reading: Reading | None = None,
    on_unreadable: Literal["refuse", "skip"] = "refuse",
    workers: int | None = None,
    progress: Progress | None = None,
) -> ImageCache:
    """Return the cache entry of a manifest, decoding its images if nobody has yet.

    Every file is verified against its recorded hash before it is decoded. Processes decode; the memory in use does not
    grow with the number of images. Two processes may build the same entry at once: the first to finish wins.

    Args:
        manifest: the images, in order; splits and labels do not matter.
        size: side of the square images in pixels.
        channels: 1 or 3; or 2 or 4, for files that have as many.
        root: folder of all cache entries.
        bits: 8 or 16.
        resize: "stretch", "crop" or "pad"; see `raremix.data.readers.fit_image`.
        reading: which frame and range of values of DICOM and NIfTI files; see `raremix.data.readers.Reading`.
        on_unreadable: "refuse" files that cannot be read; or "skip" them: they are listed in the cache's `unreadable`.
        workers: decoding processes, where there is enough to do; one per processor by default.
        progress: called as blocks of images are done.

    Raises:
        ReadError: naming the files that are missing, damaged, or not what their hash says. What was read is kept, so
            that nothing is decoded twice.
        StorageError: if the disk is full; nothing half-written remains.
        CorruptError: if an entry exists that is not what its hash says.
        ConfigError: for a size, depth or number of channels that is not supported.
    """
    if channels not in {1, 2, 3, 4} or bits not in {8, 16} or size < 1 or resize not in {"stretch", "crop", "pad"}:
        raise ConfigError(
            "a cache needs size >= 1, channels 1 to 4, bits 8 or 16 and resize stretch, crop or pad; "
            f"got {size}, {channels}, {bits}, {resize!r}"
        )
    if not len(manifest):
        raise ManifestError(f"{manifest.card.name!r} has no images to cache: expected at least one row")
    reading = Reading() if reading is None else reading
    threads = workers or os.cpu_count() or 1
    manifest = with_digests(manifest, cache=root, workers=threads, progress=progress)
    folder = (
        root / "images" / cache_key(manifest, size=size, channels=channels, bits=bits, resize=resize, reading=reading)
    )
    if _is_mended(folder, manifest):
        files.remove_folder(folder)
    digest = None
    if not folder.exists():
        files.folder(folder.parent)
        files.sweep(folder.parent)
        shape = (len(manifest), channels, size, size)
        need = int(np.prod(shape, dtype=np.int64)) * (bits // 8)
        _require_space(folder, need)
        with files.atomic_folder(folder) as draft:
            failures: dict[int, Failure] = {}
            form = Form(size=size, channels=channels, bits=bits, resize=resize, reading=reading)
            hashes = manifest.frame["sha256"].to_list()
            blocks = decoded_blocks(manifest.paths(), hashes, failures, form=form, workers=threads, progress=progress)
            digest = files.stream_array(draft / ARRAY, blocks)
            if len(failures) == len(manifest):
                refuse_unreadable(manifest, _reasons(failures, manifest.ids))
            facts: dict[str, Any] = {"shape": list(shape), "bits": bits, "resize": resize, "bytes": need}
            facts |= {"blake2b": digest, "code_version": CODE_VERSION}
            facts["unreadable"] = [[place, *failures[place]] for place in sorted(failures)]
            files.write_json(draft / META, {**facts, "check": files.hash_value(facts)})
    cache = _open(folder, ids=manifest.ids, trusted=digest)
    if on_unreadable == "refuse":
        refuse_unreadable(manifest, cache.unreadable)
    return cache


def cache_key(
    manifest: Manifest, *, size: int, channels: int, bits: int, resize: Resize, reading: Reading | None = None
) -> str:
    """Return the name of a cache entry: a hash of the files' contents in order, the array's form and the code version.

    Raises:
        ManifestError: if a row has no sha256.
    """
    if manifest.frame["sha256"].null_count():
        raise ManifestError("every row needs its sha256 before its images are cached: use with_digests")
    contents = blake2b("\n".join(manifest.frame["sha256"]).encode(), digest_size=32).hexdigest()
    parts = {"size": size, "channels": channels, "bits": bits, "resize": resize, "contents": contents}
    chosen = Reading().key() if reading is None else reading.key()
    return files.hash_value({**parts, **({"reading": chosen} if chosen else {}), "code_version": CODE_VERSION})


def open_cache(folder: Path, *, ids: Int[np.ndarray, " n"] | None = None) -> ImageCache:
    """Open a cache entry after verifying its size and hash (once per process while the file does not change).

    Args:
        folder: the entry.
        ids: manifest ids in the order of the array; 0 .. n - 1 by default.

    Raises:
        CorruptError: naming the file that is not what it should be.
    """
    return _open(folder, ids=ids, trusted=None)


def _open(folder: Path, *, ids: Int[np.ndarray, " n"] | None, trusted: str | None) -> ImageCache:
    """Open an entry; `trusted` is its hash where this call has just written it."""
    meta, path = folder / META, folder / ARRAY
    advice = f"delete the folder {folder}; it is built again when needed"
    facts = _read_meta(meta)
    if facts is None:
        raise CorruptError(f"{meta} is missing or damaged: {advice}")
    shape = tuple(facts["shape"])
    try:
        status = path.stat()
        size = status.st_size
    except OSError:
        raise CorruptError(f"{path} is missing: {advice}") from None
    if size != facts["bytes"]:
        raise CorruptError(f"{path} holds {size:,} bytes, expected {facts['bytes']:,}: {advice}")
    if (trusted or _blake2b(path, size, status.st_mtime_ns, status.st_ino)) != facts["blake2b"]:
        raise CorruptError(f"{path} is not what its recorded hash says: {advice}")
    own = np.arange(shape[0], dtype=np.int64) if ids is None else ids
    if len(own) != shape[0]:
        raise ManifestError(f"{folder} holds {shape[0]} images, but {len(own)} ids were given")
    failures = _failures(facts)
    mapped = _map(path)
    dtype = np.dtype("<u1") if facts["bits"] == 8 else np.dtype("<u2")
    images = np.frombuffer(mapped, dtype=dtype).reshape(shape[0], -1)
    return ImageCache(
        folder=folder,
        ids=own,
        shape=shape,
        bits=facts["bits"],
        unreadable=_reasons(failures, own),
        _images=images,
        _map=mapped,
        _place=_places(own, without=list(failures)),
    )


def _reopened(folder: Path, ids: Int[np.ndarray, " n"]) -> ImageCache:
    return open_cache(folder, ids=ids)


def _is_mended(folder: Path, manifest: Manifest) -> bool:
    """Whether a file that could not be read when an entry was made can be read now; contents do not mend."""
    facts = _read_meta(folder / META) if folder.exists() else None
    for place, (kind, _) in ({} if facts is None else _failures(facts)).items():
        row = manifest.frame.row(place, named=True)
        try:
            if kind == "file":
                read_bytes(manifest.root / row["path"], sha256=row["sha256"])
                return True
        except ReadError:
            continue
    return False


def _failures(facts: Mapping[str, Any]) -> dict[int, Failure]:
    return {place: (kind, reason) for place, kind, reason in facts.get("unreadable", [])}


def _reasons(failures: Mapping[int, Failure], ids: Int[np.ndarray, " n"]) -> Reasons:
    return {int(ids[place]): reason for place, (_, reason) in failures.items()}


def _require_space(folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder.parent).free
    if need > free:
        raise StorageError(
            f"{folder}: the image cache needs {need / 2**20:,.0f} MiB, and {free / 2**20:,.0f} MiB are free: "
            "free some space, choose another cache folder, or a smaller image size"
        )


def _read_meta(path: Path) -> dict[str, Any] | None:
    try:
        facts = files.read_json(path)
    except (CorruptError, StorageError):
        return None
    if not isinstance(facts, dict) or facts.pop("check", None) != files.hash_value(facts):
        return None
    return facts


def _places(ids: Int[np.ndarray, " n"], *, without: list[int]) -> np.ndarray | None:
    """Return the row of every id as a table, -1 where there is none, or None where ids and rows are the same."""
    if not without and (ids == np.arange(len(ids))).all():
        return None
    place = np.full(int(ids.max()) + 1, -1, dtype=np.int64)
    place[ids] = np.arange(len(ids))
    place[ids[without]] = -1
    return place


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


# Keyed by the file's time and inode: within one process, an unchanged file is verified once.
@lru_cache(maxsize=256)
def _blake2b(path: Path, size: int, time: int, inode: int) -> str:
    digest = blake2b(digest_size=32)
    with path.open("rb") as file:
        while block := file.read(4 << 20):
            digest.update(block)
    return digest.hexdigest()
