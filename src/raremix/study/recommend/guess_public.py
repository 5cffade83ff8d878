"""What a study of a public set needs to be told beside its folder, and what its reader should know first."""

from collections.abc import Iterator
from pathlib import Path

from raremix.config import Table
from raremix.data.sources.catalogue import CATALOGUE
from raremix.data.sources.layout import maybe_file

Told = tuple[str, object, str]
"""A key of [data], its value, and why."""


def introduce(source: str) -> tuple[str, str]:
    """Return what a public set was recognised as: the reason beside `source`, and a note for the head of the plan."""
    about = CATALOGUE[source]
    reason = f"recognised by its files: {about.title}; licence: {about.licence}; cite {about.citation}"
    return reason, f"Recognised as {about.title}. {about.notes} Licence: {about.licence}."


def keys_of(table: Table) -> Iterator[Told]:
    """Yield the keys that a public set needs where the source would refuse to choose for the user.

    Args:
        table: the [data] table as known so far, with source and path.
    """
    folder = Path(str(table["path"]))
    match table["source"]:
        case "chexpert":
            yield (
                "uncertain",
                "ignore",
                "-1 means uncertain and is taken as not labelled; no policy is best for every finding, so choose",
            )
        case "chestxray14" if maybe_file(folder, ["train_val_list.txt"]) is None:
            yield "split", "none", "train_val_list.txt and test_list.txt are not there, so patients are split anew"
        case "covid_ct" if not (folder / "Data-split").is_dir():
            yield "split", "none", "Data-split is not there, so patients are split anew"
        case _:
            return
