"""What was found of synthetic images, as JSON and as the record of a page."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from raremix import __version__
from raremix.evaluate.generative import FIGURES, Figure, Probe, as_shown
from raremix.report.quality import Album, CopyRow, ProbeRow, QualityRecord, QualityRow, written
from raremix.report.strip import Shown, Strip
from raremix.study.generators.quality.judge import MOST, SyntheticQuality
from raremix.study.generators.quality.words import warnings_of
from raremix.study.prepare import Prepared
from raremix.study.record.pictures import to_png

PICTURE, PAIRS, MOST_PAIRS, MOST_OF_CLASS = 96, 24, 200, 12
"""Side of a picture; closest pairs that are drawn in any case, flagged ones at most; pictures of a class."""


def facts_of(found: SyntheticQuality, classes: Sequence[str]) -> dict[str, Any]:
    """Return everything but the pictures, to be kept as JSON beside the images.

    Args:
        found: what was found.
        classes: names of the data set's classes.
    """
    audit = found.audit
    return {
        "features": found.features,
        "classes": [asdict(one) for one in found.classes],
        "probe": None if found.probe is None else _probe_facts(found.probe, classes),
        "probe_real": None if found.probe_real is None else _probe_facts(found.probe_real, classes),
        "memorisation": {"not_told": found.why_not}
        if audit is None
        else {
            "words": audit.words(),
            "thresholds": dict(audit.sight.thresholds),
            "rate": audit.sight.rate,
            "calibration_images": audit.sight.calibration,
            "planted_found": dict(audit.sight.found),
            "flagged": [pair.made for pair in found.pairs if pair.is_flagged],
            "flagged_pairs": [
                {"made": pair.made, "training_row": pair.source, "ratio": pair.ratio}
                for pair in found.pairs
                if pair.is_flagged
            ],
            "p": audit.every.p,
            "most": audit.every.most,
        },
        "warnings": list(warnings_of(found)),
        "provenance": found.provenance,
    }


def record_of(found: SyntheticQuality, prepared: Prepared, *, created: str) -> QualityRecord:
    """Put what was found into the record of a page, with pictures of the closest pairs and of each class."""
    manifest, audit = prepared.manifest, found.audit

    def shown(row: int, words: str) -> Shown:
        image = prepared.cache.take(np.array([row]))[0]
        return Shown(picture=to_png(image, side=PICTURE), caption=f"row {row}\n{words}", kind="png")

    flagged = sum(pair.is_flagged for pair in found.pairs)
    drawn = found.pairs[: max(PAIRS, min(flagged, MOST_PAIRS))]
    pairs = Strip(
        sets=tuple((shown(p.made, "generated"), shown(p.source, "training")) for p in drawn),
        notes=tuple(f"ratio {p.ratio:.2f} of the threshold" + (", flagged" if p.is_flagged else "") for p in drawn),
    )
    frame, targets = manifest.frame, manifest.targets()
    is_made, is_train = (frame["origin"] == "synthetic").to_numpy(), (frame["split"] == "train").to_numpy()
    albums = []
    for label, name in enumerate(manifest.card.classes):
        own = targets[:, label] > 0.5
        if not (own & is_made).any():
            continue
        some = [manifest.ids[own & is_train & (is_made == made)][:MOST_OF_CLASS] for made in (True, False)]
        sets = tuple(
            tuple(shown(int(row), words) for row in rows)
            for rows, words in zip(some, ("generated", "real"), strict=True)
            if len(rows)
        )
        albums.append(Album(name=name, strip=Strip(sets=sets)))
    return QualityRecord(
        name=manifest.card.name,
        created=created,
        version=__version__,
        lead=found.why_not and f"Whether images were copied could not be told: {found.why_not}."
        if audit is None
        else audit.words(),
        is_alarming=audit is None or audit.has_copies,
        warnings=warnings_of(found),
        features=found.features,
        compared=MOST,
        facts=_facts(found),
        figures=tuple(FIGURES.items()),
        rows=tuple(
            QualityRow(
                name=one.name,
                real=one.real,
                synthetic=one.synthetic,
                held_out=one.held_out,
                figures=_triples(one.figures),
                floor=_triples(one.floor),
            )
            for one in found.classes
        ),
        probe=_probe_rows(found, manifest.card.classes),
        copies=tuple(
            CopyRow(
                name=one.name,
                images=one.synthetic,
                flagged=one.copies.flagged,
                by_chance=one.copies.by_chance,
                p=one.copies.p_holm,
                most=one.copies.most,
                calibration=one.copies.calibration,
                below=one.copies.below,
                is_memorised=one.copies.is_memorised,
            )
            for one in found.classes
            if one.copies is not None
        ),
        planted=()
        if audit is None
        else tuple((kind, share, kind in audit.sight.blind) for kind, share in audit.sight.found.items()),
        pairs=pairs,
        not_drawn=max(0, flagged - len(drawn)),
        albums=tuple(albums),
        provenance=tuple((name, str(value)) for name, value in found.provenance.items()),
    )


def _facts(found: SyntheticQuality) -> tuple[tuple[str, str], ...]:
    total = found.classes[0]
    facts = [("Generated", str(total.synthetic)), ("Real, training", str(total.real))]
    facts += [("Real, held out", str(total.held_out))]
    if found.probe is not None and found.probe_real is not None:
        for title, one in (("generated images", found.probe), ("as many real ones", found.probe_real)):
            accuracy = one.accuracy
            facts.append((f"Linear probe that saw {title}", written((accuracy.value, accuracy.low, accuracy.high))))
    return tuple(facts)


def _probe_facts(probe: Probe, classes: Sequence[str]) -> dict[str, Any]:
    return {
        "what": "linear probe on frozen features, asked about held-out real images",
        "accuracy": asdict(probe.accuracy),
        "recall": {
            classes[label]: {**asdict(one), "images": probe.images[label], "patients": probe.patients[label]}
            for label, one in probe.recall.items()
        },
    }


def _probe_rows(found: SyntheticQuality, classes: Sequence[str]) -> tuple[ProbeRow, ...]:
    if found.probe is None or found.probe_real is None:
        return ()
    real = found.probe_real
    return tuple(
        ProbeRow(
            name=classes[label],
            images=found.probe.images[label],
            patients=found.probe.patients[label],
            synthetic=(one.value, one.low, one.high),
            real=(real.recall[label].value, real.recall[label].low, real.recall[label].high),
        )
        for label, one in found.probe.recall.items()
    )


def _triples(figures: dict[str, Figure] | None) -> dict[str, tuple[float, float, float]]:
    shown = {} if figures is None else {name: as_shown(name, one) for name, one in figures.items()}
    return {name: (one.value, one.low, one.high) for name, one in shown.items()}
