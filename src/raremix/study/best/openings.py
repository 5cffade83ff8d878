"""Score test images after training: for a study whose choice was made while they were closed."""

from pathlib import Path

import torch

from raremix.core import files
from raremix.evaluate.calibration import scores_from_logits
from raremix.models import load_classifier
from raremix.study.job import Job
from raremix.study.prepare import Prepared
from raremix.study.record.outcomes import LATER
from raremix.study.results import predictions_of
from raremix.study.spec import StudySpec
from raremix.study.training import logits_of
from raremix.train.spec import make_fabric


def is_test_closed(folder: Path) -> bool:
    """Return whether a job has a result, and has not scored the test images yet."""
    result = folder / "result" / "result.json"
    if not result.is_file() or (folder / LATER).is_dir():
        return False
    # Results from before there was a choice hold both splits, and do not say so.
    return "test" not in files.read_json(result).get("splits", ["validation", "test"])


def open_test_rows(spec: StudySpec, prepared: Prepared, job: Job, *, folder: Path) -> None:
    """Score the test images by a job's classifier, if that was not done; the predictions appear by one rename.

    Args:
        spec: the study.
        prepared: its data.
        job: which classifier.
        folder: the job's folder.

    Raises:
        CorruptError: if the classifier is damaged.
    """
    if not is_test_closed(folder):
        return
    model, card = load_classifier(folder / "result" / "classifier")
    train = spec.train_of(spec.arm(job.arm))
    fabric = make_fabric(train)
    model = model.to(fabric.device)
    if train.channels_last:
        model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    logits = logits_of(model, prepared, "test", fabric, train)
    scores = scores_from_logits(logits, task=card.task, temperature=card.temperature)
    with files.atomic_folder(folder / LATER) as draft:
        table = predictions_of(prepared.manifest, "test", logits, scores)
        files.write_parquet(draft / "predictions.parquet", table)
        files.seal(draft, ["predictions.parquet"])
