"""The rows that arms add, one by one: which come first, whose they are, and what is refused when they are opened."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tests.core.faults import CountingDisk
from tests.study.generators.generator_studies import ARMS, DCGAN, DIFFERENCE, STARS, study
from torch import nn

from raremix.core import files
from raremix.core.fitted import FITTED_ON, write_fitted
from raremix.core.types import Batch, MixPlan
from raremix.data import Manifest
from raremix.models import ClassifierCard
from raremix.study.arm_images import with_images
from raremix.study.fitted import rows_of
from raremix.study.generators.own import Workshop
from raremix.study.job import Job
from raremix.study.prepare import Prepared, prepare
from raremix.study.record import origins as module
from raremix.study.record.origins import origin_facts
from raremix.study.record.outcomes import Outcome
from raremix.study.record.pictures import arm_batch
from raremix.study.spec import StudySpec

pytestmark = pytest.mark.usefixtures("no_fsync")

SEEDED = {"name": "seeded", "images": {"generator": "dcgan", "seed": 1}}
REPEATED: list[dict[str, Any]] = [
    {"name": f"again{seed}", "images": {"name": "repeated", "ratio": 0.5, "seed": seed}} for seed in (0, 1)
]


def spec() -> StudySpec:
    return study(arm=[ARMS[0], ARMS[1], ARMS[4], SEEDED, *REPEATED, ARMS[2]])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "DISK", CountingDisk())
        yield tmp_path_factory.mktemp("rows")


@pytest.fixture(scope="module")
def made(place: Path) -> Prepared:
    found, failed = with_images(
        Workshop(spec=spec(), folder=place / "run", cache=place / "cache"), prepare(spec(), cache=place / "cache")
    )
    assert failed == {}
    return found


def added(prepared: Prepared, arm: str) -> np.ndarray:
    """Return the ids of the rows that an arm adds."""
    return np.setdiff1d(prepared.arms[arm].manifest.ids, prepared.manifest.ids)


def test_other_seeds_are_other_images(made: Prepared) -> None:
    first, other = (made.arms[name].cache.take(added(made, name)[:3]) for name in ("added", "seeded"))
    assert not np.array_equal(first, other)
    sources = [
        set(made.arms[f"again{seed}"].manifest.frame.filter(pl.col("origin") == "repeated")["path"]) for seed in (0, 1)
    ]
    assert sources[0] != sources[1], "which images come again is drawn"


def test_an_arm_that_asks_for_fewer_takes_none_from_the_others(made: Prepared) -> None:
    # The last arm asks for half of what the first one does, of the same generator.
    counts = made.arms["added"].manifest.class_counts("train")
    assert counts[0] == counts[1]
    assert len(added(made, "half")) < len(added(made, "added"))
    frame = made.arms["half"].manifest.frame.filter(pl.col("origin") == "synthetic")
    numbers = sorted(json.loads(recipe)["number"] for recipe in frame["recipe"])
    assert numbers == list(range(len(numbers))), "the first ones: they stay when more are drawn"
    held = made.arms["genmix"].manifest.frame.filter(pl.col("origin") == "synthetic")
    counted = {split: [json.loads(r)["number"] for r in part["recipe"]] for (split,), part in held.group_by("split")}
    assert max(counted["train"]) < min(counted["validation"]), "and the next ones are for validation"


def test_repeated_rows_take_no_id_that_was_left_out(place: Path) -> None:
    data = {"source": "phantom", "images": 120, "classes": 2, "imbalance_ratio": 1, "size": 32, "channels": 1}
    rare = study(data={**data, "imbalance": {"ratio": 4}}, generator=[], arm=[{"name": "plain"}, ARMS[3]])
    prepared = prepare(rare, cache=place / "cache")
    assert len(prepared.untouched) > len(prepared.manifest)
    found, _ = with_images(Workshop(spec=rare, folder=place / "rare", cache=place / "cache"), prepared)
    assert not np.isin(added(found, "again"), prepared.untouched.ids).any(), "with folds these are tested elsewhere"


def test_rows_that_leak_are_refused_when_they_are_opened_again(made: Prepared, place: Path) -> None:
    shop = Workshop(spec=study(arm=ARMS[:2]), folder=place / "leaks", cache=place / "cache")
    bare, test = replace(made, arms={}, generators={}), made.manifest.rows("test")
    assert with_images(shop, bare)[1] == {}

    def opened() -> dict[str, str]:
        return with_images(shop, bare, finished=["plain", "added"])[1]

    assert opened() == {}
    (beside,) = (place / "leaks" / "synthetic").glob("*/generators/*")
    before = (beside / FITTED_ON).read_bytes()
    write_fitted(beside, {"train": rows_of(made.manifest, test)})
    assert "was fitted on" in opened()["added"]
    files.write_bytes(beside / FITTED_ON, before)
    assert opened() == {}
    (path,) = (place / "leaks" / "synthetic").glob("*/manifest.parquet")
    drawn = Manifest.read(path)
    parents = [[int(test[0])] if origin == "synthetic" else [] for origin in drawn.frame["origin"]]
    replace(drawn, frame=drawn.frame.with_columns(pl.Series("parents", parents, dtype=pl.List(pl.Int64)))).write(path)
    assert "parent" in opened()["added"], "made from a held-out image"


# Where images come from


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[Any, Outcome]:
    """A result of the reference arm, whose classifier is a linear layer."""
    card = ClassifierCard(
        task="binary", classes=("nevus", "keratosis"), size=32, channels=1, bits=8, resize="pad",
        modality="dermatoscopy", temperature=1.0, thresholds=(0.5, 0.5), manifest_hash="", training={},
    )  # fmt: skip
    net = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16, 2))
    monkeypatch.setattr(module, "load_classifier", lambda folder: (net, card))
    outcome = Outcome(facts={}, timing={}, predictions=pl.DataFrame(), history=[], folder=tmp_path)
    return {Job(arm="plain", seed=0, fold=None, key=""): outcome}


def test_real_images_are_held_out_ones_and_mixed_ones_are_mixed(
    made: Prepared, judge: dict[Any, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    record, _ = origin_facts(spec(), made, judge)
    assert record is not None
    assert record["arm"] == "genmix"
    origins = [point["origin"] for point in record["points"]]
    held = made.arms["genmix"].manifest
    real = held.rows("validation")
    is_real = held.frame["origin"].gather(held.positions(real)).to_numpy() == "real"
    assert 0 < origins.count("real") <= int(is_real.sum()), "the judge knows the training images"

    def batches(*arguments: Any) -> Iterator[tuple[MixPlan, Batch]]:
        weight = torch.tensor([0.0, 0.5, 1.0])
        plan = MixPlan(own=torch.arange(3), partner=torch.arange(3), mask=weight[:, None, None, None], weight=weight)
        while True:
            yield plan, Batch(images=torch.rand(3, 1, 32, 32), targets=torch.eye(2)[[0, 1, 0]])

    monkeypatch.setattr(module, "mixed_batches", batches)
    record, _ = origin_facts(spec(), made, judge)
    assert record is not None
    mixed = [point["label"] for point in record["points"] if point["origin"] == "mixed"]
    assert mixed == ["keratosis"] * module.BATCHES, "images that there were before are not mixed"


def test_no_judge_that_saw_generated_images(made: Prepared, judge: dict[Any, Outcome]) -> None:
    chosen = {replace(job, arm="seeded"): outcome for job, outcome in judge.items()}
    assert origin_facts(replace(spec(), reference="seeded"), made, chosen) == (None, None)
    mixing = {"name": "seeded", "mix": {"name": "varimix", "importance": DIFFERENCE}}
    translating = study(generator=[STARS, DCGAN], arm=[mixing, ARMS[1]])
    assert origin_facts(translating, made, chosen) == (None, None)


def test_the_arm_that_mixes_is_shown_unless_it_cannot_be(made: Prepared, judge: dict[Any, Outcome]) -> None:
    record, _ = origin_facts(spec(), made, judge, unmade=["genmix"])
    assert record is not None
    assert record["arm"] == "added"
    every = [arm.name for arm in spec().arms]
    assert origin_facts(spec(), made, judge, unmade=every) == (None, None)


def test_a_mixer_that_learns_is_shown_as_it_begins(made: Prepared) -> None:
    plain, learned = (
        study(generator=[], arm=[{"name": "a", "mix": mix}])
        for mix in ({"name": "mixup", "alpha": 1.0}, {"name": "automix"})
    )
    assert arm_batch(learned, made, "a") == arm_batch(plain, made, "a")
