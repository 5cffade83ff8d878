"""What generator to fit, and on what: the method, the rows, and the form of what it draws."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from raremix.config import override
from raremix.core.errors import ConfigError, UnknownNameError
from raremix.generate import Form, GeneratorMethod, SizedMethod, WordedMethod
from raremix.study.defaults import study_of
from raremix.study.generators.table import GeneratorTable, read_method
from raremix.study.prepare import Prepared
from raremix.study.spec import StudySpec


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorSpec:
    """A generator to fit.

    Attributes:
        data: the study whose data and split are used; its arms and networks do not matter.
        table: what is fitted on them.
    """

    data: StudySpec
    table: GeneratorTable

    def with_method(self, method: GeneratorMethod) -> "GeneratorSpec":
        """Return the same with other hyper-parameters."""
        return replace(self, table=replace(self.table, method=method))


def read_generator(
    place: str,
    *,
    method: str,
    settings: Sequence[str] = (),
    seed: int = 0,
    classifier: Path | None = None,
    without: Sequence[str] = (),
    force: Sequence[str] = (),
) -> GeneratorSpec:
    """Compose what to fit from a place and settings.

    Args:
        place: data, as `raremix study` takes them.
        method: the generator's name.
        settings: `generator.key=value` for its hyper-parameters, `train.key=value` for budget and device, and
            everything else for the data.
        seed: of the training.
        classifier: folder of an auxiliary classifier.
        without: classes whose images are left out.
        force: classes that are fitted although they have too few images for the method.

    Raises:
        ConfigError: for a value that does not fit.
        UnknownNameError: for a name or key that does not exist.
    """
    own = [s for s in settings if s.strip().startswith(("generator.", "train."))]
    table = override({"generator": {"name": method}, "train": {}}, own)
    kind, made, train = read_method(table["generator"], table["train"])
    asked = GeneratorTable(
        name=kind,
        kind=kind,
        method=made,
        train=train,
        seed=seed,
        classifier=classifier,
        without=tuple(without),
        force=tuple(force),
    )
    return GeneratorSpec(data=study_of(place, settings=[s for s in settings if s not in own]), table=asked)


def suited(method: GeneratorMethod, prepared: Prepared, *, without: Sequence[str] = ()) -> GeneratorMethod:
    """Return a method with what depends on the data filled in: the words of their card, or how many images they are.

    Args:
        method: what is to be fitted.
        prepared: the data.
        without: classes whose images are left out.

    Raises:
        ConfigError: if it cannot be: an unknown field, weights that are not there, no image left.
    """
    if isinstance(method, SizedMethod):
        return method.sized(len(fitted_ids(prepared, without=without)))
    if isinstance(method, WordedMethod):
        return method.told(words_of(prepared), prepared.manifest.card.classes)
    return method


def words_of(prepared: Prepared) -> dict[str, str]:
    """Return what the data's card says, by the names that a template of prompts uses."""
    card = prepared.manifest.card
    return {"modality": "medical" if card.modality == "other" else card.modality, "data": card.name}


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


def fitted_ids(prepared: Prepared, *, without: Sequence[str] = ()) -> Int[np.ndarray, " n"]:
    """Return the rows that a generator is fitted on: real and labelled ones of the training split.

    Args:
        prepared: the data.
        without: classes whose images are left out.

    Raises:
        UnknownNameError: for a class to leave out that there is not.
        ConfigError: naming a class without any image, or if nothing is left.
    """
    manifest = prepared.manifest
    ids = manifest.rows("train")
    is_real = manifest.frame["origin"].gather(manifest.positions(ids)).to_numpy() == "real"
    ids = ids[is_real & ~np.isnan(manifest.targets(ids)).any(axis=1)]
    for name in without:
        if name not in manifest.card.classes:
            raise UnknownNameError("class to leave out", name, manifest.card.classes)
        ids = ids[manifest.targets(ids)[:, manifest.card.classes.index(name)] < 0.5]
    if not len(ids):
        raise ConfigError("no training image is left: leave out fewer classes")
    for name, count in zip(manifest.card.classes, counts_of(prepared, ids), strict=True):
        if not count and name not in without:
            raise ConfigError(f"no training image of {name!r}: a generator needs some of every class")
    return ids


def learnt_ids(table: GeneratorTable, prepared: Prepared) -> Int[np.ndarray, " n"]:
    """Return the rows that a generator learns from: of all classes, or of those alone that its method learns.

    Args:
        table: what is to be fitted; the classes that its method names are ones of the data.
        prepared: the data.

    Raises:
        UnknownNameError, ConfigError: as `fitted_ids` does, and for a class to learn, or not to forget, whose images
            are left out.
    """
    classes, learn = prepared.manifest.card.classes, getattr(table.method, "learn", ())
    prior = getattr(table.method, "prior", "")
    if prior in table.without:
        raise ConfigError(
            f"{table.name}: generator.prior = {prior!r} asks for images of {prior}, and --without {prior} (without = "
            f"[...] in a study) leaves them out: take another class as prior, or leave either out"
        )
    for name in learn:
        if name in table.without:
            raise ConfigError(
                f"{table.name} would learn a token of {name}, whose images are left out: name the other classes as "
                "generator.learn, or leave fewer out"
            )
    ids = fitted_ids(prepared, without=table.without)
    if not learn:
        return ids
    asked = prepared.manifest.targets(ids)[:, [classes.index(name) for name in learn]]
    return ids[(asked > 0.5).any(axis=1)]


def counts_of(prepared: Prepared, ids: Int[np.ndarray, " n"]) -> list[int]:
    """Count the images of each class among rows."""
    return [int(n) for n in np.nansum(prepared.manifest.targets(ids), axis=0)]


def refuse_few(table: GeneratorTable, prepared: Prepared, ids: Int[np.ndarray, " n"]) -> None:
    """Refuse classes of too few images for the method, but for those that were asked for by name.

    Raises:
        UnknownNameError: for a class to force that there is not.
        ConfigError: naming the class, its count, the reason and what to do instead.
    """
    classes, fewest = prepared.manifest.card.classes, table.method.budget.fewest
    refuse_unknown_force(table, classes)
    for name, count in zip(classes, counts_of(prepared, ids), strict=True):
        if 0 < count < fewest and name not in table.force:
            raise ConfigError(
                f"{name} has {count} training images, and {table.kind} needs at least {fewest} of a class: it would "
                f"draw copies of them. Leave the class out (--without {name}) and learn it as a token with "
                f"--method textual_inversion on the result, or fit it all the same with --force {name}"
            )


def refuse_unknown_force(table: GeneratorTable, classes: Sequence[str]) -> None:
    """Refuse to force a class that there is not.

    Raises:
        UnknownNameError: naming it.
    """
    for name in table.force:
        if name not in classes:
            raise UnknownNameError("class to force", name, classes)
