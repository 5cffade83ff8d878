"""The vectors of a manifest's images, kept in the cache by the images' content.

They lie in shards that appear by one rename each: an audit that was stopped goes on where it was, and one of a data set
that grew encodes what is new.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import safetensors
import torch
from jaxtyping import Float

from raremix.core import files
from raremix.core.errors import ConfigError, CorruptError
from raremix.core.types import Progress
from raremix.data.decoding import decoded_blocks
from raremix.data.digests import with_digests
from raremix.data.manifest import Manifest
from raremix.data.quarantine import refuse_unreadable
from raremix.data.readers.block import Failure
from raremix.data.thumbnails import thumbnails
from raremix.study.audit.representation import Representation
from raremix.train.feed import to_float

SHARD = 1024
"""Images in a shard: what an interruption costs at most."""

Shard = dict[str, np.ndarray]
PARTS = ("features", "sha256", "thumbnails")
Places = dict[str, tuple[Path, int]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Vectors:
    """The vectors of a manifest's images, in its order.

    Attributes:
        features: by the representation.
        thumbnails: see `raremix.data.thumbnails`.
    """

    features: Float[np.ndarray, "n d"]
    thumbnails: Float[np.ndarray, "n 256"]


def vectors_of(
    manifest: Manifest,
    representation: Representation,
    *,
    cache: Path,
    workers: int = 2,
    progress: Progress | None = None,
) -> Vectors:
    """Return the vectors of all images; those that the cache holds are not made again.

    Args:
        manifest: the images; all must be readable.
        representation: how.
        cache: the cache folder.
        workers: processes that decode, where there is enough to do.
        progress: called as images are encoded.

    Raises:
        ReadError: naming the rows that cannot be read.
        ConfigError: if the vectors of a network are not of one length, or not finite.
    """
    manifest = with_digests(manifest, cache=cache, workers=workers, progress=progress)
    hashes = manifest.frame["sha256"].to_list()
    folder = cache / "vectors" / representation.key
    files.sweep(folder)
    known = _index(folder)
    places = {digest: place for place, digest in reversed(list(enumerate(hashes))) if digest not in known}
    missing = sorted(places.values())
    for done, shard in _encoded(manifest, missing, representation, workers=workers):
        _write_shard(folder, shard)
        if progress is not None:
            progress("encode images", done, len(missing))
    return _gather(_index(folder), hashes)


def _encoded(
    manifest: Manifest, places: Sequence[int], representation: Representation, *, workers: int
) -> Iterator[tuple[int, Shard]]:
    """Decode and encode the images at these places; yield shards and how many images are done."""
    if not places:
        return
    paths, hashes = manifest.paths(), manifest.frame["sha256"].to_list()
    chosen_paths, chosen = [paths[place] for place in places], [hashes[place] for place in places]
    failures: dict[int, Failure] = {}
    blocks = decoded_blocks(chosen_paths, chosen, failures, form=representation.form, workers=workers)
    start = done = 0
    held: list[Shard] = []
    for block in blocks:
        held.append({"features": _vectors(block, representation), "thumbnails": thumbnails(block)})
        done += len(block)
        if done - start >= SHARD or done == len(places):
            if failures:
                rows = manifest.ids[[places[place] for place in failures]]
                reasons = [reason for _, reason in failures.values()]
                refuse_unreadable(manifest, dict(zip(rows.tolist(), reasons, strict=True)))
            digests = np.frombuffer(bytes.fromhex("".join(chosen[start:done])), dtype=np.uint8).reshape(-1, 32)
            parts = {name: np.concatenate([part[name] for part in held]) for name in ("features", "thumbnails")}
            yield done, {**parts, "sha256": digests}
            held, start = [], done


def _vectors(block: np.ndarray, representation: Representation) -> Float[np.ndarray, "B D"]:
    with torch.inference_mode():
        images = to_float(block).contiguous(memory_format=torch.channels_last)
        found = representation.encode(images).float().numpy()
    if found.ndim != 2 or not np.isfinite(found).all():
        raise ConfigError(
            f"{representation.name} does not turn images into finite vectors (it gave {found.shape}): choose others"
        )
    # Half precision keeps distances to a thousandth, and half of the space.
    scale = np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-30)
    return (found / scale).astype(np.float16)


def _write_shard(folder: Path, shard: Shard) -> None:
    tensors = {name: torch.from_numpy(value.copy()) for name, value in shard.items()}
    name = blake2b(shard["sha256"].tobytes(), digest_size=12).hexdigest()
    files.write_tensors(folder / f"{name}.safetensors", tensors, {"check": _check(shard)})


def _check(shard: Shard) -> str:
    digest = blake2b(digest_size=16)
    for name in PARTS:
        digest.update(np.ascontiguousarray(shard[name]).view(np.uint8).data)
    return digest.hexdigest()


def _read_shard(path: Path) -> Shard | None:
    """Read a shard; None if it is damaged: its images are encoded again."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            said = (file.metadata() or {}).get("check")
            shard = {name: file.get_tensor(name) for name in PARTS}
    except (OSError, safetensors.SafetensorError):
        return None
    return shard if _check(shard) == said else None


def _index(folder: Path) -> Places:
    found: Places = {}
    for path in sorted(folder.glob("*.safetensors")):
        shard = _read_shard(path)
        if shard is None:
            files.remove_file(path)
            continue
        found |= {row.tobytes().hex(): (path, place) for place, row in enumerate(shard["sha256"])}
    return found


def _gather(known: Places, hashes: Sequence[str]) -> Vectors:
    wanted: dict[Path, list[tuple[int, int]]] = {}
    for row, digest in enumerate(hashes):
        path, place = known[digest]
        wanted.setdefault(path, []).append((row, place))
    features = small = np.zeros((0, 0), dtype=np.float32)
    for path, pairs in wanted.items():
        shard = _read_shard(path)
        if shard is None:
            raise CorruptError(f"{path} was damaged while it was read: run the command again")
        if not features.size:
            features = np.empty((len(hashes), shard["features"].shape[1]), dtype=np.float32)
            small = np.empty((len(hashes), shard["thumbnails"].shape[1]), dtype=np.float32)
        rows, places = np.array(pairs).T
        features[rows], small[rows] = shard["features"][places], shard["thumbnails"][places]
    return Vectors(features=features, thumbnails=small)
