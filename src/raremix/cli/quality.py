"""The verb `raremix quality`: how good and how private synthetic images are."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table as RichTable

from raremix.cli.console import CacheFolder, DryRun, Json, Set, emit, out, print_json, progress_bars


def quality(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="Folder that raremix synthesize wrote, or any data whose manifest has synthetic rows.",
        ),
    ],
    features: Annotated[
        str,
        typer.Option(
            metavar="WEIGHTS",
            help="What images are compared by: self (a small encoder trained on the real training images), a timm "
            "network, a .safetensors file (Inception's too), or a classifier folder. Figures of different encoders "
            "cannot be compared.",
        ),
    ] = "self",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page. Default: quality.html in DATA, if it is a folder.")
    ] = None,
    generator: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the generator that drew the images, which keeps what is found (audit.json). Default: the "
            "one in the folder generators beside that of DATA, as in runs/generators, told by its hash."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Which held-out patients calibrate, and what copies are planted.")] = 0,
    settings: Set = None,
    cache: CacheFolder = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Say how good synthetic images are, and whether they are copies; write a page with pictures.

    Compared with the real training images and with those of held-out patients (validation; test images are not looked
    at). Copies are looked for by a test that says of itself what it would find. The figures are also written beside the
    page, as .json.

        raremix quality runs/synthetic/lesions-stargan
        raremix quality runs/synthetic/lesions-stargan --features mobilenetv2_100.safetensors
    """
    from raremix.core import files
    from raremix.core.errors import UsageError
    from raremix.evaluate.generative import as_shown
    from raremix.report.quality import write_quality
    from raremix.study.defaults import study_of
    from raremix.study.generators.quality.judge import judge_synthetic
    from raremix.study.generators.quality.keep import check_generator, find_generator, keep_audit
    from raremix.study.generators.quality.record import facts_of, record_of
    from raremix.study.generators.quality.words import warnings_of
    from raremix.study.prepare import cache_of, prepare

    page = output or (Path(data) / "quality.html" if Path(data).is_dir() else Path("quality.html"))
    if page.suffix != ".html":
        raise UsageError(f"--output {page}: expected a .html file")
    spec = study_of(data, settings=settings or [])
    where = cache_of(spec.data, cache)
    with progress_bars(quiet=as_json) as bars:
        prepared = prepare(spec, cache=where, progress=bars("Reading images"))
        if generator is not None:
            check_generator(generator, prepared.manifest)
        if dry_run:
            count = int((prepared.manifest.frame["origin"] == "synthetic").sum())
            emit(as_json, {"synthetic": count, "page": str(page)}, f"would judge {count} images and write {page}")
            return
        found = judge_synthetic(prepared, weights=features, cache=where, seed=seed, progress=bars("Encoding images"))
    facts = facts_of(found, prepared.manifest.card.classes)
    created = datetime.now(UTC).isoformat(timespec="minutes")
    write_quality(page, record_of(found, prepared, created=created))
    files.write_json(page.with_suffix(".json"), facts)
    keeper = generator or (find_generator(Path(data), prepared.manifest) if Path(data).is_dir() else None)
    kept = None if keeper is None else str(keep_audit(keeper, found, prepared.manifest, created=created))
    if as_json:
        print_json({**facts, "page": str(page), "audit": kept})
        return
    table = RichTable(
        "class", "synthetic", "kernel distance x 1000", "of held-out", "coverage", "flagged", "copies at most"
    )
    for one in found.classes:
        own, floor = one.figures, one.floor
        table.add_row(
            escape(one.name),
            str(one.synthetic),
            f"{as_shown('kernel', own['kernel']).value:.3f}" if own else "too few",
            f"{as_shown('kernel', floor['kernel']).value:.3f}" if floor else "too few",
            f"{own['coverage'].value:.2f}" if own else "too few",
            "not told" if one.copies is None else str(one.copies.flagged),
            "not told" if one.copies is None else f"{100 * one.copies.most:.2g} %",
        )
    out.print(table)
    audit = found.audit
    words = f"Whether images were copied could not be told: {found.why_not}" if audit is None else audit.words()
    is_alarming = audit is None or audit.has_copies
    out.print(f"[bold red]{escape(words)}[/]" if is_alarming else escape(words), soft_wrap=True)
    for warning in warnings_of(found):
        out.print(f"[bold red]{escape(warning)}[/]", soft_wrap=True)
    for kind in () if audit is None else audit.sight.blind:
        out.print(f"[bold red]The test is blind to copies of this kind: {escape(kind)}[/]")
    out.print(f"Page: [bold]{escape(str(page))}[/]", soft_wrap=True)
    beside = "not kept beside the generator, which is not here: --generator FOLDER" if kept is None else kept
    out.print(f"Thresholds, planted copies and verdict: {escape(beside)}", soft_wrap=True)
