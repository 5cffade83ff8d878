"""What is wrong with the files, the pictures and the classes of a data set."""

import os
from collections import Counter
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool

from raremix.data.audit.census import Census, association
from raremix.data.audit.look import fits
from raremix.data.audit.looks import Looks
from raremix.data.audit.problems import Level, Problem
from raremix.data.manifest import Manifest

FEWEST = 10
"""Positive groups below which no ranking is made, see docs/concepts/evidence.md."""

LARGE_RATIO = 10.0
"""Imbalance from which plain accuracy says next to nothing: always saying "no" is right in nine of ten cases."""

LONG = 3.0
"""Long over short side from which an image is hardly a picture any more."""


def file_problems(manifest: Manifest, looks: Looks) -> Iterator[Problem]:
    """Yield files that cannot be read, that are not what they were, or that are not what their name says."""
    bad = np.flatnonzero(~looks.is_readable)
    if len(bad):
        reasons = Counter(looks.frame["reason"].to_numpy()[bad].tolist())
        shown = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common(3))
        yield Problem(
            kind="unreadable file",
            level="harm",
            title=f"{_number(len(bad), 'file')} cannot be read",
            cost=f"Loading stops at the first. {shown}{' and others' if len(reasons) > 3 else ''}.",
            advice='Restore the files. Or leave these rows out, knowingly, with on_unreadable = "skip" in [data]: a '
            "broken transfer often takes one class, one device or one year, so look at which they are.",
            sets=_alone(manifest, bad),
        )
    recorded = manifest.frame["sha256"]
    is_known = recorded.is_not_null().to_numpy() & looks.is_readable
    changed = np.flatnonzero(is_known & (recorded != looks.frame["sha256"]).fill_null(False).to_numpy())
    if len(changed):
        yield Problem(
            kind="changed file",
            level="harm",
            title=f"{_number(len(changed), 'file')} not what the recorded sha256 says",
            cost="Two of three damaged JPEG files decode without an error; the pixels may not be those that were "
            "labelled, and results on them cannot be repeated.",
            advice="Restore the files, or record their hashes again if they were changed on purpose.",
            sets=_alone(manifest, changed),
        )
    endings = [os.path.splitext(path)[1] for path in manifest.frame["path"]]  # noqa: PTH122
    kinds = looks.frame["kind"].to_list()
    odd = np.array([bool(kind) and not fits(kind, end) for kind, end in zip(kinds, endings, strict=True)], dtype=bool)
    if odd.any():
        yield Problem(
            kind="wrong ending",
            level="note",
            title=f"{_number(int(odd.sum()), 'file')} with an ending of another format",
            cost="raremix goes by the content. Other programs may not open them.",
            advice="Rename them if others use the data.",
            sets=_alone(manifest, np.flatnonzero(odd)),
        )


def picture_problems(manifest: Manifest, looks: Looks, census: Census) -> Iterator[Problem]:
    """Yield pictures with nothing to be seen, with borders, and of odd or mixed shapes and kinds."""
    for mark, kind, what, cost in (
        (census.is_flat, "blank", "with nothing in it", "There is nothing to learn from them, and they have labels."),
        (
            census.is_dark,
            "dark",
            "nearly black",
            "Little is to be seen; 16 bit files often are not scaled to full range.",
        ),
        (census.is_bright, "bright", "nearly white", "Little is to be seen; an export may have cut the bright values."),
    ):
        if mark.any():
            words = _goes_with(manifest, mark)
            yield Problem(
                kind=kind,
                level="harm" if kind == "blank" or words else "note",
                title=f"{_number(int(mark.sum()), 'image')} {what}",
                cost=f"{cost}{words}",
                advice="Look at them; mend the export, or remove the rows.",
                sets=_alone(manifest, np.flatnonzero(mark)),
            )
    if census.has_borders.any():
        words = _goes_with(manifest, census.has_borders)
        yield Problem(
            kind="black borders",
            level="harm" if words else "note",
            title=f"{_number(int(census.has_borders.sum()), 'image')} with black borders",
            cost=f"A tenth or more of each is spent on nothing.{words}",
            advice='Crop the borders before anything else; for round fields of view, resize = "crop" helps.',
            sets=_alone(manifest, np.flatnonzero(census.has_borders)),
        )
    width, height = looks.frame["width"].to_numpy(), looks.frame["height"].to_numpy()
    short, long = np.minimum(width, height), np.maximum(width, height)
    slim = looks.is_readable & (long > LONG * short)
    if slim.any():
        yield Problem(
            kind="odd shape",
            level="harm",
            title=f"{_number(int(slim.sum()), 'image')} more than three times as long as wide",
            cost="Fitted into a square, little of the picture is left.",
            advice="Look at them: strips and scales are often exported by accident.",
            sets=_alone(manifest, np.flatnonzero(slim)),
        )
    if len(census.kinds) > 1:
        kinds = looks.frame["kind"].to_numpy()
        usual = census.kinds[0][0]
        other = looks.is_readable & (kinds != usual)
        words = _goes_with(manifest, other)
        others = ", ".join(f"{count:,} {kind}" for kind, count in census.kinds[1:5])
        yield Problem(
            kind="mixed kinds of files",
            level="harm" if words else "note",
            title=f"{_number(int(other.sum()), 'image')} not {usual} like the others: {others}",
            cost=f"Read, they all become alike: palettes are looked up, transparency is laid on black.{words}",
            advice="Find out where the others come from: another source is another device and other patients.",
            sets=_alone(manifest, np.flatnonzero(other)),
        )


