"""Whether generated images copy those that the generator was fitted on, by a test that certifies its own sight.

The statistic of an image is its distance to the nearest training image over that to the nearest image of patients whom
the generator did not see, in two spaces. Thresholds that were published for other data do not transfer: they flag up to
98 % of honest images. So they are calibrated on further patients; and known copies are planted, to say what the test
would find.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import beta, betabinom

from raremix.core.errors import DataError

RATE = 0.005
"""Share of honest images that may be flagged in each space."""
MIN_CALIBRATION = 50
"""Patients below which a threshold is a guess."""
BLIND = 0.7
"""Share of planted copies of a kind below which the test is called blind to it."""
LEVEL = 0.05
"""Probability below which flags are called copies."""
BLOCK = 256
TINY = 1e-9


@runtime_checkable
class Views(Protocol):
    """Views of images, some at a time: an array of shape (n, v, d), or what makes a part of it when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Float[np.ndarray, "b v d"]: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Space:
    """Images of all kinds in one space; rows have length one.

    Attributes:
        name: what the space is, for people.
        train: images that the generator was fitted on.
        reference: images of patients it did not see.
        calibration: views of images of further such patients; those of one image are compared by their nearest.
        made: views of the generated images.
        planted: by kind, views of copies of training images.
    """

    name: str
    train: Float[np.ndarray, "n d"]
    reference: Float[np.ndarray, "r d"]
    calibration: Views
    made: Views
    planted: Mapping[str, Views]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ratios:
    """Distance to the nearest training image over that to the nearest reference image, in one space.

    Attributes:
        name: what the space is.
        calibration, made: of these images.
        planted: by kind, of planted copies.
        source: training row that each generated image is nearest to.
    """

    name: str
    calibration: Float[np.ndarray, " c"]
    made: Float[np.ndarray, " m"]
    planted: Mapping[str, Float[np.ndarray, " p"]]
    source: Int[np.ndarray, " m"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sight:
    """What the test can see.

    Attributes:
        thresholds: by space, the ratio below which an image is flagged.
        places: sum over the spaces of the place that a threshold takes among the calibration images, from below.
        is_below: which calibration images lie at or below a threshold.
        found: by kind, the share of planted copies that is flagged in any space.
    """

    thresholds: Mapping[str, float]
    places: int
    is_below: Bool[np.ndarray, " c"]
    found: Mapping[str, float]

    @property
    def calibration(self) -> int:
        """Number of images that the thresholds rest on."""
        return len(self.is_below)

    @property
    def rate(self) -> float:
        """Share of honest images that is flagged, at most, in all spaces together."""
        return min(1.0, self.places / (self.calibration + 1))

    @property
    def blind(self) -> tuple[str, ...]:
        """Kinds of copies of which too few are found."""
        return tuple(kind for kind, share in self.found.items() if share < BLIND)

    @property
    def mean_found(self) -> float:
        """Share of planted copies that is found, all kinds alike."""
        return float(np.mean(list(self.found.values()))) if self.found else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """Flagged ones among some generated images.

    Attributes:
        flagged, images: how many.
        by_chance: how many flags honest images would raise on average.
        p: probability of as many flags or more, if all were honest: beta-binomial, since the threshold is itself drawn
            from a limited number of calibration images.
        most: upper bound of the share of copies, one-sided 95 % (Clopper-Pearson), over the share that is found.
    """

    flagged: int
    images: int
    by_chance: float
    p: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MemorisationAudit:
    """The result.

    Attributes:
        sight: what the test can see.
        ratios: by space, of every generated image.
        source: training row that each generated image is nearest to, in the space where it is nearer.
        is_flagged: which generated images look like copies.
    """

    sight: Sight
    ratios: Mapping[str, Float[np.ndarray, " m"]]
    source: Int[np.ndarray, " m"]
    is_flagged: Bool[np.ndarray, " m"]

    def among(self, chosen: Bool[np.ndarray, " m"], *, alike: Bool[np.ndarray, " c"]) -> Flags:
        """Count the flags of some images, such as those of a rare class, which drown among all.

        The thresholds stay those of all calibration images. Honest images of one class lie nearer to training images
        than those of another, so the share of honest ones that is flagged is that class's own: it is drawn from a beta
        distribution with the mean of all classes and, as was measured on X-rays and skin, a standard deviation as
        large, and the class's own calibration images then say what they can.

        Args:
            chosen: which generated images.
            alike: which calibration images are of their kind.
        """
        below, known = int(self.sight.is_below[alike].sum()), int(alike.sum())
        prior = 1 / self.sight.rate
        return self._flags(chosen, flagged=1 + below, passed=max(prior - 1, TINY) + known - below)

    @property
    def every(self) -> Flags:
        """Count the flags of all images."""
        places, calibration = self.sight.places, self.sight.calibration
        chosen = np.ones(len(self.is_flagged), dtype=bool)
        return self._flags(chosen, flagged=places, passed=max(1, calibration + 1 - places))

    def _flags(self, chosen: Bool[np.ndarray, " m"], *, flagged: float | int, passed: float | int) -> Flags:
        """Judge flags, where honest images are flagged at a rate that is drawn from Beta(flagged, passed)."""
        count, images = int(self.is_flagged[chosen].sum()), int(chosen.sum())
        upper = 1.0 if count == images else float(beta.ppf(0.95, count + 1, images - count))
        return Flags(
            flagged=count,
            images=images,
            by_chance=images * flagged / (flagged + passed),
            p=float(betabinom.sf(count - 1, images, flagged, passed)),
            most=min(1.0, upper / max(self.sight.mean_found, TINY)),
        )

    @property
    def has_copies(self) -> bool:
        """Whether more is flagged than chance explains."""
        return self.every.p < LEVEL

    def order(self) -> Int[np.ndarray, " m"]:
        """Return generated rows, the likeliest copies first."""
        scaled = [self.ratios[name] / self.sight.thresholds[name] for name in self.ratios]
        return np.argsort(np.min(scaled, axis=0), kind="stable")

    def words(self) -> str:
        """Say the result in one sentence that promises nothing."""
        every = self.every
        flagged, total = every.flagged, every.images
        sees = f"a test that finds {100 * self.sight.mean_found:.0f} % of planted copies"
        if self.has_copies:
            return (
                f"Memorised: {flagged} of {total} images are nearer to a training image than honest ones are, where "
                f"{every.by_chance:.1f} would be by chance (p = {every.p:.2g}), in {sees}."
            )
        bound = f"with 95 % certainty, at most {100 * every.most:.2g} % are"
        if not flagged:
            return f"No copies were found among {total} images by {sees}; {bound}."
        return f"{flagged} of {total} images are flagged by {sees}, no more than chance explains; {bound}."


def audit_memorisation(spaces: Sequence[Space], *, calibration_patients: int, rate: float = RATE) -> MemorisationAudit:
    """Look for copies in several spaces.

    Args:
        spaces: the same images in each.
        calibration_patients: how many patients the calibration images are of.
        rate: share of honest images that may be flagged in each space.

    Raises:
        DataError: for fewer than 50 such patients, or a set without images.

    Example:
        >>> rows = np.eye(64, dtype=np.float32)
        >>> own = rows[:4] + 0.01 * rows[4]
        >>> far = rows[8:]
        >>> space = Space(name="toy", train=rows[:4], reference=rows[4:8], calibration=far[:, None], made=own[:, None],
        ...               planted={"exact": rows[:4, None]})
        >>> int(audit_memorisation([space], calibration_patients=56).is_flagged.sum())
        4
    """
    return judge_ratios([ratios_of(space) for space in spaces], calibration_patients=calibration_patients, rate=rate)


def ratios_of(space: Space) -> Ratios:
    """Compute the ratios of all images in one space.

    Raises:
        DataError: for a set without images.
    """
    sets = {"training": space.train, "held-out": space.reference, "calibration": space.calibration, "made": space.made}
    for name, rows in sets.items():
        if not len(rows):
            raise DataError(f"no {name} images in the space {space.name}: expected at least one")
    made, source = _ratios(space, space.made)
    return Ratios(
        name=space.name,
        calibration=_ratios(space, space.calibration)[0],
        made=made,
        planted={kind: _ratios(space, views)[0] for kind, views in space.planted.items()},
        source=source,
    )


def judge_ratios(found: Sequence[Ratios], *, calibration_patients: int, rate: float = RATE) -> MemorisationAudit:
    """Calibrate the thresholds, and judge; see `audit_memorisation`."""
    if calibration_patients < MIN_CALIBRATION:
        raise DataError(
            f"{calibration_patients} patients to calibrate on: expected at least {MIN_CALIBRATION}. Keep more patients "
            "out of training ([split] validation), or look at the closest pairs by eye"
        )
    place = [max(1, floor(rate * (len(one.calibration) + 1))) for one in found]
    thresholds = {
        one.name: max(float(np.sort(one.calibration)[k - 1]), TINY) for one, k in zip(found, place, strict=True)
    }
    flagged = np.any([one.made < thresholds[one.name] for one in found], axis=0)
    nearer = np.argmin([one.made / thresholds[one.name] for one in found], axis=0)
    seen = {
        kind: float(np.any([one.planted[kind] < thresholds[one.name] for one in found], axis=0).mean())
        for kind in found[0].planted
    }
    below = np.any([one.calibration <= thresholds[one.name] for one in found], axis=0)
    return MemorisationAudit(
        sight=Sight(thresholds=thresholds, places=sum(place), is_below=below, found=seen),
        ratios={one.name: one.made for one in found},
        source=np.stack([one.source for one in found])[nearer, np.arange(len(flagged))],
        is_flagged=flagged,
    )


def _ratios(space: Space, views: Views) -> tuple[Float[np.ndarray, " q"], Int[np.ndarray, " q"]]:
    """Return each image's distance to training over that to the reference, and its nearest training row."""
    ratio, source = np.empty(len(views)), np.empty(len(views), dtype=np.int64)
    for start in range(0, len(views), BLOCK):
        block = views[start : start + BLOCK]
        own = (block @ space.train.T).max(axis=1)
        other = (block @ space.reference.T).max(axis=(1, 2))
        source[start : start + BLOCK] = own.argmax(axis=1)
        ratio[start : start + BLOCK] = np.maximum(1 - own.max(axis=1), 0) / np.maximum(1 - other, TINY)
    return ratio, source
