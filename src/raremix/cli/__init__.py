"""The command line: one verb per capability. It reads options, calls the library, prints, says what to type next."""

import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table as RichTable

from raremix import __version__
from raremix.cli.audit import audit
from raremix.cli.best import run_for_best
from raremix.cli.console import (
    RUNS,
    CacheFolder,
    DryRun,
    Group,
    Json,
    Label,
    OnUnreadable,
    Runs,
    Set,
    columns,
    emit,
    err,
    fitting,
    out,
    print_json,
    progress_bars,
    stopped_by,
    stopping,
    write_table,
)
from raremix.cli.curate import curate
from raremix.cli.generator import generator
from raremix.cli.inspect import inspect
from raremix.cli.maps import maps
from raremix.cli.predict import predict
from raremix.cli.quality import quality
from raremix.cli.recommend import recommend
from raremix.cli.show import show
from raremix.cli.sources import sources
from raremix.cli.synthesize import synthesize
from raremix.cli.translation import gate, hdm
from raremix.core.errors import RaremixError, RunError, StoppedError, UsageError

app = typer.Typer(
    name="raremix",
    help="Train, compare and explain classifiers of rare diseases from few, imbalanced medical images.",
    epilog="Begin with: raremix demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(show)
app.add_typer(sources)
app.add_typer(generator)
maps.command()(hdm)
maps.command()(gate)
app.add_typer(maps)
app.command()(synthesize)
app.command()(quality)
app.command()(curate)
app.command()(inspect)
app.command()(audit)
app.command()(recommend)
app.command()(predict)


@app.command()
def study(
    place: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="Study file (.toml), or data: a folder with one folder per class, a table, an .npz."
        ),
    ],
    settings: Set = None,
    label: Label = None,
    group: Group = None,
    best: Annotated[
        bool,
        typer.Option(
            "--best",
            help="Choose the simplest arm within one standard error of the best on validation images, open the test "
            "images once for it, and write how to use it.",
        ),
    ] = False,
    keep_test_closed: Annotated[
        bool, typer.Option("--keep-test-closed", help="With --best: stop at the choice; no test image is scored.")
    ] = False,
    on_unreadable: OnUnreadable = None,
    runs: Runs = RUNS,
    cache: CacheFolder = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Compare recipes fairly: every arm, every seed, one report. Running it again resumes it.

    FILE is a study file; examples are in the repository's studies/, and raremix recommend writes one for your data.
    Given data instead, four recipes are compared: no augmentation, classical augmentation, MixUp, CutMix.

        raremix study studies/demo.toml
        raremix study plan.toml --best
        raremix study my_images/ --set train.steps=500
        raremix study labels.csv --label diagnosis --group patient_id
    """
    from raremix.study.defaults import study_of

    if keep_test_closed and not best:
        raise UsageError("--keep-test-closed goes with --best: without it, the arms are compared on the test images")
    spec = study_of(place, settings=[*columns(label, group, on_unreadable), *(settings or [])])
    if best and not dry_run:
        run_for_best(spec, runs=runs, cache=cache, as_json=as_json, keep_test_closed=keep_test_closed)
        return
    _run(spec, runs=runs, cache=cache, as_json=as_json, dry_run=dry_run)


@app.command()
def train(
    data: Annotated[
        str, typer.Argument(help="Folder with one folder per class, a table, an .npz, or the word phantom.")
    ],
    model: Annotated[str, typer.Option(help="Any network of timm.")] = "resnet18",
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 1000,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 64,
    mix: Annotated[str, typer.Option(help="Mixer by name; raremix list mixers names them.")] = "none",
    augment: Annotated[str, typer.Option(help="Augmentation: none, classical.")] = "classical",
    sampler: Annotated[str, typer.Option(help="Sampler: natural, balanced, sqrt, effective.")] = "natural",
    weights: Annotated[Path | None, typer.Option(help="Local .safetensors file with pretrained weights.")] = None,
    pretrained: Annotated[bool, typer.Option(help="Load timm's weights by name (downloads).")] = False,
    seed: Annotated[int, typer.Option(help="Seed of initialisation, order, augmentation and mixing.")] = 0,
    name: Annotated[str | None, typer.Option(help="Name of the run folder; the data's by default.")] = None,
    label: Label = None,
    group: Group = None,
    settings: Set = None,
    on_unreadable: OnUnreadable = None,
    runs: Runs = RUNS,
    cache: CacheFolder = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Train one classifier and evaluate it on held-out images.

    raremix train my_images/ --steps 500
    raremix train labels.csv --label diagnosis --group patient_id --mix cutmix
    """
    from raremix.study.defaults import study_of

    if Path(data).suffix == ".toml":
        raise UsageError(f"{data} is a study file: use `raremix study {data}`")
    network: dict[str, Any] = {"name": model, "pretrained": pretrained}
    if weights is not None:
        network["weights"] = str(weights.resolve())
    arm = {"name": mix if mix != "none" else augment, "mix": mix, "augment": augment, "sampler": sampler}
    spec = study_of(
        data,
        settings=[
            f"train.steps={steps}",
            f"data.size={size}",
            *columns(label, group, on_unreadable),
            *(settings or []),
        ],
        model=network,
        arm=[arm],
        study={"seeds": [seed], **({"name": name} if name else {})},
    )
    _run(spec, runs=runs, cache=cache, as_json=as_json, dry_run=dry_run)


