"""Splits by group: stratified by class, aware of several labels per image, deterministic in the seed.

The unit is never the image but everything that must stay together: a group (patient, lesion), and groups that share a
file. Units are dealt by iterative stratification (Sechidis et al. 2011,
https://doi.org/10.1007/978-3-642-23808-6_10): the rarest class first, each unit to the part that still lacks most of
it. Images without any positive label count as a class of their own.
"""

from collections.abc import Mapping
from itertools import pairwise
from math import inf

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from raremix.core.errors import ConfigError, UnknownNameError
from raremix.core.random import rng
from raremix.core.types import SPLITS
from raremix.data.manifest import Manifest

TIE = 2e-9
"""Sums of chi^2 that are as near as this are looked at again, rounded to nine digits."""


def apply_split(manifest: Manifest, *, fractions: Mapping[str, float], seed: int) -> Manifest:
    """Fill in the splits that are missing, and leave the given ones alone.

    Rows without a split are dealt by group towards the fractions of the whole set; a group that already has rows in a
    split follows them. An official validation or test split is never added to, unless all three are official. Where a
    split has no rows at all, it is cut from the training groups. Synthetic rows go to train.

    Args:
        manifest: the data set.
        fractions: share of the images per split, summing to 1; a split that is left out gets 0.
        seed: the same seed gives the same split.

    Raises:
        ConfigError: if the fractions do not fit.
        UnknownNameError: for an unknown split.

    Example:
        >>> from pathlib import Path
        >>> from raremix.data.manifest import Card
        >>> frame = pl.DataFrame({"path": [f"{i}.png" for i in range(10)], "target:nevus": [1.0] * 10})
        >>> card = Card(name="toy", task="multilabel", classes=("nevus",))
        >>> parts = {"train": 0.6, "validation": 0.2, "test": 0.2}
        >>> split = apply_split(Manifest(frame=frame, card=card, root=Path()), fractions=parts, seed=0)
        >>> [len(split.rows(name)) for name in ("train", "validation", "test")]
        [6, 2, 2]
    """
    share = _shares(fractions)
    codes = _codes(manifest)
    real = (manifest.frame["origin"] == "real").to_numpy()
    codes[(codes < 0) & ~real] = 0
    unit = linked_groups(manifest)
    labels = _strata(manifest)
    official = np.array([bool((codes == s).any()) for s in range(len(SPLITS))])

    # A group that is already placed somewhere takes its other rows along.
    placed = np.full(int(unit.max(initial=-1)) + 1, -1)
    for s in range(len(SPLITS)):
        placed[unit[(codes == s) & real]] = s
    codes = np.where(codes < 0, placed[unit], codes)

    free = codes < 0
    if free.any():
        # An official validation or test split stays as it is: the others share what it leaves.
        closed = official & (np.arange(len(SPLITS)) > 0) & ~official.all()
        asked = np.where(closed, 0.0, share)
        have = np.stack([labels[(codes == s) & real].sum(axis=0) for s in range(len(SPLITS))])
        pool = labels[real].sum(axis=0) - have[closed].sum(axis=0)
        wanted = np.outer(asked / asked.sum(), pool)
        codes[free] = _deal_units(unit[free], labels[free], wanted, given=have, seed=seed, turn=0)
    for s in (1, 2):
        if share[s] > 0 and not (codes == s).any():
            codes = _cut(codes, s, share=share, unit=unit, labels=labels, real=real, seed=seed)
    return manifest.with_split(pl.Series(SPLITS, dtype=pl.Utf8).gather(codes))


def grouped_folds(manifest: Manifest, *, folds: int, seed: int) -> Int[np.ndarray, " n"]:
    """Deal all real rows into folds by group, stratified by class; any split that they have is ignored.

    Args:
        manifest: the data set.
        folds: how many, at least 2 and at most the number of groups.
        seed: the same seed gives the same folds.

    Returns:
        The fold of each row in the manifest's order, and -1 for synthetic rows, which are never held out.

    Raises:
        ConfigError: if there are fewer groups than folds.

    Example:
        >>> from pathlib import Path
        >>> from raremix.data.manifest import Card
        >>> frame = pl.DataFrame({"path": [f"{i}.png" for i in range(6)], "target:nevus": [1.0] * 6})
        >>> manifest = Manifest(frame=frame, card=Card(name="toy", task="multilabel", classes=("nevus",)), root=Path())
        >>> np.bincount(grouped_folds(manifest, folds=3, seed=0)).tolist()
        [2, 2, 2]
    """
    real = (manifest.frame["origin"] == "real").to_numpy()
    unit = linked_groups(manifest)[real]
    count = len(np.unique(unit))
    if not 2 <= folds <= count:
        raise ConfigError(f"folds must lie between 2 and the number of groups ({count}), got {folds}")
    labels = _strata(manifest)[real]
    wanted = np.repeat(labels.sum(axis=0, keepdims=True) / folds, folds, axis=0)
    fold = np.full(len(manifest), -1, dtype=np.int64)
    fold[real] = _deal_units(unit, labels, wanted, seed=seed, turn=folds)
    return fold


