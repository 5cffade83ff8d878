from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.toys import multilabel_manifest, toy_manifest

from raremix.core.errors import ConfigError, UnknownNameError
from raremix.core.types import SPLITS
from raremix.data.guards import check
from raremix.data.manifest import Manifest
from raremix.data.sources.table import Table
from raremix.data.split import apply_split, deal, fold_split, grouped_folds, linked_groups

PARTS = {"train": 0.6, "validation": 0.2, "test": 0.2}


def groups_of(manifest: Manifest) -> dict[str, set[str]]:
    frame = manifest.frame
    return {split: set(frame.filter(frame["split"] == split)["group"]) for split in SPLITS}


def assert_no_group_is_shared(manifest: Manifest) -> None:
    groups = groups_of(manifest)
    assert sum(len(g) for g in groups.values()) == len(set().union(*groups.values()))


def test_stratified_by_hand() -> None:
    # 10 of each class, single images: 6 / 2 / 2 of each exactly.
    split = apply_split(toy_manifest([0, 1, 2] * 10), fractions=PARTS, seed=0)
    for name, count in zip(SPLITS, (6, 2, 2), strict=True):
        assert split.class_counts(name).tolist() == [count] * 3


def test_rarest_class_reaches_train_and_test() -> None:
    labels = [0] * 97 + [1] * 3
    for seed in range(20):
        split = apply_split(toy_manifest(labels), fractions={"train": 0.7, "validation": 0.1, "test": 0.2}, seed=seed)
        assert split.class_counts("train")[1] == 2
        assert split.class_counts("test")[1] == 1


def test_a_single_case_goes_to_train() -> None:
    for seed in range(10):
        split = apply_split(toy_manifest([0] * 20 + [1]), fractions=PARTS, seed=seed)
        assert split.class_counts("train")[1] == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=8, max_size=80),
    st.integers(0, 1000),
)
def test_groups_stay_together_and_seeds_repeat(rows: list[tuple[int, int]], seed: int) -> None:
    manifest = toy_manifest([c for c, _ in rows], groups=[f"p{g}" for _, g in rows], num_classes=4)
    split = apply_split(manifest, fractions=PARTS, seed=seed)
    assert split.frame["split"].null_count() == 0
    assert_no_group_is_shared(split)
    again = apply_split(manifest, fractions=PARTS, seed=seed)
    assert again.frame["split"].equals(split.frame["split"])


def test_shares_are_kept_with_many_labels() -> None:
    stream = np.random.default_rng(0)
    targets = (stream.random((3000, 6)) < [0.3, 0.2, 0.1, 0.05, 0.02, 0.01]).astype(float)
    manifest = multilabel_manifest(targets, groups=[f"p{g}" for g in stream.integers(0, 900, 3000)])
    split = apply_split(manifest, fractions={"train": 0.7, "validation": 0.1, "test": 0.2}, seed=0)
    assert_no_group_is_shared(split)
    for name, share in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
        wanted = share * manifest.class_counts()
        np.testing.assert_allclose(split.class_counts(name), wanted, atol=2.5)
        assert len(split.rows(name)) == pytest.approx(share * 3000, abs=6)


def test_given_splits_are_left_alone() -> None:
    given_splits = ["train"] * 40 + ["test"] * 30 + [None] * 30
    manifest = toy_manifest([0, 1] * 50, splits=given_splits)
    split = apply_split(manifest, fractions=PARTS, seed=0)
    after = split.frame["split"].to_list()
    assert after[:70] == given_splits[:70]
    # The official test set is never added to; what it leaves (70) is shared 6 : 2.
    assert "test" not in after[70:]
    assert after.count("validation") in {17, 18}


def test_a_small_official_test_set_is_not_filled_up() -> None:
    manifest = toy_manifest([0, 1] * 50, splits=["train"] * 40 + ["test"] * 6 + [None] * 54)
    split = apply_split(manifest, fractions=PARTS, seed=0)
    assert len(split.rows("test")) == 6
    assert len(split.rows("validation")) in {23, 24}  # a quarter of the other 94


def test_validation_is_cut_from_train_by_group() -> None:
    labels = [0, 0, 1, 1] * 30
    groups = [f"p{i // 3}" for i in range(120)]
    manifest = toy_manifest(labels, groups=groups, splits=["train"] * 90 + ["test"] * 30)
    split = apply_split(manifest, fractions={"train": 0.75, "validation": 0.25, "test": 0.0}, seed=1)
    assert split.rows("test").tolist() == list(range(90, 120))
    assert_no_group_is_shared(split)
    assert len(split.rows("validation")) == pytest.approx(90 / 4, abs=3)
    assert split.class_counts("validation")[0] == pytest.approx(len(split.rows("validation")) / 2, abs=2)


def test_complete_splits_do_not_change() -> None:
    manifest = toy_manifest([0, 1, 0, 1, 0, 1], splits=["train", "train", "validation", "validation", "test", "test"])
    assert apply_split(manifest, fractions=PARTS, seed=0).frame.equals(manifest.frame)


def test_no_validation_wanted() -> None:
    manifest = toy_manifest([0, 1] * 20, splits=["train"] * 30 + ["test"] * 10)
    assert apply_split(manifest, fractions={"train": 0.8, "test": 0.2}, seed=0).frame.equals(manifest.frame)


