"""What is wrong with the rows of a data set: patients and pictures in two splits, copies, labels in conflict.

Every problem says what it costs in plain words, what to do, and which rows it concerns; never a group's value, which
often is the number of a patient.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int

from raremix.data import guards
from raremix.data.audit.census import names_groups
from raremix.data.audit.copies import Copies
from raremix.data.manifest import Manifest

Level = Literal["unknown", "leak", "harm", "note"]
Sets = Iterable[Int[np.ndarray, " _"]]

# Pictures of different patients reach .95 (HAM10000), in 28 pixels .97 (RetinaMNIST): see docs/audit.md.
SURE = 0.98


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing to know about a data set.

    Attributes:
        kind: a word for programs, such as "group across splits".
        level: "unknown": nobody can say whether results would be too good; "leak": they would; "harm": training or
            measuring suffers, or fails; "note": good to know.
        title: what was found, with its number.
        cost: what it costs.
        advice: what to do.
        sets: ids of the rows that it concerns: rows that belong together in one set, others in sets of one.
        scores: of each set, how similar its pictures are, in [0, 1]; empty where that means nothing.
    """

    kind: str
    level: Level
    title: str
    cost: str
    advice: str
    sets: tuple[tuple[int, ...], ...] = ()
    scores: tuple[float, ...] = ()

    @property
    def rows(self) -> tuple[int, ...]:
        """The ids of all rows that it concerns, in ascending order."""
        return tuple(sorted({row for rows in self.sets for row in rows}))


def row_problems(manifest: Manifest, copies: Copies, *, allow_synthetic: Collection[str] = ()) -> Iterator[Problem]:
    """Yield what is wrong with splits, groups, copies and labels.

    Args:
        manifest: the data set, which no guard has seen.
        copies: which of its images are copies.
        allow_synthetic: splits beside train that may hold synthetic rows.
    """
    split = manifest.frame["split"].fill_null("").to_numpy().astype(str)
    group = (manifest.frame["group"].rank("dense") - 1).to_numpy().astype(np.int64)
    found = (
        _groups_across(manifest, split, group),
        _copies_across(manifest, split, copies),
        _near_across(manifest, split, copies),
        _conflicts(manifest, copies),
        _torn_copies(manifest, group, copies),
        _copies_within(manifest, copies),
        _near_within(manifest, split, copies),
    )
    yield from (problem for problem in found if problem is not None)
    yield from _refused(manifest, allow_synthetic)
    if not names_groups(manifest):
        yield _without_groups(manifest, has_splits=bool((split != "").any()))


def _groups_across(manifest: Manifest, split: np.ndarray, group: np.ndarray) -> Problem | None:
    order = np.argsort(group, kind="stable")
    sets = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    across = _across(sets, split)
    if not across:
        return None
    return Problem(
        kind="group across splits",
        level="leak",
        title=f"{_number(len(across), 'group')} (patients, lesions) in more than one split",
        cost=f"{_shares(across, split, 'group', 'show somebody who')} A network remembers whom it has seen: anatomy, "
        "device, position. On these images it is tested on its memory, and every figure comes out too good.",
        advice="Split by group: leave the split column out, and raremix keeps each group on one side; or drop the rows "
        "in train that share a group with the test set.",
        sets=_ids(manifest, across),
    )


def _copies_across(manifest: Manifest, split: np.ndarray, copies: Copies) -> Problem | None:
    across = _across(copies.identical, split)
    if not across:
        return None
    return Problem(
        kind="copy across splits",
        level="leak",
        title=f"{_number(len(across), 'set')} of identical images in more than one split",
        cost=f"{_shares(across, split, 'set', 'are a picture that')} The answer to these test questions stood in "
        "the training material.",
        advice="Remove the copies from train, or split anew with each set on one side.",
        sets=_ids(manifest, across),
    )


