"""Fit a generator on the training split of a data set."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from lightning_fabric import Fabric
from torch import Tensor, nn

from raremix import __version__
from raremix.core import files
from raremix.core.errors import ConfigError, ResumeError
from raremix.core.fitted import FITTED_ON, FittedOn, read_fitted
from raremix.core.memory import memory_advice
from raremix.core.random import rng
from raremix.core.ranks import ALONE, Ranks
from raremix.core.types import Progress
from raremix.data.augment import Classical
from raremix.data.samplers import Balanced, Natural
from raremix.generate import (
    Form,
    GeneratorCard,
    GeneratorMethod,
    LatentDrawer,
    StarTranslator,
    WordedMethod,
    export,
)
from raremix.generate.folder import read_card, save_generator
from raremix.generate.pairs import ClassPairs
from raremix.models import load_classifier
from raremix.study.fitted import refuse_held_out, rows_of
from raremix.study.generators.album import Album, Noticed
from raremix.study.generators.spec import (
    GeneratorSpec,
    counts_of,
    form_of,
    learnt_ids,
    refuse_few,
    suited,
    words_of,
)
from raremix.study.generators.table import GeneratorTable
from raremix.study.prepare import Prepared, prepare
from raremix.study.ranks import launch
from raremix.train import Feed, FitResult, fit
from raremix.train.checkpoint import unwrap
from raremix.train.feed import to_float
from raremix.train.spec import make_fabric, resolve_precision

CODE_VERSION = 1
"""Raised when a change makes the same settings fit another generator."""

METHOD_VERSIONS = {"dcgan": 2, "diffusion": 2, "stargan": 2, "stylegan2": 2, "textual_inversion": 2}
"""The same for one method: others keep what they fitted."""

BANK, FEW = 64, 50
"""Styles of training images kept per class; below how many images a class is few."""


def fit_generator(
    spec: GeneratorSpec,
    *,
    folder: Path,
    cache: Path,
    prepared: Prepared | None = None,
    progress: Callable[[str], Progress] | None = None,
    say: Callable[[str], None] = lambda text: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Fit a generator on the training rows, and keep it as a folder; a killed run goes on where it was.

    With several devices, every one of them gets a process of its own, which opens the prepared data; the first keeps
    the generator.

    Args:
        spec: what to fit.
        folder: where: the generator's files, `samples/` with a grid per moment, `evolution.png`, `log.jsonl`.
        cache: the cache folder.
        prepared: the data, if they were prepared already.
        progress: makes the progress callback of a stretch of work from its title.
        say: called with what a user should know.
        should_stop: asked after every step.

    Returns:
        The folder.

    Raises:
        ResumeError: if the folder holds another generator.
        RunError: if a loss is no longer finite, or memory runs out.
    """
    make = progress or (lambda title: lambda what, done, total: None)
    prepared = prepared or prepare(spec.data, cache=cache, progress=make("Reading images"))
    spec = spec.with_method(suited(spec.table.method, prepared, without=spec.table.without))
    form, ids = form_of(spec, prepared), learnt_ids(spec.table, prepared)
    refuse_few(spec.table, prepared, ids)
    before = check_beginning(spec, prepared)
    identity = identity_of(spec, prepared)
    for name, count in zip(prepared.manifest.card.classes, counts_of(prepared, ids), strict=True):
        if 0 < count < FEW:
            say(f"{name} has {count} training images: a generator may learn them by heart; look for copies")
    with files.claim(folder / ".claim", what=f"generator {folder.name}"):
        if (folder / files.MANIFEST).is_file():
            if read_card(folder).identity == identity:
                return folder
            raise ResumeError(f"{folder} holds a generator of other data or settings: choose another --output")
        files.sweep(folder, recursive=True)
        work = _Work(spec=spec, prepared=prepared, folder=folder, form=form, ids=ids, identity=identity, before=before)
        bar, fitting = make(f"Fitting {spec.table.kind}"), partial(_fit_rank, work=work)
        if spec.table.train.devices > 1:
            notes = launch(fitting, train=spec.table.train, progress=bar, should_stop=should_stop)
        else:
            notes = fitting(make_fabric(spec.table.train), progress=bar, should_stop=should_stop)
        for note in notes:
            say(note)
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What a process needs to know to fit a generator; the arguments of `fit_generator`, and what was found out."""

    spec: GeneratorSpec
    prepared: Prepared
    folder: Path
    form: Form
    ids: Int[np.ndarray, " n"]
    identity: str
    before: dict[str, FittedOn]


def _fit_rank(
    fabric: Fabric, *, work: _Work, progress: Progress | None, should_stop: Callable[[], bool]
) -> tuple[str, ...]:
    """Fit on this rank; the first rank then keeps the generator, and returns what a user should know of it."""
    spec, form, ranks = work.spec, work.form, Ranks(rank=fabric.global_rank, count=fabric.world_size)
    album = Album(
        folder=work.folder,
        method=spec.table.method,
        seed=spec.table.seed,
        prepared=work.prepared,
        form=form,
        ids=work.ids,
        steps=spec.table.train.steps,
    )
    networks = spec.table.method.networks(form, seed=spec.table.seed)
    extras: dict[str, Any] = {"steps": spec.table.train.steps, "average": spec.table.train.average, "ranks": ranks}
    extras |= {} if spec.table.classifier is None else {"classifier": judge_of(spec.table.classifier, form)}
    each = spec.table.train.batch_size // ranks.count
    with memory_advice(f"with {each} images per step", _sparing(spec.table, ranks)):
        fitted = fit(
            Noticed(spec.table.method.training(networks, form, seed=spec.table.seed, extras=extras), album),
            make_feed(spec, work.prepared, work.ids, ranks=ranks),
            spec=spec.table.train,
            fabric=fabric,
            folder=work.folder,
            identity=work.identity,
            validate=album.add,
            progress=progress,
            should_stop=should_stop,
            remedy=remedy_of(spec.table),
        )
    notes = _keep(work, networks, fitted, album) if fabric.is_global_zero else ()
    fabric.barrier()
    return notes


def remedy_of(table: GeneratorTable) -> str:
    """Return what helps where a loss is no longer finite; it is another generator, which needs a folder of its own."""
    method: Any = table.method
    rate = getattr(method, "rate", method.learning_rate)
    text = f"fit it anew with a lower learning rate, --set generator.learning_rate={rate / 4:g} (it is {rate:g})"
    if resolve_precision(table.train) != "32":
        text += ' or --set train.precision="32"'
    return f"{text}, in another folder (--output; a study takes one by itself)"


def _sparing(table: GeneratorTable, ranks: Ranks) -> str:
    """Return what helps where memory runs out while fitting: what is left to be made smaller."""
    found, thrift = [], table.method.budget.thrift
    if table.train.batch_size > ranks.count:
        found.append(f"--set train.batch_size={table.train.batch_size // 2 // ranks.count * ranks.count}")
    name, _, value = thrift.removeprefix("generator.").partition("=")
    if not (value == "true" and getattr(table.method, name)):
        found.append(f"--set {thrift}")
    return ", or ".join([*found, "smaller images (data.size)"])


def _keep(work: _Work, networks: dict[str, nn.Module], fitted: FitResult, album: Album) -> tuple[str, ...]:
    """Write a fitted generator, and return what its album shows to be wrong."""
    spec, prepared, folder, ids = work.spec, work.prepared, work.folder, work.ids
    kept = {name: fitted.weights[name] for name in spec.table.method.kept}
    for name, weights in kept.items():
        networks[name] = unwrap(networks[name]).cpu()
        networks[name].load_state_dict(weights)
    drawer = spec.table.method.drawer({name: networks[name] for name in kept}, work.form)
    styles = {"styles": style_bank(drawer, prepared, ids)} if isinstance(drawer, StarTranslator) else {}
    album.evolve()
    notes, measured = album.verdict()
    if isinstance(drawer, LatentDrawer):
        # Before the files that say that the generator is whole.
        files.remove_folder(folder / "diffusers")
        export(drawer, spec.table.method, folder / "diffusers")  # pyright: ignore[reportArgumentType]
    manifest, card = prepared.manifest, prepared.manifest.card
    rows = rows_of(manifest, ids)
    held = np.concatenate([manifest.rows("validation"), manifest.rows("test")])
    teacher = spec.table.classifier
    save_generator(
        folder,
        card=GeneratorCard(
            method=spec.table.kind,
            settings=asdict(spec.table.method),  # pyright: ignore[reportArgumentType]
            form=work.form,
            classes=card.classes,
            task=card.task,
            modality=card.modality,
            data=card.name,
            bits=spec.data.data.bits,
            resize=spec.data.data.resize,
            fitted_on=rows.hash(),
            held_out=rows_of(manifest, held).hash(),
            images=tuple(counts_of(prepared, ids)),
            seed=spec.table.seed,
            steps=spec.table.train.steps,
            batch_size=spec.table.train.batch_size,
            notes=(*fitted.notes, *notes),
            raremix=__version__,
            identity=work.identity,
            measured=measured,
            classifier="" if teacher is None else files.hash_file(teacher / "model.safetensors"),
        ),
        weights=kept,
        rows=rows,
        extras=styles,
        before=work.before,
    )
    files.remove_folder(folder / "checkpoints")
    return notes


def rows_before(method: GeneratorMethod, classifier: Path | None = None) -> dict[str, FittedOn]:
    """Return the rows that the model was fitted on which a method begins with, and its classifier's, if raremix fitted
    them.
    """
    weights = getattr(method, "weights", "")
    # What is exported for other programs lies in a folder within the generator's.
    places = [Path(weights), Path(weights).parent] if weights else []
    found = next((read_fitted(place) for place in places if (place / FITTED_ON).is_file()), None)
    judge = (read_fitted(classifier) or {}) if classifier is not None else {}
    judged = {"before/classifier": judge["train"]} if "train" in judge else {}
    return {**{f"before/{use}": rows for use, rows in (found or {}).items()}, **judged}


def check_beginning(spec: GeneratorSpec, prepared: Prepared) -> dict[str, FittedOn]:
    """Refuse what a generator begins with where it saw held-out rows or other images, or is missing.

    Args:
        spec: what is to be fitted.
        prepared: the data.

    Returns:
        The rows that it was fitted on, by use.

    Raises:
        HeldOutError: naming the rows.
        ConfigError: if a classifier is missing, or sees other images.
    """
    table = spec.table
    if getattr(table.method, "classifier", 0.0) > 0 and table.classifier is None:
        raise ConfigError(
            f"{table.name}: method.classifier > 0 needs a trained classifier: classifier = FOLDER in [[generator]], or "
            "raremix generator fit --classifier FOLDER"
        )
    before = rows_before(table.method, table.classifier)
    for use, seen in before.items():
        refuse_held_out(seen, prepared.manifest, what=f"what {table.name} begins with ({use})")
    if table.classifier is not None:
        judge_of(table.classifier, form_of(spec, prepared))
    return before


def identity_of(spec: GeneratorSpec, prepared: Prepared) -> str:
    """Return the hash of everything that a fitted generator depends on.

    Args:
        spec: what is fitted, with the words of the data filled in (`raremix.study.generators.spec.suited`).
        prepared: the data.
    """
    table, data = spec.table, spec.data.data
    train = asdict(table.train)
    for key in ("workers", "checkpoints", "tensorboard", "validations"):
        train.pop(key)
    settings = asdict(table.method)  # pyright: ignore[reportArgumentType]
    settings.pop("download", None)
    if settings.get("weights_hash"):
        settings.pop("weights")  # which they are matters, and not where they lie
    return files.hash_value(
        {
            "code": CODE_VERSION,
            **({"version": METHOD_VERSIONS[table.kind]} if table.kind in METHOD_VERSIONS else {}),
            "method": [table.kind, settings],
            **({"words": words_of(prepared)} if isinstance(table.method, WordedMethod) else {}),
            "train": train,
            "data": prepared.manifest.hash(),
            # Which images may be flipped depends on it.
            "modality": prepared.manifest.card.modality,
            "images": [data.size, prepared.channels, data.bits, data.resize],
            **({"reading": data.reading.key()} if data.reading.key() else {}),
            "seed": table.seed,
            **({"without": sorted(table.without)} if table.without else {}),
            "classifier": None if table.classifier is None else files.hash_file(table.classifier / "model.safetensors"),
        }
    )


def make_feed(spec: GeneratorSpec, prepared: Prepared, ids: Int[np.ndarray, " n"], *, ranks: Ranks = ALONE) -> Feed:
    """Make what a generator is fed with: classes alike, flipped where the modality allows; for a translator, pairs.

    Args:
        spec: the generator.
        prepared: the data.
        ids: the rows that it is fitted on.
        ranks: which share of every batch is made.
    """
    targets = prepared.manifest.targets(ids)
    common: dict[str, Any] = {
        "images": prepared.cache,
        "ids": ids,
        "targets": targets,
        "seed": spec.table.seed,
        "rank": ranks.rank,
        "ranks": ranks.count,
        "augmentation": Classical(
            rotation=0.0,
            # Of the small images in the cache a crop would be a blurred one, and blur would be learnt.
            crop=1.0,
            brightness=0.0,
            contrast=0.0,
            saturation=0.0,
            modality=prepared.manifest.card.modality,
        ),
    }
    pool, prior = None, getattr(spec.table.method, "prior", "")
    if prior:
        mine = targets[:, prepared.manifest.card.classes.index(prior)] > 0.5
        common_prior = {**common, "ids": ids[mine], "targets": targets[mine]}
        natural = Natural(targets=targets[mine], seed=spec.table.seed + 1)
        pool = Feed(**common_prior, sampler=natural, batch_size=spec.table.train.batch_size, stream=1)
    if spec.table.method.is_translator:
        pairs = ClassPairs(targets=targets, seed=spec.table.seed)
        pool = Feed(**common, sampler=pairs, batch_size=2 * spec.table.train.batch_size, stream=1)
    sampler = Balanced(targets=targets, seed=spec.table.seed)
    return Feed(**common, sampler=sampler, batch_size=spec.table.train.batch_size, pool=pool)


def judge_of(folder: Path, form: Form) -> nn.Module:
    """Load an auxiliary classifier, frozen.

    Raises:
        ConfigError: if it sees other images or classes.
    """
    model, card = load_classifier(folder)
    seen = Form(size=card.size, channels=card.channels, classes=len(card.classes))
    if seen != form:
        raise ConfigError(f"{folder} is a classifier of {seen}, the generator draws {form}: train one for the same")
    return model.requires_grad_(False).eval()


def style_bank(
    drawer: StarTranslator, prepared: Prepared, ids: Int[np.ndarray, " n"], *, most: int = BANK
) -> Float[Tensor, "K M s"]:
    """Read the styles of training images, at most `most` of each class; empty places are NaN."""
    targets = prepared.manifest.targets(ids)
    found: list[Tensor] = []
    for k in range(targets.shape[1]):
        mine = ids[targets[:, k] > 0.5]
        chosen = mine[np.sort(rng(0, "show", k, 1).permutation(len(mine))[:most])]
        wanted = torch.zeros(len(chosen), targets.shape[1])
        wanted[:, k] = 1
        images = to_float(prepared.cache.take(chosen))
        found.append(torch.cat([drawer.encode(a, b) for a, b in zip(images.split(16), wanted.split(16), strict=True)]))
    bank = torch.full((len(found), max(len(one) for one in found), found[0].shape[1]), torch.nan)
    for k, styles in enumerate(found):
        bank[k, : len(styles)] = styles.cpu()
    return bank
