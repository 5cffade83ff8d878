"""Train a network by an arm's tables, within a study: its data, its budget, its validation images."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from lightning_fabric import Fabric
from torch import nn

from raremix.core.types import Progress, Split, Task
from raremix.evaluate.calibration import scores_from_logits
from raremix.evaluate.metrics import METRICS
from raremix.evaluate.score import score
from raremix.models import Classifier, label_vectors
from raremix.study.arm_table import ArmSpec
from raremix.study.feeds import make_feed, make_guide, rows_fed
from raremix.study.prepare import Prepared, default_cache
from raremix.study.spec import StudySpec, loss_of
from raremix.study.tasks import label_counts, make_task
from raremix.train import FitResult, TrainSpec, fit
from raremix.train.inference import predict_logits

WATCHED = ("auroc", "average_precision", "balanced_accuracy", "log_loss")
"""Validation metrics that are logged beside the one that chooses the moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What every stage of a job shares.

    Attributes:
        spec: the study.
        prepared: the arm's data.
        arm: the recipe.
        seed: the run's seed.
        fabric: device, precision, ranks.
        cache: the cache folder.
        key: the job's.
        progress: called after every step.
        should_stop: asked after every step.
    """

    spec: StudySpec
    prepared: Prepared
    arm: ArmSpec
    seed: int
    fabric: Fabric
    cache: Path
    key: str
    progress: Progress | None
    should_stop: Callable[[], bool]

    def model(self) -> Classifier:
        """Build the arm's classifier with its first weights."""
        return build_model(self.spec, self.prepared, self.arm, seed=self.seed, cache=self.cache)


def train_stage(
    run: Run,
    arm: ArmSpec,
    model: nn.Module,
    train: TrainSpec,
    *,
    folder: Path,
    identity: str,
    seed: int,
    before: int = 0,
) -> tuple[FitResult, Int[np.ndarray, " n"]]:
    """Train a network by an arm's tables; run again, it goes on where it was.

    Args:
        run: the job.
        arm: whose tables; those of the job's arm, or of a second stage.
        model: the network, in which the trained weights are not left: they are in the result.
        train: budget and optimiser.
        folder: holds the log and the checkpoints.
        identity: hash of what is trained; a checkpoint of something else is refused.
        seed: of order, augmentation and mixing.
        before: steps of earlier stages, for the progress.

    Returns:
        How it ended, and the manifest ids of the rows that it saw.
    """
    prepared, fabric = run.prepared, run.fabric
    task, total = prepared.manifest.card.task, run.spec.train_of(run.arm).steps
    feed = make_feed(run.spec, prepared, arm, seed=seed, rank=fabric.global_rank, ranks=fabric.world_size)
    counts, known = label_counts(prepared.manifest)
    head = run.spec.model_of(run.arm).head.name
    trainable = make_task(
        arm,
        model,
        train=train,
        criterion=loss_of(arm, task=task, class_counts=counts, labelled_counts=known, head=head),
        class_counts=counts,
        feed=feed,
        guide=make_guide(arm, prepared, feed, cache=run.cache),
    )
    metric = selection_metric(run.spec, task)

    def tell(what: str, done: int, _stage_steps: int) -> None:
        assert run.progress is not None
        run.progress(what, before + done, total)

    fitted = fit(
        trainable,
        feed,
        spec=train,
        fabric=fabric,
        folder=folder,
        identity=identity,
        validate=_validator(prepared, fabric, train, metric=metric),
        metric=_signed(metric),
        progress=None if run.progress is None else tell,
        should_stop=run.should_stop,
    )
    return fitted, rows_fed(feed)


def build_model(
    spec: StudySpec, prepared: Prepared, arm: ArmSpec, *, seed: int, cache: Path | None = None
) -> Classifier:
    """Build an arm's classifier for the study's data, from a seed's initial weights; `cache` keeps label vectors."""
    model, classes = spec.model_of(arm), prepared.manifest.card.classes
    return model.build(
        num_classes=len(classes),
        channels=prepared.channels,
        size=spec.data.size,
        seed=seed,
        label_vectors=label_vectors(model.head, classes, cache=cache or default_cache()),
    )


def selection_metric(spec: StudySpec, task: Task) -> str:
    """Return the validation metric that chooses the moment to keep."""
    return spec.primary_metric(task) if spec.train.metric == "auto" else spec.train.metric


def _signed(metric: str) -> str:
    return metric if METRICS[metric].higher_is_better else f"minus_{metric}"


def _validator(
    prepared: Prepared, fabric: Fabric, train: TrainSpec, *, metric: str
) -> Callable[[Mapping[str, nn.Module]], Mapping[str, float]]:
    manifest = prepared.manifest
    ids = manifest.rows("validation")
    targets, task = manifest.targets(ids), manifest.card.task
    names = tuple(dict.fromkeys([metric, *WATCHED]))

    def validate(modules: Mapping[str, nn.Module]) -> Mapping[str, float]:
        logits = predict_logits(
            modules["classifier"],
            prepared.cache,
            ids,
            num_classes=targets.shape[1],
            device=fabric.device,
            channels_last=train.channels_last,
            autocast=fabric.autocast,
        )
        scores = scores_from_logits(logits, task=task)
        # A metric that this validation set leaves undefined must not stop a run; it then chooses the last moment.
        found = {name: score(targets, scores, metric=name, task=task) or 0.0 for name in names}
        if not METRICS[metric].higher_is_better:
            found[_signed(metric)] = -found[metric]
        return found

    return validate


def logits_of(
    model: nn.Module, prepared: Prepared, split: Split, fabric: Fabric, train: TrainSpec
) -> Float[np.ndarray, "N K"]:
    """Return a classifier's logits of a split's images, in the manifest's order."""
    return predict_logits(
        model,
        prepared.cache,
        prepared.manifest.rows(split),
        num_classes=len(prepared.manifest.card.classes),
        device=fabric.device,
        channels_last=train.channels_last,
        autocast=fabric.autocast,
    )
