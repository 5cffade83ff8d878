from pathlib import Path

import numpy as np
import pytest
from tests.data.toys import multilabel_manifest, pictures, toy_manifest

from raremix.core.errors import GuardError, LeakageError, ManifestError, UnknownNameError
from raremix.data import guards
from raremix.data.manifest import Manifest


def check(manifest: Manifest, **options: object) -> None:
    guards.check(manifest, check_files=False, **options)


def test_clean_manifest_passes(tmp_path: Path) -> None:
    pictures(tmp_path, 4)
    manifest = toy_manifest(
        [0, 1, 0, 1],
        groups=["p", "p", "q", "r"],
        splits=["train", "train", "test", "validation"],
        sha256=["a", "b", "c", "d"],
        root=tmp_path,
    )
    guards.check(manifest)


def test_group_in_two_splits() -> None:
    manifest = toy_manifest([0, 1, 0, 1], groups=["p", "q", "p", "q"], splits=["train", "train", "test", None])
    with pytest.raises(
        LeakageError,
        match=r"1 group is in two splits: row 0 \(000.png\) in train with row 2 \(002.png\) in test: split by group",
    ):
        check(manifest)


def test_a_patients_number_is_in_no_message() -> None:
    manifest = toy_manifest([0, 1, 0], groups=["MRN-4711", "q", "MRN-4711"], splits=["train", "validation", "test"])
    found = guards.findings(manifest, check_files=False)
    assert [(f.kind, f.rows) for f in found] == [("split_group", (0, 2))]
    assert "4711" not in f"{found}{found[0].error()}"


def test_all_findings_are_returned_and_the_first_is_raised(tmp_path: Path) -> None:
    pictures(tmp_path, 3)
    manifest = toy_manifest(
        [0, 1, 2, 0, 1, 0],
        groups=["p", "q", "r", "p", None, None],
        splits=["train", "train", "test", "validation", "test", "train"],
        sha256=["a", "b", "c", "d", "b", "e"],
        origin=["real", "real", "real", "real", "synthetic", "synthetic"],
        parents=[[], [], [], [], [], [2]],
        root=tmp_path,
    )
    found = guards.findings(manifest)
    assert {f.kind: f.rows for f in found} == {
        "missing_file": (3, 4, 5),
        "split_group": (0, 3),
        "split_file": (1, 4),
        "synthetic_row": (4,),
        "held_out_parent": (5,),
        "test_only_class": (2,),
    }
    with pytest.raises(ManifestError) as caught:
        guards.check(manifest)
    assert str(caught.value) == f"{found[0].words}: {found[0].advice}"
    assert [type(f.error()) for f in found[1:]] == [LeakageError] * 4 + [GuardError]


def test_findings_of_a_clean_manifest_are_none() -> None:
    clean = toy_manifest([0, 1, 0], splits=["train", "train", "test"])
    assert guards.findings(clean, check_files=False) == ()


def test_a_group_in_three_splits_is_one_group() -> None:
    manifest = toy_manifest([0, 0, 0], groups=["p"] * 3, splits=["test", "train", "validation"])
    (found,) = guards.findings(manifest, check_files=False)
    assert found.words == (
        "1 group is in two splits: row 1 (001.png) in train with row 2 (002.png) in validation with row 0 (000.png) "
        "in test"
    )


def test_at_most_five_groups_are_named() -> None:
    groups = [f"g{i}" for i in range(8)] * 2
    manifest = toy_manifest([0, 1] * 8, groups=groups, splits=["train"] * 8 + ["test"] * 8)
    with pytest.raises(LeakageError, match="8 groups are") as caught:
        check(manifest)
    assert "row 4 (004.png) in train with row 12" in str(caught.value)
    assert "row 5 " not in str(caught.value)
    assert "and 3 more" in str(caught.value)


def test_file_in_two_splits() -> None:
    same = ["AB12" + "0" * 60, "c" * 64, "ab12" + "0" * 60]
    manifest = toy_manifest([0, 1, 0], splits=["train", "train", "validation"], sha256=same)
    with pytest.raises(
        LeakageError,
        match=r"1 file is in two splits, by content: row 0 .* in train with row 2 .* in validation: remove",
    ):
        check(manifest)
    check(manifest.with_split(["train", "train", "train"]))
    check(manifest.with_split(["train", "train", None]))


def test_unhashed_files_are_not_the_same_file() -> None:
    check(toy_manifest([0, 1, 0], splits=["train", "train", "test"], sha256=[None, None, None]))


def test_synthetic_row_outside_train() -> None:
    manifest = toy_manifest([0, 1, 0], splits=["train", "train", "test"], origin=["real", "real", "synthetic"])
    with pytest.raises(LeakageError, match=r"1 synthetic row is outside train: row 2 \(test\)"):
        check(manifest)
    with pytest.raises(
        LeakageError, match=r'on purpose, allow the split by name, \[data\] allow_synthetic = \["test"\]'
    ):
        check(manifest)
    check(manifest, allow_synthetic=["test"])
    with pytest.raises(LeakageError):
        check(manifest, allow_synthetic=["validation"])
    with pytest.raises(UnknownNameError, match="split 'tset'"):
        check(manifest, allow_synthetic=["tset"])


def test_parents_outside_train() -> None:
    columns = {"origin": ["real", "real", "synthetic", "synthetic"], "parents": [[], [], [0, 1], [0]]}
    splits = ["train", "validation", "train", "train"]
    with pytest.raises(LeakageError, match=r"row 2 from row 1 \(validation\): remove"):
        check(toy_manifest([0, 1, 0, 0], splits=splits, **columns))
    check(toy_manifest([0, 1, 0, 0], splits=["train"] * 4, **columns))
    absent = {**columns, "parents": [[], [], [0], [9]]}
    with pytest.raises(LeakageError, match=r"row 3 from row 9 \(not in the manifest\)"):
        check(toy_manifest([0, 1, 0, 0], splits=["train"] * 4, **absent))


def test_missing_files(tmp_path: Path) -> None:
    pictures(tmp_path, 2)
    manifest = toy_manifest([0, 1] * 4, root=tmp_path)
    with pytest.raises(ManifestError, match=r"6 of 8 files are missing below .*row 2 \(002.png\).* and 1 more"):
        guards.check(manifest)
    masked = toy_manifest([0, 1], root=tmp_path, mask=["000.png", "m.png"])
    with pytest.raises(ManifestError, match=r"row 1 \(m.png\)"):
        guards.check(masked)


def test_class_in_test_only() -> None:
    manifest = toy_manifest([0, 1, 2, 0], splits=["train", "train", "test", "test"])
    with pytest.raises(GuardError, match=r"class c2 is present in test only: row 2 \(test\)"):
        check(manifest)
    check(manifest.with_split(["train", "train", "validation", "test"]))
    check(manifest.with_split([None, None, None, None]))


def test_label_in_test_only() -> None:
    manifest = multilabel_manifest(np.array([[1, 0.0], [0, np.nan], [0, 1]])).with_split(["train", "train", "test"])
    with pytest.raises(GuardError, match="class f1"):
        check(manifest)


@pytest.mark.parametrize("error", [LeakageError, GuardError])
def test_refusals_have_their_own_exit_code(error: type[GuardError]) -> None:
    assert error.exit_code == 3
