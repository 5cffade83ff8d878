import numpy as np
import pytest
from tests.data.toys import multilabel_manifest, toy_manifest

from raremix.core.errors import ConfigError, UnknownNameError
from raremix.data.manifest import Manifest
from raremix.data.subset import thin, thin_to_ratio


def toy() -> Manifest:
    # 60 train rows of class 0 and 30 of class 1 in groups of three, then 12 test rows of each.
    labels = [0] * 60 + [1] * 30 + [0, 1] * 12
    groups = [f"p{i // 3}" for i in range(90)] + [f"t{i}" for i in range(24)]
    return toy_manifest(labels, groups=groups, splits=["train"] * 90 + ["test"] * 24)


def test_counts_are_kept_exactly() -> None:
    small = thin(toy(), counts={"c0": 7}, seed=0)
    assert small.class_counts("train").tolist() == [7, 30]
    assert small.class_counts("test").tolist() == [12, 12]
    assert set(small.ids.tolist()) < set(range(114))
    assert small.frame["path"].to_list() == [f"{i:03d}.png" for i in small.ids]


def test_images_come_from_few_groups() -> None:
    frame = thin(toy(), counts={"c0": 7}, seed=0).frame
    kept = frame.filter((frame["split"] == "train") & (frame["target:c0"] == 1))
    assert sorted(kept["group"].value_counts()["count"].to_list()) == [1, 3, 3]


def test_groups_are_counted_on_demand() -> None:
    small = thin(toy(), counts={"c1": 4}, unit="groups", seed=0)
    assert small.class_counts("train").tolist() == [60, 12]


def test_choices_are_nested_and_depend_on_the_seed() -> None:
    kept = [set(thin(toy(), counts={"c0": n}, seed=3).ids.tolist()) for n in (0, 5, 20, 60)]
    assert kept[0] < kept[1] < kept[2] < kept[3]
    assert kept[1] != set(thin(toy(), counts={"c0": 5}, seed=4).ids.tolist())
    assert kept[2] == set(thin(toy(), counts={"c0": 20}, seed=3).ids.tolist())


def test_ratio() -> None:
    assert thin_to_ratio(toy(), classes=["c1"], ratio=9.0, seed=0).class_counts("train").tolist() == [60, 7]
    assert thin_to_ratio(toy(), classes=["c0"], ratio=9.0, seed=0).class_counts("train").tolist() == [3, 30]
    with pytest.raises(ConfigError, match="30 images in train, so 60"):
        thin_to_ratio(toy(), classes=["c1"], ratio=1.0, seed=0)
    with pytest.raises(ConfigError, match="ratio must be above 0"):
        thin_to_ratio(toy(), classes=["c1"], ratio=0.0, seed=0)


def test_multilabel() -> None:
    targets = np.zeros((40, 2))
    targets[:20, 0] = 1
    targets[10:, 1] = 1
    manifest = multilabel_manifest(targets).with_split(["train"] * 40)
    assert thin(manifest, counts={"f0": 6}, seed=0).class_counts("train")[0] == 6


def test_refusals() -> None:
    with pytest.raises(UnknownNameError, match="class 'c9'"):
        thin(toy(), counts={"c9": 1}, seed=0)
    with pytest.raises(ConfigError, match="60 images in train, so 61"):
        thin(toy(), counts={"c0": 61}, seed=0)
    with pytest.raises(ConfigError, match="10 groups in train, so 11"):
        thin(toy(), counts={"c1": 11}, unit="groups", seed=0)
