"""Long tails by construction: subsample a real training split to a profile, by group, deterministically in a seed.

The profiles, for classes k = 0 .. K - 1 from the most frequent to the rarest, and a ratio r of the first to the last:

* exponential: n_k = n_0 r^(-k / (K - 1)), Cui et al. 2019 (https://arxiv.org/abs/1901.05555);
* step: n_0 for the first classes and n_0 / r for the share `rare` of them, Buda et al. 2018
  (https://arxiv.org/abs/1710.05381), with half of the classes as in Cao et al. 2019 (https://arxiv.org/abs/1906.07413);
* pareto: n_k = n_0 x_k^-power at K evenly spaced points x from 1 to r^(1 / power). Liu et al. 2019
  (https://arxiv.org/abs/1904.05160) state a Pareto distribution of power 6 and give no formula; this is our reading.

Real classes have few images to begin with. So the ratio comes first: n_0 is the largest head whose last class has
enough images. In between every class keeps what the profile gives it, or all that it has. Counts are whole numbers, so
the ratio that is reached differs a little where the tail has a handful of images; it is recorded.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from raremix.core.errors import ConfigError, TargetError
from raremix.data.manifest import Manifest
from raremix.data.subset import thin

Profile = Literal["exponential", "step", "pareto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Imbalance:
    """How rare classes are made: the table `imbalance` of a study's [data], or of an arm.

    Attributes:
        ratio: training images of the first class over those of the last one, at least 1.
        profile: how the classes between fall off; see the module.
        order: all classes from head to tail; by default as found, the most frequent in training first.
        rare: step only: share of the classes that are rare, above 0 and below 1.
        power: pareto only: exponent, above 0; a large one comes near the exponential profile.
        seed: which images stay. With one seed a larger ratio keeps a part of what a smaller one keeps of a class,
            where both keep the same head.

    Raises:
        ConfigError: if a value is out of its range, or does not belong to the profile.

    Example:
        >>> Imbalance(ratio=100.0).shares(3).tolist()
        [1.0, 0.1, 0.01]
    """

    ratio: float
    profile: Profile = "exponential"
    order: tuple[str, ...] = ()
    rare: float = 0.5
    power: float = 6.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.ratio < float("inf"):
            raise ConfigError(f"imbalance.ratio must be at least 1, got {self.ratio}: 50 keeps one image to fifty")
        if not 0 < self.rare < 1:
            raise ConfigError(f"imbalance.rare must lie between 0 and 1, got {self.rare}: 0.5 makes half of them rare")
        if not 0 < self.power <= 1000:
            raise ConfigError(f"imbalance.power must be above 0 and at most 1000, got {self.power}: 6 is usual")
        for key, default, of in (("rare", 0.5, "step"), ("power", 6.0, "pareto")):
            if getattr(self, key) != default and self.profile != of:
                raise ConfigError(f'imbalance.{key} belongs to profile = "{of}", and this one is {self.profile!r}')

    def shares(self, count: int) -> Float[np.ndarray, " K"]:
        """Return the size of each of `count` classes relative to the first, from 1 down to 1 / ratio."""
        place = np.arange(count) / max(1, count - 1)
        if self.profile == "exponential":
            return self.ratio**-place
        if self.profile == "pareto":
            return (1 + place * (self.ratio ** (1 / self.power) - 1)) ** -self.power
        head = min(max(1, count - round(self.rare * count)), max(1, count - 1))
        return np.where(np.arange(count) < head, 1.0, 1 / self.ratio)


def make_imbalanced(manifest: Manifest, imbalance: Imbalance) -> Manifest:
    """Subsample the training split to a profile; validation and test stay as they are.

    Whole groups are kept in a random order until a class has its number; the last one may lose some of its images.

    Args:
        manifest: the data set, already split, binary or multiclass.
        imbalance: the profile.

    Raises:
        TargetError: for several labels per image: taking an image of one label away takes its others along.
        ConfigError: if the order does not name every class once, a class has no training image, or the ratio leaves
            less than one image of a class.

    Example:
        ``make_imbalanced(manifest, Imbalance(ratio=50.0)).class_counts("train")``
    """
    counts = wanted_counts(manifest, imbalance)
    return thin(manifest, counts=counts, seed=imbalance.seed)


def wanted_counts(manifest: Manifest, imbalance: Imbalance) -> dict[str, int]:
    """Return how many training images each class keeps, from head to tail.

    Raises:
        TargetError, ConfigError: as `make_imbalanced`.
    """
    classes = manifest.card.classes
    if manifest.card.task == "multilabel":
        raise TargetError(
            "imbalance gives each class its number of images, and a multilabel image has several labels: make single "
            "labels rare with [data.thin] counts = { label = n }"
        )
    order = imbalance.order or tuple(classes[k] for k in np.argsort(-manifest.class_counts("train"), kind="stable"))
    if sorted(order) != sorted(classes):
        raise ConfigError(
            f"imbalance.order must name every class once: expected {', '.join(classes)}, got {', '.join(order)}"
        )
    sizes = manifest.class_counts("train")[[classes.index(name) for name in order]]
    if sizes.min() < 1:
        empty = [name for name, size in zip(order, sizes, strict=True) if not size]
        raise ConfigError(f"imbalance: no training image of class {', '.join(empty)}: leave it out of the classes")
    shares = imbalance.shares(len(order))
    counts = _counts(sizes, shares)
    if float(sizes[0]) * shares[-1] < 1:
        raise ConfigError(
            f"imbalance.ratio = {imbalance.ratio:g} leaves {sizes[0] * shares[-1]:.2f} images of {order[-1]!r} to the "
            f"{sizes[0]} of {order[0]!r}: take at most {sizes[0]}"
        )
    return {name: int(count) for name, count in zip(order, counts, strict=True)}


def reached_ratio(counts: Int[np.ndarray, " K"]) -> float:
    """Return the images of the largest class over those of the smallest; infinity where one has none.

    Example:
        >>> reached_ratio(np.array([90, 30, 9]))
        10.0
    """
    return float(counts.max() / counts.min()) if counts.min() else float("inf")


def _counts(sizes: Int[np.ndarray, " K"], shares: Float[np.ndarray, " K"]) -> Int[np.ndarray, " K"]:
    # Not only the last class: with an order of one's own, any class may be the one with the fewest images.
    head = min(float(sizes[0]), float(sizes.min()) / shares[-1])
    tail = max(1, round(head * shares[-1]))
    return np.minimum(sizes, np.maximum(tail, np.round(head * shares))).astype(np.int64)
