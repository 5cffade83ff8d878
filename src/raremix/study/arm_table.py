"""The [[arm]] tables of a study: training recipes."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from raremix.config import Table, check
from raremix.core.errors import ConfigError, UnknownNameError
from raremix.data.imbalance import Imbalance
from raremix.study.data_tables import imbalance_of
from raremix.study.extra_images import ExtraImages, images_of
from raremix.study.recipes import Rewriting, make_recipe

PARTS = ("mix", "augment", "sampler", "loss", "recipe")
"""The tables that an arm may set; the same tables at the top of the file are the defaults of every arm."""

OWN = ("name", "model", "train", "imbalance", "images")
"""What only an arm may hold, and what its changes to [model] and [train] are."""

FIXED = ("steps", "batch_size", "devices", "accelerator", "validations", "metric")
"""Keys of [train] that no arm may change: they would make the comparison unfair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSpec:
    """One [[arm]]: a training recipe.

    Attributes:
        name: unique; names folders.
        mix, augment, sampler, loss: tables with a name.
        recipe: a table with a name, of `raremix.study.recipes`; empty for none. One that only stands for other tables
            is gone, and they are there.
        model: changes to [model].
        train: changes to [train] (learning rate, weight decay ...; not the budget).
        imbalance: the arm's own long tail, in place of that of [data], for a study of rarity itself.
        images: what the arm adds to its training images: generated ones, or its own once more.
    """

    name: str
    mix: Table
    augment: Table
    sampler: Table
    loss: Table
    recipe: Table = field(default_factory=dict)
    model: Table = field(default_factory=dict)
    train: Table = field(default_factory=dict)
    imbalance: Imbalance | None = None
    images: ExtraImages | None = None

    def settings(self) -> Table:
        """Return what the arm is made of, for tables and keys."""
        settings = {key: value for key, value in asdict(self).items() if key != "name" and value}
        if self.images is not None:
            plain = asdict(ExtraImages(name="repeated"))
            told = {key: value for key, value in settings["images"].items() if key == "name" or value != plain[key]}
            settings["images"] = told
        return settings


def read_arms(table: Table, base: Path) -> tuple[ArmSpec, ...]:
    """Read the [[arm]] tables of a study.

    Args:
        table: the whole file; its tables named in `PARTS` are the defaults of every arm.
        base: folder that relative paths start from.

    Raises:
        ConfigError: for a name or value that does not fit.
        UnknownNameError: for a key that an arm has not.
    """
    entries = table.get("arm", [{"name": "baseline"}])
    if not isinstance(entries, list) or not entries:
        raise ConfigError("expected at least one [[arm]] with a name")
    defaults: Table = {"mix": {"name": "none"}, "augment": {"name": "none"}, "sampler": {"name": "natural"}}
    arms: list[ArmSpec] = []
    for entry in entries:
        name = entry.get("name")
        if not isinstance(name, str) or not name.strip():
            raise ConfigError("every [[arm]] needs a name")
        if not all(ch.isalnum() or ch in "-_+." for ch in name) or name.startswith("."):
            raise ConfigError(f"arm {name!r}: a name is made of letters, digits and - _ + . since it names a folder")
        if any(arm.name == name for arm in arms):
            raise ConfigError(f"two arms are called {name!r}: give each a name of its own")
        tables: Table = {}
        for part in PARTS:
            chosen = entry.get(part, table.get(part, defaults.get(part, {})))
            tables[part] = (
                {"name": chosen} if isinstance(chosen, str) else check(chosen, Table, where=f"arm.{name}.{part}")
            )
        if tables["recipe"].get("name") == "none":
            tables["recipe"] = {}
        recipe = make_recipe(tables["recipe"], where=f"arm.{name}.recipe")
        if isinstance(recipe, Rewriting):
            tables = {**recipe.rewrite(tables, where=f"arm.{name}"), "recipe": {}}
        for key in set(entry) - {*OWN, *PARTS}:
            raise UnknownNameError(f"key of arm {name}", key, [*OWN, *PARTS])
        train = check(entry.get("train", {}), Table, where=f"arm.{name}.train")
        for key in set(train) & set(FIXED):
            raise ConfigError(f"arm.{name}.train.{key}: every arm gets the same {key}; set it in [train]")
        model = absolute(check(entry.get("model", {}), Table, where=f"arm.{name}.model"), base)
        imbalance = imbalance_of(entry.get("imbalance"), where=f"arm.{name}.imbalance")
        images = images_of(entry.get("images"), where=f"arm.{name}.images")
        if images is not None and imbalance is not None:
            raise ConfigError(f"arm.{name}: images and imbalance do not go together; make [data] imbalanced instead")
        arms.append(ArmSpec(name=name, model=model, train=train, imbalance=imbalance, images=images, **tables))
    return tuple(arms)


def absolute(table: Table, base: Path) -> Table:
    """Return a table whose paths, by their keys, start from a folder."""
    resolved = dict(table)
    if isinstance(resolved.get("head"), dict):
        resolved["head"] = absolute(resolved["head"], base)
    for key in ("path", "groups", "weights", "vectors"):
        value = resolved.get(key)
        if isinstance(value, str) and not Path(value).expanduser().is_absolute():
            resolved[key] = str((base / value).resolve())
    return resolved
