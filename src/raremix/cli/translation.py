"""The verbs `raremix maps hdm` and `raremix maps gate`: what a translator and a classifier say of each other."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table as RichTable

from raremix.cli.console import (
    CacheFolder,
    Data,
    DryRun,
    Group,
    Json,
    Label,
    Set,
    columns,
    emit,
    out,
    print_json,
    progress_bars,
)

Generator = Annotated[Path, typer.Argument(metavar="GENERATOR", help="Folder of a fitted translator (stargan).")]


def hdm(
    data: Data,
    generator: Generator,
    classifier: Annotated[
        Path, typer.Argument(metavar="CLASSIFIER", help="Folder of a trained classifier with a linear last layer.")
    ],
    split: Annotated[str, typer.Option(help="Whose images: train, validation, test, or all.")] = "test",
    to: Annotated[list[str] | None, typer.Option(help="Class to go to; again for several. Default: all.")] = None,
    per_class: Annotated[int, typer.Option("-n", min=1, max=256, help="Images of each class.")] = 4,
    seed: Annotated[int, typer.Option(help="Chooses the images.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: GENERATOR/maps.")] = None,
    label: Label = None,
    group: Group = None,
    settings: Set = None,
    cache: CacheFolder = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Hyperplane difference maps: what has to change until the classifier cannot tell two classes apart.

    Writes a sheet per class (image, as drawn unchanged, on the boundary, the change, the other class), an animated
    strip, and hdm.csv. Where the boundary is not reached there is no map, and the table says so.

        raremix maps hdm my_images/ runs/generators/lesions-stargan CLASSIFIER --to mel
    """
    from raremix.study.defaults import study_of
    from raremix.study.generators.draw import settings_of
    from raremix.study.generators.hyperplane_maps import cross_boundaries, pairs_of, write_crossings
    from raremix.study.generators.use import open_translator
    from raremix.study.prepare import cache_of, prepare

    _, card = open_translator(generator)
    spec = study_of(data, settings=[*settings_of(card), *columns(label, group), *(settings or [])])
    folder = output or generator / "maps"
    if dry_run:
        emit(as_json, {"output": str(folder)}, f"would follow {split} images of {data} to {classifier}'s boundaries")
        return
    with progress_bars(quiet=as_json) as bars:
        prepared = prepare(spec, cache=cache_of(spec.data, cache), progress=bars("Reading images"))
        found = cross_boundaries(
            generator,
            classifier,
            prepared,
            split=split,
            per_class=per_class,
            to=to,
            seed=seed,
            progress=bars("Following images"),
        )
        paths = write_crossings(found, prepared, folder)
    rows = pairs_of(found)
    if as_json:
        print_json({"pairs": rows, "files": [str(path) for path in paths]})
        return
    table = RichTable("own", "to", "images", "boundary reached", "mean place", "largest residual")
    for row in rows:
        numbers = [f"{row[key]:.3g}" if row[key] is not None else "" for key in ("place", "residual")]
        table.add_row(
            escape(str(row["own"])), escape(str(row["to"])), str(row["images"]), str(row["reached"]), *numbers
        )
    out.print(table)
    if not any(row["reached"] for row in rows):
        out.print("[bold red]No boundary was reached: the translator does not change what the classifier looks at.[/]")
    out.print(f"Written to {escape(str(folder))}: " + ", ".join(escape(path.name) for path in paths), soft_wrap=True)


def gate(
    data: Data,
    generator: Generator,
    classifier: Annotated[
        Path,
        typer.Argument(metavar="CLASSIFIER", help="Folder of a classifier that did not train the translator."),
    ],
    split: Annotated[str, typer.Option(help="Whose images: validation or test.")] = "validation",
    seed: Annotated[int, typer.Option(help="Of the styles.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: GENERATOR/maps.")] = None,
    label: Label = None,
    group: Group = None,
    settings: Set = None,
    cache: CacheFolder = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Ask whether a translator's changes are about the class, before anybody mixes or explains by its maps.

    Held-out images are translated to every class. Flip rate: how often an independent classifier takes the result for
    that class, beside how often it does so for the image itself, and for the image redrawn unchanged. Cycle: how far
    there and back ends from the image. Kernel: how far translations are from real images of the class, in the
    classifier's features, and how far the images were before.

        raremix maps gate my_images/ runs/generators/lesions-stargan CLASSIFIER
    """
    from dataclasses import asdict

    from raremix.core import files
    from raremix.study.defaults import study_of
    from raremix.study.generators.draw import settings_of
    from raremix.study.generators.gate import judge_translations
    from raremix.study.generators.use import open_translator
    from raremix.study.prepare import cache_of, prepare

    _, card = open_translator(generator)
    spec = study_of(data, settings=[*settings_of(card), *columns(label, group), *(settings or [])])
    folder = output or generator / "maps"
    if dry_run:
        emit(as_json, {"output": str(folder)}, f"would translate the {split} images of {data} and ask {classifier}")
        return
    with progress_bars(quiet=as_json) as bars:
        prepared = prepare(spec, cache=cache_of(spec.data, cache), progress=bars("Reading images"))
        found = judge_translations(
            generator, classifier, prepared, split=split, seed=seed, progress=bars("Translating images")
        )
    count = len(prepared.manifest.card.classes)
    facts = [{**asdict(one), "words": one.words(count)} for one in found]
    path = files.write_json(folder / "gate.json", facts)
    if as_json:
        print_json({"classes": facts, "file": str(path)})
        return
    heads = (
        "to",
        "images",
        "flip rate",
        "before",
        "redrawn",
        "cycle",
        "change",
        "mask area",
        "kernel distance",
        "before",
    )
    table = RichTable(*heads)
    for one in found:
        kernels = ["too few" if value is None else f"{value:.3g}" for value in (one.kernel, one.kernel_before)]
        flip = f"{one.flipped:.2f} [{one.low:.2f}, {one.high:.2f}]"
        table.add_row(
            escape(one.name),
            str(one.images),
            flip,
            f"{one.before:.2f}",
            f"{one.redrawn:.2f}",
            f"{one.cycle:.3f}",
            f"{one.change:.3f}",
            f"{one.area:.1%}",
            *kernels,
        )
    out.print(table)
    for one in found:
        words = escape(one.words(count))
        out.print(f"[bold red]{words}[/]" if "NOT" in words else words, soft_wrap=True)
    out.print(f"Figures: {escape(str(path))}", soft_wrap=True)
