"""Decode once: all images of a manifest at one size, as one array on disk that every later epoch reads.

A cache entry is a folder that appears by one rename and holds `images.raw` (uint8 or uint16, shape (n, C, H, W)) and
`meta.json`, written last, with the array's size and BLAKE2b hash. Its name is a hash of what went in: the content of
every file in order, the size, channels, depth and way to resize, and `CODE_VERSION`. It may be deleted at any time.
"""

import mmap
import os
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8, UInt16

from raremix.core import files
from raremix.core.errors import ConfigError, CorruptError, ManifestError, ReadError, StorageError
from raremix.core.types import Progress
from raremix.data.digests import with_digests
from raremix.data.manifest import NAMED, Manifest
from raremix.data.readers import Resize, decode_image, fit_image, read_bytes

# Raise when the pixels of an entry would change: other decoding, scaling or conversion.
CODE_VERSION = 1
ARRAY, META = "images.raw", "meta.json"
# Decoded images that wait to be written, and mapped pages that may stay in memory: both bound the peak, whatever n is.
BLOCK_BYTES = 4 << 20
RESIDENT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageCache:
    """Decoded images on disk, read by row.

    Attributes:
        folder: the cache entry.
        ids: manifest ids in the order of the array.
        shape: (n, C, H, W).
        bits: 8 or 16.

    Example:
        ``build_cache(manifest, size=64, channels=3, root=Path("cache")).take(manifest.rows("train")[:8])``
    """

    folder: Path
    ids: Int[np.ndarray, " n"]
    shape: tuple[int, int, int, int]
    bits: int
    _images: np.ndarray = field(repr=False)
    _map: mmap.mmap = field(repr=False)
    _place: np.ndarray | None = field(repr=False)
    _touched: list[int] = field(repr=False, default_factory=lambda: [0])

    def __len__(self) -> int:
        return self.shape[0]

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
    workers: int | None = None,
    progress: Progress | None = None,
) -> ImageCache:
    """Return the cache entry of a manifest, decoding its images if nobody has yet.

    Every file is verified against its recorded hash before it is decoded. Threads decode; the memory in use does not
    grow with the number of images. Two processes may build the same entry at once: the first to finish wins.

    Args:
        manifest: the images, in order; splits and labels do not matter.
        size: side of the square images in pixels.
        channels: 1 or 3; or 2 or 4, for files that have as many.
        root: folder of all cache entries.
        bits: 8 or 16.
        resize: "stretch", "crop" or "pad"; see `raremix.data.readers.fit_image`.
        workers: decoding threads; one per processor by default.
        progress: called as blocks of images are done.

    Raises:
        ReadError: naming the files that are missing, damaged, or not what their hash says.
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
    threads = workers or os.cpu_count() or 1
    manifest = with_digests(manifest, cache=root, workers=threads, progress=progress)
    folder = root / "images" / cache_key(manifest, size=size, channels=channels, bits=bits, resize=resize)
    if not folder.exists():
        files.folder(folder.parent)
        files.sweep(folder.parent)
        shape = (len(manifest), channels, size, size)
        need = int(np.prod(shape, dtype=np.int64)) * (bits // 8)
        _require_space(folder, need)
        with files.atomic_folder(folder) as draft:
            blocks = _decoded(
                manifest, size=size, channels=channels, bits=bits, resize=resize, workers=threads, progress=progress
            )
            digest = files.stream_array(draft / ARRAY, blocks)
            facts = {"shape": list(shape), "bits": bits, "resize": resize, "bytes": need, "blake2b": digest}
            facts["code_version"] = CODE_VERSION
            files.write_json(draft / META, {**facts, "check": files.hash_value(facts)})
    return open_cache(folder, ids=manifest.ids)


def cache_key(manifest: Manifest, *, size: int, channels: int, bits: int, resize: Resize) -> str:
    """Return the name of a cache entry: a hash of the files' contents in order, the array's form and the code version.

    Raises:
        ManifestError: if a row has no sha256.
    """
    if manifest.frame["sha256"].null_count():
        raise ManifestError("every row needs its sha256 before its images are cached: use with_digests")
    contents = blake2b("\n".join(manifest.frame["sha256"]).encode(), digest_size=32).hexdigest()
    parts = {"size": size, "channels": channels, "bits": bits, "resize": resize, "contents": contents}
    return files.hash_value({**parts, "code_version": CODE_VERSION})


def open_cache(folder: Path, *, ids: Int[np.ndarray, " n"] | None = None) -> ImageCache:
    """Open a cache entry after verifying its size and hash (once per process while the file does not change).

    Args:
        folder: the entry.
        ids: manifest ids in the order of the array; 0 .. n - 1 by default.

    Raises:
        CorruptError: naming the file that is not what it should be.
    """
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
    if _blake2b(path, size, status.st_mtime_ns, status.st_ino) != facts["blake2b"]:
        raise CorruptError(f"{path} is not what its recorded hash says: {advice}")
    own = np.arange(shape[0], dtype=np.int64) if ids is None else ids
    if len(own) != shape[0]:
        raise ManifestError(f"{folder} holds {shape[0]} images, but {len(own)} ids were given")
    mapped = _map(path)
    dtype = np.dtype("<u1") if facts["bits"] == 8 else np.dtype("<u2")
    images = np.frombuffer(mapped, dtype=dtype).reshape(shape[0], -1)
    return ImageCache(
        folder=folder, ids=own, shape=shape, bits=facts["bits"], _images=images, _map=mapped, _place=_places(own)
    )


def _decoded(
    manifest: Manifest, *, size: int, channels: int, bits: int, resize: Resize, workers: int, progress: Progress | None
) -> Iterator[np.ndarray]:
    """Yield blocks of decoded images in order; a few blocks are decoded ahead."""
    frame = manifest.frame
    names = [f"row {row} ({path})" for row, path in zip(frame["id"], frame["path"], strict=True)]
    paths, hashes = manifest.paths(), frame["sha256"].to_list()
    each = channels * size * size * (bits // 8)
    length = max(1, min(64, BLOCK_BYTES // max(each, 1)))
    failures: list[ReadError] = []

    def decode(start: int) -> np.ndarray:
        stop = min(start + length, len(paths))
        block = np.zeros((stop - start, channels, size, size), dtype=np.uint8 if bits == 8 else np.uint16)
        for i in range(start, stop):
            try:
                data = read_bytes(paths[i], name=names[i], sha256=hashes[i])
                pixels = decode_image(data, name=names[i], keep_alpha=channels in {2, 4})
                if channels in {2, 4} and pixels.shape[2] != channels:
                    raise ReadError(
                        names[i], f"has {pixels.shape[2]} channels, expected {channels}: use channels 1 or 3"
                    )
            except ReadError as error:
                failures.append(error)
                if len(failures) >= NAMED:
                    break
                continue
            fitted = fit_image(pixels, size=size, channels=channels, bits=bits, resize=resize)
            block[i - start] = fitted.transpose(2, 0, 1)
        return block

    starts = iter(range(0, len(paths), length))
    done = 0
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        ahead: deque[Future[np.ndarray]] = deque(pool.submit(decode, start) for start in islice(starts, workers + 2))
        while ahead:
            block = ahead.popleft().result()
            if len(failures) >= NAMED:
                pool.shutdown(cancel_futures=True)
                break
            start = next(starts, None)
            if start is not None:
                ahead.append(pool.submit(decode, start))
            yield block
            done += len(block)
            if progress is not None:
                progress("decode images", done, len(paths))
    if failures:
        raise _gathered(failures)


def _gathered(failures: list[ReadError]) -> ReadError:
    first = failures[0]
    others = ", ".join(error.path_id for error in failures[1:NAMED])
    more = " and perhaps others" if len(failures) >= NAMED else ""
    return ReadError(first.path_id, f"{first.reason}; look also at {others}{more}") if others else first


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


def _places(ids: Int[np.ndarray, " n"]) -> np.ndarray | None:
    """Return the row of every id as a table, or None where ids and rows are the same."""
    if (ids == np.arange(len(ids))).all():
        return None
    place = np.full(int(ids.max()) + 1, -1, dtype=np.int64)
    place[ids] = np.arange(len(ids))
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
