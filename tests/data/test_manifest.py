import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.data.toys import toy_manifest

from raremix.core.errors import ManifestError, TargetError, UnknownNameError
from raremix.data.manifest import Card, Manifest, listed

CARD = Card(name="toy", task="multilabel", classes=("a", "b"))


def frame(**columns: object) -> pl.DataFrame:
    base = {"path": ["x.png", "y.png"], "target:a": [1.0, None], "target:b": [0, 1]}
    return pl.DataFrame({**base, **columns})


def test_missing_columns_are_filled_in() -> None:
    manifest = Manifest(frame=frame(sex=["f", None]), card=CARD, root=Path())
    assert manifest.frame.columns[:4] == ["id", "path", "group", "split"]
    assert manifest.ids.tolist() == [0, 1]
    assert manifest.frame["group"].to_list() == ["row:0", "row:1"]
    assert manifest.frame["origin"].to_list() == ["real", "real"]
    assert manifest.frame["parents"].to_list() == [[], []]
    assert manifest.attributes == ["sex"]
    np.testing.assert_array_equal(manifest.targets(), [[1, 0], [np.nan, 1]])
    assert manifest.class_counts().tolist() == [1, 1]


def test_rows_and_counts_by_split() -> None:
    manifest = toy_manifest([0, 0, 1, 1, 1], splits=["train", "test", None, "train", "test"])
    assert manifest.rows("train").tolist() == [0, 3]
    assert manifest.rows().tolist() == [2]
    assert manifest.class_counts("test").tolist() == [1, 1]
    assert manifest.class_counts().tolist() == [2, 3]


def test_select_keeps_ids_and_order() -> None:
    manifest = toy_manifest([0, 0, 1, 1])
    chosen = manifest.select(np.array([3, 1]))
    assert chosen.ids.tolist() == [3, 1]
    assert chosen.targets(np.array([1, 3])).tolist() == [[1, 0], [0, 1]]
    assert [path.name for path in chosen.paths(np.array([1]))] == ["001.png"]
    with pytest.raises(ManifestError, match="no rows with id 0, 7"):
        chosen.positions(np.array([0, 1, 7]))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    columns = {
        "group": ["007", None],
        "split": [None, "train"],
        "origin": ["real", "synthetic"],
        "parents": [[], [0]],
        "recipe": [None, "spmix"],
        "age": [3.5, None],
        "device": ["01", "02"],
        "mask": ["m/x.png", None],
    }
    (tmp_path / "images").mkdir()
    manifest = Manifest(frame=frame(**columns), card=CARD, root=tmp_path / "images")
    path = manifest.write(tmp_path / f"manifest.{suffix}")
    again = Manifest.read(path)
    assert again.frame.equals(manifest.frame)
    assert again.frame.schema == manifest.frame.schema
    assert again.card == manifest.card
    assert again.root.resolve() == manifest.root.resolve()
    assert again.hash() == manifest.hash()


def test_hash_depends_on_content_only() -> None:
    manifest = toy_manifest([0, 1, 1], splits=["train", "test", None], age=[1, 2, 3])
    moved = Manifest(frame=manifest.frame, card=manifest.card, root=Path("/elsewhere"))
    shuffled = manifest.select(np.array([2, 0, 1]))
    assert moved.hash() == manifest.hash() == shuffled.hash()
    changed = [
        manifest.with_split(["train", "test", "test"]),
        manifest.select(np.array([0, 1])),
        *(
            Manifest(frame=manifest.frame.with_columns(value), card=manifest.card, root=Path())
            for value in (
                pl.lit("p").alias("group"),
                pl.Series("age", [1, 2, None]),
                pl.Series("age", [1, 2, 4]),
                pl.Series("parents", [[], [], [0]]),
                pl.lit("ab").alias("sha256"),
                pl.Series("path", ["000.png", "001.png", "x"]),
            )
        ),
    ]
    hashes = {m.hash() for m in changed}
    assert len(hashes) == len(changed)
    assert manifest.hash() not in hashes


def test_hash_is_pinned() -> None:
    # A change here makes every stored run look as if its data had changed.
    assert toy_manifest([0, 1], splits=["train", None], age=[1, None]).hash() == "f356a025a35853f82df9bf3ee6307571"


