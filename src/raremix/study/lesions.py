"""For a study's report: whether a classifier's importance maps lie on the lesions, where true masks exist."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from raremix.core import files
from raremix.core.errors import RaremixError
from raremix.core.types import Progress
from raremix.evaluate.localisation import FIGURES
from raremix.generate import ClassTranslator, generator_hash
from raremix.study.generator_use import open_generator
from raremix.study.localise import ScoredMaps, ScoreSettings, score_maps
from raremix.study.outcomes import Outcome
from raremix.study.prepare import Prepared
from raremix.study.spec import StudySpec

KEPT = "lesions.jsonl"
"""File of a run folder that holds what was found, so that it is measured once."""

SLOW = ("occlusion", "integrated_gradients", "hyperplane", "function")
"""Maps that need dozens of passes per image; `raremix maps score` has them."""

WIDEST = 1600


def lesion_facts(
    spec: StudySpec,
    prepared: Prepared,
    outcomes: Mapping[Any, Outcome],
    *,
    folder: Path,
    progress: Progress | None = None,
) -> dict[str, Any] | None:
    """Score the maps of the reference arm's first classifier on test images, with those of the study's translators.

    Args:
        spec: the study; `[evaluate] localise` says on how many images.
        prepared: its data; with folds, of the first one.
        outcomes: the results that are there.
        folder: the run folder.
        progress: called as images are scored.

    Returns:
        A part of the record; None where the data have no masks, or nothing is asked.
    """
    judges = [o for job, o in outcomes.items() if job.arm == spec.reference and job.fold in (None, 0)]
    if not spec.evaluate.localise or not judges or "mask" not in prepared.manifest.frame.columns:
        return None
    classifier = judges[0].folder / "result" / "classifier"
    translator = next((path for path in prepared.generators.values() if _translates(path)), None)
    key = files.hash_value(
        [
            files.hash_file(classifier / "model.safetensors"),
            None if translator is None else generator_hash(translator),
            prepared.manifest.hash(),
            spec.evaluate.localise,
        ]
    )
    kept = [entry["found"] for entry in files.read_records(folder / KEPT) if entry.get("key") == key]
    if kept:
        return kept[-1]
    settings = ScoreSettings(most=spec.evaluate.localise, steps=0, shown=3, resamples=1000, without=SLOW)
    try:
        found = score_maps(classifier, prepared.manifest, translator=translator, settings=settings, progress=progress)
    except RaremixError:
        return None  # no mask of a test image has anything to find
    facts = _facts(spec, found)
    files.append_record(folder / KEPT, {"key": key, "found": facts})
    return facts


def _translates(path: Path) -> bool:
    return isinstance(open_generator(path)[0], ClassTranslator)


def _facts(spec: StudySpec, found: ScoredMaps) -> dict[str, Any]:
    images, patients = found.scored
    rows = []
    for (name,), part in found.summary.group_by("map", maintain_order=True):
        figures = {
            row["figure"]: {key: row[key] for key in ("value", "low", "high", "beats")}
            for row in part.iter_rows(named=True)
            if row["figure"] in FIGURES
        }
        rows.append({"map": name, "figures": figures})
    sheet = Image.fromarray(found.sheet)
    sheet.thumbnail((WIDEST, WIDEST), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    sheet.save(stream, format="PNG", optimize=True)
    return {
        "arm": spec.reference,
        "images": images,
        "patients": patients,
        "rows": rows,
        "picture": base64.b64encode(stream.getvalue()).decode(),
    }
