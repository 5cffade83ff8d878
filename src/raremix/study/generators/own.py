"""The generators that a study fits itself, on the training images of each fold: their keys, their folders, their fits.

They lie in the run folder as `generators/NAME-KEY`, where the key is the hash of all that a generator depends on. A
killed study goes on where it was, in the middle of a fit too.
"""

import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raremix.core import files
from raremix.core.errors import RaremixError, RunError, StoppedError
from raremix.core.types import Progress
from raremix.generate import WordedMethod
from raremix.study.failures import FOREIGN, reason_of
from raremix.study.generators.fit import check_beginning, fit_generator, identity_of
from raremix.study.generators.spec import GeneratorSpec, form_of, learnt_ids, refuse_unknown_force, suited
from raremix.study.generators.table import GeneratorTable, called_weights
from raremix.study.generators.use import translators_in, with_folders
from raremix.study.prepare import Prepared
from raremix.study.spec import StudySpec

Make = Callable[[str], Progress]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Where and how a study's generators are fitted and its images drawn.

    Attributes:
        spec: the study.
        folder: its run folder.
        cache: the cache folder.
        make: makes the progress callback of a stretch of work from its title.
        say: called with what a reader should know.
        should_stop: asked after every step.
        is_maker: whether it makes what is missing; one that does not, opens what another process made, and fails
            without it.
    """

    spec: StudySpec
    folder: Path
    cache: Path
    is_maker: bool = True
    make: Make = lambda title: lambda what, done, total: None
    say: Callable[[str], None] = lambda text: None
    should_stop: Callable[[], bool] = lambda: False


def check_own_generators(spec: StudySpec, prepared: Prepared) -> None:
    """Refuse generators that do not go with the data, before the first of them is fitted.

    Too few images of a class are no such thing: they take one generator away, and leave the other arms.

    Args:
        spec: the study.
        prepared: its data, of one fold.

    Raises:
        ConfigError: for data that generators do not draw, a class without images, words or weights that do not fit.
        UnknownNameError: for a class that there is not.
        HeldOutError: if what one begins with was fitted on rows that the study holds out.
    """
    for table in spec.generators:
        asked = GeneratorSpec(data=spec, table=table)
        form_of(asked, prepared)
        if isinstance(table.method, WordedMethod):
            table.method.check_classes(prepared.manifest.card.classes)
        learnt_ids(table, prepared)
        refuse_unknown_force(table, prepared.manifest.card.classes)
        check_beginning(_suited(asked, prepared), prepared)


def generator_keys(spec: StudySpec, prepared: Prepared) -> dict[str, str]:
    """Return the hash of all that each generator of a study depends on, before it is fitted.

    Args:
        spec: the study.
        prepared: its data, of one fold.

    Raises:
        ConfigError: if a generator cannot be told what it asks of the data's card, or its weights are not there.
    """
    found: dict[str, str] = {}
    for table in spec.generators:
        asked = _suited(GeneratorSpec(data=spec, table=table), prepared)
        begun = called_weights(table, found)
        if begun is not None:
            # What it begins with has no files yet; its key says as much.
            asked = GeneratorSpec(data=spec, table=_beginning_with(table, found[begun]))
        found[table.name] = identity_of(asked, prepared)
    return found


def generators_of(spec: StudySpec, arms: Collection[str]) -> set[str]:
    """Return which of the study's generators some arms need, those included that others begin with.

    Args:
        spec: the study.
        arms: their names.
    """
    chosen = [arm for arm in spec.arms if arm.name in arms]
    needed = {str(path) for arm in chosen for path in translators_in(arm.mix)}
    needed |= {arm.images.generator for arm in chosen if arm.images is not None}
    tables = {table.name: table for table in spec.generators}
    for table in reversed(spec.generators):
        weights = called_weights(table, tables)
        needed |= {weights} if table.name in needed and weights is not None else set()
    return needed & set(tables)


def only_arm(spec: StudySpec, name: str) -> StudySpec:
    """Return a study of one arm, with the generators that it needs."""
    needed = generators_of(spec, [name])
    return replace(
        spec, arms=(spec.arm(name),), generators=tuple(table for table in spec.generators if table.name in needed)
    )


def resolved(spec: StudySpec, prepared: Prepared) -> StudySpec:
    """Return a study whose mixers name the folders of its own translators, once these are fitted."""
    if not prepared.generators:
        return spec
    return replace(spec, arms=tuple(replace(arm, mix=with_folders(arm.mix, prepared.generators)) for arm in spec.arms))


def generators_left(spec: StudySpec, folder: Path, *, keys: Mapping[str, str], arms: Collection[str]) -> list[str]:
    """Name the generators that are still to be fitted for some arms.

    Args:
        spec: the study.
        folder: the run folder.
        keys: of all generators, of one fold.
        arms: those that are still to be trained.
    """
    needed = generators_of(spec, arms)
    return [
        name
        for name, key in keys.items()
        if name in needed and not (generator_folder(folder, name, key) / files.MANIFEST).is_file()
    ]


def generator_folder(folder: Path, name: str, key: str) -> Path:
    """Return where a generator lies in a run folder."""
    return folder / "generators" / f"{name}-{key[:8]}"


def fit_generators(
    shop: Workshop, prepared: Prepared, *, keys: Mapping[str, str], needed: Collection[str]
) -> tuple[dict[str, Path], dict[str, str]]:
    """Fit every needed generator that is not there yet.

    Args:
        shop: the study.
        prepared: its data, of one fold.
        keys: of all generators.
        needed: those that arms which are still to be trained ask for; of the others, those that are there are taken.

    Returns:
        The folders of those that are there, and why the others are not, by name.

    Raises:
        StoppedError: if it was asked to stop.
        RunError: if one is missing that another process was to fit.
    """
    folders: dict[str, Path] = {}
    reasons: dict[str, str] = {}
    for table in shop.spec.generators:
        weights = called_weights(table, keys)
        if weights in reasons:
            reasons[table.name] = f"it begins with {weights}, which is not there"
            continue
        where = generator_folder(shop.folder, table.name, keys[table.name])
        if (where / files.MANIFEST).is_file():
            files.remove_folder(where / "checkpoints")  # of a process that was killed at the very end
            folders[table.name] = where
            continue
        if table.name not in needed:
            reasons[table.name] = "it is not in the run folder any more, and no arm is left to train that needs it"
            continue
        if not shop.is_maker:
            raise RunError(f"{where} is missing, which the first process was to fit: run the study again")
        begun = table if weights is None else _beginning_with(table, str(folders[weights]))
        try:
            folders[table.name] = fit_generator(
                GeneratorSpec(data=shop.spec, table=begun),
                folder=where,
                cache=shop.cache,
                prepared=prepared,
                progress=lambda title, name=table.name: shop.make(f"{title} ({name})"),
                say=shop.say,
                should_stop=shop.should_stop,
            )
        except StoppedError:
            raise
        except (RaremixError, *FOREIGN) as error:
            reasons[table.name] = reason_of(error)
            leave_trace(shop.folder / "generators", table.name, error)
            shop.say(f"generator {table.name} failed: {reasons[table.name]}")
    return folders, reasons


def leave_trace(folder: Path, name: str, error: BaseException) -> None:
    """Write down where a foreign error came from: its one line says too little."""
    if not isinstance(error, RaremixError):
        files.write_text(folder / f"{name}-error.txt", "".join(traceback.format_exception(error)))


def _suited(asked: GeneratorSpec, prepared: Prepared) -> GeneratorSpec:
    """Fill in what depends on the data, unless the method begins with a generator that is still to be fitted."""
    names = [table.name for table in asked.data.generators]
    if called_weights(asked.table, names) is not None:
        return asked
    return asked.with_method(suited(asked.table.method, prepared, without=asked.table.without))


def _beginning_with(table: GeneratorTable, weights: str) -> GeneratorTable:
    method: Any = table.method
    return replace(table, method=replace(method, weights=weights))
