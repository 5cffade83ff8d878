"""What `raremix study --best` prints."""

from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table as RichTable

from raremix.cli.console import err, out, print_json, progress_bars, stopping


def run_for_best(spec: Any, *, runs: Path, cache: Path | None, as_json: bool, keep_test_closed: bool) -> None:
    """Run a study to one answer, and say what it is and how to use it."""
    from dataclasses import asdict

    from raremix.evaluate.metrics import METRICS
    from raremix.study.best.readme import choice_table, choice_words
    from raremix.study.best.run import run_best
    from raremix.study.prepare import cache_of

    say = (lambda text: None) if as_json else (lambda text: err.print(escape(text), soft_wrap=True))
    with progress_bars(quiet=as_json) as bars, stopping() as should_stop:
        found = run_best(
            spec,
            runs=runs,
            cache=cache_of(spec.data, cache),
            keep_test_closed=keep_test_closed,
            progress=bars,
            say=say,
            should_stop=should_stop,
        )
    choice = found.choice
    if as_json:
        print_json(
            {
                "folder": str(found.folder),
                "choice": asdict(choice),
                "classifier": None if found.classifier is None else str(found.classifier),
                "report": None if found.report is None else str(found.report),
                "notes": list(found.notes),
                "failed": found.failed,
                "record": found.record,
            }
        )
    else:
        title = f"{METRICS[choice.metric].title} on {choice.rows} images"
        table = RichTable("arm", "ingredients", "value", "standard error", "", title=escape(title))
        for row in choice_table(choice):
            table.add_row(*(escape(cell) for cell in row))
        out.print(table)
        out.print(escape(choice_words(choice)), soft_wrap=True)
        for note in found.notes:
            out.print(escape(note), soft_wrap=True)
        if found.record is not None:
            _print_worth(found.record, choice.metric, spec.folds)
            out.print(f"\nHow to use it: [bold]{escape(str(found.folder / 'best' / 'README.md'))}[/]", soft_wrap=True)
            out.print(f"Report: {escape(str(found.report))}", soft_wrap=True)
            out.print(f"Score new images: raremix predict {escape(str(found.classifier))} IMAGES", soft_wrap=True)
        else:
            out.print("The test images are closed. Open them for this arm: the same command without --keep-test-closed")
    if found.failed:
        raise SystemExit(1)


def _print_worth(record: dict[str, Any], metric: str, folds: int | None) -> None:
    from raremix.evaluate.metrics import METRICS

    overall = [m for m in record["metrics"] if m["scope"] == "overall" and m["metric"] == metric]
    for one in overall:
        interval = "" if one["low"] is None else f" ({one['low']:.3f} to {one['high']:.3f})"
        value = "undefined" if one["value"] is None else f"{one['value']:.3f}"
        rows = "test images, opened for this arm only" if folds is None else "out-of-fold predictions"
        out.print(f"{METRICS[metric].title} on {rows}: {value}{interval}", soft_wrap=True)
