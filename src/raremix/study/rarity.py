"""What a study's record says about its images beyond their counts: made-up rarity, and files that were left out."""

from collections import Counter
from typing import Any

import polars as pl

from raremix.core.types import SPLITS
from raremix.data.imbalance import Imbalance, reached_ratio
from raremix.study.prepare import Prepared


def describe_rarity(prepared: Prepared, imbalance: Imbalance | None) -> dict[str, Any] | None:
    """Return the training images of every class before and after classes were made rare; None where they were not.

    Args:
        prepared: the data.
        imbalance: the profile that was asked for, where one was.
    """
    if prepared.whole is None:
        return None
    names = prepared.manifest.card.classes
    before, after = prepared.whole.class_counts("train"), prepared.manifest.class_counts("train")
    ratio = reached_ratio(after)
    return {
        "profile": None if imbalance is None else imbalance.profile,
        "asked": None if imbalance is None else imbalance.ratio,
        "reached": ratio if ratio < float("inf") else None,
        "before": dict(zip(names, before.tolist(), strict=True)),
        "after": dict(zip(names, after.tolist(), strict=True)),
    }


def describe_quarantine(prepared: Prepared) -> dict[str, Any] | None:
    """Return how many files were left out since they cannot be read, of which class and split; None where none were.

    No file is named: the run folder's `quarantine.csv` does that.
    """
    table = prepared.quarantine
    if table is None:
        return None
    counts: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        labels = table.filter(pl.col("split") == split)["classes"].str.split("; ").explode()
        found = Counter(label for label in labels if label)
        counts[split] = {name: found[name] for name in prepared.manifest.card.classes if found[name]}
    return {"files": table.height, "of": table.height + len(prepared.untouched), "counts": counts}