@pytest.mark.parametrize(
    ("columns", "error", "words"),
    [
        ({"path": ["x.png", "x.png"]}, ManifestError, r"one file in several rows: row 0 \(x.png\), row 1"),
        ({"path": ["x.png", None]}, ManifestError, "no path in row 1"),
        ({"path": ["x.png", "../y.png"]}, ManifestError, r"below the root: row 1 \(\.\./y.png\)"),
        ({"path": ["x.png", "/etc/passwd"]}, ManifestError, "below the root"),
        ({"path": ["x.png", r"C:\y.png"]}, ManifestError, "below the root"),
        ({"path": ["x.png", "a\\..\\..\\y.png"]}, ManifestError, "below the root"),
        ({"path": ["x.png", "y\0.png"]}, ManifestError, "below the root"),
        ({"mask": [None, "../y.png"]}, ManifestError, "a mask must be relative"),
        ({"id": [4, 4]}, ManifestError, "ids must be unique"),
        ({"id": [-1, 4]}, ManifestError, "ids must be unique and >= 0"),
        (
            {"split": ["train", "tset"]},
            ManifestError,
            r"unknown split tset in row 1 .*expected train, validation, test",
        ),
        ({"origin": ["real", "fake"]}, ManifestError, "unknown origin fake"),
        ({"target:a": [1, 2]}, TargetError, "1, 0 or empty: look at row 1"),
        ({"target:a": [1, -1]}, TargetError, "1, 0 or empty"),
        ({"target:a": ["yes", "no"]}, ManifestError, "another type"),
        ({"target:melanoma": [1, 0]}, UnknownNameError, "unknown class 'melanoma'"),
    ],
)
def test_refused(columns: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Manifest(frame=frame(**columns), card=CARD, root=Path())


def test_dots_in_names_are_fine() -> None:
    manifest = Manifest(frame=frame(path=["a..b.png", "d/e...png"]), card=CARD, root=Path())
    assert len(manifest) == 2


def test_missing_target_column() -> None:
    with pytest.raises(ManifestError, match="no column target:b"):
        Manifest(frame=frame().drop("target:b"), card=CARD, root=Path())


def test_one_class_per_image() -> None:
    card = Card(name="toy", task="multiclass", classes=("a", "b"))
    with pytest.raises(TargetError, match=r"exactly one class: look at row 0 \(x.png\)"):
        Manifest(frame=frame(**{"target:a": [1, 0], "target:b": [1, 1]}), card=card, root=Path())
    unlabelled = Manifest(frame=frame(**{"target:a": [None, 0], "target:b": [None, 1]}), card=card, root=Path())
    assert np.isnan(unlabelled.targets()[0]).all()


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"task": "binary", "classes": ("a", "b", "c")}, "two classes"),
        ({"task": "multiclass", "classes": ("a",)}, "at least two"),
        ({"task": "multilabel", "classes": ()}, "one name per class"),
        ({"task": "multilabel", "classes": ("a", " ")}, "one name per class"),
        ({"task": "multilabel", "classes": ("a", "a")}, "named twice"),
    ],
)
def test_card_refused(facts: dict, words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        Card(name="toy", **facts)


def test_card_files(tmp_path: Path) -> None:
    card = Card(name="toy", task="multilabel", classes=("a", "b"), modality="fundus", notes="n")
    assert Card.read(card.write(tmp_path / "card.json")) == card
    (tmp_path / "card.toml").write_text(
        'name = "toy"\ntask = "multilabel"\nclasses = ["a", "b"]\nmodality = "fundus"\nnotes = "n"'
    )
    assert Card.read(tmp_path / "card.toml") == card
    (tmp_path / "card.json").write_text(json.dumps({"name": "x", "task": "binary", "clases": ["a", "b"]}))
    with pytest.raises(UnknownNameError, match="did you mean 'classes'"):
        Card.read(tmp_path / "card.json")
    (tmp_path / "card.json").write_text(json.dumps({"name": "x", "task": "binary"}))
    with pytest.raises(ManifestError, match="classes missing"):
        Card.read(tmp_path / "card.json")
    (tmp_path / "card.json").write_text(json.dumps({"name": "x", "task": "binary", "classes": "ab"}))
    with pytest.raises(ManifestError, match="classes"):
        Card.read(tmp_path / "card.json")
    (tmp_path / "card.toml").write_text("name = ")
    with pytest.raises(ManifestError, match="TOML"):
        Card.read(tmp_path / "card.toml")


def test_read_refuses(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"card.json or card.toml beside m.csv"):
        Manifest.read(tmp_path / "m.csv")
    CARD.write(tmp_path / "card.json")
    with pytest.raises(ManifestError, match="no such table"):
        Manifest.read(tmp_path / "m.csv")
    (tmp_path / "m.parquet").write_bytes(b"PAR1 no such thing")
    with pytest.raises(ManifestError, match="not a whole Parquet table"):
        Manifest.read(tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=r"\.parquet or \.csv"):
        Manifest(frame=frame(), card=CARD, root=tmp_path).write(tmp_path / "m.xlsx")


def test_hand_written_csv(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,target:a,target:b,parents,origin\nx.png,1,0,,\ny.png,,1,0;3,synthetic\n")
    CARD.write(tmp_path / "card.json")
    manifest = Manifest.read(tmp_path / "m.csv")
    assert manifest.frame["parents"].to_list() == [[], [0, 3]]
    assert manifest.frame["origin"].to_list() == ["real", "synthetic"]
    assert manifest.root == tmp_path


def test_listed() -> None:
    assert listed([1, 2]) == "1, 2"
    assert listed(range(8)) == "0, 1, 2, 3, 4 and 3 more"
