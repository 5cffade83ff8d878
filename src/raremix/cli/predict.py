"""raremix predict: score new images by a trained classifier."""

from pathlib import Path
from typing import Annotated

import typer

from raremix.cli.console import DryRun, Json, emit, progress_bars, shares_by_name, write_table


def predict(
    classifier: Annotated[Path, typer.Argument(help="Folder of a trained classifier.")],
    images: Annotated[list[Path], typer.Argument(help="Image files or folders of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the scores go: .csv or .parquet.")] = Path(
        "scores.csv"
    ),
    prevalence: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS=SHARE",
            help="How frequent a class is where the images come from; may be given again. Default: what the study "
            "stated, or else as in its validation images.",
        ),
    ] = None,
    label_vectors: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Vectors of further labels, which the classifier was not trained on: .safetensors, one tensor per "
            "label under its name, from the same text encoder. Needs a classifier of prototypes.",
        ),
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="A few images of further labels, one folder per label; with or without --label-vectors.",
        ),
    ] = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Score new images: one row per image with the probability of each class and the decision.

    raremix predict runs/demo/jobs/classical-seed0-1a2b3c4d/result/classifier new_images/ -o scores.csv
    raremix predict CLASSIFIER new_images/ --prevalence melanoma=0.02

    raremix predict CLASSIFIER new_images/ --label-vectors further.safetensors --examples few_images/
    """
    from raremix.core.errors import UsageError
    from raremix.models import load_classifier
    from raremix.study.apply import find_examples, find_images, predict_images

    paths = find_images(images)
    if output.suffix not in {".csv", ".parquet"}:
        raise UsageError(f"--output {output}: expected .csv or .parquet")
    few = None if examples is None else find_examples(examples)
    if dry_run:
        shares_by_name(prevalence)
        load_classifier(classifier)
        emit(as_json, {"images": len(paths), "output": str(output)}, f"would score {len(paths)} images into {output}")
        return
    with progress_bars(quiet=as_json) as bars:
        table = predict_images(
            classifier,
            paths,
            prevalence=shares_by_name(prevalence),
            vectors=label_vectors,
            examples=few,
            progress=bars("Predicting"),
        )
    write_table(output, table)
    emit(as_json, {"images": len(paths), "output": str(output)}, f"{len(paths)} images scored: {output}")
