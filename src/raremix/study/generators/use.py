"""Use fitted generators in studies: open them once, and know which of them a table asks for."""

import inspect
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, get_type_hints

import torch

from raremix.config import Table, check, override
from raremix.core import files
from raremix.core.errors import ConfigError, UnknownNameError
from raremix.core.precision import Precision
from raremix.core.protocols import ImageReconstructor
from raremix.generate import ClassTranslator, GeneratorCard, ImageGenerator, load_generator
from raremix.generate.diffusion_library import Solver
from raremix.generate.stargan_drawing import Style


def open_generator(folder: Path) -> tuple[ImageGenerator | ImageReconstructor, GeneratorCard]:
    """Load a generator once per process, as long as its folder does not change.

    Raises:
        ManifestError: if it is no such folder.
        CorruptError: if a file of it is damaged.
    """
    mark = folder / files.MANIFEST
    time = mark.stat().st_mtime_ns if mark.is_file() else 0
    return _opened(folder.resolve(), time, os.getpid())


@lru_cache(maxsize=8)
def _opened(folder: Path, time: int, process: int) -> tuple[ImageGenerator | ImageReconstructor, GeneratorCard]:
    return load_generator(folder)


def open_translator(folder: Path, *, drawing: Mapping[str, Any] | None = None) -> tuple[ClassTranslator, GeneratorCard]:
    """Load a translator.

    Args:
        folder: of a fitted one.
        drawing: settings of drawing, as `drawn_with` takes them.

    Raises:
        ConfigError: if the generator draws from noise alone.
        UnknownNameError: for a setting that it has not.
    """
    drawer, card = open_generator(folder)
    if not isinstance(drawer, ClassTranslator):
        raise ConfigError(
            f"{folder} is a {card.method}, which draws from noise; a translator is needed: fit a stargan or a diffusion"
        )
    found = drawn_with(drawer, drawing or {})
    assert isinstance(found, ClassTranslator)
    return found, card


def drawn_with(drawer: Any, settings: Mapping[str, Any]) -> ImageGenerator | ImageReconstructor:
    """Return a drawer with other settings of drawing: steps, guidance, strength, style, whichever it has.

    Raises:
        UnknownNameError: for a setting that it has not.
        ConfigError: for a value that does not fit.
    """
    return replace(drawer, **fitting_drawing(type(drawer), settings)) if settings else drawer


def fitting_drawing(drawer_class: type[Any], settings: Mapping[str, Any], *, where: str = "draw") -> Table:
    """Return settings of drawing as a class that draws takes them, whether there is such a drawer yet or not.

    Args:
        drawer_class: as a `raremix.generate.GeneratorMethod` names it.
        settings: of drawing.
        where: their place in a file, for messages.

    Raises:
        UnknownNameError: for a setting that it has not.
        ConfigError: for a value that does not fit.
    """
    known = drawing_names(drawer_class)
    for name in settings:
        if name not in known:
            raise UnknownNameError(f"key of {where}", name, known)
    hints = get_type_hints(drawer_class)
    found = {name: check(value, hints[name], where=f"{where}.{name}") for name, value in settings.items()}
    try:
        drawer_class.check_drawing(**found)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return found


def drawing_names(drawer_class: type[Any]) -> tuple[str, ...]:
    """Return the names of the settings of drawing that a class has."""
    return tuple(inspect.signature(drawer_class.check_drawing).parameters)


def drawing_of(settings: Sequence[str]) -> tuple[Table, list[str]]:
    """Part settings into those of drawing, `draw.key=value`, as a table, and the others.

    Example:
        >>> drawing_of(["draw.strength=0.5", "data.size=32"])
        ({'strength': 0.5}, ['data.size=32'])
    """
    own = [setting for setting in settings if setting.strip().startswith("draw.")]
    return override({}, own).get("draw", {}), [setting for setting in settings if setting not in own]