def fold_split(manifest: Manifest, *, folds: int, fold: int, validation: float, seed: int) -> Manifest:
    """Make one fold the test split, and cut validation by group from the rest.

    Args:
        manifest: the data set; any split that its rows have is ignored.
        folds: how many folds.
        fold: which one is held out, from 0.
        validation: share of all images that goes to validation, at least 0.
        seed: the same seed gives the same folds for every `fold`.

    Raises:
        ConfigError: if a number is out of range.
    """
    if not 0 <= fold < folds:
        raise ConfigError(f"fold must lie between 0 and {folds - 1}, got {fold}")
    if not 0 <= validation <= 1 - 1 / folds:
        raise ConfigError(f"validation must lie between 0 and {1 - 1 / folds:.2f} with {folds} folds, got {validation}")
    held_out = grouped_folds(manifest, folds=folds, seed=seed) == fold
    parts = {"train": 1 - 1 / folds - validation, "validation": validation, "test": 1 / folds}
    given = manifest.with_split(["test" if out else "train" for out in held_out])
    return apply_split(given, fractions=parts, seed=seed)


def linked_groups(manifest: Manifest) -> Int[np.ndarray, " n"]:
    """Number the units that must stay together: rows linked by a group or a file, directly or through others.

    Units are numbered by first appearance, so that the numbers depend on the rows only.
    """
    frame = manifest.frame
    if not frame.height:
        return np.zeros(0, dtype=np.int64)
    # Each row by the place of the first row of its group, and of those with its file: hashing is faster than sorting.
    rows = frame.select("group", "sha256").with_row_index()
    group = rows.select(pl.col("index").min().over("group")).to_series().to_numpy().astype(np.int64)
    empty = frame["sha256"].null_count()
    if frame["sha256"].n_unique() - (empty > 0) + empty < frame.height:
        twice = rows.filter(pl.col("sha256").is_not_null() & pl.col("sha256").is_duplicated())
        same = twice.select(pl.col("index").min().over("sha256")).to_series().to_numpy()
        ends = (group[twice["index"].to_numpy()], group[same])
        link = coo_matrix((np.ones(len(ends[0]), dtype=np.int8), ends), shape=(len(group), len(group)))
        _, part = connected_components(link, directed=False)
        first = np.full(int(part.max()) + 1, len(group), dtype=np.int64)
        np.minimum.at(first, part[group], group)
        group = first[part[group]]
    starts = np.zeros(len(group), dtype=np.int64)
    starts[group] = 1
    return (np.cumsum(starts) - 1)[group]


def deal(
    counts: Float[np.ndarray, "U L"],
    wanted: Float[np.ndarray, "F L"],
    *,
    given: Float[np.ndarray, "F L"] | None = None,
    rng: np.random.Generator,
) -> Int[np.ndarray, " U"]:
    """Deal units to parts so that every part gets what it wants of every label.

    The label with the fewest images left goes first; its units, largest first, each go to the part f where they lower

        chi^2 = sum over f, l of (wanted[f, l] - have[f, l])^2 / wanted[f, l]

    most. (Sechidis et al. look at the first label only, and so misjudge units that hold several.)

    Args:
        counts: images per unit and label.
        wanted: images that each part should have per label; a part whose row is 0 gets nothing.
        given: images that each part has already; none by default.
        rng: breaks ties.

    Returns:
        The part of each unit.
    """
    lacking = wanted - (0.0 if given is None else given)
    scale = np.where(wanted > 0, wanted, 1.0)
    open_parts = np.flatnonzero((wanted > 0).any(axis=1)).tolist()
    part = np.full(len(counts), -1, dtype=np.int64)
    order = rng.permutation(len(counts))
    tie = rng.random((len(counts), len(wanted)))
    left = counts.sum(axis=0)
    need = _Need(counts, lacking, scale, tie)
    while (part < 0).any():
        live = np.flatnonzero(left > 0)
        if not len(live):
            part[part < 0] = int(np.argmax(wanted.sum(axis=1)))
            break
        label = live[np.argmin(left[live])]
        mine = order[(part[order] < 0) & (counts[order, label] > 0)]
        mine = mine[np.argsort(-counts[mine, label], kind="stable")]
        part[mine] = need.serve(mine, open_parts)
        left = left - counts[mine].sum(axis=0)
        left[label] = 0
    return part


