"""Make a class rare: keep fewer of its training images, and never touch validation or test.

Which images are kept is nested: with one seed, a smaller number keeps a part of what a larger one keeps, so that arms
that differ in rarity differ in nothing else. Rows keep their ids, so an image cache of the whole manifest serves
every subset.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int

from raremix.core.errors import ConfigError, UnknownNameError
from raremix.core.random import rng
from raremix.data.manifest import TARGET, Manifest


def thin(
    manifest: Manifest, *, counts: Mapping[str, int], seed: int, unit: Literal["images", "groups"] = "images"
) -> Manifest:
    """Keep a given number of training images, or groups, of some classes.

    Whole groups are kept in a random order until the number is reached; the last one may lose some of its images. With
    several labels per image, removing an image removes all of its labels.

    Args:
        manifest: the data set, already split.
        counts: how many to keep per class; classes that are not named keep all.
        seed: the same seed gives the same choice.
        unit: what is counted.

    Raises:
        UnknownNameError: for an unknown class.
        ConfigError: if a class has fewer than it should keep, or a number is negative.

    Example:
        ``thin(manifest, counts={"normal": 120}, seed=0).class_counts("train")``
    """
    frame = manifest.frame
    in_train = (frame["split"] == "train").fill_null(False).to_numpy()
    groups = frame["group"].to_numpy()
    gone = np.zeros(len(manifest), dtype=bool)
    for name, count in counts.items():
        number = _class_number(manifest, name)
        rows = np.flatnonzero(in_train & (frame[TARGET + name] == 1).fill_null(False).to_numpy())
        order = _in_group_order(rows, groups[rows], seed=seed, number=number)
        rank = np.arange(len(order))
        if unit == "groups":
            rank = np.cumsum(np.r_[0, groups[order][1:] != groups[order][:-1]])[: len(order)]
        available = int(rank[-1]) + 1 if len(rank) else 0
        if not 0 <= count <= available:
            raise ConfigError(f"class {name!r} has {available} {unit} in train, so {count} of them cannot be kept")
        gone[order[rank >= count]] = True
    return manifest.select(manifest.ids[~gone])


def thin_to_ratio(manifest: Manifest, *, classes: Sequence[str], ratio: float, seed: int) -> Manifest:
    """Make classes rare: each keeps one training image per `ratio` images that belong to none of these classes.

    Args:
        manifest: the data set, already split.
        classes: the classes to make rare.
        ratio: images of all other classes per image kept, above 0; 9 means one to nine.
        seed: the same seed gives the same choice.

    Raises:
        ConfigError: if the ratio is not above 0, or a class is rarer already.
        UnknownNameError: for an unknown class.
    """
    if not ratio > 0:
        raise ConfigError(f"ratio must be above 0, got {ratio}: 9 keeps one image to nine others")
    rare = [_class_number(manifest, name) for name in classes]
    targets = manifest.targets(manifest.rows("train"))
    others = int((~(targets[:, rare] == 1).any(axis=1)).sum())
    return thin(manifest, counts={name: max(1, round(others / ratio)) for name in classes}, seed=seed)


def _in_group_order(
    rows: Int[np.ndarray, " m"], groups: np.ndarray, *, seed: int, number: int
) -> Int[np.ndarray, " m"]:
    _, group = np.unique(groups, return_inverse=True)
    stream = rng(seed, "split", number, 1)
    order = stream.permutation(int(group.max(initial=-1)) + 1)
    return rows[np.lexsort((stream.permutation(len(rows)), order[group]))]


def _class_number(manifest: Manifest, name: str) -> int:
    if name not in manifest.card.classes:
        raise UnknownNameError("class", name, manifest.card.classes)
    return manifest.card.classes.index(name)
