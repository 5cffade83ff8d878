"""raremix generator: fit a generator, draw from it, translate with it, look at it."""

from pathlib import Path
from typing import Annotated, Any

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
    err,
    out,
    print_json,
    progress_bars,
    stopping,
)

generator = typer.Typer(
    name="generator", help="Fit networks that draw images of a class, and use them.", no_args_is_help=True
)
Draw = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="draw.KEY=VALUE", help="A setting of drawing, e.g. draw.num_inference_steps=50."),
]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a fitted generator.")]


@generator.callback()
def _root() -> None:
    """Fit networks that draw images of a class, and use them."""


@generator.command()
def fit(
    data: Data = "phantom",
    method: Annotated[
        str,
        typer.Option(
            "--method",
            "-m",
            help="dcgan, stylegan2 draw; stargan translates; diffusion, latent_diffusion, textual_inversion do both.",
        ),
    ] = "stargan",
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps. Default: the method's.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the images in pixels, 17 to 512.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order and noise.")] = 0,
    classifier: Annotated[
        Path | None, typer.Option(help="Folder of a trained classifier, for generator.classifier > 0.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(metavar="CLASS", help="Leave out a class's images; may be given again.")
    ] = None,
    force: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS", help="Fit this class although it has too few images; may be given again."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: runs/generators/DATA-METHOD.")] = None,
    label: Label = None,
    group: Group = None,
    settings: Set = None,
    cache: CacheFolder = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Fit a generator on the training split; held-out rows are never seen. Running it again goes on where it was.

    Grids of what it draws appear in FOLDER/samples while it learns.

        raremix generator fit my_images/ --method dcgan --size 64 --steps 5000
        raremix generator fit my_images/ --method stylegan2 --size 64 --set generator.transition="[0.1, 0.3]"
        raremix generator fit labels.csv --label dx --group lesion_id --set generator.width=64 --set train.batch_size=8
        raremix generator fit studies/demo.toml --method stargan --set generator.identity=1
        raremix generator fit my_images/ --method diffusion --size 64 --set generator.width=32
        raremix generator fit my_images/ --method stylegan2 --set train.devices=2 --set train.batch_size=64
    """
    from raremix.study.generators.fit import check_beginning, fit_generator
    from raremix.study.generators.spec import form_of, learnt_ids, read_generator, refuse_few, suited
    from raremix.study.prepare import cache_of, prepare

    own = [*columns(label, group), *(settings or [])]
    own += [] if steps is None else [f"train.steps={steps}"]
    own += [] if size is None else [f"data.size={size}"]
    spec = read_generator(
        data,
        method=method,
        settings=own,
        seed=seed,
        classifier=classifier,
        without=without or [],
        force=force or [],
    )
    folder = output or Path("runs/generators") / f"{spec.data.name}-{spec.table.kind}"
    where = cache_of(spec.data.data, cache)

    def say(text: str) -> None:
        if not as_json:
            err.print(escape(text), soft_wrap=True)

    with progress_bars(quiet=as_json) as bars, stopping() as should_stop:
        prepared = prepare(spec.data, cache=where, progress=bars("Reading images"))
        form = form_of(spec, prepared)
        if dry_run:
            spec = spec.with_method(suited(spec.table.method, prepared, without=spec.table.without))
            ids, table = learnt_ids(spec.table, prepared), spec.table
            refuse_few(table, prepared, ids)
            check_beginning(spec, prepared)
            images, steps = len(ids), table.train.steps
            facts = {"folder": str(folder), "steps": steps, "images": images, "side": form.side}
            text = f"would fit {table.kind} on {images} training images for {steps} steps into {folder}"
            emit(as_json, facts, text)
            return
        fit_generator(
            spec, folder=folder, cache=where, prepared=prepared, progress=bars, say=say, should_stop=should_stop
        )
    pictures = {"evolution": str(folder / "evolution.png"), "samples": str(folder / "samples")}
    if as_json:
        print_json({"folder": str(folder), **pictures})
        return
    out.print(f"Generator: [bold]{escape(str(folder))}[/]  how it came about: {escape(pictures['evolution'])}")
    following = f"raremix generator sample {folder} --class NAME -n 16"
    if spec.table.method.is_translator:
        following = f"raremix generator translate {folder} {data}"
    out.print(escape(f"Next: {following}"), soft_wrap=True)


@generator.command()
def sample(
    folder: Folder,
    name: Annotated[str, typer.Option("--class", "-c", help="Class to draw.")],
    count: Annotated[int, typer.Option("-n", min=1, help="Number of images.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: FOLDER/drawn.")] = None,
    settings: Draw = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Draw images of a class as PNG files; image 7 of a seed and a class is always the same.

    Images that are there already are kept: running it again goes on where it was.

    raremix generator sample runs/generators/lesions-dcgan --class df -n 16 --seed 0
    raremix generator sample runs/generators/lesions-stylegan2 --class df --set draw.truncation=0.7
    raremix generator sample runs/generators/lesions-diffusion --class df --set draw.guidance_scale=2
    """
    from raremix.core import files
    from raremix.core.errors import UsageError
    from raremix.study.generators.draw import open_drawer, sample_class
    from raremix.study.generators.use import drawing_of

    where = output or folder / "drawn"
    drawing, rest = drawing_of(settings or [])
    if rest:
        raise UsageError(f"--set {rest[0]}: expected draw.KEY=VALUE, for example draw.guidance_scale=2")
    if dry_run:
        open_drawer(folder, label=name, drawing=drawing)
        emit(as_json, {"images": count, "output": str(where)}, f"would draw {count} images of {name} into {where}")
        return
    paths = sample_class(folder, label=name, count=count, seed=seed, output=where, drawing=drawing)
    sheet = where / f"{files.file_name(name)}-{seed}-sheet.png"
    facts = {"images": [str(path) for path in paths], "sheet": str(sheet)}
    emit(
        as_json, facts, f"{len(paths)} images of {name}; all on one sheet: {sheet}\nMore in a study: raremix synthesize"
    )


