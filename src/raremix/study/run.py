"""Run a study: prepare the data, train what is not trained yet, gather the evidence, write the report.

Running the same study again resumes it: finished jobs are found by their keys, a killed one goes on from its
checkpoint.
"""

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from raremix.core import files
from raremix.core.errors import RaremixError, StoppedError
from raremix.core.types import Progress, Split
from raremix.evaluate.compare import MIN_SEEDS
from raremix.evaluate.metrics import METRICS
from raremix.evaluate.power import SEEDS_AVERAGED, SINGLE_RUNS, decidable_difference
from raremix.models import ClassifierSpec
from raremix.report import write_report
from raremix.study.arm_images import check_place, with_images
from raremix.study.best.openings import open_test_rows
from raremix.study.failures import FOREIGN, reason_of
from raremix.study.fitted import check_fitted
from raremix.study.generators.own import Workshop, check_own_generators, generator_keys, generators_left
from raremix.study.job import Job, make_job
from raremix.study.jobs import run_job
from raremix.study.prepare import Prepared, of_arm, prepare
from raremix.study.record.comparisons import rankable_labels
from raremix.study.record.gather import gather, write_record
from raremix.study.record.outcomes import Outcome
from raremix.study.spec import StudySpec
from raremix.study.stages import forget_stages
from raremix.study.tasks import check_recipe

Say = Callable[[str], None]

ArmInFold = tuple[str, int | None]
"""An arm's name, and the fold that is held out from it, or None."""

QUARANTINE = "quarantine.csv"
"""The file of a run folder that lists what could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPlan:
    """What a study will do, and what is done already.

    Attributes:
        folder: the run folder.
        prepared: the data, by fold (None where there are no folds).
        jobs: all classifiers, in the order of training.
        done: those that have a result.
        decidable: the smallest difference that the test set can decide, in words and as a number.
        generators: those that are still to be fitted, in words.
        keys: of the study's generators, by fold and name.
    """

    folder: Path
    prepared: dict[int | None, Prepared]
    jobs: tuple[Job, ...]
    done: tuple[Job, ...]
    decidable: dict[str, Any]
    generators: tuple[str, ...] = ()
    keys: dict[int | None, dict[str, str]] = field(default_factory=dict)

    def finished(self, fold: int | None) -> list[str]:
        """Return the arms that have all of their results in a fold."""
        return _finished(self.jobs, self.done, fold)


def _finished(jobs: Sequence[Job], done: Sequence[Job], fold: int | None) -> list[str]:
    left = {job.arm for job in jobs if job.fold == fold and job not in done}
    return list(dict.fromkeys(job.arm for job in done if job.fold == fold and job.arm not in left))


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResult:
    """What a study left.

    Attributes:
        folder: the run folder.
        report: the HTML file.
        failed: jobs that failed, with the reason.
    """

    folder: Path
    report: Path
    failed: dict[str, str]


def plan_study(spec: StudySpec, *, runs: Path, cache: Path, progress: Progress | None = None) -> StudyPlan:
    """Prepare a study's data and name its jobs; trains nothing.

    Args:
        spec: the study.
        runs: folder of all run folders.
        cache: the cache folder.
        progress: called while files are read.

    Raises:
        GuardError: if the data would mislead.
        DataError: if files or tables do not fit.
        ConfigError: if an arm's network does not take the images, its loss does not go with its classifier or its
            images, or a generator with the data.
    """
    folder = runs / spec.name
    folds: list[int | None] = [None] if spec.folds is None else list(range(spec.folds))
    prepared = {fold: prepare(spec, cache=cache, fold=fold, progress=progress) for fold in folds}
    for part in prepared.values():
        check_place(spec, part, folder)
        for arm in spec.arms:
            check_recipe(spec, arm, part, cache=cache)
        check_own_generators(spec, part)
    keys = {fold: generator_keys(spec, part) for fold, part in prepared.items()}
    jobs = tuple(
        make_job(spec, prepared[fold], arm=arm, seed=seed, fold=fold, keys=keys[fold])
        for seed in spec.seeds
        for fold in folds
        for arm in spec.arms
    )
    done = tuple(job for job in jobs if (job_folder(folder, job) / "result").is_dir())
    _try_networks(spec, prepared, [job for job in jobs if job not in done])
    steps = {table.name: table.train.steps for table in spec.generators}
    left = [
        (name, fold)
        for fold in folds
        for name in generators_left(
            spec, folder, keys=keys[fold], arms=[a.name for a in spec.arms if a.name not in _finished(jobs, done, fold)]
        )
    ]
    return StudyPlan(
        folder=folder,
        prepared=prepared,
        jobs=jobs,
        done=done,
        decidable=smallest_decidable(spec, prepared),
        generators=tuple(f"{in_fold(name, fold)} ({steps[name]} steps)" for name, fold in left),
        keys=keys,
    )


def _try_networks(spec: StudySpec, prepared: Mapping[int | None, Prepared], jobs: Sequence[Job]) -> None:
    """See that each network that is still to be trained takes the images, before hours go into anything else.

    Raises:
        ConfigError: if one does not.
    """
    tried: list[ClassifierSpec] = []
    for job in jobs:
        model = spec.model_of(next(arm for arm in spec.arms if arm.name == job.arm))
        if model not in tried:
            model.try_on(channels=prepared[job.fold].channels, size=spec.data.size)
            tried.append(model)


def smallest_decidable(spec: StudySpec, prepared: dict[int | None, Prepared]) -> dict[str, Any]:
    """Say which difference of the primary metric the test rows can decide, before anything is trained."""
    first = next(iter(prepared.values()))
    manifest, task = first.untouched, first.manifest.card.task
    # With folds every row is tested once.
    ids = manifest.ids if spec.folds is not None else manifest.rows("test")
    groups = manifest.frame["group"].gather(manifest.positions(ids)).to_numpy()
    metric = spec.primary_metric(task)
    targets = manifest.targets(ids)
    found = decidable_difference(
        targets,
        labels=rankable_labels(targets, groups, task=task),
        metric=metric,
        task=task,
        groups=groups,
        disagreement=SEEDS_AVERAGED if len(spec.seeds) >= MIN_SEEDS else SINGLE_RUNS,
    )
    unit = "patients" if first.grouped else "images"
    text = f"This test set has {found.groups:,} {unit}, {found.positives:,} of the rarest class."
    if found.difference is not None:
        title, points = METRICS[metric].title, 100 * found.difference
        text += (
            f" It can decide differences in {title[0].lower() + title[1:] if title[1:2].islower() else title}"
            f" of about {points:.1f} points or more"
            f" (95 %, if two arms disagree on {100 * found.disagreement:.0f} % of the cases)."
        )
    if found.note:
        text += f" Note: {found.note}."
    return {"metric": metric, "difference": found.difference, "text": text}


def job_folder(folder: Path, job: Job) -> Path:
    """Return a job's folder in a run folder."""
    return folder / "jobs" / job.folder_name


