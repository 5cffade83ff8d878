"""The cohort of a phantom data set: how many images of each class, whose, in which split, taken by which device."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from raremix.core.errors import ConfigError
from raremix.core.types import SPLITS

MOST_FINDINGS = 3
HEAD_PREVALENCE = 0.3
BALANCED_PREVALENCE = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """One entry per image, in the order of the rows.

    Attributes:
        labels: which of the K classes or findings an image shows.
        patient: number of its patient.
        split: index into `SPLITS`.
        view: uniform in [0, 1), from which the view is chosen.
        device, is_female, age: of its patient; age in years.
    """

    labels: Bool[np.ndarray, "n K"]
    patient: Int[np.ndarray, " n"]
    split: Int[np.ndarray, " n"]
    view: Float[np.ndarray, " n"]
    device: Int[np.ndarray, " n"]
    is_female: Bool[np.ndarray, " n"]
    age: Int[np.ndarray, " n"]


def long_tail(total: int, *, classes: int, imbalance_ratio: float) -> Int[np.ndarray, " K"]:
    """Share `total` images out so that class k gets n_k = n_0 * ratio^(-k / (K - 1)), rounded to the exact total.

    The profile of Cui et al., "Class-balanced loss based on effective number of samples", CVPR 2019,
    https://arxiv.org/abs/1901.05555.

    Args:
        total: number of images.
        classes: K, the head first.
        imbalance_ratio: n_0 / n_(K-1), at least 1.

    Example:
        >>> long_tail(111, classes=3, imbalance_ratio=100).tolist()
        [100, 10, 1]
    """
    profile = imbalance_ratio ** -(np.arange(classes) / max(classes - 1, 1))
    exact = total * profile / profile.sum()
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts


def single_label_counts(
    images: int, *, classes: int, imbalance_ratio: float, validation: float, test: float, is_test_balanced: bool
) -> Int[np.ndarray, "3 K"]:
    """Count the images of each split (rows, in the order of `SPLITS`) and class.

    Raises:
        ConfigError: if a class would be missing in a split.
    """
    if is_test_balanced:
        tests = long_tail(round(images * test), classes=classes, imbalance_ratio=1.0)
        rest = long_tail(images - int(tests.sum()), classes=classes, imbalance_ratio=imbalance_ratio)
        validation = validation / (1.0 - test)
    else:
        whole = long_tail(images, classes=classes, imbalance_ratio=imbalance_ratio)
        tests = _at_least_one(whole * test)
        rest, validation = whole - tests, validation / (1.0 - test)
    validations = _at_least_one(rest * validation)
    counts = np.stack([rest - validations, validations, tests])
    asked = np.array([True, validation > 0, test > 0])
    if (counts[asked] < 1).any():
        raise ConfigError(
            f"{images} images at imbalance_ratio {imbalance_ratio:g} leave a class without images in a split "
            f"(train {counts[0].tolist()}, validation {counts[1].tolist()}, test {counts[2].tolist()}): "
            "raise images, or lower imbalance_ratio or classes"
        )
    return counts


def draw_single_label(
    counts: Int[np.ndarray, "3 K"],
    *,
    images_per_group: float,
    devices: int,
    device_shift: float,
    mean_ages: tuple[int, ...],
    rng: np.random.Generator,
) -> Cohort:
    """Draw a cohort with one class per patient, and so per image."""
    cells = [
        (split, k, size) for (split, k), n in np.ndenumerate(counts) for size in _sizes(int(n), images_per_group, rng)
    ]
    split, k, sizes = np.array(cells, dtype=np.int64)[rng.permutation(len(cells))].T
    patient = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.eye(counts.shape[1], dtype=bool)[k[patient]]
    return _cohort(
        labels,
        patient,
        split[patient],
        preferred=k % devices,
        devices=devices,
        device_shift=device_shift,
        mean_age=np.array(mean_ages)[k],
        rng=rng,
    )


def draw_multilabel(
    images: int,
    *,
    findings: int,
    imbalance_ratio: float,
    validation: float,
    test: float,
    is_test_balanced: bool,
    images_per_group: float,
    devices: int,
    device_shift: float,
    rng: np.random.Generator,
) -> Cohort:
    """Draw a cohort whose images show none to three findings, correlated within image and patient.

    Finding k has prevalence 0.3 * ratio^(-k / (K - 1)) in each split, rounded and at least one image; 0.15 for each
    in a balanced test split.

    Raises:
        ConfigError: if a split is too small to hold every finding.
    """
    totals = np.array([0, round(images * validation), round(images * test)])
    totals[0] = images - totals.sum()
    if any(0 < total < 2 * findings for total in totals) or totals[0] < 1:
        raise ConfigError(f"splits of {totals.tolist()} images cannot hold {findings} findings: raise images")
    sizes = [_sizes(int(total), images_per_group, rng) for total in totals]
    split = np.repeat(np.arange(3), [len(part) for part in sizes])
    order = rng.permutation(len(split))
    split, size = split[order], np.concatenate(sizes).astype(np.int64)[order]
    patient = np.repeat(np.arange(len(size)), size)
    labels = np.zeros((images, findings), dtype=bool)
    prevalence = HEAD_PREVALENCE * imbalance_ratio ** -(np.arange(findings) / max(findings - 1, 1))
    for part in range(3):
        rows = np.flatnonzero(split[patient] == part)
        wanted = np.full(findings, BALANCED_PREVALENCE) if is_test_balanced and SPLITS[part] == "test" else prevalence
        if len(rows):
            labels[rows] = _draw_findings(_at_least_one(wanted * len(rows)), patient[rows], rng)
    rarest = np.where(labels.any(axis=1), findings - labels[:, ::-1].argmax(axis=1), 0)
    first = np.searchsorted(patient, np.arange(len(size)))
    return _cohort(
        labels,
        patient,
        split[patient],
        preferred=rarest[first] % devices,
        devices=devices,
        device_shift=device_shift,
        mean_age=np.full(len(size), 58),
        rng=rng,
    )


def _draw_findings(
    counts: Int[np.ndarray, " K"], patient: Int[np.ndarray, " n"], rng: np.random.Generator
) -> Bool[np.ndarray, "n K"]:
    """Give each finding to exactly its number of images, the sickest first, and no image more than three."""
    own, of_patient = rng.standard_normal(len(patient)), rng.standard_normal(int(patient.max()) + 1)[patient]
    sickness = 0.6 * own + 0.8 * of_patient
    labels = np.zeros((len(patient), len(counts)), dtype=bool)
    for k in reversed(range(len(counts))):
        score = 0.6 * sickness + 0.8 * rng.standard_normal(len(patient))
        score[labels.sum(axis=1) >= MOST_FINDINGS] = -np.inf
        labels[np.argsort(-score, kind="stable")[: counts[k]], k] = True
    return labels


def _cohort(
    labels: Bool[np.ndarray, "n K"],
    patient: Int[np.ndarray, " n"],
    split: Int[np.ndarray, " n"],
    *,
    preferred: Int[np.ndarray, " p"],
    devices: int,
    device_shift: float,
    mean_age: Int[np.ndarray, " p"],
    rng: np.random.Generator,
) -> Cohort:
    people = len(preferred)
    is_shifted = rng.random(people) < device_shift
    device = np.where(is_shifted, preferred, rng.integers(devices, size=people))
    age = np.clip(np.rint(mean_age + rng.normal(0.0, 13.0, people)), 18, 92).astype(np.int64)
    is_female = rng.random(people) < 0.5
    return Cohort(
        labels=labels,
        patient=patient,
        split=split,
        view=rng.random(len(patient)),
        device=device[patient],
        is_female=is_female[patient],
        age=age[patient],
    )


def _at_least_one(exact: Float[np.ndarray, " K"]) -> Int[np.ndarray, " K"]:
    return np.where(exact > 0, np.maximum(np.rint(exact), 1), 0).astype(np.int64)


def _sizes(total: int, mean: float, rng: np.random.Generator) -> list[int]:
    """Cut `total` images into patients of one to three, `mean` on average."""
    sizes: list[int] = []
    while total > 0:
        sizes.append(min(total, 1 + int(rng.binomial(2, (mean - 1.0) / 2.0))))
        total -= sizes[-1]
    return sizes
