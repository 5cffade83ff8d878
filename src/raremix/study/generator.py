"""Fit a generator on the training split of a data set."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from raremix import __version__
from raremix.core import files
from raremix.core.errors import ConfigError, ResumeError, RunError
from raremix.core.fitted import FITTED_ON, FittedOn, read_fitted
from raremix.core.random import rng
from raremix.core.types import Progress
from raremix.data.augment import Classical
from raremix.data.samplers import Balanced, Natural
from raremix.generate import (
    Form,
    GeneratorCard,
    GeneratorMethod,
    LatentDrawer,
    StarTranslator,
    export,
)
from raremix.generate.folder import read_card, save_generator
from raremix.generate.pairs import ClassPairs
from raremix.models import load_classifier
from raremix.study.fitted import refuse_held_out, rows_of
from raremix.study.generator_album import Album, Noticed
from raremix.study.generator_spec import GeneratorSpec, counts_of, fitted_ids, form_of, refuse_few, told
from raremix.study.prepare import Prepared, prepare
from raremix.train import Feed, fit
from raremix.train.checkpoint import unwrap
from raremix.train.feed import to_float
from raremix.train.spec import make_fabric

CODE_VERSION = 1
"""Raised when a change makes the same settings fit another generator."""

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
    spec = replace(spec, method=told(spec.method, prepared))
    form, ids = form_of(spec, prepared), fitted_ids(prepared, without=spec.without)
    refuse_few(spec, prepared, ids)
    identity = identity_of(spec, prepared)
    before = rows_before(spec.method, spec.classifier)
    for use, seen in before.items():
        refuse_held_out(seen, prepared.manifest, what=f"what {spec.name} begins with ({use})")
    for name, count in zip(prepared.manifest.card.classes, counts_of(prepared, ids), strict=True):
        if count < FEW and name not in spec.without:
            say(f"{name} has {count} training images: a generator may learn them by heart; look for copies")
    with files.claim(folder / ".claim", what=f"generator {folder.name}"):
        if (folder / files.MANIFEST).is_file():
            if read_card(folder).identity == identity:
                return folder
            raise ResumeError(f"{folder} holds a generator of other data or settings: choose another --output")
        files.sweep(folder, recursive=True)
        album = Album(folder=folder, method=spec.method, seed=spec.seed, prepared=prepared, form=form, ids=ids)
        networks = spec.method.networks(form, seed=spec.seed)
        extras: dict[str, Any] = {"steps": spec.train.steps, "average": spec.train.average}
        extras |= {} if spec.classifier is None else {"classifier": judge_of(spec.classifier, form)}
        fabric = make_fabric(spec.train)
        try:
            fitted = fit(
                Noticed(spec.method.training(networks, form, seed=spec.seed, extras=extras), album),
                make_feed(spec, prepared, ids),
                spec=spec.train,
                fabric=fabric,
                folder=folder,
                identity=identity,
                validate=album.add,
                progress=make(f"Fitting {spec.name}"),
                should_stop=should_stop,
            )
        except torch.OutOfMemoryError:
            raise RunError(
                f"the device ran out of memory with {spec.train.batch_size} images per step: "
                f"--set train.batch_size={max(1, spec.train.batch_size // 2)}, or --set {spec.method.budget.thrift}"
            ) from None
        kept = {name: fitted.weights[name] for name in spec.method.kept}
        for name, weights in kept.items():
            networks[name] = unwrap(networks[name]).cpu()
            networks[name].load_state_dict(weights)
        drawer = spec.method.drawer({name: networks[name] for name in kept}, form)
        styles = {"styles": style_bank(drawer, prepared, ids)} if isinstance(drawer, StarTranslator) else {}
        album.evolve()
        notes, measured = album.verdict()
        for note in notes:
            say(note)
        if isinstance(drawer, LatentDrawer):
            # Before the files that say that the generator is whole.
            files.remove_folder(folder / "diffusers")
            export(drawer, spec.method, folder / "diffusers")  # pyright: ignore[reportArgumentType]
        manifest, card = prepared.manifest, prepared.manifest.card
        rows = rows_of(manifest, ids)
        held = np.concatenate([manifest.rows("validation"), manifest.rows("test")])
        save_generator(
            folder,
            card=GeneratorCard(
                method=spec.name,
                settings=asdict(spec.method),  # pyright: ignore[reportArgumentType]
                form=form,
                classes=card.classes,
                task=card.task,
                modality=card.modality,
                data=card.name,
                bits=spec.data.data.bits,
                resize=spec.data.data.resize,
                fitted_on=rows.hash(),
                held_out=rows_of(manifest, held).hash(),
                images=tuple(counts_of(prepared, ids)),
                seed=spec.seed,
                steps=spec.train.steps,
                batch_size=spec.train.batch_size,
                notes=(*fitted.notes, *notes),
                raremix=__version__,
                identity=identity,
                measured=measured,
            ),
            weights=kept,
            rows=rows,
            extras=styles,
            before=before,
        )
        files.remove_folder(folder / "checkpoints")
    return folder


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


def identity_of(spec: GeneratorSpec, prepared: Prepared) -> str:
    """Return the hash of everything that a fitted generator depends on."""
    train = asdict(spec.train)
    for key in ("workers", "checkpoints", "tensorboard", "validations"):
        train.pop(key)
    return files.hash_value(
        {
            "code": CODE_VERSION,
            "method": [spec.name, asdict(spec.method)],  # pyright: ignore[reportArgumentType]
            "train": train,
            "data": prepared.manifest.hash(),
            "images": [spec.data.data.size, prepared.channels, spec.data.data.bits, spec.data.data.resize],
            **({"reading": spec.data.data.reading.key()} if spec.data.data.reading.key() else {}),
            "seed": spec.seed,
            **({"without": sorted(spec.without)} if spec.without else {}),
            "classifier": None if spec.classifier is None else files.hash_file(spec.classifier / "model.safetensors"),
        }
    )


def make_feed(spec: GeneratorSpec, prepared: Prepared, ids: Int[np.ndarray, " n"]) -> Feed:
    """Make what a generator is fed with: classes alike, flipped where the modality allows; for a translator, pairs."""
    targets = prepared.manifest.targets(ids)
    common: dict[str, Any] = {
        "images": prepared.cache,
        "ids": ids,
        "targets": targets,
        "seed": spec.seed,
        "augmentation": Classical(
            rotation=0.0,
            crop=spec.method.budget.crop,
            brightness=0.0,
            contrast=0.0,
            saturation=0.0,
            modality=prepared.manifest.card.modality,
        ),
    }
    pool, prior = None, getattr(spec.method, "prior", "")
    if prior:
        mine = targets[:, prepared.manifest.card.classes.index(prior)] > 0.5
        common_prior = {**common, "ids": ids[mine], "targets": targets[mine]}
        natural = Natural(targets=targets[mine], seed=spec.seed + 1)
        pool = Feed(**common_prior, sampler=natural, batch_size=spec.train.batch_size, stream=1)
    if spec.method.is_translator:
        pairs = ClassPairs(targets=targets, seed=spec.seed)
        pool = Feed(**common, sampler=pairs, batch_size=2 * spec.train.batch_size, stream=1)
    sampler = Balanced(targets=targets, seed=spec.seed)
    return Feed(**common, sampler=sampler, batch_size=spec.train.batch_size, pool=pool)


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
