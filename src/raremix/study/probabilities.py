"""Which arms' scores are of another mixture of classes than the images have, and how they become probabilities."""

import numpy as np
import polars as pl

from raremix.core.types import Task
from raremix.data.manifest import Manifest
from raremix.evaluate.decide import ValidationRows
from raremix.evaluate.probability import Probabilities, check_known, fit_probabilities, stated_prevalence
from raremix.study.arm_table import ArmSpec
from raremix.study.best.choice import PLAIN_LOSSES
from raremix.study.spec import StudySpec


def needs_shifts(spec: StudySpec, arm: ArmSpec, manifest: Manifest) -> bool:
    """Say whether an arm's scores have to be shifted, class by class, to be probabilities of images as they come.

    So it is where training images were sampled, weighed, mixed, thinned, generated, or repeated.

    Args:
        spec: the study.
        arm: the recipe.
        manifest: the data, of any fold.
    """
    if spec.evaluate.shifts != "auto":
        return spec.evaluate.shifts == "always"
    is_plain = arm.loss.get("name", "auto") in PLAIN_LOSSES and arm.loss.get("class_weights", "none") == "none"
    is_natural = arm.sampler["name"] == "natural" and arm.mix["name"] == "none" and not arm.recipe
    is_as_found = arm.imbalance is None and spec.data.imbalance is None and spec.data.thin is None
    is_as_found = is_as_found and arm.images is None
    made = (manifest.frame["origin"] == "synthetic") & (manifest.frame["split"] == "train")
    return not (is_plain and is_natural and is_as_found) or bool(made.any())


def fit_arm_probabilities(spec: StudySpec, arm: ArmSpec, manifest: Manifest, rows: ValidationRows) -> Probabilities:
    """Fit how an arm's logits become probabilities to its validation images.

    Args:
        spec: the study.
        arm: the recipe.
        manifest: the data, of any fold.
        rows: validation images with logits.
    """
    return fit_probabilities(rows, task=manifest.card.task, shifts=needs_shifts(spec, arm, manifest))


def fitted_to_predictions(
    spec: StudySpec, arm: ArmSpec, manifest: Manifest, predictions: pl.DataFrame
) -> Probabilities:
    """Do the same from a result's table of predictions."""
    said = predictions.filter(pl.col("split") == "validation")
    logits = said.select(f"logit:{name}" for name in manifest.card.classes).to_numpy().astype(np.float64)
    rows = ValidationRows(
        targets=manifest.targets(said["id"].to_numpy()), outputs=logits, split=said["split"].to_numpy()
    )
    return fit_arm_probabilities(spec, arm, manifest, rows)


def deployed(spec: StudySpec, manifest: Manifest, prevalence: tuple[float, ...]) -> tuple[float, ...] | None:
    """Return the prevalence that a study states, by class; None where it states none.

    Args:
        spec: the study.
        manifest: the data.
        prevalence: share of each class among the validation images.

    Raises:
        ConfigError: if what is stated is no prevalence of these classes.
        DataError: if no validation image shows a class, or all do.
    """
    task: Task = manifest.card.task
    stated = stated_prevalence(
        spec.evaluate.prevalence, classes=manifest.card.classes, task=task, prevalence=prevalence
    )
    if stated is not None:
        check_known(prevalence, classes=manifest.card.classes)
    return stated
