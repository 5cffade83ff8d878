"""raremix maps: maps of what matters, for a whole data set."""

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

maps = typer.Typer(name="maps", help="Make maps of what matters in every image.", no_args_is_help=True)


@maps.callback()
def _root() -> None:
    """Make maps of what matters in every image."""


@maps.command()
def adm(
    data: Data,
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
    label: Label = None,
    group: Group = None,
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
    from raremix.study.generators.difference_maps import MapSettings, compute_maps, draw_maps
    from raremix.study.generators.draw import settings_of
    from raremix.study.generators.use import open_translator
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


@maps.command()
def score(
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="Data with true masks: a study file, phantom, a table with a mask column."),
    ],
    classifier: Annotated[Path, typer.Argument(metavar="CLASSIFIER", help="Folder of a trained classifier.")],
    translator: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of a fitted translator, for difference maps.")
    ] = None,
    split: Annotated[str, typer.Option(help="test, validation, train, or all.")] = "test",
    names: Annotated[
        str | None,
        typer.Option("--maps", metavar="A,B,C", help="Which maps. Default: all that the classifier allows."),
    ] = None,
    towards: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Of difference maps. Default: all that an image does not show.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="Where the Grad-CAM family looks, e.g. stage2. Default: the last stage.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Score at most so many images, drawn by the seed.")] = 300,
    steps: Annotated[int, typer.Option(min=0, help="Of insertion and deletion; 0 leaves them out.")] = 20,
    shown: Annotated[int, typer.Option("-n", min=1, max=32, help="Images in the picture.")] = 6,
    seed: Annotated[int, typer.Option(help="Of the resamples, and of what is drawn.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: CLASSIFIER/maps.")] = None,
    label: Label = None,
    group: Group = None,
    settings: Set = None,
    cache: CacheFolder = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Score every map of a classifier against true masks, beside maps that look at nothing.

    A map that does not beat `uniform` and `centre` says nothing about the lesion. Writes a table per image, a summary
    and a picture.

        raremix maps score studies/demo.toml runs/demo/jobs/classical-seed0-1a2b3c4d/result/classifier
        raremix maps score lesions.csv CLASSIFIER --label dx --group patient --maps gradcam,occlusion
        raremix maps score phantom CLASSIFIER --translator runs/generators/phantom-stargan
    """
    from dataclasses import asdict

    from raremix.study.defaults import study_of
    from raremix.study.localise.masks import masked_rows
    from raremix.study.localise.score import MASK_FREE, ScoreSettings, score_maps, write_scores
    from raremix.study.prepare import cache_of, split_manifest

    spec = study_of(data, settings=[*columns(label, group), *(settings or [])])
    folder = output or classifier / "maps"
    asked = ScoreSettings(
        split=split,
        maps=None if names is None else tuple(name.strip() for name in names.split(",") if name.strip()),
        layer=layer,
        towards=towards,
        most=most,
        steps=steps,
        shown=shown,
        seed=seed,
    )
    with progress_bars(quiet=as_json) as bars:
        manifest = spec.source.load(cache=cache_of(spec.data, cache), progress=bars("Reading images"))
        if split != "all":
            manifest = split_manifest(manifest, spec, fold=None)
        if dry_run:
            count = min(len(masked_rows(classifier, manifest, split)), most)
            facts = {"images": count, "output": str(folder)}
            emit(as_json, facts, f"would score maps on up to {count} images and write {folder}")
            return
        translators = {} if translator is None else {translator.name: translator}
        found = score_maps(classifier, manifest, translators=translators, settings=asked, progress=bars("Scoring maps"))
    facts = {"data": data, "classifier": str(classifier), "translator": None if translator is None else str(translator)}
    paths = write_scores(found, folder, facts={**facts, **asdict(asked)})
    if as_json:
        print_json({**paths, "left_out": found.left_out, "maps": found.summary.to_dicts()})
        return
    scored, patients = found.scored
    table = RichTable(title=f"{scored} images of {patients} patients: mean, and 95 % interval over patients")
    table.add_column("map", no_wrap=True)
    for figure in dict.fromkeys(found.summary["figure"]):
        table.add_column("deletion (low)" if figure == "deletion" else figure)
    for (name,), part in found.summary.group_by("map", maintain_order=True):
        cells = []
        for row in part.iter_rows(named=True):
            interval = "" if row["low"] is None else f"\n{row['low']:.2f}-{row['high']:.2f}"
            cells.append(f"{row['value']:.3f}{' *' if row['beats'] else ''}{interval}")
        flat = f"\n({part['flat'][0]} flat)" if part["flat"][0] and name != "uniform" else ""
        table.add_row(escape(f"{name}{flat}"), *cells)
    out.print(table)
    out.print("* better than uniform and centre on the same images: both intervals of the difference lie above 0")
    if found.with_masks > scored:
        out.print(f"{scored} of {found.with_masks} images with masks were drawn; --most {found.with_masks} scores all")
    if found.without_masks:
        out.print(f"{found.without_masks} images were left out: their mask is empty or full")
    if steps:
        out.print(f"{' and '.join(MASK_FREE)} need no mask: they say what the classifier hangs on, right or wrong")
    for name, why in found.left_out.items():
        out.print(escape(f"{name} is left out: {why}"), soft_wrap=True)
    out.print(f"Picture: {escape(paths['picture'])}   per image: {escape(paths['images'])}", soft_wrap=True)
