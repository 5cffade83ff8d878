import polars as pl
import pytest
from tests.data.toys import multilabel_manifest, toy_manifest

from raremix.core.errors import ManifestError, ReadError
from raremix.data.quarantine import leave_out, quarantine_table, refuse_unreadable


def test_the_first_the_number_and_the_way_out_are_named() -> None:
    manifest = toy_manifest([0, 1] * 50)
    refuse_unreadable(manifest, {})
    with pytest.raises(ReadError) as caught:
        refuse_unreadable(manifest, {row: f"reason {row}" for row in range(20, 10, -1)})
    assert str(caught.value) == (
        "row 11 (011.png): reason 11; look also at row 12 (012.png), row 13 (013.png), row 14 (014.png), "
        "row 15 (015.png) and 5 more (10 of 100 files cannot be read); or leave them out on purpose with "
        '--on-unreadable skip, in a study file [data] on_unreadable = "skip"'
    )


def test_rows_are_left_out_and_the_others_keep_their_ids_and_splits() -> None:
    manifest = toy_manifest([0, 1, 0, 1, 0, 1], splits=["train"] * 4 + ["test"] * 2)
    rest = leave_out(manifest, {1: "broken", 99: "of another data set"})
    assert rest.ids.tolist() == [0, 2, 3, 4, 5]
    assert rest.rows("test").tolist() == [4, 5]
    assert leave_out(manifest, {}) is manifest


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ((0, 1, 2, 3, 4, 5), "leaves no image at all"),
        ((4, 5), "leaving out 2 of 6 files that cannot be read leaves the test split empty"),
        ((1, 3), "leaves no image of class c1 in train"),
        ((1, 3, 5), "leaves no image of class c1:"),
    ],
)
def test_what_would_be_left_empty_is_an_error(rows: tuple[int, ...], words: str) -> None:
    manifest = toy_manifest([0, 1, 0, 1, 0, 1], splits=["train"] * 4 + ["test"] * 2)
    with pytest.raises(ManifestError, match=words):
        leave_out(manifest, dict.fromkeys(rows, "broken"))


def test_the_table_says_of_which_class_and_split() -> None:
    targets = pl.DataFrame({"a": [1.0, 0.0, 1.0], "b": [1.0, 0.0, 0.0]}).to_numpy()
    manifest = multilabel_manifest(targets).with_split(["train", "test", None])
    table = quarantine_table(manifest, {1: "truncated", 0: "empty"})
    assert table.rows() == [(0, "00000.png", "train", "f0; f1", "empty"), (1, "00001.png", "test", "", "truncated")]