def run_study(
    spec: StudySpec,
    *,
    runs: Path,
    cache: Path,
    progress: Callable[[str], Progress] | None = None,
    say: Say = lambda text: None,
    should_stop: Callable[[], bool] = lambda: False,
    plan: StudyPlan | None = None,
) -> StudyResult:
    """Run a study to its report.

    Args:
        spec: the study.
        runs: folder of all run folders; the study's is `runs / spec.name`.
        cache: the cache folder.
        progress: makes the progress callback of a stretch of work from its title.
        say: called with what a reader should know before and while it runs.
        should_stop: asked after every training step.
        plan: of this study, if it was made already.

    Raises:
        BusyError: if another process runs this study.
        StoppedError: if it was asked to stop; running it again goes on.
    """
    folder = files.folder(runs / spec.name)
    with files.claim(folder / ".claim", what=f"study {spec.name}"):
        files.sweep(folder, recursive=True)
        files.write_text(folder / "study.toml", spec.to_toml())
        make = progress or (lambda title: lambda what, done, total: None)
        plan = plan or plan_study(spec, runs=runs, cache=cache, progress=make("Reading images"))
        say(str(plan.decidable["text"]))
        plan, unmade = make_images(spec, plan, cache=cache, make=make, say=say, should_stop=should_stop)
        failed = train_all(spec, plan, cache=cache, make=make, unmade=unmade, say=say, should_stop=should_stop)
        for job in plan.jobs:
            open_test_rows(spec, plan.prepared[job.fold], job, folder=job_folder(folder, job))
        return finish_study(spec, plan, failed=failed, unmade=unmade, progress=make("Gathering evidence"))


