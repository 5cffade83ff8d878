"""Run a study to one answer: train the arms with the test images closed, choose, look at the test images once.

What is left is the folder `best/` in the run folder: the classifier, a README that says how to use it and what it is
worth, the table that the choice was made from, and the report of the chosen arm.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from raremix.core import files
from raremix.core.errors import RunError
from raremix.core.types import Progress
from raremix.report import write_report
from raremix.study.best.choice import Choice, choose
from raremix.study.best.openings import open_test_rows
from raremix.study.best.readme import chance_note, readme_of
from raremix.study.job import Job
from raremix.study.record.comparisons import rankable_labels
from raremix.study.record.gather import gather, write_record
from raremix.study.record.outcomes import Outcome, collect
from raremix.study.run import (
    Say,
    StudyPlan,
    job_folder,
    load_outcomes,
    make_images,
    plan_study,
    refuse_foreign_fits,
    train_all,
    unmade_of_first,
)
from raremix.study.spec import StudySpec

FOLDER = "best"


@dataclass(frozen=True, slots=True, kw_only=True)
class BestResult:
    """What a study in search of one answer left.

    Attributes:
        folder: the run folder.
        choice: which arm, and from what.
        classifier: the classifier's folder; None while the test images are kept closed.
        report: the chosen arm's HTML file; None while the test images are kept closed.
        record: the chosen arm's record; None while the test images are kept closed.
        notes: what to know about the choice.
        failed: jobs that failed, with the reason.
    """

    folder: Path
    choice: Choice
    classifier: Path | None
    report: Path | None
    record: dict[str, Any] | None
    notes: tuple[str, ...]
    failed: dict[str, str]


def run_best(
    spec: StudySpec,
    *,
    runs: Path,
    cache: Path,
    keep_test_closed: bool = False,
    progress: Callable[[str], Progress] | None = None,
    say: Say = lambda text: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> BestResult:
    """Train what is not trained, choose an arm, and open the test images for it alone.

    The choice is made on validation images; where the study has folds, on out-of-fold predictions of all images, and
    then no image is left that was not looked at. Running it again resumes it.

    Args:
        spec: the study.
        runs: folder of all run folders; the study's is `runs / spec.name`.
        cache: the cache folder.
        keep_test_closed: stop at the choice, so that it can be compared with that of another study.
        progress: makes the progress callback of a stretch of work from its title.
        say: called with what a reader should know before and while it runs.
        should_stop: asked after every training step.

    Raises:
        BusyError: if another process runs this study.
        StoppedError: if it was asked to stop; running it again goes on.
        RunError: if no arm is complete.
    """
    folder = files.folder(runs / spec.name)
    make = progress or (lambda title: lambda what, done, total: None)
    with files.claim(folder / ".claim", what=f"study {spec.name}"):
        files.sweep(folder, recursive=True)
        files.write_text(folder / "study.toml", spec.to_toml())
        plan = plan_study(spec, runs=runs, cache=cache, progress=make("Reading images"))
        say(str(plan.decidable["text"]))
        before = len(files.read_records(folder / "test_openings.jsonl"))
        plan, unmade = make_images(spec, plan, cache=cache, make=make, say=say, should_stop=should_stop)
        failed = train_all(
            spec,
            plan,
            cache=cache,
            make=make,
            unmade=unmade,
            splits=("validation",) if spec.folds is None else ("validation", "test"),
            say=say,
            should_stop=should_stop,
        )
        outcomes = load_outcomes(folder, plan.jobs)
        refuse_foreign_fits(spec, plan, outcomes)
        choice, notes = _choose(spec, plan, outcomes, opened_before=before)
        result = BestResult(
            folder=folder, choice=choice, classifier=None, report=None, record=None, notes=notes, failed=failed
        )
        if keep_test_closed:
            files.write_json(folder / "choice.json", _facts(choice, notes))
            return result
        mine = [job for job in outcomes if job.arm == choice.arm]
        for job in mine:
            open_test_rows(spec, plan.prepared[job.fold], job, folder=job_folder(folder, job))
        opened = load_outcomes(folder, mine)
        lacking = unmade_of_first(plan, unmade)
        return _write_best(spec, plan, opened, result, unmade=lacking, progress=make("Gathering evidence"))


def _choose(
    spec: StudySpec, plan: StudyPlan, outcomes: dict[Job, Outcome], *, opened_before: int
) -> tuple[Choice, tuple[str, ...]]:
    manifest = next(iter(plan.prepared.values())).untouched
    task = manifest.card.task
    rows = collect(spec, manifest, outcomes, split="validation")
    whole = {name for name, seeds in rows.seeds.items() if len(seeds) == len(spec.seeds)}
    notes = []
    unfinished = [arm.name for arm in spec.arms if arm.name not in whole]
    if unfinished:
        notes.append(f"Not all runs of {', '.join(unfinished)} have a result: these arms were no candidates.")
    if not whole:
        raise RunError("no arm has all of its runs, so none can be chosen: look at what failed, and run this again")
    choice = choose(
        spec.arms,
        {name: rows.scores[name] for name in whole},
        {name: rows.thresholds[name] for name in whole},
        rows.targets,
        groups=rows.groups,
        task=task,
        metric=spec.primary_metric(task),
        labels=rankable_labels(rows.targets, rows.groups, task=task),
        rows="validation" if spec.folds is None else "out-of-fold",
    )
    notes += chance_note(choice, classes=len(manifest.card.classes) if task == "multiclass" else 2)
    if spec.folds is not None:
        notes.append(
            "The choice was made on out-of-fold predictions of all images: no image is left that was not looked at. "
            "Before you rely on it, measure it on new patients: raremix evaluate."
        )
    elif opened_before:
        notes.append(
            f"The test images had been opened {opened_before} times before this choice: whoever saw those figures may "
            "have changed the study by them."
        )
    return choice, tuple(notes)


def _write_best(
    spec: StudySpec,
    plan: StudyPlan,
    outcomes: dict[Job, Outcome],
    result: BestResult,
    *,
    unmade: Mapping[str, str],
    progress: Progress | None,
) -> BestResult:
    arm = spec.arm(result.choice.arm)
    alone = replace(spec, arms=(arm,), reference=arm.name, title=f"{spec.title}: the chosen arm, {arm.name}")
    gathered = gather(
        alone,
        plan.prepared,
        outcomes,
        missing=[],
        failed={},
        decidable=plan.decidable,
        unmade=unmade,
        folder=plan.folder,
        progress=progress,
    )
    job, why = _typical(outcomes)
    source = job_folder(plan.folder, job) / "result" / "classifier"
    target = plan.folder / FOLDER
    files.remove_folder(target)
    with files.atomic_folder(target) as draft:
        for part in sorted(path for path in source.iterdir() if path.is_file()):
            files.write_bytes(draft / "classifier" / part.name, part.read_bytes())
        write_record(draft, gathered)
        write_report(draft)
        files.write_json(draft / "choice.json", _facts(result.choice, result.notes))
        thresholds = outcomes[job].facts["thresholds"]
        readme = readme_of(
            spec, result.choice, gathered["record"], notes=result.notes, thresholds=thresholds, why=why, folder=target
        )
        files.write_text(draft / "README.md", readme)
    return replace(result, classifier=target / "classifier", report=target / "report.html", record=gathered["record"])


def _typical(outcomes: dict[Job, Outcome]) -> tuple[Job, str]:
    """Return the run whose validation value is nearest the median: the best one would be lucky, not better."""
    values = {job: one.facts["best_value"] for job, one in outcomes.items()}
    known = {job: value for job, value in values.items() if value is not None}
    if not known:
        return next(iter(outcomes)), "the first run, since none has a validation value"
    middle = float(np.median(list(known.values())))
    job = min(known, key=lambda one: abs(known[one] - middle))
    fold = "" if job.fold is None else f", fold {job.fold}"
    return job, f"seed {job.seed}{fold}: of {len(known)} runs the one nearest the median on validation images"


def _facts(choice: Choice, notes: tuple[str, ...]) -> dict[str, Any]:
    return {**asdict(choice), "notes": list(notes)}
