"""The guard after training: nothing was fitted, and nothing chosen, on rows that are held out from it.

What learns from labels or pixels (classifier, generator, importance maps) may see train alone; what chooses (the moment
to keep, thresholds, temperature) sees validation alone; the test rows are seen by neither. Every result carries the
hash of the rows behind each of these, and the record is made only if they are the rows of this study's splits.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from raremix.core.errors import HeldOutError
from raremix.core.fitted import FittedOn, content_keys, fitted_on, read_fitted
from raremix.core.types import Split
from raremix.data.manifest import Manifest, listed
from raremix.study.arm_table import ArmSpec
from raremix.study.spec import StudySpec

USES: Mapping[str, Split] = {
    "classifier": "train",
    "class counts": "train",
    "importance maps": "train",
    "generator": "train",
    "label embedding": "train",
    "moment": "validation",
    "thresholds": "validation",
    "temperature": "validation",
    "recipe": "validation",
}
"""What is fitted or chosen, and the only split that it may see."""


def rows_of(manifest: Manifest, ids: Int[np.ndarray, " m"]) -> FittedOn:
    """Return the record of rows for what is fitted on them."""
    return fitted_on(manifest.frame["sha256"].gather(manifest.positions(ids)))


def fitted_facts(manifest: Manifest, used: Mapping[str, Int[np.ndarray, " m"]]) -> dict[str, dict[str, Any]]:
    """Return, for a result, on which rows each thing was fitted, unless a row is held out from it.

    Args:
        manifest: the data set with its splits.
        used: manifest ids of the rows, by what was fitted on them (a key of `USES`).

    Raises:
        HeldOutError: naming what was fitted on held-out rows, and the rows.
    """
    facts = {}
    for what, ids in used.items():
        split = USES[what]
        splits = manifest.frame["split"].gather(manifest.positions(ids))
        wrong = ids[(splits != split).fill_null(True).to_numpy()]
        if len(wrong):
            raise HeldOutError(
                f"{what}: {len(wrong)} of {len(ids)} rows are not of {split} (row {listed(wrong.tolist())}): what may "
                f"see {split} alone would be measured on rows that it knows; fit it again on {split}"
            )
        facts[what] = {"split": split, **rows_of(manifest, ids).facts()}
    return facts


def check_fitted(facts: Mapping[str, Mapping[str, Any]], manifest: Manifest, *, where: str) -> None:
    """Refuse a result whose parts were fitted on other rows than its study's split now says, by hash.

    Args:
        facts: what `fitted_facts` returned when the result was made.
        manifest: the data set with its splits, as the arm was trained on it.
        where: the result, for the message.

    Raises:
        HeldOutError: naming what was fitted on other rows.
    """
    hashes = {split: rows_of(manifest, manifest.rows(split)).hash() for split in ("train", "validation")}
    for what, entry in facts.items():
        if USES.get(what) != entry.get("split") or entry.get("hash") != hashes.get(str(entry.get("split"))):
            raise HeldOutError(
                f"{where}: {what} was fitted on {entry.get('rows')} rows that are not this study's "
                f"{USES.get(what, 'train')} rows (recorded hash {entry.get('hash')}): its figures would mislead; "
                "delete the folder and run the study again"
            )


def check_weights(spec: StudySpec, arm: ArmSpec, manifest: Manifest) -> None:
    """Refuse pretrained weights and label vectors that were fitted, or chosen, on rows that this study holds out.

    Those from elsewhere do not say what they were fitted on, and pass.

    Raises:
        HeldOutError: naming the rows.
    """
    model = spec.model_of(arm)
    for key, file in (("weights", model.weights), ("head.vectors", model.head.vectors)):
        seen = None if file is None else read_fitted(Path(file).parent)
        for use, rows in (seen or {}).items():
            # What chose their moment may choose again; it must not be tested on.
            held: tuple[Split, ...] = ("test",) if use == "validation" else ("validation", "test")
            refuse_held_out(rows, manifest, what=f"arm.{arm.name}.model.{key} ({use})", held=held)


def refuse_held_out(
    seen: FittedOn, manifest: Manifest, *, what: str, held: Sequence[Split] = ("validation", "test")
) -> None:
    """Refuse something that was fitted on rows that a manifest holds out: for weights and generators from elsewhere.

    Args:
        seen: the rows that it was fitted on.
        manifest: the data set with its splits.
        what: what was fitted, for the message.
        held: the splits that it must not have seen.

    Raises:
        HeldOutError: naming the rows.
    """
    for split in held:
        ids = manifest.rows(split)
        known = seen.holds(content_keys(manifest.frame["sha256"].gather(manifest.positions(ids))))
        if known.any():
            raise HeldOutError(
                f"{what} was fitted on {int(known.sum())} of the {len(ids)} {split} rows of this study (row "
                f"{listed(ids[known].tolist())}): fit it on this study's train alone, or leave it out"
            )


def fitted_entries(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return, for the record, on which rows things were fitted: one entry per thing and set of rows.

    Args:
        results: what `fitted_facts` returned, by result.
    """
    found: dict[tuple[str, str, int, str], int] = {}
    for facts in results.values():
        for what, entry in facts.items():
            key = (what, str(entry["split"]), int(entry["rows"]), str(entry["hash"]))
            found[key] = found.get(key, 0) + 1
    return [
        {"what": what, "split": split, "rows": rows, "hash": digest, "results": count}
        for (what, split, rows, digest), count in found.items()
    ]
