"""Use fitted generators in studies: open them once, and know which of them a table asks for."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from raremix.config import Table
from raremix.core import files
from raremix.core.errors import ConfigError
from raremix.core.protocols import ImageReconstructor
from raremix.generate import GeneratorCard, ImageGenerator, StarTranslator, load_generator
from raremix.generate.stargan import Style


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


def open_translator(folder: Path) -> tuple[StarTranslator, GeneratorCard]:
    """Load a translator.

    Raises:
        ConfigError: if the generator draws from noise.
    """
    drawer, card = open_generator(folder)
    if not isinstance(drawer, StarTranslator):
        raise ConfigError(f"{folder} is a {card.method}, which draws from noise; a translator is needed: fit a stargan")
    return drawer, card


def drawing_device() -> torch.device:
    """Return where many images are best drawn: a GPU, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class _Translators(Mapping[str, Callable[..., StarTranslator]]):
    """Every folder of a translator, by its path, as a registry for tables within tables."""

    def __getitem__(self, name: str) -> Callable[..., StarTranslator]:
        def opened(style: Style | None = None) -> StarTranslator:
            translator, _ = open_translator(Path(name))
            return translator if style is None else replace(translator, style=style)

        return opened

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


TRANSLATORS: Mapping[str, Callable[..., StarTranslator]] = _Translators()
"""`translator = "runs/generators/NAME"`, or `{ name = "runs/generators/NAME", style = "latent" }`."""


def located(table: Table, base: Path) -> Table:
    """Return a table whose translators' folders, at any depth, are absolute: from the study's folder, or from here."""
    found: Table = {}
    for key, value in table.items():
        if isinstance(value, dict):
            inner = located(value, base)
            found[key] = {**inner, "name": _place(inner.get("name"), base)} if key == "translator" else inner
        elif isinstance(value, list):
            found[key] = [located(one, base) if isinstance(one, dict) else one for one in value]
        else:
            found[key] = _place(value, base) if key == "translator" else value
    return found


def _place(name: Any, base: Path) -> Any:
    if not isinstance(name, str):
        return name
    return next((str(p.resolve()) for p in (base / name, Path(name)) if p.expanduser().is_dir()), name)


def translators_in(table: Table) -> list[Path]:
    """List the folders of the translators that a table asks for, at any depth."""
    found: list[Path] = []
    for key, value in table.items():
        if key == "translator":
            name = value.get("name") if isinstance(value, dict) else value
            found += [Path(name)] if isinstance(name, str) else []
        elif isinstance(value, dict):
            found += translators_in(value)
        elif isinstance(value, list):
            found += [path for one in value if isinstance(one, dict) for path in translators_in(one)]
    return found
