"""All metrics of one arm with their intervals, as one table: overall, per class, per band, per subgroup.

How an interval is made depends on the figure and is said in the column `method`:

- a share of rows (sensitivity of a class, accuracy): Wilson, with an effective number of rows where patients have
  several or seeds vary;
- the AUROC of a class: union of logit-DeLong (clustered) and Newcombe's method 5; for a recipe with the larger of
  DeLong's and the two-level bootstrap's variance;
- average precision and macro AUROC: normal on the logit scale, with the bootstrap's spread;
- balanced accuracy, Youden's J and macro sensitivity or specificity: union of the percentile bootstrap and
  square-and-add of Wilson intervals, because resamples of a few correct rows never show an error;
- all others: percentile bootstrap.

With fewer than ten patients of a class only its shares of rows get an interval: there is nothing honest to say about
others.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import Float

from raremix.core.errors import DataError
from raremix.core.registry import look_up
from raremix.core.types import Task
from raremix.evaluate.bands import BANDS, bands
from raremix.evaluate.compare import Claim, canonical_order
from raremix.evaluate.metrics import METRICS
from raremix.evaluate.part import Part
from raremix.evaluate.rows import Scores, Thresholds, broadcast_thresholds, checked_scores, checked_targets

SCHEMA: dict[str, type[pl.DataType]] = {
    "metric": pl.String,
    "scope": pl.String,
    "label": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "n": pl.Int64,
    "groups": pl.Int64,
    "positives": pl.Int64,
    "note": pl.String,
    "method": pl.String,
}
MISSING = "(missing)"


def measure(
    targets: Float[np.ndarray, "N K"],
    scores: Scores,
    *,
    task: Task,
    classes: Sequence[str],
    groups: np.ndarray,
    thresholds: Thresholds | None = None,
    probabilities: Scores | None = None,
    train_counts: Sequence[int] | np.ndarray | None = None,
    attributes: Mapping[str, np.ndarray] | None = None,
    metrics: Sequence[str] | None = None,
    claim: Claim | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> pl.DataFrame:
    """Measure one arm on the test rows.

    Args:
        targets: 1, 0 or NaN, (N, K).
        scores: probabilities: (N, K) of one set of weights, or (S, N, K) of a recipe over seeds, whose values are
            averaged.
        task: what the columns mean.
        classes: their K names.
        groups: the patient of each row, (N,).
        thresholds: from validation, per class, per seed and class, or per seed, row and class; None means one half.
        probabilities: of the same shape as the scores, where they are not the scores: what Brier score, log loss and
            calibration look at. Decisions and rankings are always those of the scores.
        train_counts: training images per class; with them head, medium and tail are averaged (see `bands`).
        attributes: columns such as sex or device, (N,) each; every level is measured by itself. None or "" is missing.
        metrics: names of `METRICS`; None means all.
        claim: "recipe" resamples patients and seeds, "weights" patients. None: a recipe where there are seeds.
        resamples: of the bootstrap.
        seed: of its random stream.

    Returns:
        Columns metric, scope ("overall", "class", "band", "subgroup"), label, value, low, high, n (labelled rows),
        groups (their patients), positives (patients with a positive row of the class, or of the rarest class of the
        scope), note, method. What is undefined is null, and the note says why.

    Raises:
        DataError, TargetError: if rows, classes and task do not fit each other.
        UnknownNameError: if there is no such metric.

    Example:
        >>> targets = np.tile(np.eye(2), (20, 1))
        >>> table = measure(
        ...     targets,
        ...     np.clip(targets, 0.1, 0.9),
        ...     task="binary",
        ...     classes=["normal", "ill"],
        ...     groups=np.arange(40),
        ...     metrics=["auroc"],
        ... )
        >>> table.row(0)[:4]
        ('auroc', 'overall', '', 1.0)
    """
    truth = checked_targets(targets, task=task)
    values = checked_scores(scores, like=truth)
    S, N, K = values.shape
    if len(classes) != K:
        raise DataError(f"expected {K} class names, got {len(classes)}: {', '.join(classes)}")
    if train_counts is not None and len(train_counts) != K:
        raise DataError(f"expected {K} training counts, got {len(train_counts)}: one per class")
    names = list(METRICS) if metrics is None else list(metrics)
    for name in names:
        look_up(METRICS, name, kind="metric")
    limits = broadcast_thresholds(thresholds, (S, N, K))
    believed = None if probabilities is None else checked_scores(probabilities, like=truth)
    if believed is not None and len(believed) != S:
        raise DataError(f"expected probabilities for {S} seeds, as there are scores, got {len(believed)}")
    kind: Claim = claim or ("recipe" if S > 1 else "weights")
    order = canonical_order(groups, truth, values)
    attributes = {column: np.asarray(level) for column, level in (attributes or {}).items()}
    for column, level in attributes.items():
        if level.shape != (N,):
            raise DataError(f"expected a value of {column!r} for each of {N} rows, got {level.shape}")

    def part(rows: np.ndarray, wanted: list[str]) -> "Part":
        return Part.of(
            truth[rows],
            values[:, rows],
            limits[:, rows],
            np.asarray(groups)[rows],
            task=task,
            classes=list(classes),
            metrics=wanted,
            claim=kind,
            resamples=resamples,
            seed=seed,
            probabilities=None if believed is None else believed[:, rows],
        )

    whole = part(order, names)
    table = [whole.row(name, "overall", "", range(K), 0) for name in names]
    table += [whole.row(name, "class", classes[k], [k], 1 + k) for name in names for k in range(K)]
    if train_counts is not None:
        found = bands(np.asarray(train_counts, dtype=np.float64))
        members = {band: [k for k in range(K) if found[k] == band] for band in BANDS}
        table += [whole.row(name, "band", band, ks, None) for name in names for band, ks in members.items() if ks]
    for column, level in attributes.items():
        text = np.array([MISSING if v is None or str(v) in {"", "nan", "None"} else str(v) for v in level])[order]
        for value in np.unique(text):
            here = part(order[text == value], names)
            table += [here.row(name, "subgroup", f"{column}={value}", range(K), 0) for name in names]
    return pl.DataFrame(table, schema=SCHEMA, orient="row")
