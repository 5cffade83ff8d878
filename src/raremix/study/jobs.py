"""One function per kind of job. A job is a pure function of its key; its result appears by one rename."""

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int
from lightning_fabric import Fabric
from torch import multiprocessing, nn
from torch.multiprocessing.spawn import ProcessException

from raremix import __version__
from raremix.core import files
from raremix.core.errors import RaremixError, RunError, StoppedError
from raremix.core.features import head_of
from raremix.core.types import SPLITS, Progress, Split, Task
from raremix.data.manifest import Manifest
from raremix.evaluate.calibration import fit_temperature, scores_from_logits
from raremix.evaluate.decide import ValidationRows, choose_thresholds
from raremix.evaluate.metrics import METRICS
from raremix.evaluate.score import score
from raremix.models import Classifier, ClassifierCard, ClassifierSpec, label_vectors, save_classifier
from raremix.study.feeds import make_feed, make_guide, rows_fed
from raremix.study.fitted import check_weights, fitted_facts, rows_of
from raremix.study.generator_guard import admitted_translators
from raremix.study.prepare import Prepared, default_cache, of_arm, prepare
from raremix.study.spec import ArmSpec, StudySpec, loss_of
from raremix.study.tasks import label_counts, make_task
from raremix.train import FitResult, TrainSpec, fit
from raremix.train.inference import predict_logits
from raremix.train.loop import make_fabric, resolve_precision

CODE_VERSION = 3
"""Raised when a change makes the same settings train another classifier; results of older versions are then redone."""

RESULT_FILES = ("predictions.parquet", "result.json", "timing.json")
"""The files of a result, beside the classifier's folder, that its `manifest.json` vouches for."""

WATCHED = ("auroc", "average_precision", "balanced_accuracy", "log_loss")
"""Validation metrics that are logged beside the one that chooses the moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One classifier to train: an arm, a seed, perhaps a fold.

    Attributes:
        arm: the recipe's name.
        seed: of initialisation, order, augmentation and mixing.
        fold: which fold is held out, or None.
        key: hash of everything that the result depends on.
    """

    arm: str
    seed: int
    fold: int | None
    key: str

    @property
    def folder_name(self) -> str:
        """Name of the job's folder within the study's `jobs/`."""
        fold = "" if self.fold is None else f"-fold{self.fold}"
        return f"{self.arm}-seed{self.seed}{fold}-{self.key[:8]}"


def make_job(spec: StudySpec, prepared: Prepared, *, arm: ArmSpec, seed: int, fold: int | None) -> Job:
    """Name a job by the hash of its resolved inputs and of this code's version.

    Raises:
        HeldOutError: if the arm's weights were fitted on rows that this study holds out.
    """
    prepared = of_arm(prepared, arm)
    check_weights(spec, arm, prepared.manifest)
    model, train = spec.model_of(arm), asdict(spec.train_of(arm))
    # What changes how fast a run is, or what is written beside it, but not the classifier.
    for name in ("workers", "checkpoints", "tensorboard"):
        train.pop(name)
    generators = admitted_translators(arm.mix, prepared.manifest, size=spec.data.size, channels=prepared.channels)
    inputs = {
        "code": CODE_VERSION,
        "arm": {part: getattr(arm, part) for part in ("mix", "augment", "sampler", "loss")},
        "model": _model_inputs(model),
        "train": train,
        "threshold": spec.threshold,
        "metric": selection_metric(spec, prepared.manifest.card.task),
        "data": prepared.manifest.hash(),
        "images": [spec.data.size, prepared.channels, spec.data.bits, spec.data.resize],
        **({"reading": spec.data.reading.key()} if spec.data.reading.key() else {}),
        **({"generators": generators} if generators else {}),
        "seed": seed,
        "fold": fold,
    }
    return Job(arm=arm.name, seed=seed, fold=fold, key=files.hash_value(inputs))


def _model_inputs(model: ClassifierSpec) -> dict[str, Any]:
    """Return what of a [model] table the classifier depends on: the content of files, and not where they are."""
    inputs = {**asdict(model), "weights": files.hash_file(model.weights) if model.weights else None}
    if model.head.name == "linear":
        return {key: value for key, value in inputs.items() if key != "head"}
    vectors = model.head.vectors
    return {**inputs, "head": {**asdict(model.head), "vectors": files.hash_file(vectors) if vectors else None}}


def selection_metric(spec: StudySpec, task: Task) -> str:
    """Return the validation metric that chooses the moment to keep."""
    return spec.primary_metric(task) if spec.train.metric == "auto" else spec.train.metric


