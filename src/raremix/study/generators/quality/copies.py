"""Whether synthetic images are copies of training images, of all and of each class."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np
import polars as pl
from jaxtyping import Bool, Float32, Int

from raremix.core.errors import DataError
from raremix.core.random import rng
from raremix.data.manifest import Manifest
from raremix.evaluate.classical import holm
from raremix.evaluate.generative import (
    COPIES,
    LEVEL,
    MIN_CALIBRATION,
    MemorisationAudit,
    PixelViews,
    Space,
    audit_memorisation,
    pixel_space,
    plant_copies,
)
from raremix.study.generators.quality.encoder import Encoder, unit_vectors
from raremix.study.prepare import Prepared

PLANTED = 100
"""Copies of each kind that are planted."""
MARGIN, MOST_HELD = 1.05, 0.5
"""Splits are dealt by images and by class, and meet a share of patients roughly; share above which none is advised."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Look:
    """A look for copies.

    Attributes:
        audit: what was found.
        calibrating: which held-out images calibrated it.
    """

    audit: MemorisationAudit
    calibrating: Bool[np.ndarray, " h"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """What looks like copies among the synthetic images of a class, or of all.

    Attributes:
        flagged, by_chance, p, most: see `raremix.evaluate.generative.Flags`.
        p_holm: the same p, corrected for the number of classes.
        calibration: held-out images of the class among those that calibrate the thresholds, which are the same for all
            classes.
        below: how many of these lie at or below a threshold.
    """

    flagged: int
    by_chance: float
    p: float
    p_holm: float
    most: float
    calibration: int
    below: int

    @property
    def is_memorised(self) -> bool:
        """Whether more is flagged than chance explains."""
        return self.p_holm < LEVEL


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


def look_for_copies(
    prepared: Prepared,
    encode: Encoder,
    real: Int[np.ndarray, " n"],
    made: Int[np.ndarray, " m"],
    held: Int[np.ndarray, " h"],
    vectors: dict[str, Float32[np.ndarray, "_ d"]],
    *,
    seed: int,
) -> Look:
    """Look for copies in pixels and in features.

    Raises:
        DataError: if there are too few held-out patients, saying which share of them would do.
    """
    groups = groups_of(prepared.manifest, held)
    known = np.unique(groups)
    drawn = rng(seed, "split", 7).permutation(len(known))
    calibrating = np.isin(groups, known[drawn[: len(known) // 2]])
    if len(known) < 2 * MIN_CALIBRATION:
        real = prepared.untouched.frame.filter(pl.col("origin") == "real")["id"].to_numpy()
        raise DataError(_too_few(len(known), len(np.unique(groups_of(prepared.untouched, real)))))
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
    audit = audit_memorisation([pixels, features], calibration_patients=len(np.unique(groups[calibrating])))
    return Look(audit=audit, calibrating=calibrating)


def _too_few(held: int, patients: int) -> str:
    """Say how many patients are missing, and what to do about it.

    Args:
        held: held-out patients.
        patients: of all real images, test included.
    """
    needed = 2 * MIN_CALIBRATION
    share = ceil(100 * needed * MARGIN / max(patients, 1)) / 100
    advice = (
        f"the data have {patients} patients, so [split] validation = {share:.2f} would hold out enough. Set it "
        f"(--set split.validation={share:.2f}) when the generator is fitted and its images are drawn, since patients "
        "whom it has seen cannot be held out afterwards; a split that the data bring themselves has to be changed there"
    )
    if share > MOST_HELD:
        advice = (
            f"the data have {patients} patients in all, too few to hold out as many and to fit a generator on the rest"
        )
    return (
        f"{held} held-out patients, of whom half calibrate the test, expected at least {needed}: {advice}. Or compare "
        "synthetic images with training images by eye"
    )


def copies_by_class(look: Look, parts: Mapping[str, Mapping[str, Bool[np.ndarray, " _"]]]) -> dict[str, Copies]:
    """Count what looks like copies in each part of the images, by the same thresholds.

    Among all images, copies in a rare class drown: six of 36 are a finding there, and nothing among thousands.

    Args:
        look: the look for copies.
        parts: by name, which of the synthetic images ("made") and of the held-out ones ("held") belong to it. The first
            is all of them; the others are one family, for whose number p is corrected.
    """
    audit, (first, *others) = look.audit, parts
    alike = {name: parts[name]["held"][look.calibrating] for name in parts}
    flags = {first: audit.every}
    flags |= {name: audit.among(parts[name]["made"], alike=alike[name]) for name in others}
    corrected = [audit.every.p, *holm([flags[name].p for name in others]).tolist()]
    found = {}
    for (name, one), p_holm in zip(flags.items(), corrected, strict=True):
        found[name] = Copies(
            flagged=one.flagged,
            by_chance=one.by_chance,
            p=one.p,
            p_holm=p_holm,
            most=one.most,
            calibration=int(alike[name].sum()),
            below=int(audit.sight.is_below[alike[name]].sum()),
        )
    return found


def pairs_of(audit: MemorisationAudit, real: Int[np.ndarray, " n"], made: Int[np.ndarray, " m"]) -> tuple[Pair, ...]:
    """Return each synthetic image with the training image that it is nearest to, the likeliest copies first."""
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


def groups_of(manifest: Manifest, ids: Int[np.ndarray, " n"]) -> np.ndarray:
    """Return the patient of rows; a row without one is a patient of its own."""
    places = manifest.positions(ids)
    groups = manifest.frame["group"].to_list()
    return np.array([groups[place] or f"row {place}" for place in places.tolist()], dtype=object).astype(str)
