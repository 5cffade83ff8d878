from pathlib import Path

import polars as pl
import pytest
from tests.data.sources.miniatures import put_images, put_table

from raremix.core.errors import LeakageError, ManifestError
from raremix.data.sources.kermany import Kermany, name_of

NAMES = [
    "train/NORMAL/IM-0115-0001.jpeg",
    "train/NORMAL/NORMAL2-IM-0383-0001.jpeg",
    "train/NORMAL/IM-0429-0001-0001.jpeg",
    "train/PNEUMONIA/person1_bacteria_1.jpeg",
    "train/PNEUMONIA/person1_bacteria_2.jpeg",
    "train/PNEUMONIA/person2_virus_4.jpeg",
    "test/NORMAL/IM-0001-0001.jpeg",
    "test/PNEUMONIA/person1_virus_6.jpeg",
    "test/PNEUMONIA/person100_bacteria_475.jpeg",
]
VALIDATION = ["val/NORMAL/NORMAL2-IM-1427-0001.jpeg", "val/PNEUMONIA/person1946_bacteria_4874.jpeg"]


def test_two_classes(tmp_path: Path) -> None:
    root = tmp_path / "chest_xray"
    put_images(root, NAMES)
    put_table(root / "train" / "NORMAL" / ".DS_Store", ["x"])
    put_images(root, ["__MACOSX/train/NORMAL/IM-0115-0001.jpeg", "train/NORMAL/._IM-0115-0001.jpeg"])
    manifest = Kermany(path=tmp_path).load(cache=tmp_path / "c")
    assert manifest.card.classes == ("normal", "pneumonia")
    assert len(manifest) == 9
    assert manifest.class_counts("train").tolist() == [3, 3]
    assert manifest.class_counts("test").tolist() == [1, 2]
    group = dict(zip(manifest.frame["path"], manifest.frame["group"], strict=True))
    # Patients are numbered anew in the test folder: person1 is two children.
    assert group["train/PNEUMONIA/person1_bacteria_1.jpeg"] == "train:person1"
    assert group["test/PNEUMONIA/person1_virus_6.jpeg"] == "test:person1"
    assert group["train/NORMAL/IM-0429-0001-0001.jpeg"] == "train:IM-0429"
    assert manifest.frame["subtype"].n_unique() == 3


def test_three_classes(tmp_path: Path) -> None:
    put_images(tmp_path / "chest_xray", NAMES)
    manifest = Kermany(path=tmp_path / "chest_xray", subtypes=True).load(cache=tmp_path / "c")
    assert manifest.card.classes == ("normal", "bacteria", "virus")
    assert manifest.class_counts().tolist() == [4, 3, 2]


def test_kaggles_validation_images(tmp_path: Path) -> None:
    put_images(tmp_path, [*NAMES, *VALIDATION])
    merged = Kermany(path=tmp_path).load(cache=tmp_path / "c")
    assert [len(merged.rows(s)) for s in ("train", "validation", "test")] == [8, 0, 3]
    kept = Kermany(path=tmp_path, validation="keep").load(cache=tmp_path / "c")
    assert [len(kept.rows(s)) for s in ("train", "validation", "test")] == [6, 2, 3]
    # They are training images of the authors, and some have siblings there.
    put_images(tmp_path, ["train/PNEUMONIA/person1946_bacteria_4875.jpeg"], size=9)
    with pytest.raises(LeakageError, match="1 group is in two splits"):
        Kermany(path=tmp_path, validation="keep").load(cache=tmp_path / "c")
    assert len(Kermany(path=tmp_path).load(cache=tmp_path / "c").rows("train")) == 9


def test_version_three(tmp_path: Path) -> None:
    names = ["NORMAL/NORMAL-1003233-0001.jpeg", "PNEUMONIA/BACTERIA-1008087-0001.jpeg"]
    put_images(tmp_path, [f"train/{n}" for n in names] + ["test/PNEUMONIA/VIRUS-1041930-0001.jpeg"])
    assert name_of("BACTERIA-1008087-0001") == ("1008087", "bacteria")
    loaded = Kermany(path=tmp_path).load(cache=tmp_path / "c")
    assert loaded.class_counts().tolist() == [1, 2]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no folder train"):
        Kermany(path=tmp_path).load(cache=tmp_path / "c")
    put_images(tmp_path, NAMES[:6])
    with pytest.raises(ManifestError, match="no folder test"):
        Kermany(path=tmp_path).load(cache=tmp_path / "c")
    put_images(tmp_path, NAMES[6:])
    put_images(tmp_path, ["train/NORMAL/person9_virus_3.jpeg", "train/PNEUMONIA/scan.jpeg"])
    with pytest.raises(
        ManifestError, match=r"2 files .* are not named as published: train/NORMAL/person9_virus_3.jpeg"
    ):
        Kermany(path=tmp_path).load(cache=tmp_path / "c")


def test_against_the_table_of_all_5856_images(shared_data: Path, tmp_path: Path) -> None:
    """Laid out as published, the real file names give the groups, splits and classes of the real table."""
    table = pl.read_csv(shared_data / "kermany_cxr_224" / "labels.csv")
    root = tmp_path / "chest_xray"
    for part in ("train", "test"):
        for label in ("NORMAL", "PNEUMONIA"):
            (root / part / label).mkdir(parents=True)
    for row in table.iter_rows(named=True):
        (root / row["official_split"] / row["label"] / row["file"]).write_bytes(row["file"].encode())
    manifest = Kermany(path=root, subtypes=True).load(cache=tmp_path / "c")
    assert manifest.class_counts().tolist() == [1583, 2780, 1493]
    found = manifest.frame.with_columns(file=pl.col("path").str.split("/").list.last())
    joined = found.join(table, on="file", how="left")
    assert (joined["group"] == joined["patient_group"]).all()
    assert (joined["split"] == joined["official_split"]).all()
    assert all((joined[f"target:{name}"] == 1).equals(joined["subtype"] == name) for name in manifest.card.classes)
