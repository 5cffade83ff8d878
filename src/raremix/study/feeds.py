"""What a training run is fed with: batches, the pool that partners come from, and importance maps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from raremix.core import files
from raremix.core.errors import ConfigError
from raremix.core.fitted import FITTED_ON, FittedOn, read_fitted, write_fitted
from raremix.core.memory import InParts
from raremix.core.random import rng, torch_seed
from raremix.core.types import Progress, Stream
from raremix.explain import DifferenceMap
from raremix.generate import generator_hash
from raremix.study.arm_table import ArmSpec
from raremix.study.fitted import check_fitted, rows_of
from raremix.study.generators.use import drawing_device, translators_in
from raremix.study.mixers import KeptImportance, kept_importance, make_mixer
from raremix.study.prepare import Prepared
from raremix.study.spec import StudySpec, augmentation_of, sampler_of
from raremix.train import Feed
from raremix.train.feed import to_float
from raremix.train.guide import GradientMaps, Guide, KeptMaps, RefreshedMaps, empty_maps, store

# Raise when the maps of an entry would change for the same settings.
MAPS_VERSION = 5

BATCH = 64
"""Images whose maps are drawn at once."""


def make_feed(spec: StudySpec, prepared: Prepared, arm: ArmSpec, *, seed: int, rank: int = 0, ranks: int = 1) -> Feed:
    """Build what makes an arm's batches, from the streams that its mixer asks for.

    Raises:
        ConfigError: if a stream has no images.
    """
    streams = make_mixer(arm.mix, where=f"arm.{arm.name}.mix").streams
    repeat = None if streams.repeat is None else max(1, streams.repeat // spec.train.batch_size)
    pool = None
    if streams.pool is not None:
        pool = _feed(spec, prepared, arm, streams.pool, seed=seed, rank=rank, ranks=ranks, repeat=repeat, number=1)
    return _feed(spec, prepared, arm, streams.own, seed=seed, rank=rank, ranks=ranks, repeat=repeat, pool=pool)


def rows_fed(feed: Feed) -> Int[np.ndarray, " n"]:
    """Return the manifest ids of all rows that a feed and its pool draw from, each once."""
    return np.unique(np.concatenate([feed.ids, *([] if feed.pool is None else [feed.pool.ids])]))


def make_guide(
    arm: ArmSpec, prepared: Prepared, feed: Feed, *, cache: Path, progress: Progress | None = None
) -> Guide | None:
    """Build what keeps importance maps for an arm's mixer, if it asks for maps that are kept."""
    kept = kept_importance(arm.mix, where=f"arm.{arm.name}.mix")
    if kept is None:
        return None
    rows = int(prepared.manifest.ids.max()) + 1  # a thinned manifest keeps the ids of the whole one
    where = f"arm.{arm.name}.mix.importance"
    if kept.table["name"] == "input_gradient":
        return GradientMaps(maps=empty_maps(rows, grid=kept.grid))
    if not kept.needs_model:
        return KeptMaps(maps=computed_maps(kept, prepared, cache=cache, where=where, progress=progress))
    ids = prepared.manifest.rows("train")
    return RefreshedMaps(
        maps=empty_maps(rows, grid=kept.grid),
        draw=lambda model: kept.build(where=where, model=model),
        images=prepared.cache,
        ids=ids,
        targets=np.nan_to_num(prepared.manifest.targets(ids)),
        every=max(1, round(kept.every * len(ids) / feed.batch_size)),
    )