def make_images(
    spec: StudySpec,
    plan: StudyPlan,
    *,
    cache: Path,
    make: Callable[[str], Progress],
    say: Say = lambda text: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[StudyPlan, dict[ArmInFold, str]]:
    """Fit the study's generators, and make the images that arms add; the caller holds the run folder's claim.

    For arms that have all of their results nothing is made: what is still there of their images is opened.

    Returns:
        The plan with those images, and why arms cannot be trained, or not be shown, for want of them.
    """
    shop = Workshop(spec=spec, folder=plan.folder, cache=cache, make=make, say=say, should_stop=should_stop)
    found: dict[int | None, Prepared] = {}
    unmade: dict[ArmInFold, str] = {}
    for fold, prepared in plan.prepared.items():
        found[fold], failed = with_images(shop, prepared, keys=plan.keys.get(fold), finished=plan.finished(fold))
        unmade |= {(arm, fold): reason for arm, reason in failed.items()}
    return replace(plan, prepared=found), unmade


def in_fold(name: str, fold: int | None) -> str:
    """Return in words which arm or generator of which fold is meant."""
    return name if fold is None else f"{name}, fold {fold}"


def write_quarantine(folder: Path, plan: StudyPlan, *, say: Say) -> None:
    """List the files that were left out since they cannot be read in `quarantine.csv`; remove an older list."""
    table = next(iter(plan.prepared.values())).quarantine
    path = folder / QUARANTINE
    if table is None:
        files.remove_file(path)
        return
    # With folds, a row is of another split in each of them.
    files.write_csv(path, table if None in plan.prepared else table.drop("split"))
    count = (
        "1 file that cannot be read was" if table.height == 1 else f"{table.height:,} files that cannot be read were"
    )
    say(f"{count} left out: {path}")


def train_all(
    spec: StudySpec,
    plan: StudyPlan,
    *,
    cache: Path,
    make: Callable[[str], Progress],
    splits: Sequence[Split] = ("validation", "test"),
    unmade: Mapping[ArmInFold, str] | None = None,
    say: Say = lambda text: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, str]:
    """Train what has no result yet; the caller holds the run folder's claim.

    Args:
        spec: the study.
        plan: its jobs.
        cache: the cache folder.
        make: makes the progress callback of a stretch of work from its title.
        splits: whose images are scored.
        unmade: arms that lack images, as `make_images` returns them.
        say: called with what a reader should know.
        should_stop: asked after every training step.

    Returns:
        The jobs that failed, with the reason.
    """
    write_quarantine(plan.folder, plan, say=say)
    failed: dict[str, str] = {}
    for number, job in enumerate(plan.jobs, start=1):
        where = job_folder(plan.folder, job)
        if (where / "result").is_dir():
            forget_stages(where)
            files.remove_file(where / "error.txt")
            continue
        if (reason := (unmade or {}).get((job.arm, job.fold))) is not None:
            failed[job.folder_name] = reason
            continue
        title = f"{job.arm}, seed {job.seed}" + ("" if job.fold is None else f", fold {job.fold}")
        try:
            run_job(
                spec,
                plan.prepared[job.fold],
                job,
                folder=where,
                cache=cache,
                splits=splits,
                progress=make(f"[{number}/{len(plan.jobs)}] {title}"),
                should_stop=should_stop,
            )
        except StoppedError:
            raise
        except (RaremixError, *FOREIGN) as error:
            failed[job.folder_name] = reason = reason_of(error)
            if not isinstance(error, RaremixError):
                files.write_text(where / "error.txt", traceback.format_exc())
            say(f"{title} failed: {reason}")
    return failed


def finish_study(
    spec: StudySpec,
    plan: StudyPlan,
    *,
    failed: dict[str, str] | None = None,
    unmade: Mapping[ArmInFold, str] | None = None,
    progress: Progress | None = None,
) -> StudyResult:
    """Gather the results that are there into the record, and write the report.

    Args:
        spec: the study.
        plan: its jobs, and its data with the images that arms add.
        failed: why jobs failed, as `train_all` returns it.
        unmade: why arms lack images, as `make_images` returns it.
        progress: called as arms are done.
    """
    outcomes = load_outcomes(plan.folder, plan.jobs)
    refuse_foreign_fits(spec, plan, outcomes)
    missing = [job.folder_name for job in plan.jobs if job not in outcomes]
    record = gather(
        spec,
        plan.prepared,
        outcomes,
        missing=missing,
        failed=failed or {},
        decidable=plan.decidable,
        unmade=unmade_of_first(plan, unmade or {}),
        folder=plan.folder,
        progress=progress,
    )
    write_record(plan.folder, record)
    return StudyResult(folder=plan.folder, report=write_report(plan.folder), failed=failed or {})


def unmade_of_first(plan: StudyPlan, unmade: Mapping[ArmInFold, str]) -> dict[str, str]:
    """Return why arms lack images in the fold that a report shows, by name."""
    shown = next(iter(plan.prepared))
    return {arm: reason for (arm, fold), reason in unmade.items() if fold == shown}


def refuse_foreign_fits(spec: StudySpec, plan: StudyPlan, outcomes: Mapping[Job, Outcome]) -> None:
    """Refuse results of which something was fitted on rows that were held out.

    Raises:
        HeldOutError: naming what was fitted, and on which rows.
    """
    for job, outcome in outcomes.items():
        if spec.arm(job.arm).images is not None and job.arm not in plan.prepared[job.fold].arms:
            continue  # its rows could not be made again; what it was trained on is in its result
        manifest = of_arm(plan.prepared[job.fold], spec.arm(job.arm)).manifest
        check_fitted(outcome.facts.get("fitted_on", {}), manifest, where=str(outcome.folder))


def load_outcomes(folder: Path, jobs: Sequence[Job]) -> dict[Job, Outcome]:
    """Read the results that are there."""
    return {job: Outcome.read(job_folder(folder, job)) for job in jobs if (job_folder(folder, job) / "result").is_dir()}
