"""raremix show: pictures of what methods do to one's own images."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from raremix.cli.console import (
    CacheFolder,
    Data,
    DryRun,
    Group,
    Json,
    Label,
    Set,
    columns,
    err,
    out,
    print_json,
    progress_bars,
)

show = typer.Typer(name="show", help="Draw what methods do to your images.", no_args_is_help=True)


@show.callback()
def _root() -> None:
    """Draw what methods do to your images."""


@show.command()
def mixes(
    place: Data = "phantom",
    method: Annotated[
        list[str] | None, typer.Option("--method", "-m", help="A mixer by name; may be given again. Default: all.")
    ] = None,
    settings: Set = None,
    label: Label = None,
    group: Group = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures.")] = Path("runs/gallery"),
    pairs: Annotated[int, typer.Option(min=1, max=16, help="Pairs of images per method.")] = 3,
    seed: Annotated[int, typer.Option(help="Chooses the images.")] = 0,
    cache: CacheFolder = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Draw each mixer on your images: the pair, importance, mask, result and label; one page to look through.

    raremix show mixes my_images/
    raremix show mixes labels.csv --label diagnosis -m cutmix -m saliencymix
    raremix show mixes phantom --set data.modality=chest_xray
    """
    from raremix.mix import LEARNED_MIXERS, MIXERS
    from raremix.study.defaults import study_of
    from raremix.study.gallery import check_names, draw_gallery
    from raremix.study.prepare import cache_of, prepare

    names = tuple(method or ())
    check_names(names)
    spec = study_of(place, settings=[*columns(label, group), *(settings or [])])
    if dry_run:
        wanted = names or (*MIXERS, *LEARNED_MIXERS)
        words = f"would draw {len(wanted)} mixers on {place} into {output}"
        print_json({"output": str(output), "mixers": wanted}) if as_json else out.print(escape(words))
        return
    options = {"--method": names, "--set": settings or (), "--label": label or (), "--group": group or ()}
    options |= {"--pairs": (pairs,) if pairs != 3 else (), "--seed": (seed,) if seed else ()}
    made_by = ["raremix", "show", "mixes", place]
    for option, values in options.items():
        for value in (values,) if isinstance(values, str) else values:
            made_by += [option, str(value)]
    with progress_bars(quiet=as_json) as bars:
        prepared = prepare(spec, cache=cache_of(spec.data, cache), progress=bars("Reading images"))
        found = draw_gallery(
            spec,
            prepared,
            output,
            names=names,
            pairs=pairs,
            seed=seed,
            made_by=shlex.join([*made_by, "--output", str(output)]),
            progress=bars("Drawing mixers"),
        )
    if as_json:
        print_json({"gallery": str(output / "gallery.html"), "mixers": found})
        return
    for name, said in found.items():
        if not said.endswith(".png"):
            err.print(f"{name} is {escape(said)}", soft_wrap=True)
    out.print(f"Gallery: [bold]{escape(str((output / 'gallery.html').resolve()))}[/]", soft_wrap=True)
    out.print("Use one in a study: raremix study DATA --set arm.mixup.mix=NAME", soft_wrap=True)


@show.command(name="coverage")
def coverage_(
    place: Data = "phantom",
    samplers: Annotated[
        list[str] | None, typer.Option("--sampler", "-s", help="A sampler by name; may be given again. Default: all.")
    ] = None,
    settings: Set = None,
    label: Label = None,
    group: Group = None,
    cache: CacheFolder = None,
    as_json: Json = False,
) -> None:
    """Count what each sampler would show in an epoch: images per label, repeats, labels that go together.

    raremix show coverage labels.csv --label diagnosis
    raremix show coverage studies/nih_cxr14_64.toml -s balanced -s label_balanced
    """
    from rich.table import Table

    from raremix.core.registry import look_up
    from raremix.data.samplers import SAMPLERS
    from raremix.study.defaults import study_of
    from raremix.study.prepare import cache_of, prepare
    from raremix.study.record.coverage import sampler_coverage

    names = tuple(samplers or SAMPLERS)
    for name in names:
        look_up(SAMPLERS, name, kind="sampler")
    spec = study_of(place, settings=[*columns(label, group), *(settings or [])])
    with progress_bars(quiet=as_json) as bars:
        prepared = prepare(spec, cache=cache_of(spec.data, cache), progress=bars("Reading images"))
    found = {name: sampler_coverage(spec, prepared, name) for name in names}
    if as_json:
        print_json({"coverage": found})
        return
    for name, facts in found.items():
        table = Table("label", "images", "drawn", "different", title=f"{name}: an epoch of {facts['images']} draws")
        for row in facts["labels"]:
            table.add_row(*(escape(f"{value:g}" if isinstance(value, float) else str(value)) for value in row.values()))
        out.print(table)
        before, after = facts["labels_per_image"]
        out.print(
            f"{100 * facts['unseen']:.0f} % of the images are left out of an epoch; one comes {facts['most']} times at "
            f"most; {before:.2f} labels an image, drawn {after:.2f}; {100 * facts['moved']:.1f} % of the draws show "
            "labels together otherwise than the images do",
            soft_wrap=True,
        )
    out.print("Use one in a study: raremix study DATA --set arm.baseline.sampler=NAME", soft_wrap=True)
