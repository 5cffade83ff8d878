"""What jobs left, read back and lined up: every arm's scores of every test row."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from raremix.core import files
from raremix.core.errors import CorruptError
from raremix.core.types import Split
from raremix.data.manifest import Manifest
from raremix.evaluate.probability import Probabilities
from raremix.study.probabilities import fitted_to_predictions
from raremix.study.spec import StudySpec
from raremix.study.stages import FIRST

LATER = "test"
"""Folder beside a job's `result`, with predictions of test images that were not opened when it was trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a job left.

    Attributes:
        facts: `result.json`.
        timing: `timing.json`.
        predictions: logits and scores by manifest id, validation and, once its rows were opened, test.
        history: the log.
        folder: the job's folder.
    """

    facts: dict[str, Any]
    timing: dict[str, Any]
    predictions: pl.DataFrame
    history: list[dict[str, Any]]
    folder: Path

    @classmethod
    def read(cls, folder: Path) -> "Outcome":
        """Read a job's result.

        Raises:
            CorruptError: if a file of it is damaged.
        """
        result = folder / "result"
        files.verify(result, advice=f"delete the folder {result} and run the study again")
        try:
            predictions = pl.read_parquet(result / "predictions.parquet")
            if (folder / LATER).is_dir():
                files.verify(folder / LATER, advice=f"delete the folder {folder / LATER} and run the study again")
                later = pl.read_parquet(folder / LATER / "predictions.parquet")
                predictions = pl.concat([predictions, later])
        except (OSError, pl.exceptions.PolarsError) as error:
            raise CorruptError(f"{result} is damaged ({error}): delete the folder and run the study again") from None
        facts = files.read_json(result / "result.json")
        return cls(
            facts=facts,
            timing=files.read_json(result / "timing.json"),
            predictions=predictions,
            history=_history(folder, facts.get("recipe", {}).get("stages")),
            folder=folder,
        )


def _history(folder: Path, stages: list[int] | None) -> list[dict[str, Any]]:
    """Read a job's log; that of a second stage goes on counting where the first one's ends."""
    last = files.read_records(folder / "log.jsonl")
    if stages is None:
        return last
    first = files.read_records(folder / FIRST / "log.jsonl")
    return [*first, *({**record, "step": stages[0] + record["step"]} for record in last)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TestRows:
    """The test (or validation) rows of a study as arrays: the truth, and what every arm said.

    Attributes:
        ids: manifest ids.
        targets: labels.
        groups: patients.
        attributes: subgroup columns.
        scores: per arm, over the seeds that all its folds have: what is ranked and decided by.
        probabilities: likewise, right for images as they come: what Brier score and calibration look at.
        calibrations: per arm, seed and fold, how logits became probabilities.
        thresholds: per arm, seed, row and class.
        seeds: per arm, which seeds are there.
    """

    ids: Int[np.ndarray, " N"]
    targets: Float[np.ndarray, "N K"]
    groups: np.ndarray
    attributes: dict[str, np.ndarray]
    scores: dict[str, np.ndarray]
    probabilities: dict[str, np.ndarray]
    calibrations: dict[str, list[Probabilities]]
    thresholds: dict[str, np.ndarray]
    seeds: dict[str, list[int]]


def collect(spec: StudySpec, manifest: Manifest, outcomes: Mapping[Any, Outcome], *, split: Split = "test") -> TestRows:
    """Line up what every arm and seed said about every row of a split.

    Where the study has folds, the out-of-fold predictions of a seed are pooled, each with its fold's thresholds; a seed
    counts once all its folds are there.

    Args:
        spec: the study.
        manifest: its data, of any fold.
        outcomes: the results that are there.
        split: "test" or "validation"; with folds, every row is a test row once.
    """
    classes = manifest.card.classes
    ids = np.sort(manifest.ids if spec.folds is not None else manifest.rows(split))
    positions = manifest.positions(ids)
    scores: dict[str, np.ndarray] = {}
    believed: dict[str, np.ndarray] = {}
    calibrations: dict[str, list[Probabilities]] = {}
    thresholds: dict[str, np.ndarray] = {}
    seeds: dict[str, list[int]] = {}
    for arm in spec.arms:
        whole, sure, limits, found, fitted = [], [], [], [], []
        for seed in spec.seeds:
            parts = [o for job, o in outcomes.items() if job.arm == arm.name and job.seed == seed]
            if len(parts) != (spec.folds or 1):
                continue
            values, chances, limit = (np.full((len(ids), len(classes)), np.nan) for _ in range(3))
            for part in parts:
                calibration = fitted_to_predictions(spec, arm, manifest, part.predictions)
                test = part.predictions.filter(pl.col("split") == ("test" if spec.folds is not None else split))
                place = np.searchsorted(ids, test["id"].to_numpy())
                values[place] = test.select(f"score:{name}" for name in classes).to_numpy()
                logits = test.select(f"logit:{name}" for name in classes).to_numpy().astype(np.float64)
                chances[place] = calibration.of(logits, task=manifest.card.task)
                limit[place] = part.facts["thresholds"]
                fitted.append(calibration)
            whole.append(values)
            sure.append(chances)
            limits.append(limit)
            found.append(seed)
        if whole:
            scores[arm.name], thresholds[arm.name], seeds[arm.name] = np.stack(whole), np.stack(limits), found
            believed[arm.name], calibrations[arm.name] = np.stack(sure), fitted
    frame = manifest.frame[positions]
    return TestRows(
        ids=ids,
        targets=manifest.targets(ids),
        groups=frame["group"].to_numpy(),
        attributes={name: frame[name].cast(pl.Utf8).to_numpy() for name in spec.data.subgroups},
        scores=scores,
        probabilities=believed,
        calibrations=calibrations,
        thresholds=thresholds,
        seeds=seeds,
    )


def all_predictions(outcomes: Mapping[Any, Outcome]) -> pl.DataFrame:
    """Put every prediction of every image, arm, seed and fold into one table."""
    if not outcomes:
        return pl.DataFrame()
    return pl.concat(
        outcome.predictions.select(
            pl.lit(job.arm).alias("arm"),
            pl.lit(job.seed).alias("seed"),
            pl.lit(job.fold, dtype=pl.Int64).alias("fold"),
            pl.all(),
        )
        for job, outcome in outcomes.items()
    )