def _near_across(manifest: Manifest, split: np.ndarray, copies: Copies) -> Problem | None:
    crosses = np.array([len(set(split[pair]) - {""}) > 1 for pair in copies.near], dtype=bool)
    if not crosses.any():
        return None
    across, similarity = copies.near[crosses], copies.similarity[crosses]
    sure = int((similarity >= SURE).sum())
    return Problem(
        kind="near-duplicate across splits",
        level="leak" if sure else "note",
        title=f"{_number(len(across), 'pair')} of images that look nearly the same, in more than one split",
        cost=f"{_shares(list(across), split, 'pair', 'are nearly a picture that')} {_sure(sure, len(across))} Another "
        "contrast or compression makes no new patient: where these are copies, results come out too good.",
        advice=_LOOK,
        sets=_ids(manifest, list(across)),
        scores=tuple(similarity.round(4).tolist()),
    )


def _conflicts(manifest: Manifest, copies: Copies) -> Problem | None:
    targets = np.nan_to_num(manifest.targets(), nan=-1.0)
    sets = [rows for rows in copies.identical if len(np.unique(targets[rows], axis=0)) > 1]
    if not sets:
        return None
    return Problem(
        kind="labels in conflict",
        level="harm",
        title=f"{_number(len(sets), 'set')} of identical images with different labels",
        cost="At least one label of each set is wrong. No classifier can be right on all of them, and in a rare class "
        "a few wrong labels are a large share.",
        advice="Have somebody read these images, and correct or remove the rows.",
        sets=_ids(manifest, sets),
    )


def _torn_copies(manifest: Manifest, group: np.ndarray, copies: Copies) -> Problem | None:
    if not _is_grouped(group):
        return None
    sets = [rows for rows in copies.identical if len(np.unique(group[rows])) > 1]
    if not sets:
        return None
    return Problem(
        kind="copy in two groups",
        level="harm",
        title=f"{_number(len(sets), 'set')} of identical images in different groups",
        cost="The same picture is filed under two patients. Either the groups are wrong, or two patients were mixed "
        "up; a split by group may put one copy on each side, and intervals over patients are too narrow.",
        advice="Find out to whom the picture belongs, or give these rows one group.",
        sets=_ids(manifest, sets),
    )


def _copies_within(manifest: Manifest, copies: Copies) -> Problem | None:
    if not copies.identical:
        return None
    extra = sum(len(rows) - 1 for rows in copies.identical)
    files = sum(copies.same_file)
    how = "all the same to the byte" if files == len(copies.identical) else f"{files} of them the same to the byte"
    return Problem(
        kind="copy",
        level="note",
        title=f"{_number(len(copies.identical), 'set')} of identical images, {how}",
        cost=f"{_number(extra, 'image')} of {len(manifest):,} ({extra / len(manifest):.1%}) add nothing: a copied "
        "image counts double in training and in every figure.",
        advice="Keep one of each set.",
        sets=_ids(manifest, copies.identical),
    )


def _near_within(manifest: Manifest, split: np.ndarray, copies: Copies) -> Problem | None:
    inside = np.array([len(set(split[pair]) - {""}) < 2 for pair in copies.near], dtype=bool)
    if not inside.any():
        return None
    pairs, similarity = copies.near[inside], copies.similarity[inside]
    targets = np.nan_to_num(manifest.targets(), nan=-1.0)
    differ = int((targets[pairs[:, 0]] != targets[pairs[:, 1]]).any(axis=1).sum())
    labels = f" The labels differ in {_number(differ, 'pair')}." if differ else ""
    return Problem(
        kind="near-duplicate",
        level="note",
        title=f"{_number(len(pairs), 'pair')} of images that look nearly the same",
        cost=f"{_sure(int((similarity >= SURE).sum()), len(pairs))} Copies in another contrast, brightness, size or "
        f"compression count double, and a random split tears them apart.{labels}",
        advice=_LOOK,
        sets=_ids(manifest, list(pairs)),
        scores=tuple(similarity.round(4).tolist()),
    )


