"""The study that is run where nobody wrote one: four recipes on the data that were named."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from raremix.config import Table, override
from raremix.core.errors import UsageError
from raremix.data.sources.recognise import recognise
from raremix.study.spec import StudySpec, parse_study, read_study

ARMS: tuple[Table, ...] = (
    {"name": "baseline"},
    {"name": "classical", "augment": {"name": "classical"}},
    {"name": "mixup", "augment": {"name": "classical"}, "mix": {"name": "mixup"}},
    {"name": "cutmix", "augment": {"name": "classical"}, "mix": {"name": "cutmix"}},
)
"""What any other recipe has to beat."""


def demo_study(*, settings: list[str] | None = None) -> StudySpec:
    """Return the study of `raremix demo`: phantoms with a long tail, three recipes, three seeds."""
    with resources.as_file(resources.files("raremix.study") / "demo.toml") as path:
        return read_study(path, settings=settings or [])


def study_of(place: str, *, settings: list[str], **tables: Any) -> StudySpec:
    """Read a study file, or compose the default study for a folder, a table or an .npz file of images.

    Args:
        place: a .toml file; a folder with one folder per class; a .csv or .parquet table; an .npz; or "phantom".
        settings: overrides as `key.of.table=value`.
        **tables: tables of the composed study, such as arm, study, model.

    Raises:
        UsageError: if the place is none of these.
    """
    path = Path(place).expanduser()
    if path.suffix == ".toml":
        return read_study(path, settings=settings)
    return parse_study(override(compose(place, settings=settings, **tables), settings), base=Path.cwd())


def compose(place: str, *, settings: Sequence[str] = (), **tables: Any) -> Table:
    """Compose the default study's tables for a place; `settings` may say what its columns are."""
    data = data_table(place, settings=settings)
    name = Path(place).stem if data["source"] != "phantom" else "phantom"
    table: Table = {"study": {"name": name or "study"}, "data": data, "arm": [dict(arm) for arm in ARMS]}
    for key, value in tables.items():
        if value:
            table[key] = {**table.get(key, {}), **value} if isinstance(value, dict) else value
    return table


def data_table(place: str, *, settings: Sequence[str] = ()) -> Table:
    """Guess the source from what a path is; a public set is known by the layout that it is published in.

    Args:
        place: as typed.
        settings: overrides as `data.key=value`; where they name columns or a source, the place is no public set.

    Raises:
        UsageError: if it is nothing that raremix reads.
    """
    path = Path(place).expanduser()
    if place == "phantom":
        return {"source": "phantom"}
    if (path / "manifest.parquet").is_file() and (path / "card.json").is_file():
        return {"source": "manifest", "path": str(path.resolve())}
    known = None if names_columns(settings) else recognise(path)
    if known is not None:
        return {"source": known[0], "path": str(known[1].resolve())}
    if path.is_dir():
        return {"source": "folder", "path": str(path.resolve())}
    if path.suffix in {".csv", ".parquet"} and path.is_file():
        return {"source": "table", "path": str(path.resolve())}
    if path.suffix == ".npz" and path.is_file():
        return {"source": "medmnist", "path": str(path.resolve())}
    kind = "is not there" if not path.exists() else "is none of these"
    raise UsageError(
        f"{place} {kind}: expected a study file (.toml), a folder with one folder per class, a table (.csv, .parquet), "
        "a MedMNIST file (.npz), or the word phantom"
    )


def names_columns(settings: Sequence[str]) -> bool:
    """Whether settings say how a table or folder is to be read, so that it is read as that and as nothing else."""
    return any(text.startswith(f"data.{key}=") for text in settings for key in _COLUMNS)


_COLUMNS = ("source", "image", "label", "labels", "group", "classes")
