"""What there is: runs on disk, and the names that a study file may use."""

from pathlib import Path
from typing import Any

from raremix.core import files
from raremix.core.errors import CorruptError
from raremix.data.augment import AUGMENTATIONS
from raremix.data.samplers import SAMPLERS
from raremix.data.sources import SOURCES
from raremix.evaluate.metrics import METRICS
from raremix.explain import IMPORTANCE_MAPS
from raremix.generate import GENERATORS
from raremix.losses import LOSS_COMBINATIONS, LOSSES
from raremix.mix import COMBINATIONS, LEARNED_MIXERS, MIXERS
from raremix.study.recipes import RECIPES


def list_runs(runs: Path) -> list[dict[str, Any]]:
    """List the studies in a folder of runs: status, trained classifiers, best arm's primary metric, report."""
    rows = []
    for folder in sorted(path.parent for path in runs.glob("*/study.toml")):
        done = len(list(folder.glob("jobs/*/result")))
        row: dict[str, Any] = {"run": folder.name, "status": "running or stopped", "classifiers": done, "report": ""}
        record = folder / "record.json"
        if record.is_file():
            try:
                row["status"] = files.read_json(record)["study"]["status"]
            except (CorruptError, KeyError, TypeError):
                row["status"] = "damaged record"
            row["report"] = str(folder / "report.html")
        rows.append(row)
    return rows


def list_names(what: str) -> list[dict[str, Any]]:
    """List a registry: each name with the first line of its documentation."""
    if what == "metrics":
        return [{"name": name, "what": metric.title} for name, metric in METRICS.items()]
    registries: dict[str, Any] = {
        "mixers": {**MIXERS, **LEARNED_MIXERS, **COMBINATIONS},
        "augmentations": AUGMENTATIONS,
        "samplers": SAMPLERS,
        "importance": IMPORTANCE_MAPS,
        "generators": GENERATORS,
        "losses": {**LOSSES, **LOSS_COMBINATIONS},
        "recipes": RECIPES,
        "sources": SOURCES,
    }
    return [
        {"name": name, "what": (entry.__doc__ or "").strip().splitlines()[0]}
        for name, entry in registries[what].items()
    ]
