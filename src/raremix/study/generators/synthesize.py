"""Synthesize: images and manifest rows from a fitted generator, up to a count per class."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import torch
from jaxtyping import Int, UInt8

from raremix.core import files
from raremix.core.errors import ConfigError, GuardError, ResumeError
from raremix.core.fitted import FITTED_ON
from raremix.core.memory import InParts
from raremix.core.protocols import ImageReconstructor
from raremix.core.random import rng
from raremix.core.types import Progress
from raremix.data.manifest import TARGET, Manifest
from raremix.data.unnamed import unnamed_groups
from raremix.generate import ClassTranslator, GeneratorCard, ImageGenerator, generator_hash
from raremix.generate.sampling import block_of, redraw, sample, to_bytes
from raremix.study.extra_images import Begin, counts_up_to
from raremix.study.generators.guard import refuse_among_real, refuse_leaking, refuse_other_form
from raremix.study.generators.spec import fitted_ids
from raremix.study.generators.use import drawing_device, drawn_with, open_generator, refuse_unseen
from raremix.study.prepare import Prepared
from raremix.train.feed import to_float

LOG = "images.jsonl"
FACTS = "synthesis.json"
DRAWING_VERSIONS = {"diffusion": 3, "latent_diffusion": 2, "textual_inversion": 2}
"""Raised when the same generator draws other images from the same noise: a folder that was begun before is not gone on
with."""

TRANSLATING_VERSION = 2
"""The same of images that begin as training images."""

VERSIONS = ("version", "translating")
"""Where a recipe says which of them it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesisPlan:
    """What is to be made.

    Attributes:
        real: real training images by class.
        wanted: synthetic images by class.
        done: those of them that are there already.
    """

    real: dict[str, int]
    wanted: dict[str, int]
    done: dict[str, int]


