"""What stands at the top of a report: the few numbers that a reader wants first, and the images per class and split."""

import re
from typing import Any

from raremix.report import notation, words
from raremix.report.figures import rows
from raremix.report.record import Record

SPLITS = ("train", "validation", "test")


def when(created: str | None) -> str | None:
    """Write an ISO time as a reader would, to the minute; leave any other text alone."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(:[\d.]+)?(\+00:00|Z)?", created or "")
    return f"{found[1]} {found[2]}{' UTC' if found[4] else ''}" if found else created


def facts(record: Record) -> list[tuple[str, str]]:
    """The few numbers that a reader wants before anything else."""
    study, data = record.study, record.data
    found = [("Data", data.name)]
    comparison = next((c for c in record.comparisons if c.primary), None)
    held = data.group_counts.get("test") if data.grouped else sum(data.counts.get("test", {}).values()) or None
    if held is None and comparison is not None:
        held = comparison.groups if data.grouped else comparison.n
    if held is not None:
        found.append((f"Test {data.unit}", notation.grouped(held)))
    found.append(("Arms", str(len(record.arms))))
    folds = f" × {study.folds} folds" if study.folds else ""
    found.append(("Seeds", f"{len(study.seeds)}{folds}"))
    decidable = record.decidable
    if decidable is not None and decidable.difference is not None and words.decides(record):
        found.append(("Decidable difference", f"≈ {notation.points(decidable.difference, sign=False)} points"))
    found.append(("Resampled", f"{data.unit} and seeds" if study.claim == "recipe" else data.unit))
    return found


def fairness(record: Record) -> str:
    """Say whether the arms had the same budget; only what the record shows."""
    steps = {arm.steps for arm in record.arms}
    if len(record.arms) < 2 or None in steps:
        return ""
    if len(steps) == 1:
        same = notation.grouped(next(iter(steps)) or 0)
        return f"Every arm was trained on the same splits for the same {same} optimiser steps."
    return "The arms were trained for different numbers of optimiser steps: part of any difference may come from that."


def counts(record: Record) -> dict[str, Any]:
    data = record.data
    splits = [split for split in SPLITS if split in data.counts] + sorted(set(data.counts) - set(SPLITS))
    largest = {split: max(data.counts[split].values(), default=0) for split in splits}
    return {
        "splits": splits,
        "rows": [
            {
                "name": name,
                "band": data.bands.get(name),
                "cells": [
                    (count, rows.count_bar(count, largest[split], what=f"{name}, {split}"))
                    for split in splits
                    for count in (data.counts[split].get(name, 0),)
                ],
            }
            for name in data.ordered()
        ],
        "groups": [data.group_counts.get(split) for split in splits] if data.group_counts else [],
    }
