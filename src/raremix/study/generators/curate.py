"""Leave out the synthetic images that a look at them would: copies, what nobody recognises, and what lies far off."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from raremix.core import files
from raremix.core.errors import ConfigError, GuardError
from raremix.core.fitted import read_fitted
from raremix.core.types import Progress
from raremix.data.manifest import Manifest
from raremix.data.unnamed import unnamed_groups
from raremix.evaluate.calibration import scores_from_logits
from raremix.models import load_classifier
from raremix.study.apply import refuse_other_classes, refuse_other_images, refuse_seen
from raremix.study.fitted import rows_of
from raremix.study.generators.quality.judge import SyntheticQuality, judge_synthetic
from raremix.study.prepare import Prepared
from raremix.train.inference import predict_logits

LEAST = 20
"""Held-out images of a class that a threshold needs; with fewer, those of all classes say it."""
RECOGNISED = 0.05
"""Share of held-out real images that the classifier may believe less than the threshold."""
OUTSIDE = 0.99
"""Share of held-out real images that lie nearer to a training image of their class than the threshold."""
REASONS = ("copy", "not recognised", "outlier")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curation:
    """What is left out.

    Attributes:
        ids: all synthetic rows.
        labels: class of each.
        source: real training row that each is nearest to, where copies were looked for.
        dropped: by reason, which of them are left out; one may have several reasons.
        values: by reason, what was measured of each row.
        thresholds: by reason and class, where the line was drawn. For copies the value is the ratio over its
            threshold, and the line is 1.
        not_checked: what was not looked at, and why: keys are reasons, or what is not known of the classifier.
        quality: what was found before.
    """

    ids: Int[np.ndarray, " m"]
    labels: Int[np.ndarray, " m"]
    source: Int[np.ndarray, " m"] | None
    dropped: Mapping[str, Bool[np.ndarray, " m"]]
    values: Mapping[str, Float[np.ndarray, " m"]]
    thresholds: Mapping[str, Mapping[str, float]]
    not_checked: Mapping[str, str]
    quality: SyntheticQuality

    @property
    def kept(self) -> Bool[np.ndarray, " m"]:
        """Return which synthetic rows stay."""
        return ~np.any(list(self.dropped.values()), axis=0)


def curate(
    prepared: Prepared,
    *,
    weights: str | Path,
    cache: Path,
    classifier: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Curation:
    """Choose which synthetic images stay. Thresholds come from held-out real images (validation), class by class.

    * A copy is what `raremix.evaluate.generative.audit_memorisation` flags.
    * Not recognised: the classifier believes the image's class less than it does for 95 % of held-out real images.
    * An outlier lies farther from the nearest real training image of its class than 99 % of held-out real ones.

    Args:
        prepared: data with synthetic rows, one class per image.
        weights: the encoder; see `raremix.study.audit.representation.representation_of`.
        cache: the cache folder.
        classifier: folder of a classifier that was trained on real images, or on other synthetic ones; None: nobody is
            asked.
        seed: see `judge_synthetic`.
        progress: called as images are encoded.

    Raises:
        ConfigError: for several labels per image, or a classifier of other images.
        ManifestError: for a classifier of other classes.
        GuardError: without held-out images to draw the lines by, or if the classifier was trained on the synthetic
            images that it is to judge.
        HeldOutError: if the classifier was trained on the held-out images.
    """
    manifest = prepared.manifest
    if manifest.card.task == "multilabel":
        raise ConfigError("curation needs one class per image: with several labels, look at raremix quality instead")
    quality = judge_synthetic(prepared, weights=weights, cache=cache, seed=seed, progress=progress)
    made, held = quality.ids["made"], quality.ids["held"]
    if len(held) < LEAST:
        raise GuardError(
            f"{len(held)} held-out images to draw the lines by: expected at least {LEAST} in the validation split"
        )
    if classifier is not None:
        refuse_seen(classifier, manifest, held)
        _refuse_taught(classifier, manifest, made)
    labels = {kind: manifest.targets(ids).argmax(axis=1) for kind, ids in quality.ids.items()}
    dropped, values = {}, {}
    thresholds: dict[str, dict[str, float]] = {}
    if quality.audit is not None:
        audit = quality.audit
        scaled = [audit.ratios[name] / audit.sight.thresholds[name] for name in audit.ratios]
        values["copy"], dropped["copy"] = np.min(scaled, axis=0), audit.is_flagged
        thresholds["copy"] = dict.fromkeys(manifest.card.classes, 1.0)
    if classifier is not None:
        believed = _belief(prepared, classifier, np.concatenate([made, held]))
        own, line = believed[: len(made)], believed[len(made) :]
        truth = np.concatenate([labels["made"], labels["held"]])
        own, line = own[np.arange(len(made)), truth[: len(made)]], line[np.arange(len(held)), truth[len(made) :]]
        lines = _lines(line, labels["held"], manifest, share=RECOGNISED)
        values["not recognised"], thresholds["not recognised"] = own, _named(lines, manifest)
        dropped["not recognised"] = own < lines[labels["made"]]
    far = {kind: _to_class(quality, labels, kind) for kind in ("made", "held")}
    lines = _lines(far["held"], labels["held"], manifest, share=OUTSIDE)
    values["outlier"], thresholds["outlier"] = far["made"], _named(lines, manifest)
    dropped["outlier"] = far["made"] > lines[labels["made"]]
    return Curation(
        ids=made,
        labels=labels["made"],
        source=None if quality.audit is None else quality.ids["real"][quality.audit.source],
        dropped=dropped,
        values=values,
        thresholds=thresholds,
        not_checked=_not_checked(quality, classifier),
        quality=quality,
    )


def write_curated(found: Curation, prepared: Prepared, output: Path) -> Path:
    """Write the manifest without what is left out, `dropped.csv` with the reasons, and the counts; no image is touched.

    Returns:
        The manifest's path.

    Raises:
        GuardError: if the output is the folder of the images' own manifest.
        StorageError: if a file cannot be written.
    """
    manifest = prepared.manifest
    if output.resolve() == manifest.root.resolve():
        raise GuardError(f"{output} holds the images' own manifest: choose another --output")
    files.write_csv(output / "dropped.csv", dropped_table(found, manifest))
    facts = {"thresholds": found.thresholds, "not_checked": found.not_checked}
    files.write_json(output / "curation.json", counts_of(found, manifest) | facts)
    gone = set(found.ids[~found.kept].tolist())
    frame = manifest.frame.filter(~pl.col("id").is_in(list(gone)))
    return unnamed_groups(replace(manifest, frame=frame)).write(output / "manifest.parquet")


def dropped_table(found: Curation, manifest: Manifest) -> pl.DataFrame:
    """Return one row per synthetic image and reason it is left out for; for a copy, with the row it is near to."""
    parts = []
    for reason, is_out in found.dropped.items():
        rows = np.flatnonzero(is_out)
        names = [manifest.card.classes[label] for label in found.labels[rows]]
        near = found.source[rows].tolist() if reason == "copy" and found.source is not None else [None] * len(rows)
        parts.append(
            pl.DataFrame(
                {
                    "id": found.ids[rows],
                    "class": pl.Series(names, dtype=pl.Utf8),
                    "reason": pl.Series([reason] * len(rows), dtype=pl.Utf8),
                    "value": found.values[reason][rows].astype(np.float64),
                    "threshold": pl.Series([found.thresholds[reason][name] for name in names], dtype=pl.Float64),
                    "training_row": pl.Series(near, dtype=pl.Int64),
                }
            )
        )
    return pl.concat(parts).join(manifest.frame.select("id", "path"), on="id", how="left").sort("id", "reason")


def counts_of(found: Curation, manifest: Manifest) -> dict[str, dict[str, dict[str, int]]]:
    """Return, by class, how many there were, how many stay, and how many are left out for each reason."""
    counts = {}
    for label, name in enumerate(manifest.card.classes):
        own = found.labels == label
        if own.any():
            reasons = {reason: int((is_out & own).sum()) for reason, is_out in found.dropped.items()}
            counts[name] = {"synthetic": int(own.sum()), "kept": int((found.kept & own).sum()), **reasons}
    return {"classes": counts}


def _refuse_taught(classifier: Path, manifest: Manifest, made: Int[np.ndarray, " m"]) -> None:
    """Refuse a classifier that was trained on the images that it is to judge: it recognises whatever it was told.

    Raises:
        GuardError: saying how many.
    """
    seen = (read_fitted(classifier) or {}).get("train")
    if seen is None:
        return
    # A file that is a real one as well says nothing about who saw what.
    own = np.setdiff1d(rows_of(manifest, made).keys, rows_of(manifest, np.setdiff1d(manifest.ids, made)).keys)
    known = int(seen.holds(own).sum())
    if known:
        raise GuardError(
            f"{classifier} was trained on {known} of the {len(made)} synthetic images that it is to judge, "
            "and recognises what it was told: pass a classifier that was trained on real images alone"
        )


def _not_checked(quality: SyntheticQuality, classifier: Path | None) -> dict[str, str]:
    """Return what was not looked at, and why."""
    found = {} if quality.audit is not None else {"copy": quality.why_not}
    if classifier is None:
        found["not recognised"] = "no classifier was asked: pass one that was trained on real images with --classifier"
    elif "train" not in (read_fitted(classifier) or {}):
        found["classifier"] = f"{classifier.name} does not say on which images it was trained; these may be among them"
    return found


def _belief(prepared: Prepared, classifier: Path, ids: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n K"]:
    """Return a classifier's probabilities of the manifest's classes."""
    model, card = load_classifier(classifier)
    refuse_other_classes(card, prepared.manifest)
    refuse_other_images(classifier, card, prepared.cache.shape)
    logits = predict_logits(model, prepared.cache, ids, num_classes=len(card.classes), batch_size=64)
    return scores_from_logits(logits, task=card.task, temperature=card.temperature)


def _to_class(quality: SyntheticQuality, labels: Mapping[str, np.ndarray], kind: str) -> Float[np.ndarray, " n"]:
    """Return the cosine distance of each image to the nearest real training image of its class."""
    apart = np.full(len(labels[kind]), np.inf)
    for label in np.unique(labels[kind]):
        own, real = np.flatnonzero(labels[kind] == label), quality.vectors["real"][labels["real"] == label]
        if len(real):
            apart[own] = 1 - (quality.vectors[kind][own] @ real.T).max(axis=1)
    return apart


def _lines(
    values: Float[np.ndarray, " n"], labels: Int[np.ndarray, " n"], manifest: Manifest, *, share: float
) -> Float[np.ndarray, " K"]:
    """Return the share-quantile of each class's values, or of all where a class has few."""
    known = values[np.isfinite(values)]
    lines = np.full(len(manifest.card.classes), float(np.quantile(known, share)))
    for label in range(len(lines)):
        own = values[(labels == label) & np.isfinite(values)]
        if len(own) >= LEAST:
            lines[label] = np.quantile(own, share)
    return lines


def _named(lines: Float[np.ndarray, " K"], manifest: Manifest) -> dict[str, float]:
    return {name: float(line) for name, line in zip(manifest.card.classes, lines, strict=True)}
