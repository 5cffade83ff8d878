"""raremix inspect: how each file is read, or why it is not."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from raremix.cli.console import DryRun, Json, Set, emit, err, out, print_json, progress_bars, write_table


def inspect(
    places: Annotated[list[Path], typer.Argument(metavar="FILE_OR_FOLDER...", help="Image files, or folders of them.")],
    settings: Set = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the table: .csv, .parquet or .md (Markdown).")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Also draw what was read, small, on one sheet (.png).")
    ] = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Say of each file how it is read (frame, window, colours), or why it is not.

    Nothing of a DICOM header but the picture's own properties is shown. Exit code 1 if a file cannot be read.

        raremix inspect scan.dcm
        raremix inspect dicom/ --set frames=middle -o inspected.csv --picture sheet.png
        raremix inspect brain.nii.gz --set frames=middle --set plane=coronal
        raremix inspect ct/ --set "window=[40, 400]"
    """
    from raremix.config import build, override
    from raremix.core import files
    from raremix.core.errors import UsageError
    from raremix.data.inspection import find_files, inspect_files, sheet, to_markdown
    from raremix.data.readers import Reading

    if output is not None and output.suffix not in {".csv", ".parquet", ".md"}:
        raise UsageError(f"--output {output}: expected .csv, .parquet or .md")
    if picture is not None and picture.suffix != ".png":
        raise UsageError(f"--picture {picture}: expected .png")
    reading = build(Reading, override({}, settings or ()), where="--set")
    paths = find_files(places)
    if dry_run:
        emit(as_json, {"files": len(paths), "reading": reading.key()}, f"would read {len(paths)} files")
        return
    with progress_bars(quiet=as_json) as bars:
        table, pictures = inspect_files(
            paths, reading=reading, thumbnails=picture is not None, progress=bars("Reading files")
        )
    failed = int((table["why not"] != "").sum())
    if output is not None and output.suffix == ".md":
        files.write_text(output, to_markdown(table))
    elif output is not None:
        write_table(output, table)
    if picture is not None and pictures:
        files.write_image(picture, sheet(pictures))
    if as_json:
        print_json({"files": table.to_dicts(), "read": table.height - failed, "failed": failed})
    else:
        _show(table, written=[path for path in (output, picture) if path is not None])
    if failed:
        raise typer.Exit(1)


def _show(table: Any, *, written: list[Path]) -> None:
    shown = Table(*table.columns[:-1], box=None)
    for row in table.iter_rows(named=True):
        how = f"[red]{escape(row['why not'])}[/]" if row["why not"] else escape(row["how"])
        shown.add_row(escape(row["file"]), escape(row["kind"]), row["picture"], how)
    out.print(shown)
    read = int((table["why not"] == "").sum())
    out.print(f"{read} of {table.height} files were read.")
    for path in written:
        out.print(f"Written: {escape(str(path))}", soft_wrap=True)
    if table["why not"].str.contains("frames, expected one").any():
        err.print("Several frames: choose with --set frames=middle (first, middle, max, or a number)")
    if read:
        advice = 'Train on them: raremix train FOLDER; in a study file, [data] reading = { frames = "middle" }'
        out.print(escape(advice), soft_wrap=True)
