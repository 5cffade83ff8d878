"""raremix recommend: from data that nobody described to an ordinary study file with its reasons."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table as RichTable

from raremix.cli.console import (
    CacheFolder,
    DryRun,
    Group,
    Json,
    Label,
    Set,
    columns,
    emit,
    err,
    out,
    print_json,
    progress_bars,
)

Limit = Annotated[
    str | None, typer.Option("--time-limit", help="All training must fit in this, e.g. 2h, 90m; cuts are told.")
]


def recommend(
    place: Annotated[
        str,
        typer.Argument(metavar="DATA", help="A folder, a table, an .npz, a study file (for its data), or phantom."),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The study file; by default the data's name in this folder.")
    ] = None,
    time_limit: Limit = None,
    weights: Annotated[
        Path | None, typer.Option(help="Pretrained weights (.safetensors); others are looked for in folders weights/.")
    ] = None,
    label: Label = None,
    group: Group = None,
    settings: Set = None,
    accept_duplicates: Annotated[
        bool, typer.Option("--accept-duplicates", help="Go on though more than 1 % of the images are copies.")
    ] = False,
    accept_conflicts: Annotated[
        bool, typer.Option("--accept-conflicts", help="Go on though more than 1 % of the images contradict each other.")
    ] = False,
    cache: CacheFolder = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Look at your images, and write a study that suits them, every line with its reason and its source.

    Nothing is trained. The file is an ordinary study: edit it, then run it. The rules are in the documentation.

        raremix recommend my_images/
        raremix recommend labels.csv --time-limit 2h
        raremix recommend labels.csv --label diagnosis --group patient_id -o plan.toml
    """
    from raremix.core import files
    from raremix.core.errors import UsageError
    from raremix.study.prepare import default_cache
    from raremix.study.recommend.commented import cost_words, decidable_words, limit_words, render, render_second
    from raremix.study.recommend.contradictions import refuse_poor_quality
    from raremix.study.recommend.plan import make_plan, minutes_of
    from raremix.study.recommend.rules import read_rules
    from raremix.study.recommend.survey import survey

    minutes = None if time_limit is None else minutes_of(time_limit)
    rules, given = read_rules(), [*columns(label, group), *(settings or [])]
    with progress_bars(quiet=as_json) as bars:
        found = survey(place, cache=cache or default_cache(), settings=given, weights=weights, progress=bars)
    f = found.fingerprint
    if not as_json:
        _print_fingerprint(f, found.guess.notes)
    refuse_poor_quality(f, rules, accept_duplicates=accept_duplicates, accept_conflicts=accept_conflicts, place=place)
    path = output or Path(f"{_file_name(place, f.name)}.toml")
    if path.suffix != ".toml":
        raise UsageError(f"--output {path}: expected a .toml file")
    if path.exists() and output is None and not dry_run:
        raise UsageError(f"{path} is there already: name another file with --output, or the same one to replace it")
    plan = make_plan(f, found.guess, rules, name=path.stem, minutes=minutes, settings=given)
    text = render(plan, found.guess, rules, place=place)
    second = render_second(plan, rules, base=path.name)
    beside = path.with_name(f"{path.stem}-{plan.shape.second}px.toml")
    if not dry_run:
        files.write_text(path, text)
        if second is not None:
            files.write_text(beside, second)
    if as_json:
        print_json(
            {
                "study": str(path),
                "second": str(beside) if second is not None else None,
                "written": not dry_run,
                "fingerprint": asdict(f),
                "decisions": [asdict(decision) for decision in plan.decisions],
                "arms": [arm.table for arm in plan.arms],
                "offered": [arm.table for arm in plan.offered],
                "left_out": dict(plan.left_out),
                "cuts": [asdict(cut) for cut in plan.cuts],
                "cost": {**asdict(plan.cost), "classifiers": plan.shape.runs, "within_limit": plan.is_within_limit},
                "decidable": plan.decidable,
                "tables": plan.study,
            }
        )
        return
    _print_plan(plan)
    out.print(f"\nCost: {escape(cost_words(plan))}.", soft_wrap=True)
    if minutes is None and plan.cost.minutes > 120:
        out.print("That is long: [bold]--time-limit 2h[/] says what to give up for less.", soft_wrap=True)
    if minutes is not None:
        colour = "green" if plan.is_within_limit else "bold red"
        out.print(f"[{colour}]Time limit {minutes:,.0f} minutes: {escape(limit_words(plan))}.[/]", soft_wrap=True)
    out.print(f"Evidence: {escape(decidable_words(plan))}.", soft_wrap=True)
    if dry_run:
        emit(False, {}, f"would write {path}" + (f" and {beside}" if second is not None else ""))
        return
    if second is not None:
        out.print(f"A second configuration at {plan.shape.second} px: {escape(str(beside))}", soft_wrap=True)
    out.print(f"Study: [bold]{escape(str(path))}[/]", soft_wrap=True)
    out.print(f"Run it: raremix study {escape(str(path))} --best", soft_wrap=True)


def _print_fingerprint(f: Any, notes: tuple[str, ...]) -> None:
    from raremix.study.recommend.decisions import NO_PATIENTS
    from raremix.study.recommend.describe import describe

    if not f.named_groups:
        err.print(f"[bold white on red] {NO_PATIENTS} [/]", soft_wrap=True)
    title = f"{f.name}: {f.images:,} images, {f.task}"
    table = RichTable("what", "value", title=escape(title), box=None, title_justify="left")
    for what, value in describe(f):
        table.add_row(escape(what), escape(value))
    out.print(table)
    classes = RichTable("class", "images", "groups", "band", "test groups", "+- at .8", box=None)
    evidence = f.holdout or f.pooled
    for k, name in enumerate(f.classes):
        half = evidence.half_widths[k]
        shown = "" if half is None else f"{100 * half:.0f}"
        counts = (f"{f.class_images[k]:,}", f"{f.class_groups[k]:,}", f.band[k], f"{evidence.test[k]:,}", shown)
        classes.add_row(escape(name), *counts)
    out.print(classes)
    for note in notes:
        err.print(f"[bold yellow]note:[/] {escape(note)}", soft_wrap=True)


def _print_plan(plan: Any) -> None:
    table = RichTable("rule", "decided, and why", "strength", title="Plan", show_lines=True)
    for decision in plan.decisions:
        what = escape(decision.what)
        table.add_row(
            f"{decision.id} {decision.name}\n[dim]{decision.kind}[/]",
            (f"[bold red]{what}[/]" if decision.is_loud else what) + f"\n[dim]{escape(decision.why)}[/]",
            decision.strength,
        )
    out.print(table)
    out.print(f"Arms: {escape(', '.join(arm.table['name'] for arm in plan.arms))}", soft_wrap=True)
    if plan.offered:
        names = ", ".join(arm.table["name"] for arm in plan.offered)
        out.print(f"Offered in the file, and not run: {escape(names)}", soft_wrap=True)
    for name, reason in plan.left_out.items():
        out.print(f"Left out: {escape(name)}: {escape(reason)}", soft_wrap=True)
    for cut in plan.cuts:
        out.print(f"Cut for the time limit: {escape(cut.what)} ({escape(cut.cost)})", soft_wrap=True)


def _file_name(place: str, name: str) -> str:
    path = Path(place)
    words = path.parent.resolve().name if path.stem in {"labels", "label", "metadata"} else path.stem or name
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", words).strip("-.") or "study"
