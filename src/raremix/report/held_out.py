"""What the page says of rows: which were left out since their files cannot be read, and which were seen by what."""

from dataclasses import dataclass

from raremix.report.notation import enumerate_names, grouped
from raremix.report.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The rows that some things were fitted on or chosen by.

    Args:
        what: the things, in words.
        rows: how many of which split.
        hash: of the rows.
    """

    what: str
    rows: str
    hash: str


def seen(record: Record) -> tuple[Seen, ...]:
    """Return which rows were seen by what, one entry per set of rows."""
    things: dict[tuple[str, int, str], list[str]] = {}
    for entry in record.fitted_on:
        named = things.setdefault((entry.split, entry.rows, entry.hash), [])
        if entry.what not in named:
            named.append(entry.what)
    return tuple(
        Seen(what=enumerate_names(named), rows=f"{grouped(rows)} {split} rows", hash=digest)
        for (split, rows, digest), named in things.items()
    )


def left_out(record: Record) -> str:
    """Say how many files of each split and class were left out since they cannot be read."""
    quarantine = record.data.quarantine
    if quarantine is None:
        return ""
    parts = []
    for split, counts in quarantine.counts.items():
        named = [f"{name} {grouped(count)}" for name, count in counts.items() if count]
        if named:
            parts.append(f"{split}: {', '.join(named)}")
    return "; ".join(parts)
