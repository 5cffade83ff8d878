"""The verb `raremix audit`: what is in the data, what is wrong with it, and what that costs."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table as RichTable

from raremix.cli.console import (
    RUNS,
    CacheFolder,
    DryRun,
    Group,
    Json,
    Label,
    Progress,
    Runs,
    Set,
    columns,
    emit,
    out,
    print_json,
    progress_bars,
    write_table,
)

_COLOURS = {"unknown": "bold white on red", "leak": "bold red", "harm": "yellow", "note": "dim"}


def audit(
    data: Annotated[
        str,
        typer.Argument(
            help="Folder with one folder per class, a table, an .npz, the word phantom, or a study file, whose [data] "
            "is used."
        ),
    ],
    label: Label = None,
    group: Group = None,
    split: Annotated[str | None, typer.Option(help="Column with the split, if DATA is a table.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page. Default: audits/NAME.html in the runs folder.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write a summary without rows to this .md file.")] = None,
    rows: Annotated[
        Path | None,
        typer.Option(help="Also write which file each named row is to this .csv or .parquet: it holds file names."),
    ] = None,
    suspects: Annotated[
        str,
        typer.Option(
            metavar="WEIGHTS",
            help="Rank suspects by this representation: none, self (a small encoder trained on the images), a timm "
            "network, a .safetensors file, or a classifier folder.",
        ),
    ] = "none",
    strict: Annotated[bool, typer.Option("--strict", help="End with exit code 3 if there is a leak or harm.")] = False,
    pictures: Annotated[bool, typer.Option(help="Whether the page shows small pictures of the rows.")] = True,
    workers: Annotated[int | None, typer.Option(help="Threads that read files; one per processor by default.")] = None,
    settings: Set = None,
    runs: Runs = RUNS,
    cache: CacheFolder = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Say what is in a data set, what is wrong with it, and what that costs; write a page with pictures.

    Nothing is trained, nothing is changed, and nothing is refused: patients in two splits, copies, unreadable files,
    labels in conflict and pictures with nothing in them are listed with their rows. Running it again is quick, and
    continues where it was stopped.

        raremix audit my_images/
        raremix audit labels.csv --label diagnosis --group patient_id --split fold
        raremix audit my_study.toml --strict --json
        raremix audit pneumoniamnist.npz --set 'data.groups="groups.csv"'
    """
    from raremix.core import files
    from raremix.core.errors import UsageError
    from raremix.report.audit import write_audit
    from raremix.study.audit.record import (
        audit_data,
        facts_of,
        load_for_audit,
        record_of,
        row_names,
        sum_up,
        summary_of,
    )
    from raremix.study.defaults import study_of
    from raremix.study.prepare import cache_of

    spec = study_of(data, settings=[*columns(label, group), *_split(split), *(settings or [])])
    page = output or runs / "audits" / f"{spec.name}.html"
    if page.suffix != ".html":
        raise UsageError(f"--output {page}: expected a .html file")
    where = cache_of(spec.data, cache)
    with progress_bars(quiet=as_json) as bars:
        if dry_run:
            manifest = load_for_audit(spec, cache=where, progress=bars("Reading images"))
            facts = {"images": len(manifest), "classes": list(manifest.card.classes), "page": str(page)}
            emit(as_json, facts, f"would look at {len(manifest)} images and write {page}")
            return
        chosen = None if suspects == "none" else suspects
        steps: dict[str, Progress] = {}

        def progress(what: str, done: int, total: int) -> None:
            steps.setdefault(what, bars(what[:1].upper() + what[1:]))(what, done, total)

        found = audit_data(spec, cache=where, suspects=chosen, workers=workers, progress=progress)
        created = datetime.now(UTC).isoformat(timespec="minutes")
        write_audit(page, record_of(found, created=created, with_pictures=pictures))
    if markdown is not None:
        files.write_text(markdown, summary_of(found))
    if rows is not None:
        write_table(rows, row_names(found))
    if as_json:
        print_json({**facts_of(found), "page": str(page)})
    else:
        _print(found, page, sum_up(found.audit.problems, len(found.audit.manifest)), rows)
    if strict and any(problem.level in {"leak", "harm"} for problem in found.audit.problems):
        raise SystemExit(3)


def _split(split: str | None) -> list[str]:
    return [f"data.split={json.dumps(split)}"] if split else []


def _print(found: Any, page: Path, summary: str, rows: Path | None) -> None:
    census, manifest = found.audit.census, found.audit.manifest
    is_grouped = manifest.frame["group"].n_unique() < len(manifest)
    names = [split or "no split" for split in census.splits]
    what = "images (groups)" if is_grouped else "images"
    counts = RichTable(what, *names, box=None, title=escape(manifest.card.name), title_justify="left")
    lines = zip(manifest.card.classes, census.images.T, census.groups.T, strict=True)
    for name, images, groups in [*lines, ("all", census.split_images, census.split_groups)]:
        cells = [f"{n:,}" + (f" ({g:,})" if is_grouped else "") for n, g in zip(images, groups, strict=True)]
        counts.add_row(escape(name), *cells)
    out.print(counts)
    for problem in found.audit.problems:
        out.print(f"\n[{_COLOURS[problem.level]}]{problem.level}[/] [bold]{escape(problem.title)}[/]")
        out.print(f"  {escape(problem.cost)}")
        out.print(f"  [cyan]{escape(problem.advice)}[/]")
        if problem.sets:
            shown = ", ".join(" + ".join(str(row) for row in ids[:6]) for ids in problem.sets[:5])
            rest = f" and {len(problem.sets) - 5:,} more" if len(problem.sets) > 5 else ""
            out.print(f"  [dim]rows {shown}{rest}[/]")
    for entry in found.suspects:
        out.print(f"\n[bold]suspects, {entry.kind}[/]: look at the first {entry.look_at} of {len(entry.ids):,}")
    out.print(f"\n{escape(summary)}", soft_wrap=True)
    out.print(f"\nPage: [bold]{escape(str(page.resolve()))}[/]", soft_wrap=True)
    if rows is not None:
        out.print(f"Files of the rows: {escape(str(rows))}", soft_wrap=True)
    elif any(problem.sets for problem in found.audit.problems):
        out.print("Which file is which row: add --rows rows.csv (it holds file names)")
