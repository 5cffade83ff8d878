"""Compare two recipes on made-up images from Python, and read the verdict.

python examples/03_compare_recipes.py
"""

import tempfile
from pathlib import Path

import polars as pl

from raremix.study import run_study, study_of

with tempfile.TemporaryDirectory() as place:
    spec = study_of(
        "phantom",
        settings=["data.images=300", "data.size=32", "data.classes=3", "data.imbalance_ratio=8", "train.steps=20"],
        study={"name": "example", "seeds": [0, 1, 2], "resamples": 500},
        model={"name": "resnet10t", "stem": "standard"},
        arm=[{"name": "plain"}, {"name": "mixup", "mix": {"name": "mixup", "alpha": 0.4}, "sampler": "sqrt"}],
    )
    result = run_study(spec, runs=Path(place) / "runs", cache=Path(place) / "cache", say=print)

    comparisons = pl.read_csv(result.folder / "comparisons.csv")
    print(comparisons.select("arm", "metric", "effect", "low", "high", "p_holm", "seeds"))
    predictions = pl.read_parquet(result.folder / "predictions.parquet")
    print(f"{len(predictions)} predictions kept; report of {result.report.stat().st_size / 1000:.0f} kB")
