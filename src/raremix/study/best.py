"""Run a study to one answer: train the arms with the test images closed, choose, look at the test images once.

What is left is the folder `best/` in the run folder: the classifier, a README that says how to use it and what it is
worth, the table that the choice was made from, and the report of the chosen arm.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from raremix.core import files
from raremix.core.errors import RunError
from raremix.core.types import Progress
from raremix.evaluate.metrics import METRICS
from raremix.report import write_report
from raremix.study.choice import Choice, choose
from raremix.study.jobs import Job
from raremix.study.openings import open_test_rows
from raremix.study.outcomes import Outcome, collect
from raremix.study.record import gather, rankable_labels, write_record
from raremix.study.run import Say, StudyPlan, job_folder, load_outcomes, plan_study, refuse_foreign_fits, train_all
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
        failed = train_all(
            spec,
            plan,
            cache=cache,
            make=make,
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
        return _write_best(spec, plan, opened, result, progress=make("Gathering evidence"))


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
        readme = _readme(spec, result, gathered["record"], outcomes[job], why, target)
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


def choice_table(choice: Choice) -> list[tuple[str, ...]]:
    """Return the rows of the table that the choice was made from: arm, ingredients, value, error, and what it is."""
    rows = []
    for one in choice.candidates:
        words = ["chosen"] if one.arm == choice.arm else []
        words += ["best"] if one.arm == choice.best else ["within one standard error"] if one.is_within else []
        rows.append((one.arm, str(one.ingredients), f"{one.value:.3f}", f"{one.error:.3f}", ", ".join(words)))
    return rows


def choice_words(choice: Choice) -> str:
    """Say in one sentence why the arm was chosen."""
    title = METRICS[choice.metric].title
    where = f"{title} on {choice.rows} images"
    if choice.arm == choice.best:
        return f"{choice.arm} was chosen: the best by {where}, and nothing simpler is within one standard error of it."
    return (
        f"{choice.arm} was chosen: the simplest arm within one standard error of {choice.best}, the best by {where} "
        f"({choice.chosen.value:.3f}; at least {choice.limit:.3f} was needed)."
    )


def _readme(
    spec: StudySpec, result: BestResult, record: dict[str, Any], outcome: Outcome, why: str, target: Path
) -> str:
    choice = result.choice
    rows = "\n".join(f"| {' | '.join(row)} |" for row in choice_table(choice))
    figures = [
        f"| {METRICS[m['metric']].title} | {_number(m['value'])} | {_between(m)} | {m['n']} | {m['groups']} |"
        for m in record["metrics"]
        if m["scope"] == "overall"
    ]
    if spec.folds is None:
        opened = record["study"]["test_openings"]
        heading = "## What it is worth: test images, opened for this arm only"
        note = f"Test images of this study were opened {opened} time{'s' if opened != 1 else ''}. "
        note += f"Mean over {len(spec.seeds)} seeds; the interval is over patients and seeds."
    else:
        heading = "## What it is worth: out-of-fold predictions"
        note = "These are the figures that the choice was made from"
        if choice.corrected is not None:
            title = METRICS[choice.metric].title
            note += f"; corrected for having chosen, {title} is {choice.corrected:.3f} (bootstrap bias correction)"
        note += "."
    thresholds = "\n".join(
        f"| {name} | {limit:.4f} |"
        for name, limit in zip(record["data"]["classes"], outcome.facts["thresholds"], strict=True)
    )
    notes = "".join(f"\n* {text}" for text in [*result.notes, *record["warnings"]])
    cases = "Multiclass decisions are the largest score." if record["data"]["task"] == "multiclass" else ""
    return f"""# {spec.name}: {choice.arm}

{choice_words(choice)}

## How to use it

```bash
raremix predict {target / "classifier"} NEW_IMAGES/ -o scores.csv
raremix evaluate {target / "classifier"} OTHER_HOSPITAL.csv --split all
```

The classifier is one network, {why}. The scores are calibrated by a temperature for the mix of classes of the training
data: where a disease is rarer or more frequent, they need your prevalence. It is a research model: it is no medical
device, and it must not decide about patients.

| class | threshold, chosen on validation images |
| --- | --- |
{thresholds}

{cases}

## Why this arm

| arm | ingredients | {METRICS[choice.metric].title}, {choice.rows} | standard error | |
| --- | --- | --- | --- | --- |
{rows}

The fewer ingredients, the simpler: mixing, a sampler, augmentation, another loss, another network, an importance map
count one each, another learning rate none.
{notes}

{heading}

{note}

| metric | value | 95 % interval | images | patients |
| --- | --- | --- | --- | --- |
{chr(10).join(figures)}

Everything else: report.html beside this file, and study.toml in the folder above.
"""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _between(metric: dict[str, Any]) -> str:
    return "" if metric["low"] is None else f"{metric['low']:.3f} to {metric['high']:.3f}"
