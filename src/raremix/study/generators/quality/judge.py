"""How good and how private synthetic images are, beside the real ones that they are to help."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float32, Int

from raremix.core.errors import ConfigError, DataError
from raremix.core.random import rng
from raremix.core.types import Progress
from raremix.evaluate.generative import COPIES, Figure, MemorisationAudit, Probe, generative_figures
from raremix.evaluate.generative.neighbourhoods import NEIGHBOURS
from raremix.study.audit.representation import representation_of
from raremix.study.fitted import rows_of
from raremix.study.generators.quality.copies import (
    PLANTED,
    Copies,
    Pair,
    copies_by_class,
    groups_of,
    look_for_copies,
    pairs_of,
)
from raremix.study.generators.quality.encoder import Encoder, unit_vectors
from raremix.study.generators.quality.probe import probe_both
from raremix.study.prepare import Prepared

EVERY = "all classes"
MOST = 1000
"""Images of each kind that the figures compare at most: distances between all pairs are kept."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassQuality:
    """One class, or all of them.

    Attributes:
        name: the class; "all classes".
        real, synthetic, held_out: how many images there are.
        figures: of the synthetic images beside the real training images; None where there are too few.
        floor: of the held-out real images beside the same: what perfect images would score at their number.
        few_kinds: where the synthetic images surely cover less than as many held-out real ones: how much these cover,
            and how many they are.
        copies: what looks like copies among them; None where that could not be told.
    """

    name: str
    real: int
    synthetic: int
    held_out: int
    figures: dict[str, Figure] | None
    floor: dict[str, Figure] | None
    few_kinds: tuple[Figure, int] | None
    copies: Copies | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SyntheticQuality:
    """What was found.

    Attributes:
        features: the encoder, by name.
        classes: every class, and all of them first.
        audit: the look for copies; None where there are too few held-out patients.
        why_not: why there is none.
        pairs: the nearest ones, the likeliest copies first.
        probe: what a linear probe on the encoder's vectors, which stay as they are, knows of held-out images if it saw
            synthetic images alone; None for several labels per image, or without held-out images.
        probe_real: the same of as many real training images.
        ids: rows that were compared: "real", "made" and "held".
        vectors: of the same rows, of length one.
        provenance: what was compared and by which encoder, by hash; figures with another encoder cannot be compared.
    """

    features: str
    classes: tuple[ClassQuality, ...]
    audit: MemorisationAudit | None
    why_not: str
    pairs: tuple[Pair, ...]
    probe: Probe | None
    probe_real: Probe | None
    ids: dict[str, Int[np.ndarray, " _"]]
    vectors: dict[str, Float32[np.ndarray, "_ d"]]
    provenance: dict[str, str | int]


