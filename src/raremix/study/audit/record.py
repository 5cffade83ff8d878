"""Audit a study's data: load it without the guards, look at everything, and compose the record of the page."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from raremix import __version__
from raremix.core.errors import ReadError
from raremix.core.markdown import literal
from raremix.core.types import Progress
from raremix.data.audit import Audit, Problem, audit, picture
from raremix.data.guards import suspended
from raremix.data.manifest import Manifest
from raremix.data.readers import Reading
from raremix.data.suspects import Suspects
from raremix.report.audit import AuditRecord, Finding, Ranked
from raremix.report.notation import grouped
from raremix.report.strip import Shown, Strip
from raremix.study.audit.suspects import find_suspects
from raremix.study.record.pictures import caption
from raremix.study.spec import StudySpec

SIDE = 112
"""Pixels of a thumbnail's longer side."""

MOST_SETS, MOST_OF_A_SET, MOST_ALONE = 6, 4, 8
"""Sets of a finding that are shown, pictures of each, and pictures of a finding whose rows stand alone."""

MOST_SUSPECTS = 60
"""Suspects of each list that are shown, if so many are worth a look."""

BINS = 20
LISTED = 8
_TITLES = {
    "near-duplicate": "Pairs that may show the same picture",
    "off-topic": "Images that may not belong here",
    "label error": "Images whose label may be wrong",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Audited:
    """An audit with the ranked suspects beside it.

    Attributes:
        audit: what was found for certain.
        suspects: ranked lists; empty unless they were asked for.
        reading: which frame and range of values of DICOM and NIfTI files.
    """

    audit: Audit
    suspects: tuple[Suspects, ...]
    reading: Reading


def load_for_audit(spec: StudySpec, *, cache: Path, progress: Progress | None = None) -> Manifest:
    """Load a study's data as they are: what loading would refuse is there to be reported.

    Raises:
        ManifestError, TargetError: if the data cannot be understood at all.
    """
    with suspended():
        return spec.source.load(cache=cache, progress=progress)


def audit_data(
    spec: StudySpec,
    *,
    cache: Path,
    suspects: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Audited:
    """Audit a study's data.

    Args:
        spec: the study whose data are looked at; its arms do not matter.
        cache: folder in which what was seen is kept.
        suspects: a representation by which suspects are ranked, see `raremix.study.audit.suspects`; none by default.
        workers: threads that read and decode; one per processor by default.
        progress: called as files are done.

    Raises:
        ManifestError, TargetError: if the data cannot be understood at all.
        StorageError: if the cache cannot be written.
    """
    manifest = load_for_audit(spec, cache=cache, progress=progress)
    found = audit(
        manifest,
        cache=cache,
        reading=spec.data.reading,
        allow_synthetic=spec.data.allow_synthetic,
        workers=workers,
        progress=progress,
    )
    ranked: tuple[Suspects, ...] = ()
    if suspects is not None:
        readable = manifest.select(manifest.ids[found.looks.is_readable])
        ranked = tuple(find_suspects(readable, weights=suspects, cache=cache, progress=progress))
    return Audited(audit=found, suspects=ranked, reading=spec.data.reading)


def facts_of(audited: Audited) -> dict[str, Any]:
    """Return everything that was found as JSON-like values: rows by id, groups as counts, no file names."""
    found, census = audited.audit, audited.audit.census
    classes = found.manifest.card.classes
    splits = [_split_name(split) for split in census.splits]
    return {
        "data": found.manifest.card.name,
        "task": found.manifest.card.task,
        "classes": list(classes),
        "images": len(found.manifest),
        "groups": int(found.manifest.frame["group"].n_unique()),
        "readable": int(found.looks.is_readable.sum()),
        "splits": {
            split: {"images": int(census.split_images[s]), "groups": int(census.split_groups[s])}
            for s, split in enumerate(splits)
        },
        "counts": {
            split: {
                name: {"images": int(census.images[s, k]), "groups": int(census.groups[s, k])}
                for k, name in enumerate(classes)
            }
            for s, split in enumerate(splits)
        },
        "imbalance": {"images": census.image_ratio, "groups": census.group_ratio},
        "together": census.together.tolist() if found.manifest.card.task == "multilabel" else None,
        "sizes": [{"width": w, "height": h, "images": n} for w, h, n in census.sizes],
        "kinds": [{"kind": kind, "images": n} for kind, n in census.kinds],
        "copies": {
            "identical sets": len(found.copies.identical),
            "near pairs": len(found.copies.near),
            "radius": found.copies.radius,
            "left out": found.copies.left_out,
        },
        "problems": [
            {
                "kind": problem.kind,
                "level": problem.level,
                "title": problem.title,
                "cost": problem.cost,
                "advice": problem.advice,
                "sets": [list(rows) for rows in problem.sets],
                "scores": list(problem.scores),
            }
            for problem in found.problems
        ],
        "suspects": [
            {
                "kind": entry.kind,
                "words": entry.words,
                "look_at": entry.look_at,
                "ids": entry.ids.tolist(),
                "scores": np.round(entry.scores, 4).tolist(),
            }
            for entry in audited.suspects
        ],
    }


def sum_up(problems: Sequence[Problem], images: int) -> str:
    """Say in one sentence how a data set stands."""
    count = {level: sum(p.level == level for p in problems) for level in ("unknown", "leak", "harm", "note")}
    if count["unknown"]:
        rest = sum_up([problem for problem in problems if problem.level != "unknown"], images)
        rest = rest.replace("Nothing is wrong", "Beside that, nothing is wrong", 1)
        return f"No patients are named, so nobody can say whether results on these images would be too good. {rest}"
    if count["leak"]:
        first = next(problem for problem in problems if problem.level == "leak")
        rest = f", and {count['leak'] - 1} more leak{'s' if count['leak'] > 2 else ''}" if count["leak"] > 1 else ""
        return f"Results on this split would be too good: {first.title}{rest}."
    if count["harm"]:
        rest = f", and {count['harm'] - 1} more" if count["harm"] > 1 else ""
        first = next(problem for problem in problems if problem.level == "harm")
        return f"No leak was found in {images:,} images, but something to mend: {first.title}{rest}."
    notes = f"; {count['note']} thing{'s' if count['note'] != 1 else ''} to know" if count["note"] else ""
    return f"Nothing is wrong with these {images:,} images as far as can be seen without a network{notes}."


def record_of(audited: Audited, *, created: str = "", with_pictures: bool = True) -> AuditRecord:
    """Compose what the page shows.

    Args:
        audited: the audit.
        created: when, as text.
        with_pictures: whether small pictures of the rows are shown.
    """
    found, census, manifest = audited.audit, audited.audit.census, audited.audit.manifest
    card, copies = manifest.card, audited.audit.copies
    is_grouped = manifest.frame["group"].n_unique() < len(manifest)
    is_multilabel = card.task == "multilabel"
    shows = _Pictures(audited) if with_pictures else None
    order = np.argsort(-census.images.sum(axis=0), kind="stable")
    names = [card.classes[k] for k in order]
    ratio = census.image_ratio
    facts = [("Images", grouped(len(manifest)))]
    if is_grouped:
        facts.append(("Groups", grouped(int(manifest.frame["group"].n_unique()))))
    facts.append(("Labels" if is_multilabel else "Classes", str(len(card.classes))))
    if ratio is not None:
        facts.append(("Imbalance", f"{ratio:.3g} : 1"))
    if is_grouped and census.group_ratio is not None:
        facts.append(("by group", f"{census.group_ratio:.3g} : 1"))
    facts += [("Leaks", str(sum(p.level == "leak" for p in found.problems)))]
    facts += [("Unreadable", grouped(len(manifest) - int(found.looks.is_readable.sum())))]
    return AuditRecord(
        name=card.name,
        created=created,
        version=__version__,
        lead=sum_up(found.problems, len(manifest)),
        facts=tuple(facts),
        findings=tuple(
            Finding(
                level=problem.level,
                title=problem.title,
                cost=problem.cost,
                advice=problem.advice,
                sets=problem.sets,
                strip=Strip() if shows is None else shows.of_problem(problem),
            )
            for problem in found.problems
        ),
        noun="label" if is_multilabel else "class",
        splits=tuple(_split_name(split) for split in census.splits),
        counts={
            card.classes[k]: [(int(census.images[s, k]), int(census.groups[s, k])) for s in range(len(census.splits))]
            for k in order
        },
        totals=[(int(n), int(g)) for n, g in zip(census.split_images, census.split_groups, strict=True)],
        is_grouped=is_grouped,
        labels=tuple(names) if is_multilabel else (),
        together=census.together[np.ix_(order, order)].tolist() if is_multilabel else (),
        sizes=_shortened([(f"{w} × {h}", n) for w, h, n in census.sizes]),
        kinds=_shortened(list(census.kinds)),
        brightness=tuple(np.histogram(census.brightness, bins=BINS, range=(0, 1))[0].tolist()),
        ranked=tuple(
            Ranked(
                title=_TITLES[entry.kind],
                words=entry.words,
                total=len(entry.ids),
                look_at=entry.look_at,
                strip=Strip() if shows is None else shows.of_suspects(entry),
            )
            for entry in audited.suspects
        ),
        provenance=(
            ("Rows", f"{grouped(len(manifest))}, manifest {manifest.hash()[:12]}"),
            ("Copies", _how(copies.radius, copies.left_out)),
            *((title, text) for title, text in (("Licence", card.licence), ("Citation", card.citation)) if text),
        ),
    )


def summary_of(audited: Audited) -> str:
    """Write what was found as Markdown: counts by class, then a table of the findings; no rows, no pictures."""
    found, census, card = audited.audit, audited.audit.census, audited.audit.manifest.card
    splits = [_split_name(split) for split in census.splits]
    is_grouped = audited.audit.manifest.frame["group"].n_unique() < len(audited.audit.manifest)
    what = "images (groups)" if is_grouped else "images"
    lines = [f"**{literal(sum_up(found.problems, len(found.manifest)))}**", ""]
    lines += [f"| {what} | " + " | ".join(map(literal, splits)) + " |", "| --- |" + " ---: |" * len(splits)]
    for k in np.argsort(-census.images.sum(axis=0), kind="stable"):
        cells = [
            f"{census.images[s, k]:,}" + (f" ({census.groups[s, k]:,})" if is_grouped else "")
            for s in range(len(splits))
        ]
        lines.append(f"| {literal(card.classes[k])} | " + " | ".join(cells) + " |")
    totals = [
        f"{n:,}" + (f" ({g:,})" if is_grouped else "")
        for n, g in zip(census.split_images, census.split_groups, strict=True)
    ]
    lines += ["| all | " + " | ".join(totals) + " |", ""]
    sizes = ", ".join(f"{n:,} of {size}" for size, n in _shortened([(f"{w} x {h}", n) for w, h, n in census.sizes])[:4])
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in census.kinds[:4])
    lines += [f"Sizes: {sizes}. Files: {kinds}.", ""]
    if card.task == "multilabel" and (pairs := _commonest_pairs(found)):
        lines += [f"Labels that go together most: {literal(pairs)}.", ""]
    if not found.problems:
        return "\n".join(lines).rstrip() + "\n"
    lines += ["| level | found | what it costs |", "| --- | --- | --- |"]
    lines += [f"| {p.level} | {literal(p.title)} | {literal(p.cost)} |" for p in found.problems]
    return "\n".join(lines) + "\n"


def row_names(audited: Audited) -> pl.DataFrame:
    """Return which file each named row is, and for what it was named: columns id, path, split and found."""
    kinds: dict[int, list[str]] = {}
    for problem in audited.audit.problems:
        for row in problem.rows:
            kinds.setdefault(row, []).append(problem.kind)
    for entry in audited.suspects:
        for row in np.unique(entry.ids[: entry.look_at]).tolist():
            kinds.setdefault(row, []).append(f"suspect: {entry.kind}")
    named = pl.DataFrame(
        {"id": list(kinds), "found": ["; ".join(words) for words in kinds.values()]},
        schema={"id": pl.Int64, "found": pl.Utf8},
    )
    frame = audited.audit.manifest.frame.select("id", "path", "split")
    return frame.join(named, on="id", how="inner", maintain_order="left")


class _Pictures:
    """Makes captioned thumbnails of rows."""

    def __init__(self, audited: Audited) -> None:
        self.manifest, self.reading = audited.audit.manifest, audited.reading
        self.targets = self.manifest.targets()
        self.splits = self.manifest.frame["split"].to_list()

    def of_problem(self, problem: Problem) -> Strip:
        """Show the first sets of a finding; of a set that spans splits, at least one picture of each."""
        is_alone = all(len(rows) == 1 for rows in problem.sets)
        chosen = problem.sets[: MOST_ALONE if is_alone else MOST_SETS]
        notes = tuple(f"similarity {score:.3f}" for score in problem.scores[: len(chosen)])
        return Strip(sets=tuple(self._set(rows) for rows in chosen), notes=notes)

    def of_suspects(self, entry: Suspects) -> Strip:
        """Show the first suspects of a ranked list."""
        count = min(entry.look_at, len(entry.ids), MOST_SUSPECTS)
        ids = entry.ids[:count].reshape(count, -1)
        notes = tuple(f"{rank}. score {score:.3f}" for rank, score in enumerate(entry.scores[: len(ids)], start=1))
        return Strip(sets=tuple(self._set(tuple(rows)) for rows in ids.tolist()), notes=notes)

    def _set(self, ids: tuple[int, ...]) -> tuple[Shown, ...]:
        places = self.manifest.positions(np.array(ids, dtype=np.int64)).tolist()
        first = {self.splits[place]: place for place in reversed(places)}
        ordered = [*first.values(), *(place for place in places if place not in first.values())]
        return tuple(self._one(place) for place in sorted(ordered[:MOST_OF_A_SET]))

    def _one(self, place: int) -> Shown:
        row = self.manifest.frame.row(place, named=True)
        split = f", {row['split']}" if row["split"] else ""
        label = caption(self.targets[place], self.manifest.card.classes).replace("100% ", "")
        try:
            jpeg = picture(self.manifest.root / row["path"], side=SIDE, reading=self.reading)
        except ReadError:
            return Shown(picture="", caption=f"row {row['id']}{split}\n{label}\ncannot be read")
        return Shown(picture=base64.b64encode(jpeg).decode(), caption=f"row {row['id']}{split}\n{label}")


def _split_name(split: str) -> str:
    return split or "no split"


def _shortened(entries: list[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    rest = entries[LISTED:]
    last = [(f"{len(rest)} others", sum(n for _, n in rest))] if rest else []
    return (*entries[:LISTED], *last)


def _how(radius: int, left_out: int) -> str:
    how = {
        7: "perceptual hashes within 7 of 64 bits",
        3: "perceptual hashes within 3 of 64 bits, because the images are many and alike",
    }.get(radius, "equal perceptual hashes only, because the images are very many and very alike")
    rest = f"; {grouped(left_out)} pairs with similar thumbnails were too many to compare" if left_out else ""
    return f"content hash; {how}, then pixels{rest}"


def _commonest_pairs(found: Audit, most: int = 5) -> str:
    names, together = found.manifest.card.classes, np.triu(found.census.together, k=1)
    order = np.argsort(-together, axis=None, kind="stable")[:most].tolist()
    pairs = [divmod(place, len(names)) for place in order if together.flat[place]]
    return ", ".join(f"{names[i]} with {names[j]} ({together[i, j]:,})" for i, j in pairs)
