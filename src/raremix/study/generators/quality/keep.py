"""What a look for copies found, kept beside the generator that drew the images: P5 of the checklist of privacy.

The set of images is a folder of its own, which may be thrown away or handed on without its generator; who is handed the
generator should know what its images were like. The file is no part of the generator: its hash, which images carry in
their recipe, stays as it is. Sets are told apart, so that a harmless one does not hide what another one showed.
"""

import json
from os import W_OK, access
from pathlib import Path
from typing import Any

import polars as pl

from raremix.core import files
from raremix.core.errors import ConfigError, CorruptError, StorageError
from raremix.data.manifest import Manifest
from raremix.generate import generator_hash
from raremix.study.fitted import rows_of
from raremix.study.generators.quality.judge import SyntheticQuality
from raremix.study.generators.quality.words import warnings_of

AUDIT = "audit.json"


def generators_in(manifest: Manifest) -> set[str]:
    """Return the hashes of the generators that drew a data set's synthetic images; "" for images of unknown origin."""
    recipes = manifest.frame.filter(pl.col("origin") == "synthetic")["recipe"]
    return {_generator_of(recipe) for recipe in recipes}


def find_generator(data: Path, manifest: Manifest) -> Path | None:
    """Find the folder of the one generator of a set, in the folder `generators` beside that of the sets.

    Where raremix writes by default, that is runs/generators for runs/synthetic/NAME. None where there is no folder with
    the hash that the images carry, or where nothing may be written into it.
    """
    drew = generators_in(manifest)
    places = sorted((data.resolve().parent.parent / "generators").glob(f"*/{files.MANIFEST}"))
    found = (place.parent for place in places if {_hash_of(place.parent)} == drew and access(place.parent, W_OK))
    return next(found, None)


def check_generator(folder: Path, manifest: Manifest) -> None:
    """Refuse a folder that is not the generator of a set.

    Raises:
        ConfigError: if the images are not of this generator alone.
    """
    if generators_in(manifest) != {_hash_of(folder)}:
        raise ConfigError(f"{folder} is not the generator of all synthetic images of these data: pass the one that is")


def keep_audit(folder: Path, found: SyntheticQuality, manifest: Manifest, *, created: str) -> Path:
    """Write what was found of a set into `audit.json` in the folder of its generator; an earlier look at it goes.

    Args:
        folder: of the generator.
        found: what was found.
        manifest: the data set.
        created: when, as text.

    Raises:
        ConfigError: if the images are not of this generator alone.
        StorageError: if the file cannot be written.
    """
    check_generator(folder, manifest)
    facts: dict[str, Any] = {
        "set": rows_of(manifest, found.ids["made"]).hash(),
        "images": len(found.ids["made"]),
        "created": created,
        "features": found.features,
        **found.provenance,
        "words": found.why_not if found.audit is None else found.audit.words(),
        "warnings": list(warnings_of(found)),
    }
    if found.audit is not None:
        sight, every = found.audit.sight, found.audit.every
        facts |= {
            "has_copies": found.audit.has_copies,
            "flagged": every.flagged,
            "p": every.p,
            "most": every.most,
            "thresholds": dict(sight.thresholds),
            "rate": sight.rate,
            "calibration_images": sight.calibration,
            "planted_found": dict(sight.found),
        }
    others = [one for one in read_audits(folder) if (one["set"], one["encoder"]) != (facts["set"], facts["encoder"])]
    return files.write_json(folder / AUDIT, {"audits": [*others, facts]})


def read_audits(folder: Path) -> list[dict[str, Any]]:
    """Return what `keep_audit` wrote into a generator's folder, the latest last; none where there is no such file.

    Raises:
        CorruptError: if the file is damaged.
    """
    if not (folder / AUDIT).is_file():
        return []
    facts = files.read_json(folder / AUDIT)
    found = facts.get("audits") if isinstance(facts, dict) else None
    known = ("set", "encoder", "created", "images", "features", "words", "warnings")
    if not isinstance(found, list) or not all(isinstance(one, dict) and set(known) <= set(one) for one in found):
        raise CorruptError(f"{folder / AUDIT} is not what raremix quality writes: delete it, or restore it")
    return found


def _generator_of(recipe: str | None) -> str:
    try:
        facts = json.loads(recipe or "")
    except ValueError:
        return ""
    return str(facts.get("generator", "")) if isinstance(facts, dict) else ""


def _hash_of(folder: Path) -> str | None:
    try:
        return generator_hash(folder)
    except (KeyError, TypeError, CorruptError, StorageError):
        return None
