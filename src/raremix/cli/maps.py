"""raremix maps: maps of what matters, for a whole data set."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table as RichTable

from raremix.cli.console import (
    CacheFolder,
    DryRun,
    Json,
    Set,
    columns,
    emit,
    out,
    print_json,
    progress_bars,
)

maps = typer.Typer(name="maps", help="Make maps of what matters in every image.", no_args_is_help=True)


@maps.callback()
def _root() -> None:
    """Make maps of what matters in every image."""


@maps.command()
def adm(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="A study file, a folder with one folder per class, a table, an .npz, or phantom."
        ),
    ],
    generator: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a fitted translator (stargan).")],
    split: Annotated[str, typer.Option(help="train, validation, test, or all.")] = "train",
    style: Annotated[
        str | None, typer.Option(help="Of the translations: reference (an image of the class), latent, mean.")
    ] = None,
    to_images: Annotated[
        bool,
        typer.Option("--to-images", help="Compare with the image itself, as published, not with its reconstruction."),
    ] = False,
    robust: Annotated[bool, typer.Option("--robust", help="Scale by the 99.5th percentile.")] = False,
    seed: Annotated[int, typer.Option(help="Of the styles, and chooses what is drawn.")] = 0,
    per_class: Annotated[int, typer.Option("-n", min=1, max=32, help="Images per class in the picture.")] = 3,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: FOLDER/maps.")] = None,
    label: Annotated[str | None, typer.Option(help="Label column, if DATA is a table.")] = None,
    group: Annotated[str | None, typer.Option(help="Patient or lesion column, if DATA is a table.")] = None,
    settings: Set = None,
    cache: CacheFolder = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Absolute difference maps: what a translator changes in each image to show it as each other class.

    They are kept in the cache in 8 bits. A peaked map makes tiny masks: look at the areas before mixing by them.

        raremix maps adm my_images/ runs/generators/lesions-stargan
        raremix maps adm phantom runs/generators/phantom-stargan --split all --robust
    """
    from dataclasses import replace

    from raremix.core import files
    from raremix.study.defaults import study_of
    from raremix.study.difference_maps import MapSettings, compute_maps, draw_maps
    from raremix.study.generator import settings_of
    from raremix.study.generator_use import open_translator
    from raremix.study.prepare import cache_of, prepare

    _, card = open_translator(generator)
    spec = study_of(data, settings=[*settings_of(card), *columns(label, group), *(settings or [])])
    where, folder = cache_of(spec.data, cache), output or generator / "maps"
    asked = replace(MapSettings(), style=style, to_reconstruction=not to_images, robust=robust, seed=seed)
    if dry_run:
        emit(as_json, {"output": str(folder)}, f"would map what {generator} changes in the {split} images of {data}")
        return
    with progress_bars(quiet=as_json) as bars:
        prepared = prepare(spec, cache=where, progress=bars("Reading images"))
        found = compute_maps(
            generator, prepared, split=split, cache=where, settings=asked, progress=bars("Difference maps")
        )
    picture = draw_maps(found, prepared, per_class=per_class, seed=seed, output=folder / "adm.png")
    files.write_csv(folder / "areas.csv", found.areas)
    rows = found.summary()
    if as_json:
        print_json({"maps": str(found.folder), "picture": str(picture), "areas": rows})
        return
    table = RichTable("own", "to", "maps", "mean area", "10 % below", "median", "flat", title="expected area of a mask")
    for row in rows:
        shares = [f"{row[key]:.1%}" for key in ("mean", "tenth", "median")]
        table.add_row(escape(row["own"]), escape(row["to"]), str(row["maps"]), *shares, str(row["flat"]))
    out.print(table)
    out.print(f"Picture: {escape(str(picture))}   areas: {escape(str(folder / 'areas.csv'))}", soft_wrap=True)
    importance = f'{{ name = "difference", translator = "{generator}" }}'
    out.print(escape(f'In a study: mix = {{ name = "varimix", importance = {importance} }}'), soft_wrap=True)
