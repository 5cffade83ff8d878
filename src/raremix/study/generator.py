"""Fit a generator on the training split of a data set, and use it: sample, translate, inspect."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from raremix import __version__
from raremix.config import Table, build, build_named, override
from raremix.core import files
from raremix.core.errors import ConfigError, ManifestError, ResumeError, RunError, UnknownNameError
from raremix.core.random import rng
from raremix.core.types import Progress
from raremix.data.augment import Classical
from raremix.data.samplers import Balanced
from raremix.generate import GENERATORS, Form, GeneratorCard, GeneratorMethod, ImageGenerator, StarTranslator
from raremix.generate.folder import read_card, save_generator
from raremix.generate.pairs import ClassPairs
from raremix.generate.sampling import sample
from raremix.models import load_classifier
from raremix.study.defaults import study_of
from raremix.study.fitted import rows_of
from raremix.study.generator_album import COLUMNS, Album, Noticed, draw_translations, examples
from raremix.study.generator_guard import refuse_other_form
from raremix.study.generator_pictures import draw_sheet
from raremix.study.generator_use import open_generator, open_translator
from raremix.study.prepare import Prepared, prepare
from raremix.study.spec import StudySpec, check_train
from raremix.train import Feed, TrainSpec, fit
from raremix.train.feed import to_float
from raremix.train.loop import make_fabric

CODE_VERSION = 1
"""Raised when a change makes the same settings fit another generator."""

BANK, FEW = 64, 50
"""Styles of training images kept per class; below how many images a class is few."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorSpec:
    """A generator to fit.

    Attributes:
        data: the study whose data and split are used; its arms and networks do not matter.
        name: of the method.
        method: its hyper-parameters.
        train: budget and device; the optimisers are the method's.
        seed: of weights, order and noise.
        classifier: folder of an auxiliary classifier, where the method asks for one.
    """

    data: StudySpec
    name: str
    method: GeneratorMethod
    train: TrainSpec
    seed: int = 0
    classifier: Path | None = None


def read_generator(
    place: str, *, method: str, settings: Sequence[str] = (), seed: int = 0, classifier: Path | None = None
) -> GeneratorSpec:
    """Compose what to fit from a place and settings.

    Args:
        place: data, as `raremix study` takes them.
        method: the generator's name.
        settings: `generator.key=value` for its hyper-parameters, `train.key=value` for budget and device, and
            everything else for the data.
        seed: of the training.
        classifier: folder of an auxiliary classifier.

    Raises:
        ConfigError: for a value that does not fit.
        UnknownNameError: for a name or key that does not exist.
    """
    own = [s for s in settings if s.strip().startswith(("generator.", "train."))]
    table = override({"generator": {"name": method}, "train": {}}, own)
    made = build_named(GENERATORS, table["generator"], kind="generator", where="generator")
    assert isinstance(made, GeneratorMethod)
    budget = made.budget
    defaults: Table = {
        "steps": budget.steps,
        "batch_size": budget.batch_size,
        "average": budget.average,
        "schedule": "constant",
        "warmup": 0.0,
        "clip": 0.0,
        # Gradient penalties are small differences of large numbers; bf16 keeps eight bits of them.
        "precision": "32",
        "validations": 16,
        "checkpoints": 8,
    }
    for key in ("optimizer", "learning_rate", "weight_decay", "metric"):
        if key in table["train"]:
            raise ConfigError(f"train.{key}: a generator has its own; set generator.{key}, if it has such a key")
    train = build(TrainSpec, {**defaults, **table["train"]}, where="train")
    check_train(train, where="train")
    if train.devices > 1:
        raise ConfigError(f"train.devices = {train.devices}: generators are fitted on one device")
    if train.steps < 1 or train.batch_size < 1:
        raise ConfigError("train.steps and train.batch_size must be at least 1")
    data = study_of(place, settings=[s for s in settings if s not in own])
    return GeneratorSpec(
        data=data, name=str(table["generator"]["name"]), method=made, train=train, seed=seed, classifier=classifier
    )


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
    form, ids = form_of(spec, prepared), fitted_ids(prepared)
    identity = identity_of(spec, prepared)
    for name, count in zip(prepared.manifest.card.classes, _counts(prepared, ids), strict=True):
        if count < FEW:
            say(f"{name} has {count} training images: a generator may learn them by heart; look for copies")
    with files.claim(folder / ".claim", what=f"generator {folder.name}"):
        if (folder / files.MANIFEST).is_file():
            if read_card(folder).identity == identity:
                return folder
            raise ResumeError(f"{folder} holds a generator of other data or settings: choose another --output")
        files.sweep(folder, recursive=True)
        album = Album(folder=folder, method=spec.method, seed=spec.seed, prepared=prepared, form=form, ids=ids)
        networks = spec.method.networks(form, seed=spec.seed)
        extras = {} if spec.classifier is None else {"classifier": judge_of(spec.classifier, form)}
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
                f"--set train.batch_size={max(1, spec.train.batch_size // 2)}, or a smaller generator.width"
            ) from None
        kept = {name: fitted.weights[name] for name in spec.method.kept}
        for name, weights in kept.items():
            networks[name] = spec.method.networks(form, seed=spec.seed)[name]
            networks[name].load_state_dict(weights)
        drawer = spec.method.drawer({name: networks[name] for name in kept}, form)
        styles = {"styles": style_bank(drawer, prepared, ids)} if isinstance(drawer, StarTranslator) else {}
        album.evolve()
        notes, measured = album.verdict()
        for note in notes:
            say(note)
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
                images=tuple(_counts(prepared, ids)),
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
        )
        files.remove_folder(folder / "checkpoints")
    return folder


