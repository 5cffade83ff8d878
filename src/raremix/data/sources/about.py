"""What is known about a public data set: who made it, under which licence, and how its files lie once unpacked."""

from dataclasses import dataclass
from typing import Literal

from raremix.core.types import Task

Access = Literal["open", "registration"]


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """The facts of one public data set, beside the source that reads it.

    Attributes:
        name: of the source in a study file.
        title: the data set's own name.
        task: what the source makes of it by default.
        classes: names in the order of the target columns, as loaded by default; empty where the table decides.
        images: how many are published.
        modality: see `raremix.data.manifest.Card`.
        licence: of the images, in the owner's words; an SPDX name where there is one.
        citation: the paper to cite.
        url: where to get it.
        access: "open" needs nothing, "registration" an account and an accepted agreement.
        layout: the files as published, as a tree.
        study: the [data] table of a study file that reads it.
        notes: what to know before use.
    """

    name: str
    title: str
    task: Task
    classes: tuple[str, ...]
    images: int
    modality: str
    licence: str
    citation: str
    url: str
    access: Access
    layout: str
    study: str
    notes: str = ""