def plan_synthesis(prepared: Prepared, *, to: str | Mapping[str, int], output: Path) -> SynthesisPlan:
    """Count what is to be made.

    Args:
        prepared: the data.
        to: "balanced": every class gets as many training images as the largest has; a number: every class gets that
            many; "df=200,vasc=100", or a mapping: these classes get that many. Real images count.
        output: the folder that may hold some already.

    Raises:
        ConfigError: for a text that says none of these.
        UnknownNameError: for a class that there is not.
    """
    manifest = prepared.manifest
    names, ids = manifest.card.classes, fitted_ids(prepared)
    counts = np.nansum(manifest.targets(ids), axis=0).astype(int)
    real = {name: int(n) for name, n in zip(names, counts, strict=True)}
    target = counts_up_to(to, real) if isinstance(to, str) else to
    wanted = {name: max(0, target.get(name, 0) - real[name]) for name in names}
    there = _records(output)
    done = {name: sum(1 for label, number in there if label == name and number < wanted[name]) for name in names}
    return SynthesisPlan(real=real, wanted=wanted, done=done)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What `synthesize` works with, checked.

    Attributes:
        drawer: what draws, with the settings asked for.
        card: of the generator.
        begin: what images begin as.
        recipe: what is written of each image.
        plan: what is to be made.
    """

    drawer: ImageGenerator | ImageReconstructor
    card: GeneratorCard
    begin: Begin
    recipe: dict[str, Any]
    plan: SynthesisPlan


def check_synthesis(
    prepared: Prepared,
    *,
    generator: Path,
    output: Path,
    to: str | Mapping[str, int] = "balanced",
    seed: int = 0,
    begin: Begin = "auto",
    drawing: Mapping[str, Any] | None = None,
) -> Ready:
    """Refuse what `synthesize` could not do with the same arguments, and change nothing.

    Raises:
        ConfigError, UnknownNameError, GuardError, HeldOutError, ResumeError: as `synthesize` says.
    """
    drawer, card = open_generator(generator)
    drawer = drawn_with(drawer, drawing or {})
    start = _begin(begin, drawer, generator, card)
    manifest = prepared.manifest
    refuse_other_form(generator, card, manifest, size=prepared.cache.shape[-1], channels=prepared.channels)
    refuse_leaking(generator, manifest, what=f"the generator {generator}")
    refuse_among_real(output, manifest, option="--output")
    plan = plan_synthesis(prepared, to=to, output=output)
    for name, count in plan.wanted.items():
        if count:
            refuse_unseen(generator, card, name)
    recipe = {"generator": generator_hash(generator), "method": card.method, "seed": seed}
    recipe |= {} if begin == "auto" else {"begin": begin}
    recipe |= {"version": DRAWING_VERSIONS[card.method]} if card.method in DRAWING_VERSIONS else {}
    recipe |= {} if start == "noise" else {"translating": TRANSLATING_VERSION}
    recipe |= {"drawing": dict(sorted(drawing.items()))} if drawing else {}
    _refuse_other_images(output, {**recipe, "data": manifest.hash()})
    return Ready(drawer=drawer, card=card, begin=start, recipe=recipe, plan=plan)


def synthesize(
    prepared: Prepared,
    *,
    generator: Path,
    output: Path,
    to: str | Mapping[str, int] = "balanced",
    seed: int = 0,
    begin: Begin = "auto",
    drawing: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Make synthetic training images and a manifest of real and synthetic rows.

    Image i of a class is always the same for a generator and a seed, its parent and its noise too, so that a killed run
    goes on, and a second one finds nothing to do. Images that begin as training images have those as parents. Real
    files are read only; of their rows, the names of groups become numbers, so that no patient's name leaves its place.

    Args:
        prepared: the data; its split is written into the manifest.
        generator: folder of a fitted one.
        output: folder of the images and of `manifest.parquet`.
        to: see `plan_synthesis`.
        seed: of the noise.
        begin: what an image begins as.
        drawing: settings of drawing: strength, steps, guidance, whichever the generator has.
        progress: called after every block of images.

    Returns:
        The manifest's path.

    Raises:
        ConfigError: if the generator cannot begin so, or never saw a class that is asked for.
        UnknownNameError: for a setting of drawing that it has not.
        GuardError: if the output would touch real files.
        HeldOutError: if the generator was fitted on rows that these data hold out.
        ResumeError: if the output holds images of another generator, seed or data set, or of an earlier raremix that
            drew others.
        RunError: if there is no memory for a single image.
    """
    ready = check_synthesis(
        prepared, generator=generator, output=output, to=to, seed=seed, begin=begin, drawing=drawing
    )
    manifest, recipe, plan = prepared.manifest, ready.recipe, ready.plan
    with files.claim(output / ".claim", what=f"synthesis in {output}"):
        files.sweep(output, recursive=True)
        facts = {**recipe, "data": manifest.hash()}
        _refuse_other_images(output, facts)  # another process may have written since
        files.write_json(output / FACTS, facts)
        beside = files.folder(output / "generators" / str(recipe["generator"]))
        if not (beside / FITTED_ON).is_file():
            files.write_bytes(beside / FITTED_ON, (generator / FITTED_ON).read_bytes())
            files.write_json(beside / "config.json", files.read_json(generator / "config.json"))
        there, done, total = _records(output), sum(plan.done.values()), sum(plan.wanted.values())
        for name, count in plan.wanted.items():
            missing = np.array([n for n in range(count) if (name, n) not in there], dtype=np.int64)
            for numbers, images, parents in _draw(ready, prepared, name, missing, seed=seed):
                for number, image, parent in zip(numbers.tolist(), images, parents, strict=True):
                    path = output / _file(name, seed, number)
                    files.write_image(path, image.transpose(1, 2, 0))
                    record = {"label": name, "number": number, "sha256": files.hash_file(path), "parents": parent}
                    files.append_record(output / LOG, record, durable=False)
                    there[name, number] = record
                files.sync(output / LOG)
                done += len(numbers)
                if progress is not None:
                    progress("synthetic images", done, total)
        rows = [there[name, n] for name, count in plan.wanted.items() for n in range(count)]
        return _write_manifest(manifest, rows, output=output, recipe=recipe)


def _begin(begin: Begin, drawer: Any, generator: Path, card: GeneratorCard) -> Begin:
    """Return what images begin as.

    Raises:
        ConfigError: if the generator cannot begin so.
    """
    if begin == "auto":
        return "noise" if isinstance(drawer, ImageGenerator) else "others"
    kind, verb = (ImageGenerator, "draw from noise") if begin == "noise" else (ClassTranslator, "begin with images")
    if not isinstance(drawer, kind):
        raise ConfigError(f"{generator} is a {card.method}, which does not {verb}: leave begin = {begin!r} out")
    return begin