def class_problems(manifest: Manifest, census: Census) -> Iterator[Problem]:
    """Yield classes without images, with too few to be measured, and imbalance that misleads."""
    classes = manifest.card.classes
    total = census.images.sum(axis=0)
    empty = [name for name, count in zip(classes, total, strict=True) if count == 0]
    if empty:
        yield _of_classes(
            "empty class",
            "harm",
            f"no image of {_names(empty)}",
            "It can neither be learned nor measured, and averages over classes leave it out or count it as nothing.",
            "Leave the class out, or look for a spelling that differs.",
        )
    is_tested = "test" in census.splits
    held = census.groups[census.splits.index("test")] if is_tested else census.groups.sum(axis=0)
    few = [
        f"{name} ({count})"
        for name, count, images in zip(classes, held.tolist(), total.tolist(), strict=True)
        if images and count < FEWEST
    ]
    if few:
        noun = ("label", "labels") if manifest.card.task == "multilabel" else ("class", "classes")
        where = "in test" if is_tested else "in all"
        yield _of_classes(
            "rare class",
            "harm",
            f"{_number(len(few), *noun)} with fewer than {FEWEST} positive groups {where}: {_names(few, most=5)}",
            "No interval on so few patients is honest: raremix reports counts for them, and ranks nothing by them.",
            "Measure out of fold, [study] folds = 5, so that every patient is tested once; or collect more."
            if is_tested
            else "Measure out of fold, [study] folds = 5; do not hold a test set out of so few; or collect more.",
        )
    ratio = census.image_ratio
    if ratio is not None and ratio >= LARGE_RATIO:
        by_group = census.group_ratio or ratio
        yield _of_classes(
            "imbalance",
            "note",
            f"imbalance {ratio:.0f} to 1 by image, {by_group:.0f} to 1 by group",
            "Always answering with the commonest class gets a high accuracy and finds no rare case.",
            "Compare by balanced accuracy or per class; a balanced sampler, a loss with weights or mixing towards rare "
            "classes are the first things to try.",
        )
    unlabelled = np.flatnonzero(np.isnan(manifest.targets()).all(axis=1))
    if len(unlabelled):
        yield Problem(
            kind="no label",
            level="note",
            title=f"{_number(len(unlabelled), 'image')} without any label",
            cost="They teach nothing about the classes, and are not measured.",
            advice="Label or remove them.",
            sets=_alone(manifest, unlabelled),
        )


def _goes_with(manifest: Manifest, mark: Bool[np.ndarray, " n"]) -> str:
    """Say with which class a mark goes, where it does: then it is a shortcut."""
    found = association(mark, manifest.targets())
    if found is None:
        return ""
    k, inside, outside = found
    return (
        f" It goes with a class: {inside:.0%} of the images of {manifest.card.classes[k]}, {outside:.0%} of the "
        "others. A network learns such a mark instead of the disease."
    )


def _of_classes(kind: str, level: Level, title: str, cost: str, advice: str) -> Problem:
    return Problem(kind=kind, level=level, title=title, cost=cost, advice=advice)


def _alone(manifest: Manifest, rows: np.ndarray) -> tuple[tuple[int, ...], ...]:
    return tuple((int(row),) for row in manifest.ids[rows])


def _number(count: int, noun: str, many: str | None = None) -> str:
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def _names(names: list[str], *, most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
