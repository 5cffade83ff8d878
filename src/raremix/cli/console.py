"""What the verbs share: the console, the common options, progress bars, stopping, and printing."""

import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from raremix.core.errors import UsageError

out, err = Console(highlight=False), Console(stderr=True, highlight=False)

Progress = Callable[[str, int, int], None]
"""As `raremix.core.types.Progress`, whose module imports torch: `raremix --help` need not."""

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA", help="A study file, a folder with one folder per class, a table, an .npz, or phantom."
    ),
]
Label = Annotated[str | None, typer.Option("--label", help="Label column, if the data are a table.")]
Group = Annotated[str | None, typer.Option("--group", help="Patient or lesion column, if the data are a table.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a setting, e.g. train.steps=200 or arm.mixup.mix.alpha=0.4."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and say what would be done; change nothing.")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder of all run folders.")]
CacheFolder = Annotated[
    Path | None, typer.Option("--cache", help="Folder of decoded images. Default: ~/.cache/raremix. Safe to delete.")
]
OnUnreadable = Annotated[
    Literal["refuse", "skip"] | None,
    typer.Option(
        "--on-unreadable",
        help="Files that cannot be read: refuse (the default) names them and stops; skip leaves them out, and lists "
        "them in quarantine.csv.",
    ),
]
RUNS = Path("runs")

_stopped_by: int | None = None


def stopped_by() -> int | None:
    """Return the signal that asked to stop, or None."""
    return _stopped_by


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a wish to stop at the next step; the second ends at once."""
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        global _stopped_by  # noqa: PLW0603 - what a signal handler can reach
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        _stopped_by = number
        err.print("stopping after this step; again to stop at once")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress_bars(*, quiet: bool) -> Iterator[Callable[[str], Progress]]:
    """Yield a function that opens a progress bar on standard error and returns its callback."""
    if quiet:
        yield lambda title: lambda what, done, total: None
        return
    parts = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*parts, console=err) as shown:

        def open_bar(title: str) -> Progress:
            # Seen once there is something to wait for: what comes from the cache takes no time.
            task = shown.add_task(escape(title), total=None, start=False, visible=False)

            def advance(what: str, done: int, total: int) -> None:
                shown.start_task(task)
                shown.update(task, completed=done, total=total, visible=True)

            return advance

        yield open_bar


def columns(label: str | None, group: str | None, on_unreadable: str | None = None) -> list[str]:
    found = {"label": label, "group": group, "on_unreadable": on_unreadable}
    return [f"data.{key}={json.dumps(value)}" for key, value in found.items() if value]


def shares_by_name(texts: list[str] | None) -> dict[str, float]:
    """Return NAME=SHARE options as a table."""
    shares = {}
    for text in texts or []:
        name, equals, share = text.rpartition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise UsageError(f"{text!r}: expected CLASS=SHARE, for example melanoma=0.02")
    return shares


def write_table(path: Path, table: Any) -> None:
    from raremix.core import files

    if path.suffix == ".parquet":
        files.write_parquet(path, table)
    elif path.suffix == ".csv":
        files.write_csv(path, table)
    else:
        raise UsageError(f"--output {path}: expected .csv or .parquet")


def fitting(rows: Sequence[Sequence[str]], *, width: int) -> Sequence[Sequence[str]]:
    """Turn a table on its side where it is wider than the terminal, if that makes it narrower.

    Args:
        rows: the headings, then the rows.
        width: of the terminal, in characters.

    Example:
        >>> fitting([["arm", "AUROC", "F1"], ["mixup", ".9", ".8"]], width=20)
        [('arm', 'mixup'), ('AUROC', '.9'), ('F1', '.8')]
    """
    columns = len(rows[0])
    return list(zip(*rows, strict=True)) if len(rows) < columns and COLUMN * columns > width else rows


COLUMN = 11
"""Characters that a column of figures needs."""


def emit(as_json: bool, facts: dict[str, Any], text: str) -> None:
    if as_json:
        print_json(facts)
    else:
        out.print(escape(text), soft_wrap=True)


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
