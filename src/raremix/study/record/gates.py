"""For a study's report: whether the translators that its arms rely on change what makes the class."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raremix.core import files
from raremix.core.errors import HeldOutError, RaremixError
from raremix.core.types import Progress
from raremix.generate import generator_hash
from raremix.study.generators.gate import judge_translations
from raremix.study.generators.own import resolved
from raremix.study.generators.use import translator_tables, translators_in
from raremix.study.prepare import Prepared
from raremix.study.record.outcomes import Outcome
from raremix.study.spec import StudySpec

VERSION = 2
"""Raised when a verdict would have other figures for the same files."""

KEPT = "gates.jsonl"
"""File of a run folder that holds what was found, so that it is measured once."""


def translator_gates(
    spec: StudySpec,
    prepared: Prepared,
    outcomes: Mapping[Any, Outcome],
    *,
    folder: Path,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Ask the reference arm's classifier what it sees in translations of validation images.

    Args:
        spec: the study.
        prepared: its data; with folds, of the first one.
        outcomes: the results that are there.
        folder: the run folder.
        progress: called as images are translated.

    Returns:
        One entry per translator and class, with its verdict in words; empty where no arm asks for a translator, or the
        reference arm, which is to judge, has one itself or no result.
    """
    ready = resolved(spec, prepared)
    tables = [table for arm in ready.arms for table in translator_tables(arm.mix)]
    asked = list({json.dumps(table, sort_keys=True): table for table in tables}.values())
    reference = ready.arm(spec.reference)
    judges = [o for job, o in outcomes.items() if job.arm == spec.reference and job.fold in (None, 0)]
    if not asked or not judges or translators_in(reference.mix) or reference.images is not None:
        return []
    names, own = {path: name for name, path in prepared.generators.items()}, [one.name for one in spec.generators]
    judge = judges[0].folder / "result" / "classifier"
    found = []
    for table in asked:
        path, drawing = Path(str(table["name"])), {key: value for key, value in table.items() if key != "name"}
        name = ", ".join([names.get(path, path.name), *(f"{key} {value}" for key, value in sorted(drawing.items()))])
        if table["name"] in own:  # no folder stands in its place
            found.append({"translator": name, "to": None, "words": "It is not there, and was not asked."})
            continue
        try:
            found += _judged(path, drawing, judge, prepared, folder=folder, name=name, progress=progress)
        except HeldOutError:
            raise
        except RaremixError as error:
            found.append({"translator": name, "to": None, "words": f"It could not be told: {error}"})
    return found


def _judged(
    path: Path,
    drawing: Mapping[str, Any],
    judge: Path,
    prepared: Prepared,
    *,
    folder: Path,
    name: str,
    progress: Progress | None,
) -> list[dict[str, Any]]:
    about = [
        VERSION,
        generator_hash(path),
        dict(drawing),
        files.hash_file(judge / "model.safetensors"),
        prepared.cache.key,
    ]
    key = files.hash_value(about)
    kept = [entry["found"] for entry in files.read_records(folder / KEPT) if entry.get("key") == key]
    if kept:
        return kept[-1]
    classes = len(prepared.manifest.card.classes)
    measured = judge_translations(path, judge, prepared, drawing=drawing, progress=progress)
    found = []
    for one in measured:
        facts = asdict(one)
        found.append({"translator": name, "to": facts.pop("name"), **facts, "words": one.words(classes)})
    files.append_record(folder / KEPT, {"key": key, "found": found})
    return found
