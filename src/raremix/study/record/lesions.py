"""For a study's report: whether a classifier's importance maps lie on the lesions, where true masks exist."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from raremix.core import files
from raremix.core.errors import CorruptError, ManifestError, ReadError
from raremix.core.types import Progress
from raremix.evaluate.localisation import FIGURES
from raremix.generate import generator_hash
from raremix.study.generators.own import resolved
from raremix.study.generators.use import translators_in
from raremix.study.localise.score import MASK_FREE, ScoredMaps, ScoreSettings, score_maps
from raremix.study.prepare import Prepared
from raremix.study.record.outcomes import Outcome
from raremix.study.spec import StudySpec

KEPT = "lesions.jsonl"
"""File of a run folder that holds what was found, so that it is measured once."""

SLOW = ("occlusion", "integrated_gradients", "hyperplane")
"""Maps that need dozens of passes per image."""

STEPS, WIDEST = 10, 1600


def lesion_facts(
    spec: StudySpec,
    prepared: Prepared,
    outcomes: Mapping[Any, Outcome],
    *,
    folder: Path,
    progress: Progress | None = None,
) -> dict[str, Any] | None:
    """Score the maps of the reference arm's first classifier on test images, with those of all translators of arms.

    Args:
        spec: the study; `[evaluate] localise` says on how many images, `localise_maps` by which maps.
        prepared: its data; with folds, of the first one.
        outcomes: the results that are there.
        folder: the run folder.
        progress: called as images are scored.

    Returns:
        A part of the record, with a note where there are no masks with something to find, or they cannot be read, or
        the classifier or a translator is damaged; None where nothing is asked, or the reference arm has no result.

    Raises:
        HeldOutError: if one of them was fitted on these images.
    """
    judges = [o for job, o in outcomes.items() if job.arm == spec.reference and job.fold in (None, 0)]
    if not spec.evaluate.localise or not judges:
        return None
    classifier = judges[0].folder / "result" / "classifier"
    translators = _translators(spec, prepared)
    key = files.hash_value(
        [
            files.hash_file(classifier / "model.safetensors"),
            {name: generator_hash(path) for name, path in translators.items()},
            prepared.manifest.hash(),
            spec.evaluate.localise,
            *([] if spec.evaluate.localise_maps == "quick" else [spec.evaluate.localise_maps, STEPS]),
        ]
    )
    kept = [entry["found"] for entry in files.read_records(folder / KEPT) if entry.get("key") == key]
    if kept:
        return kept[-1]
    is_quick = spec.evaluate.localise_maps == "quick"
    settings = ScoreSettings(
        most=spec.evaluate.localise,
        steps=0 if is_quick else STEPS,
        shown=3,
        resamples=1000,
        without=SLOW if is_quick else (),
    )
    try:
        found = score_maps(classifier, prepared.manifest, translators=translators, settings=settings, progress=progress)
    except ManifestError as error:  # no masks, or none with something to find
        return _nothing(spec, str(error))
    except ReadError as error:  # whose file stays unnamed: its name may be a patient's
        return _nothing(spec, f"a mask or image cannot be read: {error.reason}")
    except CorruptError as error:  # the rest of the report needs neither
        return _nothing(spec, str(error))
    facts = _facts(spec, found)
    files.append_record(folder / KEPT, {"key": key, "found": facts})
    return facts


def _translators(spec: StudySpec, prepared: Prepared) -> dict[str, Path]:
    """Return the folders of the translators that arms mix by, as far as they are there, by name."""
    own = {table.name for table in spec.generators}
    paths = [path for arm in resolved(spec, prepared).arms for path in translators_in(arm.mix) if str(path) not in own]
    names = {path: name for name, path in prepared.generators.items()}
    found: dict[str, Path] = {}
    for path in dict.fromkeys(paths):
        name = names.get(path, path.name)
        # Folders from elsewhere may bear the same name in different places.
        found[name if name not in found else str(path)] = path
    return found


def _nothing(spec: StudySpec, why: str) -> dict[str, Any]:
    """Return the part of the record where there is no table."""
    note = f"Importance maps were not scored ([evaluate] localise = {spec.evaluate.localise}): {why}"
    return {"arm": spec.reference, "images": 0, "patients": 0, "rows": [], "picture": None, "note": note}


def _facts(spec: StudySpec, found: ScoredMaps) -> dict[str, Any]:
    images, patients = found.scored
    rows = []
    for (name,), part in found.summary.group_by("map", maintain_order=True):
        figures = {
            row["figure"]: {key: row[key] for key in ("value", "low", "high", "beats")}
            for row in part.iter_rows(named=True)
            if row["figure"] in (*FIGURES, *MASK_FREE)
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
