"""A study of phantoms that fits small generators of its own, for tests."""

from pathlib import Path
from typing import Any

from raremix.study import parse_study
from raremix.study.spec import StudySpec

COMMON, RARE = "nevus", "keratosis"
"""The classes of the phantoms."""

DCGAN = {"name": "dcgan", "method": {"name": "dcgan", "width": 4}, "train": {"steps": 2, "batch_size": 4}}
STARS = {
    "name": "stars",
    "method": {"name": "stargan", "width": 4, "widest": 8},
    "train": {"steps": 1, "batch_size": 2, "validations": 0},
}
DIFFERENCE = {"name": "difference", "translator": "stars", "grid": 8}
GIRD = {**DIFFERENCE, "gird": 8}
ARMS: list[dict[str, Any]] = [
    {"name": "plain"},
    {"name": "added", "images": {"generator": "dcgan"}},
    {"name": "half", "images": {"generator": "dcgan", "ratio": 0.5}},
    {"name": "again", "images": {"name": "repeated"}},
    {"name": "genmix", "mix": "genmix", "images": {"generator": "dcgan", "validation": True}},
]


def study(**tables: Any) -> StudySpec:
    table = {
        "study": {"name": "s", "seeds": [0], "resamples": 50},
        "data": {"source": "phantom", "images": 120, "classes": 2, "imbalance_ratio": 3, "size": 32, "channels": 1},
        "model": {"name": "resnet10t", "stem": "standard"},
        "train": {"steps": 2, "batch_size": 8, "validations": 1, "checkpoints": 0, "workers": 0},
        "generator": [DCGAN],
        "arm": ARMS,
    }
    return parse_study({**table, **tables}, base=Path())
