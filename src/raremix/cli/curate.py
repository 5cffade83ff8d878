"""The verb `raremix curate`: leave out synthetic images that are copies, unrecognised or far off."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table as RichTable

from raremix.cli.console import CacheFolder, DryRun, Json, Set, emit, out, print_json, progress_bars

UNCHECKED = {
    "copy": "Copies were not looked for",
    "not recognised": "Whether images are recognised was not checked",
    "classifier": "Whether the classifier is independent was not checked",
}


def curate(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Folder that raremix synthesize wrote.")],
    features: Annotated[
        str,
        typer.Option(metavar="WEIGHTS", help="What images are compared by; see raremix quality."),
    ] = "self",
    classifier: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a classifier, not trained on these synthetic images, which is asked whether it recognises "
            "them."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: DATA-curated.")] = None,
    seed: Annotated[int, typer.Option(help="Which held-out patients calibrate, and what copies are planted.")] = 0,
    settings: Set = None,
    cache: CacheFolder = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Write a manifest without the synthetic images that are copies, not recognised, or outliers.

    The lines are drawn by held-out real images, class by class. No image is touched; dropped.csv says what was left out
    and why, curation.json how many and where the lines were.

        raremix curate runs/synthetic/lesions-stargan --features mobilenetv2_100.safetensors
        raremix curate runs/synthetic/lesions-stargan --classifier runs/lesions/classifiers/baseline-0
    """
    from raremix.core.errors import UsageError
    from raremix.study.defaults import study_of
    from raremix.study.generators.curate import counts_of, write_curated
    from raremix.study.generators.curate import curate as choose
    from raremix.study.prepare import cache_of, prepare

    place = Path(data)
    if output is None and not place.is_dir():
        raise UsageError(f"{data} is no folder: say with --output where the curated manifest shall be written")
    folder = output or place.with_name(f"{place.resolve().name}-curated")
    spec = study_of(data, settings=settings or [])
    where = cache_of(spec.data, cache)
    with progress_bars(quiet=as_json) as bars:
        prepared = prepare(spec, cache=where, progress=bars("Reading images"))
        if dry_run:
            count = int((prepared.manifest.frame["origin"] == "synthetic").sum())
            emit(as_json, {"synthetic": count, "output": str(folder)}, f"would judge {count} images, write {folder}")
            return
        bar = bars("Encoding images")
        found = choose(prepared, weights=features, cache=where, classifier=classifier, seed=seed, progress=bar)
        path = write_curated(found, prepared, folder)
    counts = counts_of(found, prepared.manifest)["classes"]
    if as_json:
        print_json({"classes": counts, "not_checked": found.not_checked, "manifest": str(path)})
        return
    reasons = list(found.dropped)
    table = RichTable("class", "synthetic", *reasons, "kept")
    for name, row in counts.items():
        table.add_row(escape(name), str(row["synthetic"]), *(str(row[reason]) for reason in reasons), str(row["kept"]))
    out.print(table)
    for what, why in found.not_checked.items():
        out.print(f"[bold red]{UNCHECKED[what]}: {escape(why)}[/]", soft_wrap=True)
    out.print(f"Manifest: [bold]{escape(str(path))}[/]; reasons in dropped.csv beside it", soft_wrap=True)
