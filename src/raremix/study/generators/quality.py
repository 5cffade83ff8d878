"""How good and how private synthetic images are, beside the real ones that they are to help."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import Float32, Int, UInt8
from torch.nn import functional

from raremix.core.errors import ConfigError, DataError
from raremix.core.random import rng
from raremix.core.types import Progress
from raremix.data.manifest import Manifest
from raremix.evaluate.generative import (
    COPIES,
    MIN_CALIBRATION,
    Figure,
    MemorisationAudit,
    PixelViews,
    Space,
    audit_memorisation,
    generative_figures,
    pixel_space,
    plant_copies,
    probe_accuracy,
)
from raremix.evaluate.generative.neighbourhoods import NEIGHBOURS
from raremix.study.audit.representation import Representation, representation_of
from raremix.study.fitted import rows_of
from raremix.study.prepare import Prepared

PLANTED = 100
"""Copies of each kind that are planted."""
MOST = 1000
"""Images of each kind that the figures compare at most: distances between all pairs are kept."""
BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassQuality:
    """One class, or all of them.

    Attributes:
        name: the class; "all classes".
        real, synthetic, held_out: how many images there are.
        figures: of the synthetic images beside the real training images; None where there are too few.
        floor: of the held-out real images beside the same: what perfect images would score at their number.
        flagged: synthetic images that look like copies; None where that could not be told.
    """

    name: str
    real: int
    synthetic: int
    held_out: int
    figures: dict[str, Figure] | None
    floor: dict[str, Figure] | None
    flagged: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A synthetic image and the training image that it is nearest to.

    Attributes:
        made, source: manifest ids.
        ratio: smallest ratio over its threshold; below 1 it is flagged.
        is_flagged: whether it looks like a copy.
    """

    made: int
    source: int
    ratio: float
    is_flagged: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SyntheticQuality:
    """What was found.

    Attributes:
        features: the encoder, by name.
        classes: every class, and all of them first.
        audit: the look for copies; None where there are too few held-out patients.
        why_not: why there is none.
        pairs: the nearest ones, the likeliest copies first.
        probe: balanced accuracy on held-out images of a linear probe that saw synthetic images alone; None for several
            labels per image, or without held-out images.
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
    probe: float | None
    probe_real: float | None
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
    encode = _Encoder(representation, prepared, total=len(real) + len(made) + len(held), progress=progress)
    seen = {name: encode.of(ids) for name, ids in (("real", real), ("made", made), ("held", held))}
    vectors = {name: unit_vectors(rows) for name, rows in seen.items()}
    compared = seen if representation.is_published else vectors
    audit, why_not = None, ""
    try:
        audit = _audit(prepared, encode, real, made, held, vectors, seed=seed)
    except DataError as error:
        why_not = str(error)
    flagged = None if audit is None else audit.is_flagged
    targets = {name: manifest.targets(ids) for name, ids in (("real", real), ("made", made), ("held", held))}
    every = {name: np.ones(len(rows), dtype=bool) for name, rows in targets.items()}
    groups = {"real": _groups(manifest, real), "held": _groups(manifest, held)}
    parts = {"all classes": every}
    for label, name in enumerate(manifest.card.classes):
        chosen = {kind: rows[:, label] > 0.5 for kind, rows in targets.items()}
        if chosen["made"].any():
            parts[name] = chosen
    classes = []
    for number, (name, chosen) in enumerate(parts.items(), start=1):
        classes.append(_class(name, chosen, compared, groups, flagged, seed=seed))
        if progress is not None:
            progress("compare classes", number, len(parts))
    probe, probe_real = _probe(manifest, targets, vectors, seed=seed)
    return SyntheticQuality(
        features=representation.name,
        classes=tuple(classes),
        audit=audit,
        why_not=why_not,
        pairs=() if audit is None else _pairs(audit, real, made),
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


class _Encoder:
    """Turns rows, or images, into vectors."""

    def __init__(
        self, representation: Representation, prepared: Prepared, *, total: int, progress: Progress | None
    ) -> None:
        self.representation, self.prepared = representation, prepared
        self.done, self.progress = 0, progress
        # Eight kinds of planted copies are encoded as well.
        self.total = total + PLANTED * len(COPIES)

    def images(self, ids: Int[np.ndarray, " n"]) -> UInt8[np.ndarray, "n C H W"]:
        images = self.prepared.cache.take(ids)
        return images if images.dtype == np.uint8 else (images >> 8).astype(np.uint8)

    def of(self, ids: Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n d"]:
        parts = [self.encode(self.images(ids[i : i + BATCH])) for i in range(0, len(ids), BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)

    def encode(self, images: UInt8[np.ndarray, "n C H W"]) -> Float32[np.ndarray, "n d"]:
        form, found = self.representation.form, []
        with torch.inference_mode():
            for start in range(0, len(images), BATCH):
                pixels = torch.from_numpy(images[start : start + BATCH]).float() / 255
                if pixels.shape[1] != form.channels:
                    pixels = pixels.mean(dim=1, keepdim=True).expand(-1, form.channels, -1, -1)
                if not self.representation.is_published:
                    side = (form.size, form.size)
                    pixels = functional.interpolate(pixels, size=side, mode="bilinear", antialias=True)
                found.append(self.representation.encode(pixels).float().numpy())
                self.done += len(pixels)
                if self.progress is not None:
                    self.progress("encode images", min(self.done, self.total), self.total)
        return np.concatenate(found)


def unit_vectors(rows: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    """Scale rows to length one."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _audit(
    prepared: Prepared,
    encode: _Encoder,
    real: Int[np.ndarray, " n"],
    made: Int[np.ndarray, " m"],
    held: Int[np.ndarray, " h"],
    vectors: dict[str, Float32[np.ndarray, "_ d"]],
    *,
    seed: int,
) -> MemorisationAudit:
    """Look for copies in pixels and in features.

    Raises:
        DataError: if there are too few held-out patients.
    """
    groups = _groups(prepared.manifest, held)
    known = np.unique(groups)
    drawn = rng(seed, "split", 7).permutation(len(known))
    calibrating = np.isin(groups, known[drawn[: len(known) // 2]])
    if len(known) < 2 * MIN_CALIBRATION:
        raise DataError(
            f"{len(known)} held-out patients, of whom half calibrate the test, expected at least "
            f"{2 * MIN_CALIBRATION}: keep more patients in validation, or look at the closest images by eye"
        )
    images = {"real": encode.images(real), "made": encode.images(made), "held": encode.images(held)}
    chosen = rng(seed, "sample", 7).permutation(len(real))[:PLANTED]
    planted = {kind: plant_copies(images["real"][chosen], kind=kind, seed=seed) for kind in COPIES}
    pixels = Space(
        name="pixels",
        train=pixel_space(images["real"]),
        reference=pixel_space(images["held"][~calibrating]),
        calibration=PixelViews(images["held"][calibrating]),
        made=PixelViews(images["made"]),
        planted={kind: PixelViews(copies) for kind, copies in planted.items()},
    )
    features = Space(
        name="features",
        train=vectors["real"],
        reference=vectors["held"][~calibrating],
        calibration=vectors["held"][calibrating][:, None],
        made=vectors["made"][:, None],
        planted={kind: unit_vectors(encode.encode(copies))[:, None] for kind, copies in planted.items()},
    )
    return audit_memorisation([pixels, features], calibration_patients=len(np.unique(groups[calibrating])))


def _class(
    name: str,
    chosen: dict[str, np.ndarray],
    vectors: dict[str, Float32[np.ndarray, "_ d"]],
    groups: dict[str, np.ndarray],
    flagged: np.ndarray | None,
    *,
    seed: int,
) -> ClassQuality:
    some = {kind: _some(np.flatnonzero(chosen[kind]), seed, number) for number, kind in enumerate(vectors)}
    rows = {kind: vectors[kind][places] for kind, places in some.items()}
    counts = {kind: int(chosen[kind].sum()) for kind in vectors}

    def compared(kind: str) -> dict[str, Figure] | None:
        if min(counts["real"], counts[kind]) < NEIGHBOURS + 2:
            return None
        return generative_figures(rows["real"], rows[kind], groups=groups["real"][some["real"]])

    return ClassQuality(
        name=name,
        real=counts["real"],
        synthetic=counts["made"],
        held_out=counts["held"],
        figures=compared("made"),
        floor=compared("held"),
        flagged=None if flagged is None else int(flagged[chosen["made"]].sum()),
    )


def _probe(
    manifest: Manifest,
    targets: dict[str, np.ndarray],
    vectors: dict[str, Float32[np.ndarray, "_ d"]],
    *,
    seed: int,
) -> tuple[float | None, float | None]:
    """Return the accuracy of a probe that saw synthetic images, and of one that saw as many real ones."""
    labels = {kind: rows.argmax(axis=1) for kind, rows in targets.items()}
    both = np.intersect1d(np.unique(labels["made"]), np.unique(labels["real"]))
    if manifest.card.task == "multilabel" or len(both) < 2 or not len(labels["held"]):
        return None, None
    asked = np.isin(labels["held"], both)
    if len(np.unique(labels["held"][asked])) < 2:
        return None, None
    seen = np.isin(labels["made"], both)
    as_many: list[Int[np.ndarray, " k"]] = []
    for label in both:
        own = np.flatnonzero(labels["real"] == label)
        as_many.append(rng(seed, "sample", 8, int(label)).permutation(own)[: int((labels["made"] == label).sum())])
    real = np.concatenate(as_many)
    unseen, true = vectors["held"][asked], labels["held"][asked]
    return (
        probe_accuracy(vectors["made"][seen], labels["made"][seen], unseen, true),
        probe_accuracy(vectors["real"][real], labels["real"][real], unseen, true),
    )


def _pairs(audit: MemorisationAudit, real: Int[np.ndarray, " n"], made: Int[np.ndarray, " m"]) -> tuple[Pair, ...]:
    scaled = np.min([audit.ratios[name] / audit.sight.thresholds[name] for name in audit.ratios], axis=0)
    return tuple(
        Pair(
            made=int(made[row]),
            source=int(real[audit.source[row]]),
            ratio=float(scaled[row]),
            is_flagged=bool(audit.is_flagged[row]),
        )
        for row in audit.order().tolist()
    )


def _some(places: Int[np.ndarray, " n"], seed: int, number: int) -> Int[np.ndarray, " m"]:
    if len(places) <= MOST:
        return places
    return np.sort(rng(seed, "sample", 9, number).permutation(places)[:MOST])


def _groups(manifest: Manifest, ids: Int[np.ndarray, " n"]) -> np.ndarray:
    places = manifest.positions(ids)
    groups = manifest.frame["group"].to_list()
    return np.array([groups[place] or f"row {place}" for place in places.tolist()], dtype=object).astype(str)