def form_of(spec: GeneratorSpec, prepared: Prepared) -> Form:
    """Return what is to be drawn.

    Raises:
        ConfigError: for several findings per image, 16-bit images, or a size that generators do not draw.
    """
    card = prepared.manifest.card
    if card.task == "multilabel":
        raise ConfigError(
            f"{card.name!r} has several findings per image, and these generators draw one class: "
            "name one finding as label, or one class per image"
        )
    if spec.data.data.bits != 8:
        raise ConfigError("generators draw 8-bit images: set data.bits = 8")
    return Form(size=spec.data.data.size, channels=prepared.channels, classes=len(card.classes))


def fitted_ids(prepared: Prepared) -> Int[np.ndarray, " n"]:
    """Return the rows that a generator is fitted on: real and labelled ones of the training split.

    Raises:
        ConfigError: naming a class without any.
    """
    manifest = prepared.manifest
    ids = manifest.rows("train")
    is_real = manifest.frame["origin"].gather(manifest.positions(ids)).to_numpy() == "real"
    ids = ids[is_real & ~np.isnan(manifest.targets(ids)).any(axis=1)]
    for name, count in zip(manifest.card.classes, _counts(prepared, ids), strict=True):
        if not count:
            raise ConfigError(f"no training image of {name!r}: a generator needs some of every class")
    return ids


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
            "seed": spec.seed,
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
    pool = None
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


def settings_of(card: GeneratorCard) -> list[str]:
    """Return the settings of a data set that make images as a generator draws them."""
    form = card.form
    return [f"data.size={form.size}", f"data.channels={form.channels}", f'data.resize="{card.resize}"']


def sample_class(folder: Path, *, label: str, count: int, seed: int, output: Path) -> list[Path]:
    """Draw images of a class into a folder, and a sheet of them; image i is always the same for a seed and a class.

    Raises:
        UnknownNameError: if the generator does not know the class.
        ConfigError: if it is a translator.
    """
    drawer, card = open_generator(folder)
    if label not in card.classes:
        raise UnknownNameError("class", label, card.classes)
    if not isinstance(drawer, ImageGenerator):
        raise ConfigError(f"{folder} is a {card.method}, which translates images: use `raremix generator translate`")
    paths, shown = [], []
    drawn = sample(
        drawer, label=card.classes.index(label), classes=len(card.classes), numbers=np.arange(count), seed=seed
    )
    for numbers, images in drawn:
        for number, image in zip(numbers, images, strict=True):
            paths.append(files.write_image(output / f"{label}-{seed}-{number:06d}.png", image.transpose(1, 2, 0)))
            shown.append(image)
    rows = [shown[i : i + COLUMNS] for i in range(0, min(len(shown), 64), COLUMNS)]
    sheet = draw_sheet(rows, rows=[label] * len(rows), title=f"{folder.name}, seed {seed}")
    files.write_image(output / f"{label}-{seed}-sheet.png", sheet)
    return paths


def translate_grid(folder: Path, prepared: Prepared, *, split: str, per_class: int, seed: int, output: Path) -> Path:
    """Draw images, their reconstructions and their translations to each class.

    Raises:
        ConfigError: if the generator is no translator, or draws other images.
        ManifestError: if the split has no images.
    """
    drawer, card = open_translator(folder)
    manifest = prepared.manifest
    size = prepared.cache.shape[-1]
    refuse_other_form(folder, card, manifest, size=size, channels=prepared.channels)
    ids = manifest.ids if split == "all" else manifest.rows(split)  # pyright: ignore[reportArgumentType]
    if not len(ids):
        raise ManifestError(f"the data have no rows in split {split!r}: use train, validation, test or all")
    chosen = examples(manifest, ids, per_class=per_class, seed=seed)
    return files.write_image(output, draw_translations(drawer, prepared, chosen, title=f"{folder.name}, {split}"))


def _counts(prepared: Prepared, ids: Int[np.ndarray, " n"]) -> list[int]:
    return [int(n) for n in np.nansum(prepared.manifest.targets(ids), axis=0)]