class _Need:
    """What the parts still lack, kept as plain numbers: arrays of three values cost twenty times their arithmetic.

    With w the wanted and h the had images, giving a unit of content c to a part lowers chi^2 by the sum over labels of
    c * 2 (w - h) / w - c^2 / w. The first factor's second half is kept up to date, the last term is known beforehand.
    """

    def __init__(
        self,
        counts: Float[np.ndarray, "U L"],
        lacking: Float[np.ndarray, "F L"],
        scale: Float[np.ndarray, "F L"],
        tie: Float[np.ndarray, "U F"],
    ) -> None:
        self._counts, self._scale, self._tie = counts, scale, tie
        self._pull = (2 * lacking / scale).tolist()
        self._step = (2 / scale).tolist()

    def serve(self, units: Int[np.ndarray, " m"], parts: list[int]) -> list[int]:
        """Give each unit in turn to the part where it lowers chi^2 most."""
        contents = self._counts[units]
        rows, labels = np.nonzero(contents)
        edges = np.searchsorted(rows, np.arange(len(units) + 1)).tolist()
        amounts, columns = contents[rows, labels].tolist(), labels.tolist()
        spent = (contents**2 @ (1 / self._scale[parts]).T).tolist()
        pulls = [self._pull[f] for f in parts]
        chosen = []
        for i, (start, stop) in enumerate(pairwise(edges)):
            held = range(start, stop)
            best = second = -inf
            winner = 0
            for f, (pull, gone) in enumerate(zip(pulls, spent[i], strict=True)):
                gain = -gone
                for k in held:
                    gain += amounts[k] * pull[columns[k]]
                if gain > best:
                    second, best, winner = best, gain, f
                elif gain > second:
                    second = gain
            # Sums that differ by rounding only are a tie.
            part = parts[winner] if best - second >= TIE else self._settle(int(units[i]), parts)
            pull, step = self._pull[part], self._step[part]
            for k in held:
                pull[columns[k]] -= amounts[k] * step[columns[k]]
            chosen.append(part)
        return chosen

    def _settle(self, unit: int, parts: list[int]) -> int:
        content, scale = self._counts[unit], self._scale[parts]
        gain = ((np.array([self._pull[f] for f in parts]) - content / scale) * content).sum(axis=1)
        return parts[int(np.lexsort((self._tie[unit, parts], gain.round(9)))[-1])]


def _deal_units(
    unit: Int[np.ndarray, " m"],
    labels: Float[np.ndarray, "m L"],
    wanted: Float[np.ndarray, "F L"],
    *,
    given: Float[np.ndarray, "F L"] | None = None,
    seed: int,
    turn: int,
) -> Int[np.ndarray, " m"]:
    seen = np.zeros(int(unit.max(initial=-1)) + 1, dtype=np.int64)
    seen[unit] = 1
    number = (np.cumsum(seen) - 1)[unit]
    size = int(seen.sum())
    counts = np.stack([np.bincount(number, weights=column, minlength=size) for column in labels.T], axis=1)
    return deal(counts, wanted, given=given, rng=rng(seed, "split", turn))[number]


def _cut(
    codes: Int[np.ndarray, " n"],
    target: int,
    *,
    share: Float[np.ndarray, " S"],
    unit: Int[np.ndarray, " n"],
    labels: Float[np.ndarray, "n L"],
    real: np.ndarray,
    seed: int,
) -> Int[np.ndarray, " n"]:
    """Move training units to a split that has none; units that also touch another split stay."""
    elsewhere = np.isin(unit, unit[(codes != 0) & real])
    train = (codes == 0) & real
    free = train & ~elsewhere
    if not free.any():
        return codes
    part = share[target] / (share[target] + share[0])
    wanted = np.outer([1 - part, part], labels[train].sum(axis=0))
    stay = np.stack([labels[train & elsewhere].sum(axis=0), np.zeros(labels.shape[1])])
    moved = codes.copy()
    dealt = _deal_units(unit[free], labels[free], wanted, given=stay, seed=seed, turn=target)
    moved[free] = np.where(dealt == 1, target, 0)
    return moved


def _strata(manifest: Manifest) -> Float[np.ndarray, "n L"]:
    positive = manifest.targets() > 0.5  # never true of NaN
    strata = np.ones((len(positive), positive.shape[1] + 2))
    strata[:, :-2] = positive
    strata[:, -2] = ~positive.any(axis=1)
    return strata


def _codes(manifest: Manifest) -> Int[np.ndarray, " n"]:
    numbers = {name: i for i, name in enumerate(SPLITS)}
    return manifest.frame["split"].replace_strict(numbers, default=-1, return_dtype=pl.Int64).to_numpy(writable=True)


def _shares(fractions: Mapping[str, float]) -> Float[np.ndarray, " S"]:
    for name in fractions:
        if name not in SPLITS:
            raise UnknownNameError("split", name, SPLITS)
    share = np.array([float(fractions.get(name, 0.0)) for name in SPLITS])
    if (share < 0).any() or abs(share.sum() - 1) > 1e-6 or share[0] <= 0:
        given = ", ".join(f"{name} {value:g}" for name, value in fractions.items())
        raise ConfigError(f"split fractions must be at least 0 and sum to 1, with some for train: got {given}")
    return share
