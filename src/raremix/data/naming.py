"""Name the first few of many things in a message, and count the rest."""

from collections.abc import Collection

import polars as pl

NAMED = 5
"""How many are named."""


def printable(text: str) -> str:
    """Return a name so that a terminal shows what it is: with characters that move the cursor, or turn it, escaped.

    Example:
        >>> printable("naïve.png"), printable("gnp.\\u202etxt")
        ('naïve.png', "'gnp.\\\\u202etxt'")
    """
    return text if text.isprintable() else ascii(text)


def listed(items: Collection[object], *, limit: int = NAMED) -> str:
    """Name the first few of many, and count the rest.

    Example:
        >>> listed([1, 2, 3, 4], limit=2)
        '1, 2 and 2 more'
    """
    shown = ", ".join(printable(str(item)) for item in list(items)[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def named_rows(frame: pl.DataFrame, *, column: str = "path", limit: int = NAMED) -> str:
    """Name the rows of a frame by id and one more column, and count the rest."""
    shown = [f"row {row['id']} ({printable(str(row[column]))})" for row in frame.head(limit).iter_rows(named=True)]
    rest = frame.height - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
