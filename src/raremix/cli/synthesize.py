"""raremix synthesize: training images from a fitted generator, as rows of a manifest."""

from pathlib import Path
from typing import Annotated, Any, Literal

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
    out,
    print_json,
    progress_bars,
)


def synthesize(
    data: Data,
    generator: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a fitted generator.")],
    to: Annotated[
        list[str] | None,
        typer.Option(
            help="Training images per class, real ones counted: balanced (the default), a number, or df=200,vasc=100; "
            "may be given again."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    begin: Annotated[
        Literal["auto", "noise", "own", "others"],
        typer.Option(
            help="What an image begins as: noise, a training image of its own class, or one of another. auto: noise "
            "where the generator can."
        ),
    ] = "auto",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: runs/synthetic/GENERATOR.")] = None,
    label: Label = None,
    group: Group = None,
    settings: Set = None,
    cache: CacheFolder = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Make synthetic training images until the classes are balanced, and a manifest of real and synthetic rows.

    Real files are not touched; each synthetic row says what it was made from. Running it again goes on where it was.

        raremix synthesize my_images/ runs/generators/lesions-dcgan
        raremix synthesize labels.csv runs/generators/lesions-stargan --to df=200,vasc=200 --label dx
        raremix synthesize my_images/ runs/generators/lesions-diffusion --begin own --set draw.strength=0.5
    """
    from raremix.study.defaults import study_of
    from raremix.study.generators.draw import settings_of
    from raremix.study.generators.synthesize import check_synthesis
    from raremix.study.generators.synthesize import synthesize as make
    from raremix.study.generators.use import drawing_of, open_generator
    from raremix.study.prepare import cache_of, prepare

    _, card = open_generator(generator)
    drawing, rest = drawing_of(settings or [])
    spec = study_of(data, settings=[*settings_of(card), *columns(label, group), *rest])
    folder = output or Path("runs/synthetic") / generator.name
    with progress_bars(quiet=as_json) as bars:
        prepared = prepare(spec, cache=cache_of(spec.data, cache), progress=bars("Reading images"))
        asked: Any = {
            "generator": generator,
            "output": folder,
            "to": ",".join(to or ["balanced"]),
            "seed": seed,
            "begin": begin,
            "drawing": drawing,
        }
        plan = check_synthesis(prepared, **asked).plan
        if not dry_run:
            make(prepared, **asked, progress=bars("Drawing images"))
    facts = {"output": str(folder), "real": plan.real, "synthetic": plan.wanted, "were_there": plan.done}
    if as_json:
        print_json(facts)
        return
    table = RichTable("class", "real", "synthetic", "were there", title="training images")
    for name, count in plan.real.items():
        table.add_row(escape(name), str(count), str(plan.wanted[name]), str(plan.done[name]))
    out.print(table)
    if dry_run:
        out.print(f"would write to {escape(str(folder))}", soft_wrap=True)
        return
    out.print(f"Manifest: [bold]{escape(str(folder / 'manifest.parquet'))}[/]", soft_wrap=True)
    needed = " ".join(f"--set {setting}" for setting in settings_of(card)[:2])
    out.print(escape(f"Train with them: raremix study {folder} {needed}"), soft_wrap=True)