@generator.command()
def translate(
    folder: Folder,
    data: Data,
    split: Annotated[str, typer.Option(help="train, validation, test, or all.")] = "validation",
    per_class: Annotated[int, typer.Option("-n", min=1, max=32, help="Images per class.")] = 3,
    seed: Annotated[int, typer.Option(help="Chooses the images.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: FOLDER/translations.png.")] = None,
    label: Label = None,
    group: Group = None,
    settings: Set = None,
    cache: CacheFolder = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Draw images, how the generator draws them unchanged, and how it draws them as each class.

    raremix generator translate runs/generators/lesions-stargan my_images/ --split test
    raremix generator translate runs/generators/lesions-diffusion my_images/ --set draw.strength=0.3
    """
    from raremix.study.defaults import study_of
    from raremix.study.generators.draw import settings_of, translate_grid
    from raremix.study.generators.use import drawing_of, open_translator
    from raremix.study.prepare import cache_of, prepare

    drawing, rest = drawing_of(settings or [])
    _, card = open_translator(folder, drawing=drawing)
    spec = study_of(data, settings=[*settings_of(card), *columns(label, group), *rest])
    where = output or folder / "translations.png"
    if dry_run:
        emit(as_json, {"picture": str(where)}, f"would translate {per_class} images per class into {where}")
        return
    with progress_bars(quiet=as_json) as bars:
        prepared = prepare(spec, cache=cache_of(spec.data, cache), progress=bars("Reading images"))
        translate_grid(folder, prepared, split=split, per_class=per_class, seed=seed, output=where, drawing=drawing)
    emit(as_json, {"picture": str(where)}, f"Translations: {where}\nWhat they change: raremix maps adm {data} {folder}")


@generator.command()
def inspect(folder: Folder, as_json: Json = False) -> None:
    """Check a generator's files, and say what it draws, what it was fitted on, and how.

    raremix generator inspect runs/generators/lesions-stargan
    """
    from dataclasses import asdict

    from raremix.generate.folder import generator_hash
    from raremix.study.generators.quality.keep import read_audits
    from raremix.study.generators.use import drawing_names, open_generator

    drawer, card = open_generator(folder)
    strip = folder / "evolution.png"
    facts: dict[str, Any] = {"folder": str(folder), "hash": generator_hash(folder), **asdict(card)}
    facts["drawing"] = {name: getattr(drawer, name) for name in drawing_names(type(drawer))}
    facts["evolution"] = str(strip) if strip.is_file() else None
    facts["audits"] = read_audits(folder)
    if as_json:
        print_json(facts)
        return
    table = RichTable(escape(str(folder)), "", box=None, title_justify="left")
    shown = {**facts, "images": ", ".join(f"{c}: {n}" for c, n in zip(card.classes, card.images, strict=True))}
    del shown["evolution"], shown["audits"]
    for key, value in shown.items():
        table.add_row(f"  {key}", escape(str(value)))
    out.print(table)
    for audit in facts["audits"]:
        title = f"Audit of {audit['images']} images, {audit['created']}, by {audit['features']}"
        out.print(escape(" ".join([f"{title}:", audit["words"], *audit["warnings"]])), soft_wrap=True)
    if not facts["audits"]:
        out.print("Its images were not looked at for copies: raremix synthesize, then raremix quality", soft_wrap=True)
    if strip.is_file():
        out.print(f"How it came about: {escape(str(strip))}", soft_wrap=True)
