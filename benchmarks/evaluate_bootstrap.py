"""What resampling patients costs: seconds and peak memory of tables and comparisons, on simulated test sets.

Every case runs in a process of its own, on one core (set OMP_NUM_THREADS for more). The first is the promise: 10,000
resamples of 25,000 rows x 14 labels for all threshold metrics in under a minute, with memory that hardly grows with
the number of resamples (a block of a hundred is held at a time). Processor seconds are what remains comparable on a
machine that does other things too; memory is what is used beyond the imports and the data.

    python benchmarks/evaluate_bootstrap.py
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from raremix.core import files
from raremix.core.types import Task
from raremix.evaluate import METRICS, compare, measure

THRESHOLD = [name for name, metric in METRICS.items() if metric.family == "counts"]
LABELS = np.geomspace(0.15, 0.002, 14)
SKIN = np.array([0.72, 0.1, 0.08, 0.045, 0.03, 0.013, 0.012])


def chest(rows: int, patients: int, seeds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Simulate a multi-label test set of 14 findings: targets, scores, patients."""
    rng = np.random.default_rng(0)
    targets = (rng.random((rows, len(LABELS))) < LABELS).astype(float)
    scores = np.clip(rng.random((seeds, rows, len(LABELS))) * 0.7 + 0.3 * targets, 0, 1)
    return targets, scores, rng.integers(0, patients, size=rows)


def skin(rows: int, seeds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Simulate a long-tailed seven-class test set: targets, scores, patients."""
    rng = np.random.default_rng(0)
    targets = np.eye(len(SKIN))[rng.choice(len(SKIN), rows, p=SKIN)]
    odds = np.exp(2 * targets + rng.normal(size=(seeds, rows, len(SKIN))))
    return targets, odds / odds.sum(axis=2, keepdims=True), np.arange(rows)


def table(data: tuple[np.ndarray, np.ndarray, np.ndarray], task: Task, resamples: int, **options: object) -> None:
    """Measure one arm."""
    targets, scores, groups = data
    classes = [f"class {k}" for k in range(targets.shape[1])]
    measure(targets, scores, task=task, classes=classes, groups=groups, resamples=resamples, **options)  # type: ignore[arg-type]


def skin_table() -> None:
    """Measure one arm as the report does, with two subgroup columns."""
    rng = np.random.default_rng(1)
    attributes = {"sex": rng.choice(["F", "M"], 1200), "age": rng.choice(["<40", "40-60", "60-80", ">80"], 1200)}
    table(skin(1200, 3), "multiclass", 2000, attributes=attributes, train_counts=(SKIN * 5000).astype(int))


def difference(metric: str) -> None:
    """Compare two arms of three seeds."""
    targets, scores, groups = skin(1200, 6)
    compare(targets, scores[:3], scores[3:], metric=metric, task="multiclass", groups=groups, resamples=10_000)


CASES: dict[str, tuple[Callable[[], None], float | None]] = {
    "table, 10 threshold metrics: 25,000 rows x 14 labels, 25,000 patients, 10,000 resamples": (
        lambda: table(chest(25_000, 10**9, 1), "multilabel", 10_000, metrics=THRESHOLD),
        60,
    ),
    "the same, 2,800 patients": (
        lambda: table(chest(25_000, 2_800, 1), "multilabel", 10_000, metrics=THRESHOLD),
        60,
    ),
    "the same, 2,800 patients, 1,000 resamples": (
        lambda: table(chest(25_000, 2_800, 1), "multilabel", 1_000, metrics=THRESHOLD),
        None,
    ),
    "table, AUROC and average precision: 25,000 rows x 14 labels, 2,800 patients, 2,000 resamples": (
        lambda: table(chest(25_000, 2_800, 1), "multilabel", 2_000, metrics=["auroc", "average_precision"]),
        None,
    ),
    "table, 15 metrics, 2 subgroup columns: 1,200 rows x 7 classes, 3 seeds, 2,000 resamples": (skin_table, 5),
    "difference of balanced accuracy: 1,200 rows x 7 classes, 3 seeds, 10,000 resamples": (
        lambda: difference("balanced_accuracy"),
        3,
    ),
    "difference of macro AUROC, the same": (lambda: difference("auroc"), 20),
    "difference of macro average precision, the same": (lambda: difference("average_precision"), None),
}


def own_peak() -> float:
    """Return this process's peak memory in MiB (getrusage would give the parent's, if that is larger)."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def run(name: str) -> dict[str, float]:
    """Run one case in this process."""
    before, start, busy = own_peak(), time.perf_counter(), time.process_time()
    CASES[name][0]()
    return {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - busy,
        "mebibytes": own_peak() - before,
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/evaluate_bootstrap.json"))
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(run(options.case)))
        return
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    results = {}
    shown = Table(title="resampling patients")
    for heading in ("case", "seconds", "of processor", "wanted", "MiB"):
        shown.add_column(heading, justify="left" if heading == "case" else "right")
    for name, (_, wanted) in CASES.items():
        command = [sys.executable, __file__, "--case", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        found = results[name] = json.loads(done.stdout) | {"wanted_seconds": wanted}
        shown.add_row(
            name,
            f"{found['seconds']:.1f}",
            f"{found['processor_seconds']:.1f}",
            "" if wanted is None else f"< {wanted:g}",
            f"{found['mebibytes']:.0f}",
        )
    console = Console()
    console.print(shown)
    files.write_json(options.json, results)
    console.print(f"written to {options.json}")


if __name__ == "__main__":
    main()
