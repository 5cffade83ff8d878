"""Use a fitted generator: draw images of a class, translate some of a split, and say with which settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from raremix.core import files
from raremix.core.errors import ConfigError, UnknownNameError
from raremix.generate import GeneratorCard, ImageGenerator, generator_hash
from raremix.generate.sampling import sample
from raremix.study.generators.album import COLUMNS, draw_translations, examples
from raremix.study.generators.guard import refuse_other_form
from raremix.study.generators.pictures import draw_sheet
from raremix.study.generators.synthesize import DRAWING_VERSIONS
from raremix.study.generators.use import drawing_device, drawn_with, open_generator, open_translator, refuse_unseen
from raremix.study.prepare import Prepared

SHOWN = 64
"""The most images on a sheet."""


def settings_of(card: GeneratorCard) -> list[str]:
    """Return the settings of a data set that make images as a generator draws them."""
    form = card.form
    return [f"data.size={form.size}", f"data.channels={form.channels}", f'data.resize="{card.resize}"']


def open_drawer(
    folder: Path, *, label: str, drawing: Mapping[str, Any] | None = None
) -> tuple[ImageGenerator, GeneratorCard]:
    """Load a generator that can draw a class from noise.

    Args:
        folder: of the generator.
        label: the class.
        drawing: settings of drawing, as `drawn_with` takes them.

    Raises:
        UnknownNameError: if the generator does not know the class, or a setting.
        ConfigError: if it is a translator, or never saw the class.
    """
    drawer, card = open_generator(folder)
    if label not in card.classes:
        raise UnknownNameError("class", label, card.classes)
    if not isinstance(drawer, ImageGenerator):
        raise ConfigError(f"{folder} is a {card.method}, which translates images: use `raremix generator translate`")
    refuse_unseen(folder, card, label)
    found = drawn_with(drawer, drawing or {})
    assert isinstance(found, ImageGenerator)
    return found, card


def sample_class(
    folder: Path, *, label: str, count: int, seed: int, output: Path, drawing: Mapping[str, Any] | None = None
) -> list[Path]:
    """Draw images of a class into a folder, and a sheet of them; image i is always the same for a seed and a class.

    Images that are there already, drawn by the same generator in the same way, are kept, so that a killed run goes on.
    What they were drawn by is told in a file beside them.

    Args:
        folder: of the generator.
        label: the class.
        count: how many.
        seed: of the noise.
        output: the folder of the images.
        drawing: settings of drawing, as `drawn_with` takes them.

    Raises:
        UnknownNameError: if the generator does not know the class.
        ConfigError: if it is a translator, or never saw the class.
        RunError: if there is no memory for a single image.
    """
    drawer, card = open_drawer(folder, label=label, drawing=drawing)
    stem = f"{files.file_name(label)}-{seed}"
    paths = [output / f"{stem}-{number:06d}.png" for number in range(count)]
    by = {"generator": generator_hash(folder), "class": label, "seed": seed, "drawing": dict(drawing or {})}
    by |= {"version": DRAWING_VERSIONS.get(card.method, 1)}
    log = output / f"{stem}.jsonl"
    # Where another generator drew, or this one in another way, everything is drawn anew.
    records = [record for record in files.read_records(log) if record["by"] == by]
    files.write_records(log, records)
    hashes = {record["number"]: record["sha256"] for record in records}
    is_there = [path.is_file() and hashes.get(i) == files.hash_file(path) for i, path in enumerate(paths)]
    drawn = sample(
        drawer,
        label=card.classes.index(label),
        classes=len(card.classes),
        numbers=np.flatnonzero(~np.array(is_there)),
        seed=seed,
        device=drawing_device(),
    )
    for numbers, images in drawn:
        for number, image in zip(numbers.tolist(), images, strict=True):
            files.write_image(paths[number], image.transpose(1, 2, 0))
            record = {"number": number, "sha256": files.hash_file(paths[number]), "by": by}
            files.append_record(log, record, durable=False)
        files.sync(log)
    shown = [_read(path) for path in paths[:SHOWN]]
    rows = [shown[i : i + COLUMNS] for i in range(0, len(shown), COLUMNS)]
    sheet = draw_sheet(rows, rows=[label] * len(rows), title=f"{folder.name}, seed {seed}")
    files.write_image(output / f"{stem}-sheet.png", sheet)
    return paths


def _read(path: Path) -> UInt8[np.ndarray, "C H W"]:
    with Image.open(path) as image:
        pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def translate_grid(
    folder: Path,
    prepared: Prepared,
    *,
    split: str,
    per_class: int,
    seed: int,
    output: Path,
    drawing: Mapping[str, Any] | None = None,
) -> Path:
    """Draw images, their reconstructions and their translations to each class.

    Args:
        folder: of the translator.
        prepared: the data.
        split: whose images: train, validation, test or all.
        per_class: images per class.
        seed: chooses them.
        output: the picture.
        drawing: settings of drawing, as `drawn_with` takes them.

    Raises:
        ConfigError: if the generator is no translator, or draws other images.
        ManifestError: if the split has no images.
    """
    drawer, card = open_translator(folder, drawing=drawing)
    manifest = prepared.manifest
    size = prepared.cache.shape[-1]
    refuse_other_form(folder, card, manifest, size=size, channels=prepared.channels)
    chosen = examples(manifest, manifest.rows_of(split), per_class=per_class, seed=seed)
    return files.write_image(output, draw_translations(drawer, prepared, chosen, title=f"{folder.name}, {split}"))
