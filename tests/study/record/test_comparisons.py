"""Which arms of a study are compared with which, in which seeds, and for which claim."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.study.generators.generator_studies import ARMS, study

from raremix.data.manifest import Manifest
from raremix.evaluate.compare import MIN_POSITIVES, Comparison
from raremix.study.prepare import prepare
from raremix.study.record import comparisons as module
from raremix.study.record.comparisons import (
    SECONDARY,
    control_comparisons,
    decision_tests,
    rankable_labels,
    reference_comparisons,
    sampling_comparisons,
)
from raremix.study.record.outcomes import TestRows as Rows

NAMES = ("plain", "added", "half", "again")
SEEDS = {"name": "s", "seeds": [0, 1, 2]}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return prepare(study(), cache=tmp_path_factory.mktemp("cache")).manifest


def rows(seeds: dict[str, list[int]], *, n: int = 24) -> Rows:
    """What arms said of n patients: an arm's scores of a seed are all ten times its place in NAMES, plus the seed."""
    said = {name: np.stack([np.full((n, 2), 10.0 * NAMES.index(name) + s) for s in own]) for name, own in seeds.items()}
    return Rows(
        ids=np.arange(n),
        targets=np.eye(2)[np.arange(n) % 2],
        groups=np.arange(n).astype(str),
        attributes={},
        scores=said,
        probabilities={name: values + 0.25 for name, values in said.items()},
        calibrations={},
        thresholds={name: values[:, :, 0] + 0.5 for name, values in said.items()},
        seeds=seeds,
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is compared; the p-value of the n-th comparison is n hundredths."""
    calls: list[dict[str, Any]] = []

    def compare(targets: Any, a: Any, b: Any, **options: Any) -> Comparison:
        calls.append({"a": a[:, 0, 0].tolist(), "b": b[:, 0, 0].tolist(), **options})
        return Comparison(metric=options["metric"], value_a=0.6, value_b=0.5, effect=0.1, low=0.0, high=0.2,
                          p=len(calls) / 100, probability_better=0.9, n=24, groups=24, positives=12, seeds=3,
                          claim=options["claim"], note="")  # fmt: skip

    monkeypatch.setattr(module, "compare", compare)
    return calls


def test_every_arm_is_compared_with_the_reference_in_the_seeds_that_both_have(
    manifest: Manifest, asked: list[dict[str, Any]]
) -> None:
    spec = study(study=SEEDS, arm=ARMS[:4])
    said = rows({"plain": [0, 1, 2], "added": [2, 0], "again": [1]})
    found = reference_comparisons(spec, manifest, said, "auroc")
    assert len(found) == 2 * (1 + len(set(SECONDARY) - {"auroc"}))
    primary = [entry for entry in found if entry["primary"]]
    assert [(entry["arm"], entry["reference"], entry["metric"]) for entry in primary] == [
        ("added", "plain", "auroc"),
        ("again", "plain", "auroc"),
    ]
    assert [(call["a"], call["b"]) for call in asked[:2]] == [([12.0, 10.0], [2.0, 0.0]), ([31.0], [1.0])], (
        "seed by seed"
    )
    first = asked[0]
    assert first["probabilities_a"][:, 0, 0].tolist() == [12.25, 10.25]
    assert first["probabilities_b"][:, 0, 0].tolist() == [2.25, 0.25]
    assert first["thresholds_a"][:, 0].tolist() == [12.5, 10.5]
    assert first["thresholds_b"][:, 0].tolist() == [2.5, 0.5]
    # Holm over the family of one metric: the smaller of two is doubled, the larger stays as large at least.
    assert [entry["p_holm"] for entry in primary] == [pytest.approx(0.02), pytest.approx(0.02)]
    assert not reference_comparisons(spec, manifest, rows({"plain": [0], "added": [1]}), "auroc"), "no seed in common"


def test_the_claim_and_the_pairing_follow_seeds_and_folds(manifest: Manifest, asked: list[dict[str, Any]]) -> None:
    said = rows({"plain": [0], "added": [0]})
    for table, claim, combine in (
        (SEEDS, "recipe", "metric"),
        ({**SEEDS, "seeds": [0]}, "weights", "metric"),
        ({**SEEDS, "folds": 3}, "recipe", "scores"),
    ):
        reference_comparisons(study(study={**table, "resamples": 7}, arm=ARMS[:2]), manifest, said, "auroc")
        assert (asked[-1]["claim"], asked[-1]["combine"], asked[-1]["resamples"]) == (claim, combine, 7)


def test_generated_images_are_compared_with_as_many_repeats_alone(
    manifest: Manifest, asked: list[dict[str, Any]]
) -> None:
    whole = {name: [0, 1, 2] for name in NAMES}
    added = {
        "plain": None,
        "added": {"kind": "generated", "train": {"a": 7}},
        "half": {"kind": "generated", "train": {"a": 3}},
        "again": {"kind": "repeated", "train": {"a": 7}},
    }
    spec = study(study=SEEDS, arm=ARMS[:4])

    def pairs(said: Rows, added: dict[str, Any]) -> list[tuple[str, str]]:
        found = control_comparisons(spec, manifest, said, "auroc", added=added)
        return [(entry["arm"], entry["reference"]) for entry in found]

    assert pairs(rows(whole), added) == [("added", "again")]
    assert pairs(rows({**whole, "half": [1]}), {**added, "half": {"kind": "generated", "train": {"a": 7}}}) == [
        ("added", "again"),
        ("half", "again"),
    ]
    # Of two arms that repeat as many, the first is the control; an arm without a result is none.
    both = {**added, "half": {"kind": "repeated", "train": {"a": 7}}}
    assert pairs(rows(whole), both) == [("added", "half")]
    assert pairs(rows({name: [0] for name in NAMES if name != "half"}), both) == [("added", "again")]
    assert pairs(rows({name: [0] for name in NAMES if name != "again"}), added) == []
    assert pairs(rows({name: [0] for name in NAMES if name != "added"}), added) == []


def test_generated_images_are_compared_with_balanced_sampling_of_real_ones_alone(
    manifest: Manifest, asked: list[dict[str, Any]]
) -> None:
    arms = [
        *ARMS[:4],
        {"name": "failed", "sampler": "balanced"},
        {"name": "drawn", "sampler": "balanced"},
        {"name": "mixed", "sampler": "balanced", "mix": "mixup"},
        {"name": "more", "sampler": "balanced", "images": {"name": "repeated", "ratio": 1}},
    ]
    added = dict.fromkeys(("plain", "half", "failed", "drawn", "mixed")) | {
        "more": {"kind": "repeated", "train": {"a": 9}},
        "added": {"kind": "generated", "train": {"a": 7}},
        "again": {"kind": "repeated", "train": {"a": 7}},
    }
    said = rows({"plain": [0, 1, 2], "added": [0, 1, 2], "again": [0, 1, 2]})
    for name in ("drawn", "mixed", "more"):
        said.scores[name], said.seeds[name] = said.scores["plain"] + 50, [0, 1, 2]
        said.thresholds[name], said.probabilities[name] = said.thresholds["plain"], said.probabilities["plain"]
    for order in (arms, [*arms[:4], *arms[:3:-1]]):
        found = sampling_comparisons(study(study=SEEDS, arm=order), manifest, said, "auroc", added=added)
        assert [(entry["arm"], entry["reference"]) for entry in found] == [("added", "drawn")]
    assert asked[-1]["b"] == [50.0, 51.0, 52.0]
    assert sampling_comparisons(study(study=SEEDS, arm=ARMS[:4]), manifest, said, "auroc", added=added) == []


def test_patients_that_two_arms_decide_differently_are_counted_by_class(manifest: Manifest) -> None:
    """Twelve patients of a class with two images each; an arm is right in so many of six (image, seed) cells."""
    seeds, patients = 3, 24
    groups = np.repeat(np.arange(patients), 2).astype(str)
    targets = np.eye(2)[np.repeat(np.arange(patients) % 2, 2)]

    def scores(cells: dict[int, int]) -> np.ndarray:
        right = np.ones((patients, 6), dtype=bool)
        for patient, count in cells.items():
            right[patient] = np.arange(6) < count
        grid = right.reshape(patients, 2, seeds).transpose(2, 0, 1).reshape(seeds, -1)
        own = np.where(grid, 0.9, 0.1)
        return np.where(targets[None] == 1, own[..., None], 1 - own[..., None])

    # Three of six cells are not more than half; four are.
    said = {"a": scores({0: 3, 2: 0, 1: 4}), "b": scores({4: 2, 1: 0, 3: 1, 5: 3, 7: 3, 9: 0, 11: 0})}
    said_rows = Rows(
        ids=np.arange(2 * patients), targets=targets, groups=groups, attributes={}, scores=said, probabilities=said,
        calibrations={}, thresholds={name: np.full((seeds, 2 * patients, 2), 0.5) for name in said},
        seeds={"a": [0, 1, 2], "b": [0, 1, 2]},
    )  # fmt: skip
    first, second = decision_tests(manifest, said_rows, [("a", "b")])
    assert (first["label"], first["patients"], first["only_arm"], first["only_reference"]) == ("nevus", 12, 1, 2)
    assert (second["only_arm"], second["only_reference"]) == (6, 0)
    assert first["p"] == pytest.approx(2 * (1 + 3) / 8 - 3 / 8)
    assert second["p"] == pytest.approx(2 * 0.5**6 - 0.5**6), "mid-p: twice the tail, less what was seen"
    assert second["p_holm"] == pytest.approx(2 * second["p"])
    assert decision_tests(manifest, said_rows, []) == []


def test_labels_with_enough_positive_patients_are_ranked() -> None:
    targets = np.zeros((40, 3))
    targets[:MIN_POSITIVES, 0] = 1
    targets[: MIN_POSITIVES - 1, 1] = 1
    targets[:, 2] = 1
    groups = np.arange(40).astype(str)
    assert rankable_labels(targets, groups, task="multilabel") == [0, 2]
    assert rankable_labels(targets, groups, task="multiclass") is None
    assert rankable_labels(targets[:, :1], groups, task="multilabel") is None, "none is left out"
    # Several images of a patient count once.
    assert rankable_labels(targets, np.array(["same"] * 2 + groups[2:].tolist()), task="multilabel") == [2]


def test_what_was_left_out_is_noted(manifest: Manifest, asked: list[dict[str, Any]], tmp_path: Path) -> None:
    data = {"source": "phantom", "images": 120, "multilabel": True, "modality": "chest_xray", "size": 32, "channels": 1}
    several = prepare(study(data=data, generator=[], arm=ARMS[:1]), cache=tmp_path).manifest
    classes = several.card.classes
    spec = study(study=SEEDS, arm=ARMS[:2])
    said = rows({"plain": [0], "added": [0]})
    targets = np.ones((24, len(classes)))
    targets[:, 0] = 0
    said = Rows(**{**{name: getattr(said, name) for name in Rows.__dataclass_fields__}, "targets": targets})
    (first, *_) = reference_comparisons(spec, several, said, "auroc")
    assert first["note"].startswith(f"mean over {len(classes) - 1} labels")
    assert first["note"].endswith(f"positive patients: {classes[0]}")