@app.command()
def evaluate(
    classifier: Annotated[Path, typer.Argument(help="Folder of a trained classifier.")],
    data: Annotated[str, typer.Argument(help="Labelled images, or a study file, whose [data] is used.")],
    split: Annotated[str, typer.Option(help="test, validation, train, or all.")] = "test",
    by: Annotated[
        list[str] | None, typer.Option(help="Column by which results are broken down; may be repeated.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the table to this .csv or .parquet.")
    ] = None,
    label: Label = None,
    group: Group = None,
    settings: Set = None,
    cache: CacheFolder = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Measure a trained classifier on labelled images, with intervals over patients.

    raremix evaluate runs/demo/jobs/classical-seed0-1a2b3c4d/result/classifier my_images/ --split all
    """
    from raremix.study.apply import evaluate_classifier
    from raremix.study.defaults import study_of
    from raremix.study.prepare import cache_of, split_manifest

    spec = study_of(data, settings=[*columns(label, group), *(settings or [])])
    with progress_bars(quiet=as_json) as bars:
        manifest = spec.source.load(cache=cache_of(spec.data, cache), progress=bars("Reading images"))
        if split != "all":
            manifest = split_manifest(manifest, spec, fold=None)
        if dry_run:
            emit(
                as_json,
                {"images": len(manifest), "classes": list(manifest.card.classes)},
                f"would score {len(manifest)} images",
            )
            return
        table, _ = evaluate_classifier(
            classifier, manifest, split=split, attributes=by or (), progress=bars("Predicting")
        )
    if output is not None:
        write_table(output, table)
    if as_json:
        print_json({"metrics": table.to_dicts()})
        return
    overall = RichTable(
        "metric", "value", "95 % interval", "images", "patients", title=f"{classifier.name} on {data}, {split}"
    )
    for row in table.filter(table["scope"] == "overall").iter_rows(named=True):
        interval = "" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
        value = row["note"] if row["value"] is None else f"{row['value']:.3f}"
        overall.add_row(row["metric"], value, interval, str(row["n"]), str(row["groups"]))
    out.print(overall)
    out.print("Per class and subgroup: add --output metrics.csv" if output is None else f"Everything: {output}")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Run folder, for example runs/demo.")],
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Write a study's HTML report again from its record; trains and measures nothing."""
    from raremix.report import read_record, write_report

    if dry_run:
        read_record(run / "record.json")
        emit(as_json, {"report": str(run / "report.html")}, f"would write {run / 'report.html'}")
        return
    path = write_report(run)
    emit(as_json, {"report": str(path)}, f"Report: {path}")


@app.command(name="list")
def list_(
    what: Annotated[
        Literal[
            "runs",
            "mixers",
            "importance",
            "generators",
            "augmentations",
            "samplers",
            "losses",
            "recipes",
            "sources",
            "metrics",
        ],
        typer.Argument(help="What to list."),
    ] = "runs",
    runs: Runs = RUNS,
    as_json: Json = False,
) -> None:
    """List runs, or the names that a study file may use."""
    from raremix.study.listing import list_names, list_runs

    rows = list_runs(runs) if what == "runs" else list_names(what)
    if as_json:
        print_json({what: rows})
        return
    if not rows:
        out.print(f"no runs in {runs}: begin with raremix demo")
        return
    table = RichTable(*rows[0], box=None)
    for row in rows:
        table.add_row(*(escape(str(value)) for value in row.values()))
    out.print(table)


@app.command()
def doctor(cache: CacheFolder = None, as_json: Json = False) -> None:
    """Show versions, device, measured step time, the cache, and whether a hub can be reached by name."""
    from raremix.study.doctor import examine
    from raremix.study.prepare import default_cache

    facts = examine(cache=cache or default_cache())
    if as_json:
        print_json(facts)
        return
    for title, values in facts.items():
        table = RichTable(title, "", box=None, title_justify="left")
        for key, value in values.items():
            table.add_row(f"  {key}", escape(str(value)))
        out.print(table)


@app.command()
def demo(
    settings: Set = None,
    runs: Runs = RUNS,
    cache: CacheFolder = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Show the whole road on made-up images: three recipes, three seeds, one report; minutes on two CPU cores."""
    from raremix.study.defaults import demo_study

    _run(demo_study(settings=settings), runs=runs, cache=cache, as_json=as_json, dry_run=dry_run)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        out.print(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; an error becomes one line and an exit code: 1 failed, 2 usage or data, 3 refused."""
    try:
        _call()
    except RaremixError as error:
        code = error.exit_code
        if isinstance(error, StoppedError):
            code = 143 if stopped_by() == signal.SIGTERM else 130
        if "--json" in sys.argv:
            print_json({"error": type(error).__name__, "message": str(error), "exit": code})
        word = {3: "refused", 130: "stopped", 143: "stopped"}.get(code, "error")
        err.print(f"[bold red]{word}:[/] {escape(' '.join(str(error).split()))}", soft_wrap=True)
        sys.exit(code)
    except SystemExit as end:
        # Typer has said on standard error what it could not read.
        if end.code == 2 and "--json" in sys.argv:
            print_json({"error": "UsageError", "message": "see standard error", "exit": 2})
        raise


def _call() -> None:
    """Call the command that is asked for; memory that runs out becomes an error that says what helps."""
    try:
        app()
    except (RuntimeError, MemoryError) as error:
        from raremix.core.memory import FREE, is_out_of_memory

        if not is_out_of_memory(error):
            raise
        raise RunError(f"memory ran out: {FREE}") from None


def _run(spec: Any, *, runs: Path, cache: Path | None, as_json: bool, dry_run: bool) -> None:
    from raremix.study.prepare import cache_of
    from raremix.study.run import plan_study, run_study

    where = cache_of(spec.data, cache)
    say = (lambda text: None) if as_json else (lambda text: err.print(escape(text), soft_wrap=True))
    with progress_bars(quiet=as_json) as bars, stopping() as should_stop:
        if dry_run:
            plan = plan_study(spec, runs=runs, cache=where, progress=bars("Reading images"))
            facts = {
                "folder": str(plan.folder),
                "arms": [arm.name for arm in spec.arms],
                "jobs": len(plan.jobs),
                "done": len(plan.done),
                "steps": spec.train.steps,
                "decidable": plan.decidable,
                "generators": list(plan.generators),
            }
            words = f"{len(plan.jobs)} classifiers to train, {len(plan.done)} done; {spec.train.steps} steps each"
            if plan.generators:
                words += f"; generators to fit before: {', '.join(plan.generators)}"
            emit(as_json, facts, f"{plan.decidable['text']}\nwould run in {plan.folder}: {words}")
            return
        result = run_study(spec, runs=runs, cache=where, progress=bars, say=say, should_stop=should_stop)
    from raremix.core import files
    from raremix.report import conclude, read_record, tables

    record = read_record(result.folder / "record.json")
    if as_json:
        facts = files.read_json(result.folder / "record.json")
        done = {"folder": str(result.folder), "report": str(result.report), "failed": result.failed}
        print_json({**done, "record": facts})
    else:
        for part in tables(record):
            head, *rows = fitting([part.columns, *part.rows], width=out.width)
            table = RichTable(*(escape(name) for name in head), title=escape(part.title))
            for row in rows:
                table.add_row(*(escape(cell) for cell in row))
            out.print(table)
        for sentence in conclude(record):
            out.print(escape(sentence), soft_wrap=True)
        classifier = next(iter(sorted((result.folder / "jobs").glob("*/result/classifier"))), None)
        out.print(f"\nReport: [bold]{escape(str(result.report.resolve()))}[/]", soft_wrap=True)
        if classifier is not None:
            out.print(f"Score new images: raremix predict {escape(str(classifier))} IMAGES", soft_wrap=True)
    if result.failed:
        raise SystemExit(1)
