"""Hyperplane difference maps of a data set: how each image must change until a classifier is undecided."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from raremix.core import files
from raremix.core.errors import ConfigError, UnknownNameError
from raremix.core.types import Progress
from raremix.explain import ClassPath, HyperplaneMaps, hyperplane_maps
from raremix.explain.scale import min_max
from raremix.generate.sampling import to_bytes
from raremix.models import load_classifier
from raremix.study.apply import refuse_other_classes, refuse_other_images
from raremix.study.generators.album import examples
from raremix.study.generators.guard import refuse_other_form
from raremix.study.generators.pictures import draw_sheet
from raremix.study.generators.use import drawing_device, open_translator
from raremix.study.prepare import Prepared
from raremix.train.feed import to_float

BATCH, FRAMES = 32, 12
COLUMNS = ("own", "again", "boundary", "change", "other class")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crossing:
    """Some images on their way to one other class.

    Attributes:
        ids: manifest rows.
        own, other: classes by name; `own` one per row.
        found: the maps.
        end: the images at the end of the way.
        strips: the images at equal places of the way, the start first.
    """

    ids: Int[np.ndarray, " n"]
    own: tuple[str, ...]
    other: str
    found: HyperplaneMaps
    end: Tensor
    strips: tuple[Tensor, ...]


def cross_boundaries(
    generator: Path,
    classifier: Path,
    prepared: Prepared,
    *,
    split: str = "test",
    per_class: int = 4,
    to: Sequence[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Crossing]:
    """Follow some images of each class towards each other class, up to the classifier's boundary.

    Args:
        generator: folder of a translator with a way between classes (stargan).
        classifier: folder of a classifier with a linear last layer.
        prepared: the data.
        split: whose images; "all" for all.
        per_class: images of each class.
        to: the classes to go to; all by default.
        seed: chooses the images.
        progress: called as images are followed.

    Raises:
        ConfigError: if the translator has no such way, or the classifier looks at other images.
        ManifestError: if the split has no images, or the classifier tells other classes apart.
        UnknownNameError: for a class or split that there is not.
    """
    path, card = open_translator(generator)
    if not isinstance(path, ClassPath):
        raise ConfigError(f"{generator} is a {card.method}, which has no way between classes: take a stargan")
    manifest = prepared.manifest
    refuse_other_form(generator, card, manifest, size=prepared.cache.shape[-1], channels=prepared.channels)
    model, facts = load_classifier(classifier)
    classes = manifest.card.classes
    refuse_other_classes(facts, manifest)
    refuse_other_images(classifier, facts, prepared.cache.shape)
    for name in to or ():
        if name not in classes:
            raise UnknownNameError("class", name, classes)
    chosen = examples(manifest, manifest.rows_of(split), per_class=per_class, seed=seed)
    labels = np.nan_to_num(manifest.targets(chosen)).argmax(axis=1)
    device, crossings = drawing_device(), []
    model.to(device)
    wanted = [k for k, name in enumerate(classes) if to is None or name in to]
    for done, other in enumerate(wanted):
        rows = np.flatnonzero(labels != other)
        if len(rows):
            crossings.append(_cross(model, path, prepared, chosen[rows], labels[rows], other, device))
        if progress is not None:
            progress("classes", done + 1, len(wanted))
    return crossings


def _cross(
    model: torch.nn.Module,
    path: ClassPath,
    prepared: Prepared,
    ids: Int[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    other: int,
    device: torch.device,
) -> Crossing:
    parts: list[HyperplaneMaps] = []
    strips: list[list[Tensor]] = []
    for start in range(0, len(ids), BATCH):
        images = to_float(prepared.cache.take(ids[start : start + BATCH])).to(device)
        own = torch.from_numpy(labels[start : start + BATCH]).to(device)
        away = torch.full_like(own, other)
        parts.append(hyperplane_maps(model, path, images, own=own, other=away))
        places = torch.linspace(0, 1, FRAMES, device=device)
        strips.append([path.along(images, own, away, place.expand(len(images))).cpu() for place in places])
    frames = tuple(torch.cat([strip[i] for strip in strips]) for i in range(FRAMES))
    names = ("maps", "start", "boundary", "place", "residual", "is_reached")
    found = HyperplaneMaps(**{name: torch.cat([getattr(part, name).cpu() for part in parts]) for name in names})
    classes = prepared.manifest.card.classes
    return Crossing(
        ids=ids, own=tuple(classes[k] for k in labels), other=classes[other], found=found, end=frames[-1], strips=frames
    )


def table_of(crossings: Sequence[Crossing]) -> pl.DataFrame:
    """Return one row per image and class: id, own, to, place, residual, reached, and the mean of the map."""
    parts = [
        pl.DataFrame(
            {
                "id": one.ids,
                "own": one.own,
                "to": [one.other] * len(one.ids),
                "place": one.found.place.double().numpy(),
                "residual": one.found.residual.double().numpy(),
                "reached": one.found.is_reached.numpy(),
                "change": one.found.maps.double().mean(dim=(1, 2, 3)).numpy(),
            }
        )
        for one in crossings
    ]
    return pl.concat(parts).with_columns(pl.col("change").fill_nan(None))


def pairs_of(crossings: Sequence[Crossing]) -> list[dict[str, Any]]:
    """Return, for each pair of classes, how many boundaries were reached, where on the way, and how closely.

    Keys: own, to, images, reached, place (mean), residual (largest; both None where none was reached).
    """
    rows: list[dict[str, Any]] = []
    for (own, other), part in table_of(crossings).group_by("own", "to", maintain_order=True):
        reached = part.filter("reached")
        rows.append(
            {
                "own": own,
                "to": other,
                "images": len(part),
                "reached": len(reached),
                "place": reached["place"].mean(),
                "residual": reached["residual"].max(),
            }
        )
    return rows


def write_crossings(crossings: Sequence[Crossing], prepared: Prepared, folder: Path) -> list[Path]:
    """Write `hdm.csv`, a sheet per class, and an animated strip per class; return their paths.

    Images whose boundary was not reached are on no sheet: there is nothing that their map could mean.
    """
    written = [files.write_csv(folder / "hdm.csv", table_of(crossings))]
    for one in crossings:
        rows = np.flatnonzero(one.found.is_reached.numpy()).tolist()
        if not rows:
            continue
        own = to_bytes(to_float(prepared.cache.take(one.ids)))
        start, boundary, end = (to_bytes(images) for images in (one.found.start, one.found.boundary, one.end))
        maps = to_bytes(min_max(one.found.maps.nan_to_num()))
        cells = [[own[i], start[i], boundary[i], maps[i], end[i]] for i in rows]
        title = f"towards {one.other}: what has to change until the classifier cannot decide"
        sheet = draw_sheet(cells, rows=[one.own[i] for i in rows], columns=COLUMNS, title=title)
        name = files.file_name(one.other)
        written.append(files.write_image(folder / f"hdm-{name}.png", sheet))
        frames = [draw_sheet([[image] for image in to_bytes(strip)[rows]], rows=[one.own[i] for i in rows])
                  for strip in one.strips]  # fmt: skip
        written.append(files.write_bytes(folder / f"strip-{name}.gif", animated([*frames, *frames[::-1]])))
    return written


def animated(frames: Sequence[UInt8[np.ndarray, "H W 3"]], *, milliseconds: int = 120) -> bytes:
    """Return pictures as an animated GIF that begins again."""
    pictures = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    stream = io.BytesIO()
    pictures[0].save(stream, "GIF", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
    return stream.getvalue()
