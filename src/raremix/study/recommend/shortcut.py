"""How much an attribute tells about the class: where a device tells it, a network may learn the device.

Normalised mutual information 2 I(class; attribute) / (H(class) + H(attribute)), with the information that chance gives
to so few groups, (R - 1) (C - 1) / 2n nats (Miller 1955), subtracted first.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from raremix.data.manifest import Manifest
from raremix.study.recommend.look import Look

MOST_VALUES = 50
"""An attribute with more values is a name or a number, and tells nothing that can be counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """What an attribute tells about a class.

    Attributes:
        attribute: a column, or "native size" or "brightness", which are seen in a sample.
        label: the class that it tells most about in a multilabel task; "" for all classes at once.
        information: normalised mutual information, 0 to 1.
        values: how many values it has.
    """

    attribute: str
    label: str
    information: float
    values: int

    def is_any_of(self, columns: tuple[str, ...]) -> bool:
        """Whether one of the words is in the attribute's name."""
        words = re.split(r"[ _.-]|(?<=[a-z])(?=[A-Z])", self.attribute)
        return any(word.lower() in columns for word in words)


def associations(manifest: Manifest, look: Look) -> tuple[Association, ...]:
    """Compare every attribute, the size of the images and their brightness with the classes, most telling first."""
    found = []
    for name, rows, codes in _attributes(manifest, look):
        targets = manifest.targets(manifest.ids[rows])
        groups = manifest.frame["group"].gather(rows).to_numpy()
        n = len(np.unique(groups))
        if manifest.card.task == "multilabel":
            shares = [
                normalised_information(targets[known, k] == 1, codes[known], n=n)
                for k in range(targets.shape[1])
                for known in [~np.isnan(targets[:, k])]
            ]
            best = int(np.argmax(shares))
            label, value = manifest.card.classes[best], shares[best]
        else:
            known = ~np.isnan(targets).any(axis=1)
            label, value = "", normalised_information(targets[known].argmax(axis=1), codes[known], n=n)
        found.append(Association(attribute=name, label=label, information=value, values=len(np.unique(codes))))
    return tuple(sorted(found, key=lambda one: -one.information))


def normalised_information(first: np.ndarray, second: np.ndarray, *, n: int | None = None) -> float:
    """Return the normalised mutual information of two codings of the same rows, corrected for chance.

    Args:
        first, second: codes, (N,).
        n: independent cases; the number of rows by default.

    Example:
        >>> codes, others = np.repeat([0, 1], 5000), np.tile([0, 1], 5000)
        >>> round(normalised_information(codes, codes), 2), normalised_information(codes, others)
        (1.0, 0.0)
    """
    if not len(first):
        return 0.0
    _, a = np.unique(first, return_inverse=True)
    _, b = np.unique(second, return_inverse=True)
    R, C = int(a.max()) + 1, int(b.max()) + 1
    joint = np.bincount(a * C + b, minlength=R * C).reshape(R, C) / len(a)
    own = _entropy(joint.sum(axis=1)) + _entropy(joint.sum(axis=0))
    if own == 0:
        return 0.0
    chance = (R - 1) * (C - 1) / (2 * (n or len(a)))
    return float(np.clip(2 * (own - _entropy(joint.ravel()) - chance) / own, 0.0, 1.0))


def _entropy(shares: np.ndarray) -> float:
    some = shares[shares > 0]
    return float(-(some * np.log(some)).sum())


def _attributes(manifest: Manifest, look: Look) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    every = np.arange(len(manifest))
    for name in manifest.attributes:
        values = manifest.frame[name]
        if values.dtype.is_numeric() and values.n_unique() > MOST_VALUES:
            yield name, every, _quarters(values.cast(pl.Float64).fill_null(float("nan")).to_numpy())
        elif 1 < values.n_unique() <= MOST_VALUES:
            yield name, every, values.cast(pl.Utf8).fill_null("").to_numpy()
    if len(look.ids):
        rows = manifest.positions(look.ids)
        sizes = np.array([f"{w}x{h}" for w, h in zip(look.width, look.height, strict=True)])
        if len(np.unique(sizes)) > 1:
            many = len(np.unique(sizes)) > MOST_VALUES // 5
            yield "native size", rows, _quarters((look.width * look.height).astype(np.float64)) if many else sizes
        yield "brightness", rows, _quarters(look.brightness)


def _quarters(values: np.ndarray) -> np.ndarray:
    known = values[~np.isnan(values)]
    if not len(known):
        return np.zeros(len(values), dtype=np.int64)
    return np.where(np.isnan(values), 4, np.searchsorted(np.quantile(known, (0.25, 0.5, 0.75)), values))
