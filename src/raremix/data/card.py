"""The card of a data set: name, task, classes, licence, source, citation."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from raremix.core import files
from raremix.core.errors import CorruptError, ManifestError, UnknownNameError
from raremix.core.toml import parse_toml
from raremix.core.types import Task
from raremix.data.naming import listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a data set is: the facts that no row holds.

    Attributes:
        name: short name.
        task: "binary" and "multiclass" have one true class per image, "multilabel" any number.
        classes: names in the order of the target columns; for a binary task the last one is the positive class.
        modality: "dermatoscopy", "chest_xray", "fundus" ... or "other"; decides which augmentations make sense.
        licence, source, citation, notes: free text, shown in reports.

    Example:
        >>> Card(name="toy", task="binary", classes=("normal", "pneumonia")).modality
        'other'
    """

    name: str
    task: Task
    classes: tuple[str, ...]
    modality: str = "other"
    licence: str = ""
    source: str = ""
    citation: str = ""
    notes: str = ""

    def __post_init__(self) -> None:
        if self.task not in get_args(Task):
            raise UnknownNameError("task", self.task, get_args(Task))
        if not self.classes or any(not name.strip() for name in self.classes):
            raise ManifestError(f"card {self.name!r}: expected one name per class, got {list(self.classes)}")
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if twice:
            raise ManifestError(f"card {self.name!r}: class {listed(twice)} is named twice: name each class once")
        if self.task != "multilabel" and len(self.classes) < 2:
            raise ManifestError(
                f"card {self.name!r}: a {self.task} task needs at least two classes, got {list(self.classes)}; "
                "for findings that may be absent use the task 'multilabel'"
            )
        if self.task == "binary" and len(self.classes) != 2:
            raise ManifestError(
                f"card {self.name!r}: a binary task has two classes, got {len(self.classes)}: use 'multiclass'"
            )

    @classmethod
    def read(cls, path: Path) -> "Card":
        """Read a card from JSON or TOML.

        Raises:
            ManifestError: if a key is unknown or missing, or the file is not JSON or TOML.
        """
        return make_card(read_facts(path), path)

    def write(self, path: Path) -> Path:
        """Write the card as JSON."""
        return files.write_json(path, asdict(self))


def read_facts(path: Path) -> dict[str, Any]:
    """Read the table of a card's file, TOML or JSON by the suffix.

    Raises:
        ManifestError: if it is not such a table.
    """
    if path.suffix == ".toml":
        try:
            return parse_toml(path)
        except (ValueError, OSError) as error:
            raise ManifestError(f"{path}: expected a TOML table: {error}") from None
    try:
        value = files.read_json(path)
    except CorruptError as error:
        raise ManifestError(str(error)) from None
    if not isinstance(value, dict):
        raise ManifestError(f"{path}: expected a table with name, task and classes, got a {type(value).__name__}")
    return value


def make_card(facts: Mapping[str, Any], path: Path) -> Card:
    """Make a card of a table's entries.

    Args:
        facts: the entries.
        path: where they were read, for messages.

    Raises:
        UnknownNameError: for an entry that a card does not have.
        ManifestError: for one that is missing or of another type.
    """
    known = [item.name for item in fields(Card)]
    for key in facts:
        if key not in known:
            raise UnknownNameError(f"key of {path.name}", key, known)
    missing = [key for key in ("name", "task", "classes") if key not in facts]
    if missing:
        raise ManifestError(f"{path}: {listed(missing)} missing: a card holds name, task and classes")
    wrong = [key for key, value in facts.items() if key != "classes" and not isinstance(value, str)]
    classes = facts["classes"]
    if wrong or not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes):
        raise ManifestError(
            f"{path}: expected text, and for classes a list of text: look at {listed(wrong or ['classes'])}"
        )
    if facts["task"] not in get_args(Task):
        raise UnknownNameError(f"task in {path.name}", facts["task"], get_args(Task))
    return Card(**{**facts, "classes": tuple(classes)})
