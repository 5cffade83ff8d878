"""raremix sources: the public data sets that can be read, how to lay them out, and those that can be fetched."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table as RichTable
from typer.core import TyperGroup

from raremix.cli.console import DryRun, Json, err, out, print_json, progress_bars

_GET = {"open": "page", "registration": "apply"}


class _Named(TyperGroup):
    """Take a word that is no subcommand for the name of a data set, and no word at all for the list."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        if not args or (args[0].startswith("-") and args[0] not in {"-h", "--help"}):
            args = ["list", *args]
        elif args[0] not in self.commands and not args[0].startswith("-"):
            args = ["show", *args]
        return super().parse_args(ctx, args)


sources = typer.Typer(
    name="sources",
    help="Public data sets: what they are, how to lay them out, and fetching those that need no credentials.",
    epilog="raremix sources lists all; raremix sources isic2018 shows one.",
    cls=_Named,
)


@sources.command(name="list")
def list_(as_json: Json = False) -> None:
    """List the public data sets that raremix reads as they are published. (raremix sources is short for this.)

    raremix sources
    raremix sources --json
    """
    from dataclasses import asdict

    from raremix.data.sources.catalogue import CATALOGUE
    from raremix.data.sources.fetch import OPEN

    if as_json:
        print_json(
            {"sources": [asdict(about) | {"fetch": _can_fetch(about.name, OPEN)} for about in CATALOGUE.values()]}
        )
        return
    table = RichTable(box=None)
    for title in ("source", "task"):
        table.add_column(title, no_wrap=True)
    for title in ("classes", "images"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("get", no_wrap=True)
    table.add_column("data set, licence", overflow="fold")
    for about in CATALOGUE.values():
        table.add_row(
            about.name,
            about.task,
            str(len(about.classes) or "varies"),
            f"{about.images:,}",
            "fetch" if _can_fetch(about.name, OPEN) else _GET[about.access],
            f"{escape(about.title)}\n[dim]{escape(about.licence)}[/]",
        )
    out.print(table)
    out.print(
        "\nget: fetch: raremix sources fetch NAME FOLDER; page: from its page by hand; apply: an account or agreement."
        "\nLayout, address, citation and study file: raremix sources NAME. A folder in one of these layouts is "
        "recognised by raremix recommend, audit and study.",
        soft_wrap=True,
    )


@sources.command()
def show(
    name: Annotated[str, typer.Argument(help="A data set, as raremix sources lists them.")],
    as_json: Json = False,
) -> None:
    """Show one data set: facts, layout, study file. (raremix sources NAME is short for this.)

    raremix sources isic2018
    """
    from dataclasses import asdict

    from raremix.core.registry import look_up
    from raremix.data.sources.catalogue import CATALOGUE
    from raremix.data.sources.fetch import OPEN

    about = look_up(CATALOGUE, name, kind="public data set")
    if as_json:
        print_json(asdict(about) | {"fetch": _can_fetch(name, OPEN)})
        return
    facts = RichTable(box=None, show_header=False)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    classes = ", ".join(about.classes) if about.classes else "as the table says"
    rows = {
        "task": f"{about.task}: {classes}",
        "images": f"{about.images:,} ({about.modality})",
        "licence": about.licence,
        "access": f"{about.access}: {about.url}",
        "cite": about.citation,
        "note": about.notes,
    }
    for key, value in rows.items():
        if value:
            facts.add_row(key, escape(value))
    out.print(f"[bold]{escape(about.title)}[/]")
    out.print(facts)
    out.print(f"\n[bold]Layout[/]\n{escape(about.layout)}", soft_wrap=True)
    out.print(f"\n[bold]Study file[/]\n{escape(about.study)}", soft_wrap=True)
    if name == "medmnist":
        out.print("\nFetch one: raremix sources fetch retinamnist FOLDER --size 64")
    elif _can_fetch(name, OPEN):
        out.print(f"\nFetch it: raremix sources fetch {name} FOLDER")


@sources.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A set of MedMNIST, or a source that the list marks with fetch.")],
    folder: Annotated[Path, typer.Argument(help="Where data sets go; it is made.")],
    size: Annotated[int, typer.Option(help="28, 64, 128 or 224 pixels; for MedMNIST.")] = 28,
    keep_archives: Annotated[
        bool, typer.Option("--keep-archives", help="Keep archives after they were unpacked.")
    ] = False,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Fetch a data set that needs no credentials; running it again goes on where it broke off.

    raremix sources fetch retinamnist data/ --size 224
    raremix sources fetch fetal_planes data/
    """
    from raremix.data.sources.catalogue import CATALOGUE
    from raremix.data.sources.fetch import fetch as fetch_set
    from raremix.data.sources.fetch import parts_of

    parts = parts_of(name, size=size)
    about = CATALOGUE.get(name, CATALOGUE["medmnist"])
    if dry_run:
        facts = {"folder": str(folder), "files": [part.url for part in parts], "licence": about.licence}
        words = "\n".join(["would fetch", *(f"  {part.url}" for part in parts), f"into {folder}"])
        print_json(facts) if as_json else out.print(escape(words), soft_wrap=True)
        return
    if not as_json:
        err.print(escape(f"{about.title}: {about.licence}. Cite: {about.citation}"), soft_wrap=True)
    with progress_bars(quiet=as_json) as bars:
        place = fetch_set(name, folder, size=size, keep_archives=keep_archives, progress=bars(f"Fetching {name}"))
    if as_json:
        print_json({"path": str(place), "licence": about.licence, "citation": about.citation})
        return
    out.print(f"Here: [bold]{escape(str(place.resolve()))}[/]", soft_wrap=True)
    what = "medmnist" if about.name == "medmnist" else name
    if what == "medmnist":
        out.print(f"Use it: raremix study {escape(str(place))}", soft_wrap=True)
    else:
        out.print(
            f'Use it: the study file of raremix sources {what}, with path = "{escape(str(place))}"', soft_wrap=True
        )


def _can_fetch(name: str, known: Any) -> bool:
    return name in known or name == "medmnist"