def run_job(
    spec: StudySpec,
    prepared: Prepared,
    job: Job,
    *,
    folder: Path,
    cache: Path,
    splits: Sequence[Split] = ("validation", "test"),
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Train one classifier and keep its predictions of every validation and test image.

    Args:
        spec: the study.
        prepared: its data.
        job: which classifier.
        folder: the job's folder; `result/` appears in it at the end, and nothing else remains but the log.
        cache: the cache folder, from which further ranks read the data.
        splits: whose images it scores; without "test", these can be scored later (see `openings`).
        progress: called after every step.
        should_stop: asked after every step.

    Returns:
        The folder of the result.
    """
    result = folder / "result"
    if result.exists():
        return result
    train = spec.train_of(spec.arm(job.arm))
    if train.devices > 1:
        _launch(spec, job, folder=folder, cache=cache, train=train, splits=splits, should_stop=should_stop)
    else:
        fabric = make_fabric(train)
        train_and_predict(
            fabric,
            spec,
            prepared,
            job,
            folder=folder,
            cache=cache,
            splits=splits,
            progress=progress,
            should_stop=should_stop,
        )
    return result


def _launch(
    spec: StudySpec,
    job: Job,
    *,
    folder: Path,
    cache: Path,
    train: TrainSpec,
    splits: Sequence[Split],
    should_stop: Callable[[], bool],
) -> None:
    """Train in several processes; their errors, and the wish to stop, cross over."""
    context = multiprocessing.get_context("spawn")
    stop, errors, over = context.Event(), context.SimpleQueue(), Event()

    def watch() -> None:
        while not over.wait(0.2):
            if should_stop():
                stop.set()

    # The arguments are bound: Fabric looks for modules in what it is given, and refuses frozen dataclasses.
    rank = partial(_rank, spec=spec, job=job, folder=folder, cache=cache, splits=splits, stop=stop, errors=errors)
    before = set(multiprocessing.active_children())
    watcher = Thread(target=watch, name="raremix-watch", daemon=True)
    watcher.start()
    try:
        make_fabric(train).launch(rank)
    except ProcessException as error:
        if errors.empty():
            raise RunError(f"a training process failed: {str(error).strip().splitlines()[-1]}") from error
        was_stopped, text = errors.get()
        raise (StoppedError if was_stopped else RunError)(text) from None
    finally:
        over.set()
        watcher.join()
        for child in set(multiprocessing.active_children()) - before:
            child.kill()


def _rank(
    fabric: Fabric,
    *,
    spec: StudySpec,
    job: Job,
    folder: Path,
    cache: Path,
    splits: Sequence[Split],
    stop: Any,
    errors: Any,
) -> None:
    parent = os.getppid()

    def interrupted(number: int, frame: object) -> None:
        # Ctrl-C reaches every process of a terminal, and the first one decides. Its death is told by the same signal.
        if os.getppid() != parent:
            os._exit(1)

    signal.signal(signal.SIGINT, interrupted)
    try:
        prepared = prepare(spec, cache=cache, fold=job.fold)
        train_and_predict(
            fabric, spec, prepared, job, folder=folder, cache=cache, splits=splits, should_stop=stop.is_set
        )
    except RaremixError as error:
        errors.put((isinstance(error, StoppedError), str(error)))
        raise


def train_and_predict(
    fabric: Fabric,
    spec: StudySpec,
    prepared: Prepared,
    job: Job,
    *,
    folder: Path,
    cache: Path,
    splits: Sequence[Split] = ("validation", "test"),
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train on this rank; the first rank then predicts and writes the result."""
    started = time.perf_counter()
    arm = spec.arm(job.arm)
    prepared = of_arm(prepared, arm)
    manifest = prepared.manifest
    train, card = spec.train_of(arm), manifest.card
    model = build_model(spec, prepared, arm, seed=job.seed, cache=cache)
    feed = make_feed(spec, prepared, arm, seed=job.seed, rank=fabric.global_rank, ranks=fabric.world_size)
    counts, known = label_counts(manifest)
    task = make_task(
        arm,
        model,
        train=train,
        criterion=loss_of(arm, task=card.task, class_counts=counts, labelled_counts=known),
        class_counts=counts,
        feed=feed,
        guide=make_guide(arm, prepared, feed, cache=cache),
    )
    metric = selection_metric(spec, card.task)
    fitted = fit(
        task,
        feed,
        spec=train,
        fabric=fabric,
        folder=folder,
        identity=job.key,
        validate=_validator(prepared, fabric, train, metric=metric),
        metric=_signed(metric),
        progress=progress,
        should_stop=should_stop,
    )
    if fabric.is_global_zero:
        kept = build_model(spec, prepared, arm, seed=job.seed, cache=cache).to(fabric.device)
        kept.load_state_dict(fitted.weights["classifier"])
        if train.channels_last:
            kept = kept.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        outputs = {split: logits_of(kept, prepared, split, fabric, train) for split in splits}
        seconds = time.perf_counter() - started
        _write_result(
            spec,
            prepared,
            job,
            kept,
            outputs,
            fitted,
            trained_on=rows_fed(feed),
            folder=folder,
            seconds=seconds,
            fabric=fabric,
        )
    fabric.barrier()


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


def _write_result(
    spec: StudySpec,
    prepared: Prepared,
    job: Job,
    model: Classifier,
    outputs: Mapping[str, Float[np.ndarray, "N K"]],
    fitted: FitResult,
    *,
    trained_on: Int[np.ndarray, " n"],
    folder: Path,
    seconds: float,
    fabric: Fabric,
) -> None:
    manifest, arm = prepared.manifest, spec.arm(job.arm)
    card, train, network = manifest.card, spec.train_of(arm), spec.model_of(arm)
    chosen_on = manifest.rows("validation")
    targets, splits = manifest.targets(chosen_on), manifest.splits(chosen_on)
    rows = ValidationRows(targets=targets, outputs=outputs["validation"], split=splits)
    temperature = fit_temperature(rows, task=card.task)
    scores = {s: scores_from_logits(logits, task=card.task, temperature=temperature) for s, logits in outputs.items()}
    thresholds = choose_thresholds(
        ValidationRows(targets=targets, outputs=scores["validation"], split=splits),
        task=card.task,
        rule=spec.threshold,
    )
    tables = [predictions_of(manifest, split, outputs[split], scores[split]) for split in SPLITS if split in outputs]
    used = {"classifier": trained_on, "class counts": manifest.rows("train")}
    used |= dict.fromkeys(("moment", "thresholds", "temperature"), chosen_on)
    facts = {
        "arm": job.arm,
        "seed": job.seed,
        "fold": job.fold,
        "key": job.key,
        "temperature": temperature,
        "thresholds": thresholds.tolist(),
        "best_step": fitted.best_step,
        "best_value": fitted.best_value,
        "steps": train.steps,
        "exact": fitted.exact,
        "notes": list(fitted.notes),
        "splits": list(outputs),
        "fitted_on": fitted_facts(manifest, used),
    }
    timing = {
        "seconds": seconds,
        "images_per_second": fitted.steps_done * train.batch_size / max(fitted.seconds, 1e-9),
        "threads": torch.get_num_threads(),
        "device": str(fabric.device),
        "precision": resolve_precision(train),
    }
    with files.atomic_folder(folder / "result") as draft:
        files.write_parquet(draft / "predictions.parquet", pl.concat(tables))
        files.write_json(draft / "result.json", facts)
        files.write_json(draft / "timing.json", timing)
        files.seal(draft, RESULT_FILES)
        save_classifier(
            draft / "classifier",
            architecture=network.architecture(size=spec.data.size),
            weights=dict(model.net.state_dict()),
            mean=model.mean,
            std=model.std,
            options=network.options,
            head=getattr(head_of(model.net), "settings", None),
            fitted_on={"train": rows_of(manifest, trained_on), "validation": rows_of(manifest, chosen_on)},
            card=ClassifierCard(
                task=card.task,
                classes=card.classes,
                size=spec.data.size,
                channels=prepared.channels,
                bits=spec.data.bits,
                resize=spec.data.resize,
                reading=spec.data.reading.key(),
                thresholds=tuple(float(t) for t in thresholds),
                temperature=temperature,
                modality=card.modality,
                manifest_hash=manifest.hash(),
                training={
                    "study": spec.name,
                    "arm": job.arm,
                    "seed": job.seed,
                    "steps": f"{fitted.best_step} of {train.steps} (best validation {_metric_name(spec, card.task)})",
                    "data": f"{card.name}, {len(manifest.rows('train'))} training images",
                    "raremix": __version__,
                },
            ),
        )
    files.remove_folder(folder / "checkpoints")


def predictions_of(
    manifest: Manifest, split: Split, logits: Float[np.ndarray, "N K"], scores: Float[np.ndarray, "N K"]
) -> pl.DataFrame:
    """Put what was said about a split's images into a table, by manifest id."""
    names = manifest.card.classes
    columns: dict[str, Any] = {"id": manifest.rows(split), "split": split}
    columns |= {f"logit:{name}": logits[:, k] for k, name in enumerate(names)}
    columns |= {f"score:{name}": scores[:, k] for k, name in enumerate(names)}
    return pl.DataFrame(columns)


def _metric_name(spec: StudySpec, task: Task) -> str:
    return METRICS[selection_metric(spec, task)].title