def test_rows_follow_their_group() -> None:
    manifest = toy_manifest(
        [0, 1, 0, 1, 1], groups=["p", "p", "q", "q", "r"], splits=["test", None, "train", None, None]
    )
    split = apply_split(manifest, fractions=PARTS, seed=0)
    assert split.frame["split"].to_list()[:4] == ["test", "test", "train", "train"]


def test_groups_that_share_a_file_stay_together() -> None:
    manifest = toy_manifest([0, 1, 0, 1, 0], groups=["a", "b", "b", "c", "d"], sha256=["s", "s", "t", "t", "u"])
    assert linked_groups(manifest).tolist() == [0, 0, 0, 0, 1]
    many = toy_manifest([0, 1] * 40, groups=[f"p{i}" for i in range(80)], sha256=[f"s{i // 2}" for i in range(80)])
    for seed in range(5):
        check(apply_split(many, fractions=PARTS, seed=seed), check_files=False)


def test_a_training_group_linked_to_test_stays_in_train() -> None:
    # Row 0's file is also in test: it may not become validation as well.
    for seed in range(10):
        manifest = toy_manifest([0, 1] * 5, splits=["train"] * 8 + ["test"] * 2, sha256=["x", *"bcdefgh", "x", "j"])
        assert apply_split(manifest, fractions=PARTS, seed=seed).frame["split"][0] == "train"


def test_synthetic_rows_go_to_train() -> None:
    origin = ["real"] * 20 + ["synthetic"] * 20
    split = apply_split(toy_manifest([0, 1] * 20, origin=origin), fractions=PARTS, seed=0)
    assert split.frame["split"].to_list()[20:] == ["train"] * 20
    assert len(split.rows("test")) == 4
    assert (grouped_folds(split, folds=4, seed=0)[20:] == -1).all()


@pytest.mark.parametrize(
    "fractions",
    [{"train": 0.5, "test": 0.4}, {"train": 1.2, "test": -0.2}, {"validation": 0.5, "test": 0.5}, {}],
)
def test_fractions_refused(fractions: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="sum to 1"):
        apply_split(toy_manifest([0, 1]), fractions=fractions, seed=0)


def test_unknown_split_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'validation'"):
        apply_split(toy_manifest([0, 1]), fractions={"train": 0.5, "validaton": 0.5}, seed=0)


def test_folds_hold_every_row_once() -> None:
    groups = [f"p{i // 2}" for i in range(60)]
    manifest = toy_manifest([0, 0, 0, 0, 1, 1] * 10, groups=groups)
    fold = grouped_folds(manifest, folds=5, seed=0)
    assert np.bincount(fold).tolist() == [12] * 5
    labels = manifest.targets().argmax(1)
    assert [np.bincount(labels[fold == f]).tolist() for f in range(5)] == [[8, 4]] * 5
    for name in set(groups):
        assert len({int(f) for f, g in zip(fold, groups, strict=True) if g == name}) == 1
    tests = [fold_split(manifest, folds=5, fold=f, validation=0.2, seed=0) for f in range(5)]
    assert sorted(np.concatenate([m.rows("test") for m in tests]).tolist()) == list(range(60))
    for m in tests:
        check(m, check_files=False)
        assert [len(m.rows(name)) for name in SPLITS] == [36, 12, 12]
    assert len(fold_split(manifest, folds=5, fold=0, validation=0.0, seed=0).rows("validation")) == 0


def test_folds_refused() -> None:
    manifest = toy_manifest([0, 1, 0, 1], groups=["a", "a", "b", "c"])
    with pytest.raises(ConfigError, match=r"number of groups \(3\), got 4"):
        grouped_folds(manifest, folds=4, seed=0)
    with pytest.raises(ConfigError, match="fold must lie between 0 and 2"):
        fold_split(manifest, folds=3, fold=3, validation=0.1, seed=0)
    with pytest.raises(ConfigError, match="validation must lie"):
        fold_split(manifest, folds=3, fold=0, validation=0.8, seed=0)


def test_deal_by_hand() -> None:
    # The rare label (column 1) goes first: its largest unit to the part that lacks most of it.
    counts = np.array([[4.0, 0], [1, 2], [0, 1], [3, 0]])
    part = deal(counts, np.array([[4.0, 2], [4, 1]]), rng=np.random.default_rng(0))
    # Gains of unit 1: 7/4 + 4/2 against 7/4 + 0; of unit 2: -1/2 against 1/1. Then label 0: unit 0 gains (24 - 16)/4 in
    # part 0, which lacks 3, against (32 - 16)/4 in part 1, which lacks 4; unit 3 gains 9/4 against -9/4.
    assert part.tolist() == [1, 0, 1, 0]


def test_a_closed_part_gets_nothing() -> None:
    counts = np.ones((10, 1))
    part = deal(counts, np.array([[5.0], [0.0]]), rng=np.random.default_rng(0))
    assert set(part.tolist()) == {0}


def test_kermany_validation_cut(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "kermany_cxr_224"
    source = Table(
        path=folder / "labels.csv", images_root="images", label="label", group="patient_group", split="official_split"
    )
    manifest = source.load(cache=tmp_path)
    split = apply_split(manifest, fractions={"train": 0.8, "validation": 0.1, "test": 0.1}, seed=0)
    check(split)
    assert len(split.rows("test")) == 624
    assert len(split.rows("validation")) == pytest.approx(5232 / 9, abs=3)
    share = manifest.class_counts("train") / 5232
    np.testing.assert_allclose(split.class_counts("validation") / len(split.rows("validation")), share, atol=0.01)