def computed_maps(
    kept: KeptImportance, prepared: Prepared, *, cache: Path, where: str, progress: Progress | None = None
) -> UInt8[Tensor, "N m g g"]:
    """Return the maps of all training images, computed once and kept beside the image cache.

    Raises:
        CorruptError: if what is kept is damaged.
        HeldOutError: if what is kept holds maps of other rows than those of train.
    """
    manifest = prepared.manifest
    ids = manifest.rows("train")
    used = rows_of(manifest, ids)
    about = [kept.table, *(generator_hash(Path(name)) for name in translators_in(kept.table))]
    about += ["towards every class"] if kept.is_per_class else []
    key = files.hash_value([MAPS_VERSION, *about, kept.grid, prepared.cache.key, ids.tolist()])
    folder = cache / "importance" / key[:32]
    each = len(manifest.card.classes) if kept.is_per_class else 1
    shape = (int(manifest.ids.max()) + 1, each, kept.grid, kept.grid)
    targets = np.nan_to_num(manifest.targets(ids))
    if folder.exists():
        files.verify(folder, advice="delete it, and it will be made again")
        check_fitted({"importance maps": _rows_behind(folder)}, manifest, where=str(folder))
        found = torch.from_numpy(np.fromfile(folder / "maps.raw", dtype=np.uint8).reshape(shape))
        return exchanged(found, ids, targets) if kept.shuffled else found
    draw, maps = kept.build(where=where), empty_maps(shape[0], grid=kept.grid, maps=each)
    device, parts = drawing_device() if kept.is_per_class else torch.device("cpu"), InParts()

    def drawn(images: Tensor, own: Tensor, numbers: np.ndarray) -> Tensor:
        if not isinstance(draw, DifferenceMap):
            return draw(images, own)
        # Towards their own class too: VariMix as published mixes pairs of one class.
        return draw.towards_every(images, own, numbers=numbers)

    for start in range(0, len(ids), BATCH):
        chosen = ids[start : start + BATCH].copy()  # the manifest's own column cannot be written to
        images = to_float(prepared.cache.take(chosen)).to(device)
        own = torch.from_numpy(targets[start : start + BATCH]).float().to(device)
        store(maps, torch.from_numpy(chosen), parts(drawn, images, own, chosen))
        if progress is not None:
            progress("importance maps", start + len(chosen), len(ids))
    files.folder(folder.parent)
    with files.atomic_folder(folder) as draft:
        files.write_bytes(draft / "maps.raw", maps.numpy().tobytes())
        write_fitted(draft, {"train": used})
        files.seal(draft, ["maps.raw", FITTED_ON])
    return exchanged(maps, ids, targets) if kept.shuffled else maps


def exchanged(
    maps: UInt8[Tensor, "N m g g"], ids: Int[np.ndarray, " n"], targets: Float[np.ndarray, "n K"]
) -> UInt8[Tensor, "N m g g"]:
    """Return the maps handed round among the images of each class, so that no image of a class of several has its own.

    Args:
        maps: one set per manifest row.
        ids: the training rows.
        targets: their labels; rows with the same labels are of one class.
    """
    found = maps.clone()
    _, classes = np.unique(targets, axis=0, return_inverse=True)
    for k in range(int(classes.max()) + 1):
        own = ids[classes.ravel() == k]
        ring = own[rng(0, "pair", k, 1).permutation(len(own))]
        found[torch.from_numpy(ring)] = maps[torch.from_numpy(np.roll(ring, 1))]
    return found


def _rows_behind(folder: Path) -> dict[str, str | int]:
    (use, rows), *_ = [*(read_fitted(folder) or {}).items(), ("nothing", FittedOn(keys=np.zeros(0, dtype=np.int64)))]
    return {"split": use, **rows.facts()}


def _feed(
    spec: StudySpec,
    prepared: Prepared,
    arm: ArmSpec,
    stream: Stream,
    *,
    seed: int,
    rank: int,
    ranks: int,
    repeat: int | None,
    number: int = 0,
    pool: Feed | None = None,
) -> Feed:
    manifest = prepared.manifest
    ids = manifest.rows("train")
    is_synthetic = manifest.frame["origin"].to_numpy()[manifest.positions(ids)] == "synthetic"
    if stream.origin != "any":
        chosen = is_synthetic == (stream.origin == "synthetic")
        ids, is_synthetic = ids[chosen], is_synthetic[chosen]
    if not len(ids):
        raise ConfigError(
            f"arm.{arm.name}.mix = {arm.mix['name']!r} mixes with {stream.origin} images, and the training split has "
            'none: add rows whose column "origin" says so'
        )
    targets = manifest.targets(ids)
    table = arm if stream.sampling is None else replace(arm, sampler={"name": stream.sampling})
    return Feed(
        images=prepared.cache,
        ids=ids,
        targets=targets,
        sampler=sampler_of(table, targets=targets, seed=torch_seed(seed, "sample", number) if number else seed),
        augmentation=augmentation_of(arm, modality=manifest.card.modality),
        batch_size=spec.train.batch_size,
        seed=seed,
        rank=rank,
        ranks=ranks,
        is_synthetic=is_synthetic if is_synthetic.any() else None,
        repeat=repeat,
        stream=number,
        pool=pool,
    )