_LOOK = "Look at the pairs. Where they are copies, keep one of each, or give both the same group."


def _sure(sure: int, total: int) -> str:
    known = f"correlate by {SURE} or more, which different patients hardly do"
    if sure == total:
        return f"They {known}."
    return (
        f"{f'{sure:,}' if sure else 'None'} of them {known}; the others may be different patients who look alike, "
        "above all in small images."
    )


_REFUSED: dict[guards.Kind, tuple[Level, str]] = {
    "synthetic_row": (
        "leak",
        "Measured on generated images, a classifier is judged by how well it fits the generator, not by patients.",
    ),
    "held_out_parent": (
        "leak",
        "An image generated from a test patient carries that patient into training: results come out too good.",
    ),
    "test_only_class": ("harm", "What was never shown cannot be learned: every image of it is counted as an error."),
}


def _refused(manifest: Manifest, allow_synthetic: Collection[str]) -> Iterator[Problem]:
    """Yield what the other guards find; groups and files in two splits were described above."""
    for found in guards.findings(manifest, allow_synthetic=allow_synthetic, check_files=False):
        if found.kind in _REFUSED:
            level, cost = _REFUSED[found.kind]
            yield Problem(
                kind=found.kind.replace("_", " "),
                level=level,
                title=_sentence(found.words).rstrip("."),
                cost=cost,
                advice=_sentence(found.advice),
                sets=tuple((row,) for row in found.rows),
            )


def _without_groups(manifest: Manifest, *, has_splits: bool) -> Problem:
    where = "A patient in two splits cannot be seen" if has_splits else "A split may put one patient on both sides"
    return Problem(
        kind="no groups",
        level="unknown",
        title="no patients are named: nothing says which images show the same patient or lesion",
        cost=f"{where}, and intervals take every image for a patient of its own. If there are several images per "
        "patient, every result is too good and every interval too narrow, and nothing here can tell.",
        advice="Name the patient or lesion: a column of a table (--group COLUMN), a pattern in the file names of a "
        "folder (--set 'data.group=\"^(patient\\d+)\"'), a table beside a MedMNIST file (--set "
        "'data.groups=\"groups.csv\"'). If each image shows another patient, say so by a column that numbers them.",
    )


def _is_grouped(group: np.ndarray) -> bool:
    return len(np.unique(group)) < len(group)


def _across(sets: Sets, split: np.ndarray) -> list[np.ndarray]:
    found = [rows for rows in sets if len(rows) > 1 and len(set(split[rows]) - {""}) > 1]
    # The costliest first: what train and test share.
    return sorted(found, key=lambda rows: not {"train", "test"} <= set(split[rows]))


def _shares(across: Sequence[np.ndarray], split: np.ndarray, noun: str, what: str) -> str:
    """Say how many sets two splits share, and how many of the held-out images that concerns."""
    words = []
    for held, other in (("test", "train"), ("test", "validation"), ("validation", "train")):
        total = int((split == held).sum())
        shared = [rows for rows in across if {held, other} <= set(split[rows])]
        if shared:
            met = len(np.unique(np.concatenate([rows[split[rows] == held] for rows in shared])))
            words.append(
                f"{other} and {held} share {_number(len(shared), noun)}: {met:,} of {total:,} {held} images "
                f"({_share(met / total)}) {what} is in {other} too."
            )
    return " ".join(_capital(sentence) for sentence in words)


def _ids(manifest: Manifest, sets: Sets) -> tuple[tuple[int, ...], ...]:
    ids = manifest.ids
    return tuple(tuple(int(row) for row in ids[np.asarray(rows, dtype=np.int64)]) for rows in sets)


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _share(value: float) -> str:
    return f"{value:.0%}" if value >= 0.095 else f"{value:.1%}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentence(text: str) -> str:
    return f"{_capital(text).rstrip('.')}."
