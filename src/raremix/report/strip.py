"""Pictures side by side on a page, with small print."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A picture on the page.

    Attributes:
        picture: in base64; empty where it cannot be shown.
        caption: its row, split and label; lines are parted by a line break.
        kind: of file.
    """

    picture: str
    caption: str
    kind: Literal["jpeg", "png"] = "jpeg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """Pictures that belong together, side by side, in one or more sets.

    Attributes:
        sets: pictures of each set.
        notes: small print below each set, such as how similar its pictures are; as many as sets, or none.
    """

    sets: tuple[tuple[Shown, ...], ...] = ()
    notes: tuple[str, ...] = ()