def refuse_unseen(folder: Path, card: GeneratorCard, label: str) -> None:
    """Refuse to draw a class that was left out when the generator was fitted.

    A class that a method did not set out to learn is drawn by the words that its model knows.

    Raises:
        ConfigError: saying what to do.
    """
    if label not in card.settings.get("learn", card.classes):
        return
    if not card.images[card.classes.index(label)]:
        raise ConfigError(
            f"{folder} never saw an image of {label!r} (--without): learn it as a token with "
            "`raremix generator fit --method textual_inversion`, or fit a generator with it"
        )


def drawing_device() -> torch.device:
    """Return where many images are best drawn: a GPU, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class _Translators(Mapping[str, Callable[..., ClassTranslator]]):
    """Every folder of a translator, by its path, as a registry for tables within tables."""

    def __getitem__(self, name: str) -> Callable[..., ClassTranslator]:
        def opened(
            style: Style | None = None,
            solver: Solver | None = None,
            num_inference_steps: int | None = None,
            guidance_scale: float | None = None,
            strength: float | None = None,
            precision: Precision | None = None,
        ) -> ClassTranslator:
            asked = {
                "style": style,
                "solver": solver,
                "num_inference_steps": num_inference_steps,
                "guidance_scale": guidance_scale,
                "strength": strength,
                "precision": precision,
            }
            given = {key: value for key, value in asked.items() if value is not None}
            return open_translator(Path(name), drawing=given)[0]

        return opened

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


TRANSLATORS: Mapping[str, Callable[..., ClassTranslator]] = _Translators()
"""`translator = "runs/generators/NAME"`, or `{ name = "runs/generators/NAME", style = "latent" }`."""


def located(table: Table, base: Path, *, own: Collection[str] = ()) -> Table:
    """Return a table whose translators' folders, at any depth, are absolute: from the study's folder, or from here.

    Args:
        table: any.
        base: the study's folder.
        own: names of generators that the study fits itself; they stay names.
    """
    found: Table = {}
    for key, value in table.items():
        if isinstance(value, dict):
            inner = located(value, base, own=own)
            found[key] = {**inner, "name": _at(inner.get("name"), base, own)} if key == "translator" else inner
        elif isinstance(value, list):
            found[key] = [located(one, base, own=own) if isinstance(one, dict) else one for one in value]
        else:
            found[key] = _at(value, base, own) if key == "translator" else value
    return found


def _at(name: Any, base: Path, own: Collection[str]) -> Any:
    if not isinstance(name, str) or name in own:
        return name
    return next((str(p.resolve()) for p in (base / name, Path(name)) if p.expanduser().is_dir()), name)


def with_folders(table: Table, folders: Mapping[str, Path]) -> Table:
    """Return a table whose translators, at any depth, are folders where they were names of fitted generators."""
    found: Table = {}
    for key, value in table.items():
        if key == "translator":
            name = str(value.get("name") if isinstance(value, dict) else value)
            place = str(folders[name]) if name in folders else name
            found[key] = {**value, "name": place} if isinstance(value, dict) else place
        elif isinstance(value, dict):
            found[key] = with_folders(value, folders)
        elif isinstance(value, list):
            found[key] = [with_folders(one, folders) if isinstance(one, dict) else one for one in value]
        else:
            found[key] = value
    return found


def translator_tables(table: Table) -> list[Table]:
    """List the tables of the translators that a table asks for, at any depth: name, and settings of drawing."""
    found: list[Table] = []
    for key, value in table.items():
        if key == "translator":
            found += [value] if isinstance(value, dict) else [{"name": value}]
        elif isinstance(value, dict):
            found += translator_tables(value)
        elif isinstance(value, list):
            found += [inner for one in value if isinstance(one, dict) for inner in translator_tables(one)]
    return found


def translators_in(table: Table) -> list[Path]:
    """List the folders of the translators that a table asks for, at any depth."""
    return [Path(one["name"]) for one in translator_tables(table) if isinstance(one.get("name"), str)]
