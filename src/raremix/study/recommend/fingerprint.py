"""The fingerprint of a data set: what a plan depends on, counted by image and by group (patient, lesion)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from raremix.core.errors import RaremixError
from raremix.core.types import SPLITS, Task
from raremix.data.manifest import Manifest
from raremix.data.split import apply_split, fold_split
from raremix.evaluate.bands import Band, bands
from raremix.evaluate.bootstrap import patients
from raremix.evaluate.power import SEEDS_AVERAGED, decidable_difference, half_width
from raremix.study.recommend.look import Look
from raremix.study.recommend.shortcut import Association, associations
from raremix.study.recommend.weights import Weights
from raremix.study.record.comparisons import rankable_labels

FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What was measured of training on this machine, in seconds.

    Attributes:
        image: what an image adds to a training step, by image side in pixels.
        step: a step without images.
        run: a run without steps.
        read: reading an image.
        scoring: share of a training image's time that scoring one takes.
    """

    image: Mapping[int, float]
    step: float = 0.0
    run: float = 0.0
    read: float = 0.0
    scoring: float = 1 / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a way of testing can show.

    Attributes:
        design: "one split", or "out-of-fold".
        validation, test: groups with each class; for folds, the mean of a fold's validation.
        images: images of train, validation and test in one run.
        half_widths: 95 % half-width of a sensitivity of .8 in each class; None where no group is tested.
        decidable: smallest paired difference per metric, with seeds averaged; None where there is none.
        notes: what forbids a ranking per metric, such as too few patients; "" if nothing does.
    """

    design: str
    validation: tuple[int, ...]
    test: tuple[int, ...]
    images: tuple[int, int, int]
    half_widths: tuple[float | None, ...]
    decidable: dict[str, float | None]
    notes: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What is wrong with the files, by their exact content.

    Attributes:
        duplicates: images whose content another image has already.
        conflicts: images whose content has different labels.
        examples: some of them.
    """

    duplicates: int = 0
    conflicts: int = 0
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What a plan depends on.

    Attributes:
        name, task, classes, modality: as on the data card.
        images, groups: how many.
        grouped: whether any group has two images.
        named_groups: whether the data name groups at all.
        proposed_group: a pattern in the file names that looks like a patient, where no group is named.
        images_per_group: mean and most.
        class_images, class_groups: per class.
        ratio_images, ratio_groups: largest class over the smallest that has any.
        band: head, medium or tail, per class.
        cardinality: mean number of positive labels per image.
        without_label: share of images without a positive label.
        cooccurrence: pairs of labels that are found together most often: (a, b, images, share of the rarer one).
        missing: share of the labels that are not given.
        given_splits: splits that the data bring.
        holdout: what one split can show; None where the data are too few for one.
        pooled: what out-of-fold predictions can show.
        can_fold: whether the groups can be dealt into folds with training, validation and test images in each.
        side: median of the longer side in pixels.
        smallest, largest: width and height of the smallest and the largest image seen.
        aspect: least, median and most width over height.
        channels: 1 where all images seen are grey, else 3.
        bits: 16 where any image seen is, else 8.
        border: median share of black border.
        lesion_area: median share of the image that a lesion's mask covers; None without masks.
        looked_at: images that were decoded for this.
        unreadable: what was wrong with those that could not be.
        quality: duplicates and conflicts.
        associations: how much attributes tell about the class, the most telling first.
        weights: pretrained weights at hand.
        seconds_per_image: what an image adds to a training step, by image side in pixels.
        seconds_per_step: what a step takes without images: optimiser, weight average.
        seconds_per_run: what a run takes without steps: start, checkpoints, result.
        seconds_to_read: reading all images once.
        scoring_share: share of `seconds_per_image` that scoring an image takes.
        accelerated: whether these were measured on an accelerator.
    """

    name: str
    task: Task
    classes: tuple[str, ...]
    modality: str
    images: int
    groups: int
    grouped: bool
    named_groups: bool
    proposed_group: str | None = None
    images_per_group: tuple[float, int]
    class_images: tuple[int, ...]
    class_groups: tuple[int, ...]
    ratio_images: float
    ratio_groups: float
    band: tuple[Band, ...]
    cardinality: float
    without_label: float
    cooccurrence: tuple[tuple[str, str, int, float], ...] = ()
    missing: float = 0.0
    given_splits: tuple[str, ...] = ()
    holdout: Evidence | None
    pooled: Evidence
    can_fold: bool = True
    side: int
    smallest: tuple[int, int] = (0, 0)
    largest: tuple[int, int] = (0, 0)
    aspect: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channels: int = 3
    bits: int = 8
    border: float = 0.0
    lesion_area: float | None = None
    looked_at: int = 0
    unreadable: tuple[str, ...] = ()
    quality: Quality = Quality()
    associations: tuple[Association, ...] = ()
    weights: tuple[Weights, ...] = ()
    seconds_per_image: Mapping[int, float]
    seconds_per_step: float = 0.0
    seconds_per_run: float = 0.0
    seconds_to_read: float = 0.0
    scoring_share: float = 1 / 3
    accelerated: bool = False

    @property
    def imbalance(self) -> float:
        """The larger of the two imbalance ratios: training feels that of the images, the figures that of the groups."""
        return max(self.ratio_images, self.ratio_groups)


def take_fingerprint(
    manifest: Manifest,
    look: Look,
    *,
    shares: Mapping[str, float],
    seed: int = 0,
    named_groups: bool = True,
    proposed_group: str | None = None,
    weights: Sequence[Weights] = (),
    speed: Speed | None = None,
    accelerated: bool = False,
) -> Fingerprint:
    """Compute the fingerprint; reads no file and draws nothing.

    Args:
        manifest: the data set.
        look: what a sample of its images looks like.
        shares: of validation and test images in a split.
        seed: of that split.
        named_groups: whether the data name groups.
        proposed_group: a pattern in file names that looks like a patient.
        weights: pretrained weights at hand.
        speed: what was measured of training on this machine.
        accelerated: whether it was measured on an accelerator.
    """
    targets, frame = manifest.targets(), manifest.frame
    groups = frame["group"].to_numpy()
    who = patients(groups, targets)
    counts, group_counts = manifest.class_counts(), who.positives
    positive = targets == 1
    sizes = np.bincount(who.index)
    largest = int(np.argmax(look.width * look.height)) if len(look.ids) else 0
    smallest = int(np.argmin(look.width * look.height)) if len(look.ids) else 0
    aspects = look.width / np.maximum(look.height, 1)
    card = manifest.card
    return Fingerprint(
        name=card.name,
        task=card.task,
        classes=card.classes,
        modality=card.modality,
        images=len(manifest),
        groups=who.count,
        grouped=who.count < len(manifest),
        named_groups=named_groups,
        proposed_group=proposed_group,
        images_per_group=(len(manifest) / max(who.count, 1), int(sizes.max(initial=0))),
        class_images=tuple(counts.tolist()),
        class_groups=tuple(group_counts.tolist()),
        ratio_images=ratio(counts),
        ratio_groups=ratio(group_counts),
        band=tuple(bands(counts)),
        cardinality=float(positive.sum() / max(len(manifest), 1)),
        without_label=float((~positive.any(axis=1)).mean()),
        cooccurrence=_cooccurrence(positive, card.classes) if card.task == "multilabel" else (),
        missing=float(np.isnan(targets).mean()),
        given_splits=tuple(name for name in SPLITS if len(manifest.rows(name))),
        holdout=_holdout(manifest, shares=shares, seed=seed),
        pooled=_pooled(manifest, targets, groups, shares=shares),
        can_fold=_can_fold(manifest, validation=shares.get("validation", 0.0), seed=seed),
        side=look.side,
        smallest=(int(look.width[smallest]), int(look.height[smallest])) if len(look.ids) else (0, 0),
        largest=(int(look.width[largest]), int(look.height[largest])) if len(look.ids) else (0, 0),
        aspect=(float(aspects.min()), float(np.median(aspects)), float(aspects.max())) if len(aspects) else (1, 1, 1),
        channels=3 if bool(look.colour.any()) else 1,
        bits=16 if bool(look.deep.any()) else 8,
        border=float(np.median(look.border)) if len(look.border) else 0.0,
        lesion_area=float(np.median(look.lesion_area)) if len(look.lesion_area) else None,
        looked_at=len(look.ids),
        unreadable=look.unreadable,
        quality=quality_of(manifest),
        associations=associations(manifest, look),
        weights=tuple(weights),
        seconds_per_image=dict(speed.image if speed is not None else {}),
        seconds_per_step=speed.step if speed is not None else 0.0,
        seconds_per_run=speed.run if speed is not None else 0.0,
        seconds_to_read=speed.read * len(manifest) if speed is not None else 0.0,
        scoring_share=speed.scoring if speed is not None else 1 / 3,
        accelerated=accelerated,
    )


def ratio(counts: Any) -> float:
    """Return the largest count over the smallest that is not zero; 1 where there is none.

    Example:
        >>> ratio([100, 0, 4])
        25.0
    """
    present = [float(count) for count in counts if count > 0]
    return max(present) / min(present) if present else 1.0


def quality_of(manifest: Manifest) -> Quality:
    """Count images with the same content, and those of them whose labels differ."""
    frame = manifest.frame.filter(pl.col("sha256").is_not_null())
    labels = pl.concat_str(
        [pl.col(f"target:{name}").cast(pl.Utf8).fill_null("?") for name in manifest.card.classes], separator=","
    )
    same = frame.group_by("sha256", maintain_order=True).agg(
        pl.len().alias("images"), labels.n_unique().alias("labels"), pl.col("path")
    )
    same = same.filter(pl.col("images") > 1)
    conflicts = same.filter(pl.col("labels") > 1)
    examples = [" = ".join(paths[:2]) for paths in pl.concat([conflicts, same])["path"].head(3).to_list()]
    return Quality(
        duplicates=int((same["images"] - 1).sum()),
        conflicts=int(conflicts["images"].sum()),
        examples=tuple(dict.fromkeys(examples)),
    )


def _holdout(manifest: Manifest, *, shares: Mapping[str, float], seed: int) -> Evidence | None:
    train = 1 - sum(shares.values())
    try:
        split = apply_split(manifest, fractions={"train": train, **shares}, seed=seed)
    except RaremixError:
        return None
    ids = {name: split.rows(name) for name in SPLITS}
    if not all(len(rows) for rows in ids.values()):
        return None
    groups = {name: split.frame["group"].gather(split.positions(rows)).to_numpy() for name, rows in ids.items()}
    who = {name: patients(groups[name], split.targets(ids[name])).positives for name in SPLITS}
    return _evidence(
        "one split",
        split.targets(ids["test"]),
        groups["test"],
        task=manifest.card.task,
        validation=who["validation"].tolist(),
        images=(len(ids["train"]), len(ids["validation"]), len(ids["test"])),
    )


def _pooled(
    manifest: Manifest, targets: Float[np.ndarray, "N K"], groups: np.ndarray, *, shares: Mapping[str, float]
) -> Evidence:
    who = patients(groups, targets)
    share = shares.get("validation", 0.0)
    n = len(manifest)
    images = (round(n * (1 - share - 1 / FOLDS)), round(n * share), round(n / FOLDS))
    found = _evidence(
        "out-of-fold",
        targets,
        groups,
        task=manifest.card.task,
        validation=[round(share * count) for count in who.positives.tolist()],
        images=images,
    )
    return replace(found, test=tuple(who.positives.tolist()))


def _can_fold(manifest: Manifest, *, validation: float, seed: int) -> bool:
    try:
        split = fold_split(manifest, folds=FOLDS, fold=0, validation=validation, seed=seed)
    except RaremixError:
        return False
    return all(len(split.rows(name)) for name in SPLITS)


def _evidence(
    design: str,
    targets: Float[np.ndarray, "N K"],
    groups: np.ndarray,
    *,
    task: Task,
    validation: list[int],
    images: tuple[int, int, int],
) -> Evidence:
    positives = patients(groups, targets).positives.tolist()
    ranked = rankable_labels(targets, groups, task=task)
    found = {
        metric: decidable_difference(
            targets, groups=groups, task=task, metric=metric, labels=ranked, disagreement=SEEDS_AVERAGED
        )
        for metric in ("balanced_accuracy", "auroc")
    }
    return Evidence(
        design=design,
        validation=tuple(validation),
        test=tuple(positives),
        images=images,
        half_widths=tuple(half_width(0.8, n) if n else None for n in positives),
        decidable={metric: one.difference for metric, one in found.items()},
        notes={metric: one.note for metric, one in found.items()},
    )


def _cooccurrence(positive: np.ndarray, classes: Sequence[str]) -> tuple[tuple[str, str, int, float], ...]:
    counts = positive.T.astype(np.int64) @ positive.astype(np.int64)
    own = np.diag(counts)
    pairs = [(a, b) for a in range(len(classes)) for b in range(a + 1, len(classes)) if counts[a, b]]
    pairs.sort(key=lambda pair: -counts[pair])
    return tuple(
        (classes[a], classes[b], int(counts[a, b]), float(counts[a, b] / min(own[a], own[b]))) for a, b in pairs[:5]
    )
