"""Put an audit on one page: a single HTML file that opens offline, asks nothing of anybody and names no patient."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from markupsafe import Markup

from raremix.core import files
from raremix.report.figures import audit as figures
from raremix.report.figures import rows
from raremix.report.notation import grouped
from raremix.report.page import environment, resource
from raremix.report.strip import Strip

IMAGE_BUDGET = 3_600_000
"""Characters of pictures in base64: the page must stay below 5 MB, and its text takes at most about 1 MB."""

MOST_SETS = 12
MOST_ROWS = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found.

    Attributes:
        level: "unknown", "leak", "harm" or "note".
        title, cost, advice: what was found, what it costs, what to do.
        sets: the rows that it concerns, by id; those that belong together in one set.
        strip: some of their pictures.
    """

    level: Literal["unknown", "leak", "harm", "note"]
    title: str
    cost: str
    advice: str
    sets: tuple[tuple[int, ...], ...] = ()
    strip: Strip = field(default_factory=Strip)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A ranked list of suspects.

    Attributes:
        title: what they are suspected of.
        words: how they were ranked.
        total: how many are ranked.
        look_at: how many of the first are worth a look.
        strip: the first ones, a set each.
    """

    title: str
    words: str
    total: int
    look_at: int
    strip: Strip = field(default_factory=Strip)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """Everything that the page of an audit shows.

    Attributes:
        name: of the data set.
        created: when, as text.
        version: of raremix.
        lead: the audit in one sentence.
        facts: the few numbers that a reader wants first.
        findings: leaks first.
        noun: what a target column is called: "class" or "label".
        splits: names of the splits.
        counts: by class, positive images and groups of each split.
        totals: images and groups of each split.
        is_grouped: whether rows share groups.
        labels, together: names of labels, and how many images carry both of two; empty for one label per image.
        sizes, kinds: what and how many, the commonest first.
        brightness: number of images in equal bins of mean grey value, from black to white.
        ranked: suspects.
        provenance: what the audit looked at, and how.
    """

    name: str
    created: str
    version: str
    lead: str
    facts: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]
    noun: str
    splits: tuple[str, ...]
    counts: Mapping[str, Sequence[tuple[int, int]]]
    totals: Sequence[tuple[int, int]]
    is_grouped: bool
    labels: tuple[str, ...] = ()
    together: Sequence[Sequence[int]] = ()
    sizes: tuple[tuple[str, int], ...] = ()
    kinds: tuple[tuple[str, int], ...] = ()
    brightness: tuple[int, ...] = ()
    ranked: tuple[Ranked, ...] = ()
    provenance: tuple[tuple[str, str], ...] = ()


def write_audit(path: Path, record: AuditRecord) -> Path:
    """Write the page.

    Raises:
        StorageError: if the file cannot be written.
    """
    return files.write_text(path, render_audit(record))


def render_audit(record: AuditRecord) -> str:
    """Render an audit as one self-contained HTML page; the same record gives the same bytes.

    Args:
        record: the audit.

    Returns:
        HTML without scripts, without addresses, with a policy that forbids both.
    """
    kept, dropped = fit(record, budget=IMAGE_BUDGET)
    largest = [max((row[s][0] for row in record.counts.values()), default=0) for s in range(len(record.splits))]
    return environment().get_template("audit.html.j2").render(
        style=Markup(resource("style.css") + resource("audit.css")),
        record=kept,
        dropped=dropped,
        bars={
            name: [
                rows.count_bar(row[s][0], largest[s], what=f"{name}, {split}") for s, split in enumerate(record.splits)
            ]
            for name, row in record.counts.items()
        },
        together=figures.together(record.labels, record.together) if len(record.labels) > 1 else None,
        brightness=figures.histogram(record.brightness) if any(record.brightness) else None,
        written=rows_in_words,
        grouped=grouped,
    )  # fmt: skip


def rows_in_words(sets: Sequence[Sequence[int]]) -> str:
    """Write rows as a reader copies them: those of one set joined by a plus sign.

    Example:
        >>> rows_in_words([(4, 9), (12,)])
        '4 + 9, 12'
    """
    words, written = [], 0
    for number, ids in enumerate(sets):
        if written >= MOST_ROWS:
            return ", ".join(words) + f" and {grouped(len(sets) - number)} more: see --json"
        words.append(" + ".join(str(row) for row in ids))
        written += len(ids)
    return ", ".join(words)


def fit(record: AuditRecord, *, budget: int) -> tuple[AuditRecord, int]:
    """Keep so many sets of pictures of each finding that their size stays below a budget.

    Args:
        record: the audit with all pictures.
        budget: characters of base64.

    Returns:
        The record with the first sets of each finding, and how many pictures were left out.
    """
    longest = max((len(strip.sets) for strip in _strips(record)), default=0)
    total = sum(len(shown) for strip in _strips(record) for shown in strip.sets)
    for most in range(longest, -1, -1):
        kept = replace(
            record,
            findings=tuple(replace(found, strip=_cut(found.strip, most)) for found in record.findings),
            ranked=tuple(replace(entry, strip=_cut(entry.strip, most)) for entry in record.ranked),
        )
        if sum(len(one.picture) for strip in _strips(kept) for shown in strip.sets for one in shown) <= budget:
            return kept, total - sum(len(shown) for strip in _strips(kept) for shown in strip.sets)
    raise AssertionError("no pictures at all are more than the budget")


def _strips(record: AuditRecord) -> list[Strip]:
    return [*(found.strip for found in record.findings), *(entry.strip for entry in record.ranked)]


def _cut(strip: Strip, most: int) -> Strip:
    return Strip(sets=strip.sets[:most], notes=strip.notes[:most])
