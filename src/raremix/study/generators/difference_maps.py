"""Difference maps of a data set: what a translator changes in every image, towards every other class."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from raremix.core import files
from raremix.core.errors import ConfigError
from raremix.core.memory import InParts
from raremix.core.types import Progress
from raremix.explain import DifferenceMap
from raremix.generate import generator_hash
from raremix.generate.sampling import to_bytes
from raremix.study.generators.album import examples
from raremix.study.generators.guard import refuse_other_form
from raremix.study.generators.pictures import draw_sheet
from raremix.study.generators.use import TRANSLATORS, drawing_device, open_translator
from raremix.study.prepare import Prepared
from raremix.train.feed import to_float

VERSION = 3
"""Raised when the maps of an entry would change for the same settings."""

BATCH = 32
PARTS = ("maps.raw", "areas.parquet", "facts.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSettings:
    """How difference maps are made; see `raremix.explain.DifferenceMap`.

    Attributes:
        style: where the translations' style comes from: "reference", "latent", "mean"; None: as the translator has it.
        to_reconstruction: compare with the image as the translator draws it unchanged.
        robust: scale by the 99.5th percentile.
        seed: of the styles.
    """

    style: str | None = None
    to_reconstruction: bool = True
    robust: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferenceMaps:
    """The difference maps of a split, on disk.

    Attributes:
        folder: the cache entry.
        ids: manifest ids, in the order of the maps.
        classes: names.
        side: of a map in pixels.
        areas: one row per map: id, own class, target class, and the mean of the map, which is the expected area of its
            mask under a uniform threshold.
    """

    folder: Path
    ids: Int[np.ndarray, " n"]
    classes: tuple[str, ...]
    side: int
    areas: pl.DataFrame

    def take(self, rows: Int[np.ndarray, " B"]) -> UInt8[np.ndarray, "B K h w"]:
        """Return the maps of some images, by their place in `ids`; those towards an image's own class are zero."""
        shape = (len(self.ids), len(self.classes), self.side, self.side)
        return np.array(np.memmap(self.folder / "maps.raw", dtype=np.uint8, mode="r", shape=shape)[rows])

    def summary(self) -> list[dict[str, Any]]:
        """Return, per pair of classes, how large masks will be.

        `median` and `tenth` are quantiles over images of the mean map; `flat` counts the maps without any change.
        """
        grouped = self.areas.group_by("own", "to", maintain_order=True).agg(
            maps=pl.len(),
            mean=pl.col("area").mean(),
            tenth=pl.col("area").quantile(0.1, interpolation="linear"),
            median=pl.col("area").median(),
            flat=(pl.col("area") == 0).sum(),
        )
        return grouped.sort("own", "to").to_dicts()


def compute_maps(
    folder: Path,
    prepared: Prepared,
    *,
    split: str,
    cache: Path,
    settings: MapSettings | None = None,
    progress: Progress | None = None,
) -> DifferenceMaps:
    """Return the difference maps of a split's images towards every other class, computed once, in 8 bits.

    Maps are written as they come, so that the memory in use does not grow with their number.

    Args:
        folder: of the translator.
        prepared: the data.
        split: train, validation, test, or all.
        cache: the cache folder.
        settings: how.
        progress: called after every batch.

    Raises:
        ConfigError: if the generator is no translator, or draws other images.
        ManifestError: if the split has no images.
        CorruptError: if an entry is damaged.
    """
    asked = settings or MapSettings()
    _, card = open_translator(folder)
    manifest = prepared.manifest
    refuse_other_form(folder, card, manifest, size=prepared.cache.shape[-1], channels=prepared.channels)
    ids = manifest.rows_of(split)
    key = files.hash_value(
        [VERSION, generator_hash(folder), asdict(asked), prepared.cache.key, ids.tolist(), list(card.classes)]
    )
    entry = cache / "difference" / key
    if not entry.exists():
        files.folder(entry.parent)
        files.sweep(entry.parent)
        with files.atomic_folder(entry) as draft:
            areas = np.full((len(ids), len(card.classes)), np.nan, dtype=np.float32)
            blocks = _blocks(folder, prepared, ids, asked, areas, progress=progress)
            files.stream_array(draft / "maps.raw", blocks)
            files.write_parquet(draft / "areas.parquet", _area_table(areas, prepared, ids))
            files.write_json(draft / "facts.json", {"ids": ids.tolist(), "side": card.form.size})
            files.seal(draft, PARTS)
    files.verify(entry, advice="delete the folder; it is made again when needed")
    return DifferenceMaps(
        folder=entry,
        ids=ids,
        classes=card.classes,
        side=card.form.size,
        areas=pl.read_parquet(entry / "areas.parquet"),
    )


def draw_maps(maps: DifferenceMaps, prepared: Prepared, *, per_class: int, seed: int, output: Path) -> Path:
    """Draw images of every class with their difference maps towards each class."""
    chosen = examples(prepared.manifest, maps.ids, per_class=per_class, seed=seed)
    place = {int(i): n for n, i in enumerate(maps.ids)}
    found = maps.take(np.array([place[int(i)] for i in chosen], dtype=np.int64))
    images = prepared.cache.take(chosen)
    own = np.nan_to_num(prepared.manifest.targets(chosen)).argmax(axis=1)
    cells = [[images[i], *(found[i, k : k + 1] for k in range(len(maps.classes)))] for i in range(len(chosen))]
    names = [maps.classes[k] for k in own]
    sheet = draw_sheet(cells, rows=names, columns=["own", *(f"to {name}" for name in maps.classes)])
    return files.write_image(output, sheet)


def _blocks(
    folder: Path,
    prepared: Prepared,
    ids: Int[np.ndarray, " n"],
    settings: MapSettings,
    areas: Float[np.ndarray, "n K"],
    *,
    progress: Progress | None,
) -> Iterator[np.ndarray]:
    """Yield the maps batch by batch, and write the mean of each map into `areas`."""
    style: Mapping[str, Any] = {} if settings.style is None else {"style": settings.style}
    try:
        translator = TRANSLATORS[str(folder)](**style)
    except TypeError as error:
        raise ConfigError(f"style = {settings.style!r} does not fit: {error}") from None
    draw = DifferenceMap(
        translator=translator,
        to_reconstruction=settings.to_reconstruction,
        robust=settings.robust,
        seed=settings.seed,
    )
    targets = torch.from_numpy(np.nan_to_num(prepared.manifest.targets(ids))).float()
    device, parts = drawing_device(), InParts()

    def towards_others(images: Tensor, own: Tensor, numbers: np.ndarray) -> Tensor:
        return draw.towards_every(images, own, numbers=numbers, with_own=False)

    for start in range(0, len(ids), BATCH):
        rows = slice(start, start + BATCH)
        images = to_float(prepared.cache.take(ids[rows])).to(device)
        found = parts(towards_others, images, targets[rows].to(device), ids[rows]).cpu()
        areas[rows] = found.mean(dim=(2, 3)).numpy()
        yield to_bytes(found)
        if progress is not None:
            progress("difference maps", start + len(images), len(ids))


def _area_table(areas: Float[np.ndarray, "n K"], prepared: Prepared, ids: Int[np.ndarray, " n"]) -> pl.DataFrame:
    """Return one row per image and other class."""
    classes = np.array(prepared.manifest.card.classes)
    own = np.nan_to_num(prepared.manifest.targets(ids)).argmax(axis=1)
    image, to = np.nonzero(np.arange(len(classes)) != own[:, None])
    return pl.DataFrame(
        {"id": ids[image], "own": classes[own[image]], "to": classes[to], "area": areas[image, to].astype(np.float64)}
    )
