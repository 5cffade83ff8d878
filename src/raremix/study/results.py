"""Write what a job left: predictions, facts, timing, and the classifier's folder, by one rename."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from lightning_fabric import Fabric

from raremix import __version__
from raremix.core import files
from raremix.core.features import head_of
from raremix.core.types import SPLITS, Split, Task
from raremix.data.manifest import Manifest
from raremix.evaluate.calibration import fit_temperature, scores_from_logits
from raremix.evaluate.decide import ValidationRows, choose_thresholds
from raremix.evaluate.metrics import METRICS
from raremix.models import ClassifierCard, save_classifier
from raremix.study.fitted import fitted_facts, rows_of
from raremix.study.job import Job
from raremix.study.prepare import Prepared
from raremix.study.probabilities import deployed, fit_arm_probabilities
from raremix.study.spec import StudySpec
from raremix.study.stages import TrainedArm, forget_stages
from raremix.study.training import selection_metric
from raremix.train.spec import resolve_precision

RESULT_FILES = ("predictions.parquet", "result.json", "timing.json")
"""The files of a result, beside the classifier's folder, that its `manifest.json` vouches for."""


def write_result(
    spec: StudySpec,
    prepared: Prepared,
    job: Job,
    trained: TrainedArm,
    outputs: Mapping[str, Float[np.ndarray, "N K"]],
    *,
    folder: Path,
    seconds: float,
    fabric: Fabric,
) -> None:
    """Write a job's result, and drop its checkpoints.

    Args:
        spec: the study.
        prepared: the arm's data.
        job: which classifier.
        trained: the classifier, and how its training ended.
        outputs: its logits of the images of splits, validation among them.
        folder: the job's folder, in which `result/` appears.
        seconds: since the job began.
        fabric: what it ran on.
    """
    fitted, model = trained.fitted, trained.model
    manifest, arm = prepared.manifest, spec.arm(job.arm)
    card, train, network = manifest.card, spec.train_of(arm), spec.model_of(arm)
    chosen_on = manifest.rows("validation")
    targets, splits = manifest.targets(chosen_on), manifest.splits(chosen_on)
    rows = ValidationRows(targets=targets, outputs=outputs["validation"], split=splits)
    temperature = fit_temperature(rows, task=card.task)
    scores = {s: scores_from_logits(logits, task=card.task, temperature=temperature) for s, logits in outputs.items()}
    # Probabilities hold for images as they come, whatever else chose the moment and the thresholds.
    is_real = _is_real(manifest, chosen_on)
    believed = fit_arm_probabilities(
        spec,
        arm,
        manifest,
        ValidationRows(
            targets=targets[is_real], outputs=outputs["validation"][is_real], split=np.asarray(splits)[is_real]
        ),
    )
    thresholds = choose_thresholds(
        ValidationRows(targets=targets, outputs=scores["validation"], split=splits),
        task=card.task,
        rule=spec.threshold,
    )
    tables = [predictions_of(manifest, split, outputs[split], scores[split]) for split in SPLITS if split in outputs]
    used = {"classifier": trained.rows, "class counts": manifest.rows("train")}
    chosen = ("moment", "thresholds", "temperature", *(("recipe",) if trained.chosen else ()))
    used |= dict.fromkeys(chosen, chosen_on)
    facts = {
        "arm": job.arm,
        "seed": job.seed,
        "fold": job.fold,
        "key": job.key,
        "temperature": temperature,
        "thresholds": thresholds.tolist(),
        "best_step": fitted.best_step,
        "best_value": fitted.best_value,
        "steps": train.steps,
        "exact": fitted.exact,
        "notes": list(fitted.notes),
        "splits": list(outputs),
        **({"recipe": trained.chosen} if trained.chosen else {}),
        "fitted_on": fitted_facts(manifest, used),
    }
    timing = {
        "seconds": seconds,
        "images_per_second": fitted.steps_done * train.batch_size / max(fitted.seconds, 1e-9),
        "threads": torch.get_num_threads(),
        "device": str(fabric.device),
        "precision": resolve_precision(train),
    }
    with files.atomic_folder(folder / "result") as draft:
        files.write_parquet(draft / "predictions.parquet", pl.concat(tables))
        files.write_json(draft / "result.json", facts)
        files.write_json(draft / "timing.json", timing)
        files.seal(draft, RESULT_FILES)
        save_classifier(
            draft / "classifier",
            architecture=network.architecture(size=spec.data.size),
            weights=dict(model.net.state_dict()),
            mean=model.mean,
            std=model.std,
            options=network.arguments(size=spec.data.size),
            head=getattr(head_of(model.net), "settings", None),
            fitted_on={"train": rows_of(manifest, trained.rows), "validation": rows_of(manifest, chosen_on)},
            card=ClassifierCard(
                task=card.task,
                classes=card.classes,
                size=spec.data.size,
                channels=prepared.channels,
                bits=spec.data.bits,
                resize=spec.data.resize,
                reading=spec.data.reading.key(),
                thresholds=tuple(float(t) for t in thresholds),
                temperature=temperature,
                modality=card.modality,
                manifest_hash=manifest.hash(),
                probabilities={**asdict(believed), "deployed": deployed(spec, manifest, believed.prevalence)},
                training={
                    "study": spec.name,
                    "arm": job.arm,
                    "seed": job.seed,
                    "steps": f"{fitted.best_step} of {train.steps} (best validation {_metric_name(spec, card.task)})",
                    "data": f"{card.name}, {len(manifest.rows('train'))} training images",
                    "raremix": __version__,
                },
            ),
        )
    forget_stages(folder)


def predictions_of(
    manifest: Manifest, split: Split, logits: Float[np.ndarray, "N K"], scores: Float[np.ndarray, "N K"]
) -> pl.DataFrame:
    """Put what was said about a split's real images into a table, by manifest id."""
    names, ids = manifest.card.classes, manifest.rows(split)
    is_real = _is_real(manifest, ids)
    columns: dict[str, Any] = {"id": ids[is_real], "split": split}
    columns |= {f"logit:{name}": logits[is_real, k] for k, name in enumerate(names)}
    columns |= {f"score:{name}": scores[is_real, k] for k, name in enumerate(names)}
    return pl.DataFrame(columns)


def _is_real(manifest: Manifest, ids: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    return manifest.frame["origin"].gather(manifest.positions(ids)).to_numpy() == "real"


def _metric_name(spec: StudySpec, task: Task) -> str:
    return METRICS[selection_metric(spec, task)].title
