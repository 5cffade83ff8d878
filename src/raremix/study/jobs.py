"""One function per kind of job. A job is a pure function of its key; its result appears by one rename."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from lightning_fabric import Fabric

from raremix.core.errors import RunError
from raremix.core.types import Progress, Split
from raremix.study.arm_images import with_images
from raremix.study.generators.own import Workshop, only_arm, resolved
from raremix.study.job import Job
from raremix.study.prepare import Prepared, of_arm, prepare
from raremix.study.ranks import launch
from raremix.study.results import write_result
from raremix.study.spec import StudySpec
from raremix.study.stages import train_arm
from raremix.study.training import Run, logits_of
from raremix.train.spec import make_fabric


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
    fit = partial(train_and_predict, spec=spec, job=job, folder=folder, cache=cache, splits=splits)
    if train.devices > 1:
        rank = partial(_rank, fit=fit, spec=spec, job=job, folder=folder, cache=cache)
        launch(rank, train=train, progress=progress, should_stop=should_stop)
    else:
        fit(make_fabric(train), prepared=prepared, progress=progress, should_stop=should_stop)
    return result


def _rank(
    fabric: Fabric,
    *,
    fit: Callable[..., None],
    spec: StudySpec,
    job: Job,
    folder: Path,
    cache: Path,
    progress: Progress | None,
    should_stop: Callable[[], bool],
) -> None:
    """Train on this rank of several, which reads the data itself."""
    prepared = prepare(spec, cache=cache, fold=job.fold)
    shop = Workshop(spec=only_arm(spec, job.arm), folder=folder.parent.parent, cache=cache, is_maker=False)
    prepared, _ = with_images(shop, prepared)
    fit(fabric, prepared=prepared, progress=progress, should_stop=should_stop)


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
    ready = resolved(spec, prepared)
    arm = ready.arm(job.arm)
    if arm.images is not None and arm.name not in prepared.arms:
        raise RunError(f"the images that {arm.name} adds are not there: run the study again")
    prepared, train = of_arm(prepared, arm), spec.train_of(arm)
    trained = train_arm(
        Run(
            spec=ready,
            prepared=prepared,
            arm=arm,
            seed=job.seed,
            fabric=fabric,
            cache=cache,
            key=job.key,
            progress=progress,
            should_stop=should_stop,
        ),
        folder=folder,
    )
    if fabric.is_global_zero:
        outputs = {split: logits_of(trained.model, prepared, split, fabric, train) for split in splits}
        seconds = time.perf_counter() - started
        write_result(spec, prepared, job, trained, outputs, folder=folder, seconds=seconds, fabric=fabric)
    fabric.barrier()