def _draw(
    ready: Ready,
    prepared: Prepared,
    name: str,
    numbers: Int[np.ndarray, " n"],
    *,
    seed: int,
) -> Iterator[tuple[Int[np.ndarray, " b"], UInt8[np.ndarray, "b C H W"], list[list[int]]]]:
    """Yield blocks of a class's images with their parents."""
    drawer, card, start = cast(Any, ready.drawer), ready.card, ready.begin
    label, count, device = card.classes.index(name), len(card.classes), drawing_device()
    if start == "noise":
        for some, images in sample(drawer, label=label, classes=count, numbers=numbers, seed=seed, device=device):
            yield some, images, [[] for _ in some]
        return
    ids, size, parts = fitted_ids(prepared), block_of(drawer, device), InParts()
    is_own = prepared.manifest.targets(ids)[:, label] > 0.5
    others = ids[is_own if start == "own" else ~is_own]
    wanted = torch.eye(count)[label].expand(size, -1).to(device)
    for block in np.unique(numbers // size):
        every = np.arange(block * size, (block + 1) * size)
        parents = others[[int(rng(seed, "pair", label, n).integers(len(others))) for n in every.tolist()]]
        images = to_float(prepared.cache.take(parents)).to(device)
        streams = [(label, n, 1) for n in every.tolist()]
        drawn = to_bytes(redraw(drawer, images, wanted, streams, seed=seed, parts=parts))
        asked = np.isin(every, numbers)
        yield every[asked], drawn[asked], [[int(parent)] for parent in parents[asked]]


def _refuse_other_images(output: Path, facts: dict[str, Any]) -> None:
    path = output / FACTS
    if path.is_file():
        found = files.read_json(path)
        plain = [{key: value for key, value in one.items() if key not in VERSIONS} for one in (found, facts)]
        if found != facts and plain[0] == plain[1]:
            raise ResumeError(
                f"{output} was begun by an earlier raremix, which drew other images of the same numbers: delete it, or "
                "choose another --output"
            )
        if found != facts:
            raise ResumeError(f"{output} holds images of another generator, seed or data set: choose another --output")
    elif (output / "images").exists() or (output / "manifest.parquet").exists():
        raise GuardError(f"{output} holds files that no synthesis wrote: choose an empty or new --output")


def _records(output: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the records of images that are there and are what was written."""
    seeds = files.read_json(output / FACTS) if (output / FACTS).is_file() else {}
    found = {}
    for record in files.read_records(output / LOG):
        path = output / _file(record["label"], seeds.get("seed", 0), record["number"])
        if path.is_file() and files.hash_file(path) == record["sha256"]:
            found[record["label"], record["number"]] = record
    return found


def _file(name: str, seed: int, number: int) -> str:
    safe = files.file_name(name)
    return f"images/{safe}/{safe}-{seed}-{number:06d}.png"


def _write_manifest(manifest: Manifest, rows: list[dict[str, Any]], *, output: Path, recipe: Mapping[str, Any]) -> Path:
    """Write real and synthetic rows, patients as numbers; the root becomes the folder that holds all of their files."""
    classes = manifest.card.classes
    root = Path(os.path.commonpath([manifest.root.resolve(), output.resolve()]))
    ahead, mine = manifest.root.resolve().relative_to(root), output.resolve().relative_to(root)
    frame = manifest.frame.with_columns(
        pl.format("{}{}", pl.lit(_prefix(ahead)), pl.col("path")).alias("path"),
        pl.Series("recipe", [_moved(text, _prefix(ahead)) for text in manifest.frame["recipe"]], dtype=pl.Utf8),
    )
    # A row keeps its id when more of another class are made.
    base = int(manifest.ids.max()) + 1
    seed = int(recipe["seed"])
    plain = {**recipe, "fitted_on": (mine / "generators" / str(recipe["generator"])).as_posix()}
    made = pl.DataFrame(
        {
            "id": [base + row["number"] * len(classes) + classes.index(row["label"]) for row in rows],
            "path": [f"{_prefix(mine)}{_file(row['label'], seed, row['number'])}" for row in rows],
            "split": ["train"] * len(rows),
            "origin": ["synthetic"] * len(rows),
            "parents": [row["parents"] for row in rows],
            "recipe": [json.dumps({**plain, "class": row["label"], "number": row["number"]}) for row in rows],
            "sha256": [row["sha256"] for row in rows],
            **{TARGET + name: [float(row["label"] == name) for row in rows] for name in classes},
        },
        schema_overrides={
            "id": pl.Int64,
            "path": pl.Utf8,
            "split": pl.Utf8,
            "origin": pl.Utf8,
            "parents": pl.List(pl.Int64),
            "recipe": pl.Utf8,
            "sha256": pl.Utf8,
            **{TARGET + name: pl.Float64 for name in classes},
        },
    )
    whole = replace(
        manifest,
        frame=pl.concat([frame, made], how="diagonal_relaxed"),
        root=root,
        mask_root=manifest.folder_of("mask") if "mask" in frame.columns else None,
    )
    return unnamed_groups(whole).write(output / "manifest.parquet")


def _moved(recipe: str | None, prefix: str) -> str | None:
    """Return a recipe whose path to what the generator was fitted on starts from a folder further up."""
    try:
        facts = json.loads(recipe or "")
    except ValueError:
        return recipe
    if not prefix or not isinstance(facts, dict) or not isinstance(facts.get("fitted_on"), str):
        return recipe
    return json.dumps({**facts, "fitted_on": prefix + facts["fitted_on"]})


def _prefix(path: Path) -> str:
    text = path.as_posix()
    return "" if text == "." else f"{text}/"