def judge_synthetic(
    prepared: Prepared, *, weights: str | Path, cache: Path, seed: int = 0, progress: Progress | None = None
) -> SyntheticQuality:
    """Compare the synthetic training images of a data set with its real ones.

    All images are compared at the size of the study, so that a difference in resolution does not count. Held-out
    images are those of the validation split: test images choose nothing, not even what is thrown away.

    Args:
        prepared: data whose manifest has synthetic rows, as `raremix synthesize` writes it.
        weights: the encoder; see `raremix.study.audit.representation.representation_of`. "self" is trained on the real
            training images alone, so that it is the same for every generator of a data set.
        cache: the cache folder.
        seed: which held-out patients are compared and which calibrate, and what copies are planted.
        progress: called as images are encoded.

    Raises:
        ConfigError: if there are no synthetic rows.
    """
    manifest = prepared.manifest
    frame = manifest.frame
    is_made = (frame["origin"] == "synthetic").to_numpy()
    split = frame["split"].to_numpy()
    if not is_made.any():
        raise ConfigError(
            f"{manifest.card.name} has no synthetic images: make some with raremix synthesize, and pass its folder"
        )
    # All of them: what is not looked at could have been copied.
    real, made = manifest.ids[(split == "train") & ~is_made], manifest.ids[is_made]
    held = manifest.ids[(split == "validation") & ~is_made]
    # What an encoder of their own may see: neither what is judged, nor what it is judged by.
    seen_alone = replace(manifest, frame=frame.filter(pl.Series((split == "train") & ~is_made)))
    representation = representation_of(weights, seen_alone, cache=cache, progress=progress)
    total = len(real) + len(made) + len(held) + PLANTED * len(COPIES)
    encode = Encoder(representation, prepared, total=total, progress=progress)
    seen = {name: encode.of(ids) for name, ids in (("real", real), ("made", made), ("held", held))}
    vectors = {name: unit_vectors(rows) for name, rows in seen.items()}
    compared = seen if representation.is_published else vectors
    look, why_not = None, ""
    try:
        look = look_for_copies(prepared, encode, real, made, held, vectors, seed=seed)
    except DataError as error:
        why_not = str(error)
    targets = {name: manifest.targets(ids) for name, ids in (("real", real), ("made", made), ("held", held))}
    parts = {EVERY: {name: np.ones(len(rows), dtype=bool) for name, rows in targets.items()}}
    for label, name in enumerate(manifest.card.classes):
        chosen = {kind: rows[:, label] > 0.5 for kind, rows in targets.items()}
        if chosen["made"].any():
            parts[name] = chosen
    copies = {} if look is None else copies_by_class(look, parts)
    groups, classes = groups_of(manifest, real), []
    for number, (name, chosen) in enumerate(parts.items(), start=1):
        classes.append(_class(name, chosen, compared, groups, copies.get(name), seed=seed))
        if progress is not None:
            progress("compare classes", number, len(parts))
    if len(classes) <= len(manifest.card.classes):  # what was not to be drawn is not covered
        classes[0] = replace(classes[0], few_kinds=None)
    probe, probe_real = probe_both(manifest, targets, vectors, groups_of(manifest, held), seed=seed)
    return SyntheticQuality(
        features=representation.name,
        classes=tuple(classes),
        audit=None if look is None else look.audit,
        why_not=why_not,
        pairs=() if look is None else pairs_of(look.audit, real, made),
        probe=probe,
        probe_real=probe_real,
        ids={"real": real, "made": made, "held": held},
        vectors=vectors,
        provenance={
            "encoder": representation.key,
            "fit rows": rows_of(manifest, real).hash(),
            "hold-out rows": rows_of(manifest, held).hash(),
            "size": prepared.cache.shape[-1],
            "seed": seed,
        },
    )


def _class(
    name: str,
    chosen: dict[str, np.ndarray],
    vectors: dict[str, Float32[np.ndarray, "_ d"]],
    groups: np.ndarray,
    copies: Copies | None,
    *,
    seed: int,
) -> ClassQuality:
    some = {kind: _some(np.flatnonzero(chosen[kind]), seed, number) for number, kind in enumerate(vectors)}
    rows = {kind: vectors[kind][places] for kind, places in some.items()}
    counts = {kind: int(chosen[kind].sum()) for kind in vectors}

    def compared(kind: str, most: int = MOST) -> dict[str, Figure] | None:
        if min(counts["real"], counts[kind]) < NEIGHBOURS + 2:
            return None
        part = rng(seed, "sample", 10).permutation(len(rows[kind]))[:most]
        return generative_figures(rows["real"], rows[kind][np.sort(part)], groups=groups[some["real"]])

    figures, floor, few = compared("made"), compared("held"), None
    if figures is not None and floor is not None and _covers_less(figures, floor):
        # Fewer images cover less, however good they are.
        as_many = min(len(rows["held"]), len(rows["made"]))
        equal = compared("held", as_many) if as_many < len(rows["held"]) else floor
        few = (equal["coverage"], as_many) if equal is not None and _covers_less(figures, equal) else None
    return ClassQuality(
        name=name,
        real=counts["real"],
        synthetic=counts["made"],
        held_out=counts["held"],
        figures=figures,
        floor=floor,
        few_kinds=few,
        copies=copies,
    )


def _covers_less(figures: dict[str, Figure], floor: dict[str, Figure]) -> bool:
    """Return whether the interval of one coverage ends below where the other's begins."""
    return figures["coverage"].high < floor["coverage"].low


def _some(places: Int[np.ndarray, " n"], seed: int, number: int) -> Int[np.ndarray, " m"]:
    if len(places) <= MOST:
        return places
    return np.sort(rng(seed, "sample", 9, number).permutation(places)[:MOST])
