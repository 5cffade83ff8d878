"""What a study refuses of generators: other classes or images than its own, and rows that it holds out."""

import json
from collections.abc import Collection
from pathlib import Path

import polars as pl

from raremix.config import Table
from raremix.core.errors import ConfigError, CorruptError, GuardError
from raremix.core.fitted import FITTED_ON, read_fitted
from raremix.data.manifest import Manifest
from raremix.generate import GeneratorCard, generator_hash
from raremix.study.fitted import refuse_held_out
from raremix.study.generators.use import open_translator, translators_in


def refuse_other_form(folder: Path, card: GeneratorCard, manifest: Manifest, *, size: int, channels: int) -> None:
    """Refuse a generator that draws other classes, or images of another shape, than a data set has.

    Raises:
        ConfigError: naming what differs.
    """
    if card.classes != tuple(manifest.card.classes):
        raise ConfigError(
            f"{folder} draws {', '.join(card.classes)}; the data have {', '.join(manifest.card.classes)}: "
            "fit a generator on these data"
        )
    if (card.form.size, card.form.channels) != (size, channels):
        raise ConfigError(
            f"{folder} draws {card.form.channels} x {card.form.size} x {card.form.size}, the images are "
            f"{channels} x {size} x {size}: fit a generator at this size, or set data.size and data.channels"
        )


def refuse_among_real(folder: Path, manifest: Manifest, *, option: str) -> None:
    """Refuse a folder among the real files, where a source that lists folders would take synthetic images for real.

    Args:
        folder: where synthetic images would lie.
        manifest: the real ones.
        option: of the command line, which chooses the folder.

    Raises:
        GuardError: saying which option helps.
    """
    root, target = manifest.root.resolve(), folder.resolve()
    if target == root or target.is_relative_to(root) or root.is_relative_to(target):
        raise GuardError(
            f"{folder} lies in the folder of the real images ({manifest.root}), or holds it: synthetic images never "
            f"mix with real files; choose another {option}"
        )


def refuse_leaking(folder: Path, manifest: Manifest, *, what: str) -> None:
    """Refuse what was fitted on rows that a data set holds out, or does not say on which rows.

    Args:
        folder: of what was fitted.
        manifest: the data set with its splits.
        what: what it is, for the message.

    Raises:
        HeldOutError: naming the rows.
        CorruptError: if the folder does not say.
    """
    seen = read_fitted(folder)
    if seen is None:
        raise CorruptError(
            f"{folder / FITTED_ON} is missing, which says on which rows {what} was fitted: make it again"
        )
    for rows in seen.values():
        refuse_held_out(rows, manifest, what=what)


def refuse_leaking_rows(manifest: Manifest) -> None:
    """Refuse synthetic rows whose generator was fitted on held-out rows.

    Their recipe names the folder that says what it was fitted on, as `raremix synthesize` writes it. Rows from
    elsewhere have no such recipe, and pass: their parents are all that is known.

    Raises:
        HeldOutError: naming the rows.
        CorruptError: if that folder is missing.
    """
    recipes = manifest.frame.filter(pl.col("origin") == "synthetic")["recipe"].drop_nulls()
    for name in sorted({name for name in map(_folder_of, recipes) if name is not None}):
        refuse_leaking(manifest.root / name, manifest, what=f"the generator of the synthetic rows ({name})")


def admitted_translators(
    table: Table, manifest: Manifest, *, size: int, channels: int, own: Collection[str] = ()
) -> dict[str, str]:
    """Return the hashes of the translators that an arm asks for, after refusing what does not fit or would leak.

    Args:
        table: the arm's mixer.
        manifest: the data.
        size, channels: of the images.
        own: names of generators that the study fits itself, on these data; they are not looked at.

    Raises:
        ConfigError: if one draws other classes or images than the study has.
        HeldOutError: if one was fitted on rows that the study holds out.
    """
    found = {}
    for folder in translators_in(table):
        if str(folder) in own:
            continue
        _, card = open_translator(folder)
        refuse_other_form(folder, card, manifest, size=size, channels=channels)
        refuse_leaking(folder, manifest, what=f"the generator {folder}")
        found[str(folder)] = generator_hash(folder)
    return found


def _folder_of(recipe: str) -> str | None:
    try:
        facts = json.loads(recipe)
    except ValueError:
        return None
    name = facts.get("fitted_on") if isinstance(facts, dict) else None
    # A path that leaves the data's folder is nothing that raremix wrote.
    is_inside = isinstance(name, str) and not Path(name).is_absolute() and ".." not in Path(name).parts
    return name if is_inside else None
