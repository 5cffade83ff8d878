import csv
from collections import Counter
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from tests.data.sources.miniatures import put_images, put_table

from raremix.config import build
from raremix.core.errors import ConfigError, LeakageError, ManifestError, TargetError
from raremix.core.files import hash_file
from raremix.data.sources import isic2018
from raremix.data.sources.fetch import OPEN
from raremix.data.sources.isic2018 import ABOUT, ISIC2018, hold_out
from raremix.data.split import apply_split

HEADER = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"
GROUPS = "image,lesion_id,diagnosis_confirm_type"


def truth(folder: Path, part: str, rows: dict[str, str]) -> None:
    """Write images and ground truth of one part; rows map an image to its class."""
    put_images(folder, [f"ISIC2018_Task3_{part}_Input/{image}.jpg" for image in rows])
    # The archives carry these beside the images.
    put_table(folder / f"ISIC2018_Task3_{part}_Input" / "LICENSE.txt", ["CC-BY-NC"])
    ones = [
        ",".join([image, *("1.0" if dx == name else "0.0" for name in ABOUT.classes)]) for image, dx in rows.items()
    ]
    name = f"ISIC2018_Task3_{part}_GroundTruth"
    put_table(folder / name / f"{name}.csv", [HEADER, *ones])


def challenge(root: Path) -> Path:
    train = {"ISIC_0024306": "nv", "ISIC_0024307": "nv", "ISIC_0024308": "mel", "ISIC_0024310": "vasc"}
    truth(root, "Training", train)
    groups = ["ISIC_0024306,HAM_1,histopathology", "ISIC_0024307,HAM_1,histopathology"]
    more = ["ISIC_0024308,HAM_2,single image expert consensus", "ISIC_0024310,HAM_3,histopathology"]
    put_table(root / "ISIC2018_Task3_Training_LesionGroupings.csv", [GROUPS, *groups, *more], end="\r\n")
    return root


def test_training_alone_has_no_split(tmp_path: Path) -> None:
    manifest = ISIC2018(path=challenge(tmp_path / "d")).load(cache=tmp_path / "c")
    frame = manifest.frame
    assert manifest.card.classes == ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")
    assert manifest.card.licence == "CC BY-NC 4.0"
    assert frame["path"][0] == "ISIC2018_Task3_Training_Input/ISIC_0024306.jpg"
    assert frame["group"].to_list() == ["HAM_1", "HAM_1", "HAM_2", "HAM_3"]
    assert manifest.targets().argmax(1).tolist() == [1, 1, 0, 6]
    assert frame["split"].null_count() == 4
    assert frame["dx_type"].to_list()[2] == "single image expert consensus"


def test_parts_are_splits(tmp_path: Path) -> None:
    root = challenge(tmp_path / "d")
    truth(root, "Validation", {"ISIC_0034321": "nv"})
    truth(root, "Test", {"ISIC_0034524": "mel", "ISIC_0034525": "nv"})
    manifest = ISIC2018(path=root).load(cache=tmp_path / "c")
    assert [len(manifest.rows(s)) for s in ("train", "validation", "test")] == [4, 1, 2]
    assert manifest.frame.filter(pl.col("split") == "test")["group"].str.starts_with("row:").all()


def test_nested_archives(tmp_path: Path) -> None:
    # As `raremix sources fetch` unpacks them: the archive's folder within a folder of the archive's name.
    root = challenge(tmp_path / "d")
    for name in ("ISIC2018_Task3_Training_Input", "ISIC2018_Task3_Training_GroundTruth"):
        (root / name).rename(root / "inner")
        (root / name).mkdir()
        (root / "inner").rename(root / name / name)
    manifest = ISIC2018(path=root).load(cache=tmp_path / "c")
    assert manifest.frame["path"][0].count("ISIC2018_Task3_Training_Input/") == 2


def test_ham10000_layout(tmp_path: Path) -> None:
    root = tmp_path / "ham10000"
    put_images(root, ["HAM10000_images_part_1/ISIC_0024306.jpg", "HAM10000_images_part_2/ISIC_0029306.jpg"])
    # Kaggle's copy holds both folders a second time, in small letters.
    put_images(root, ["ham10000_images_part_1/ISIC_0024306.jpg"])
    lines = ["HAM_1,ISIC_0029306,nv,histo,45.0,male,unknown", "HAM_1,ISIC_0024306,nv,follow_up,,unknown,back"]
    put_table(root / "HAM10000_metadata.csv", ["lesion_id,image_id,dx,dx_type,age,sex,localization", *lines])
    manifest = ISIC2018(path=root).load(cache=tmp_path / "c")
    assert manifest.card.name == "ham10000"
    assert manifest.frame["path"].to_list() == [
        "HAM10000_images_part_1/ISIC_0024306.jpg",
        "HAM10000_images_part_2/ISIC_0029306.jpg",
    ]
    assert manifest.frame["sex"].to_list() == [None, "male"]
    assert manifest.frame["age_band"].to_list() == [None, "40-59"]
    assert manifest.frame["localization"].to_list() == ["back", None]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such folder; expected ISIC2018_Task3"):
        ISIC2018(path=tmp_path / "gone").load(cache=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match="holds neither ISIC2018_Task3_Training_Input nor HAM10000_metadata"):
        ISIC2018(path=tmp_path / "empty").load(cache=tmp_path)
    root = challenge(tmp_path / "d")
    groups = root / "ISIC2018_Task3_Training_LesionGroupings.csv"
    groups.rename(root / "x.csv")
    with pytest.raises(ManifestError, match=r"no lesion groupings .*without them one lesion would be split"):
        ISIC2018(path=root).load(cache=tmp_path)
    (root / "x.csv").rename(groups)
    (root / "ISIC2018_Task3_Training_Input" / "ISIC_0024308.jpg").unlink()
    with pytest.raises(ManifestError, match=r"1 of 4 images of ISIC2018_Task3_Training_GroundTruth.csv are missing"):
        ISIC2018(path=root).load(cache=tmp_path)
    name = "ISIC2018_Task3_Training_GroundTruth"
    put_table(root / name / f"{name}.csv", [HEADER, "ISIC_0024306,1,1,0,0,0,0,0"])
    with pytest.raises(TargetError, match="exactly one 1 per image, not so for ISIC_0024306"):
        ISIC2018(path=root).load(cache=tmp_path)


def test_a_lesion_in_two_parts_is_refused(tmp_path: Path) -> None:
    root = challenge(tmp_path / "d")
    truth(root, "Test", {"ISIC_0034524": "mel", "ISIC_0034525": "nv"})
    lines = (root / "ISIC2018_Task3_Training_LesionGroupings.csv").read_text().splitlines()
    put_table(root / "ISIC2018_Task3_Training_LesionGroupings.csv", [*lines, "ISIC_0034524,HAM_2,histopathology"])
    with pytest.raises(LeakageError, match="1 group is in two splits"):
        ISIC2018(path=root).load(cache=tmp_path)


def real_table(shared_data: Path) -> pl.DataFrame:
    table = pl.read_csv(shared_data / "ham10000_128" / "HAM10000_metadata_all_10015.csv")
    return table.select("dx", "lesion_id", path=pl.col("image_id"))


def test_spmix_holds_out_46_of_each_class_by_lesion(shared_data: Path) -> None:
    table = hold_out(real_table(shared_data), seed=0)
    held = table.filter(pl.col("split") == "test")
    assert Counter(held["dx"]) == dict.fromkeys(ABOUT.classes, 46)
    assert not set(held["lesion_id"]) & set(table.filter(pl.col("split") == "train")["lesion_id"])
    # With the 193 validation images the paper's training set has 9,886; without them 10,015 - 322.
    assert table.filter(pl.col("split") == "train").height == 9693
    assert hold_out(real_table(shared_data).reverse(), seed=0).equals(table)
    assert not hold_out(real_table(shared_data), seed=1).equals(table)


def test_spmix_protocol_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isic2018, "hold_out", partial(hold_out, count=1))
    root = tmp_path / "d"
    rows = {f"ISIC_{i:07d}": ABOUT.classes[i % 7] for i in range(28)}
    truth(root, "Training", rows)
    truth(root, "Validation", {"ISIC_0034321": "nv"})
    truth(root, "Test", {"ISIC_0034524": "mel"})
    put_table(
        root / "ISIC2018_Task3_Training_LesionGroupings.csv", [GROUPS, *(f"{i},L{i},histopathology" for i in rows)]
    )
    manifest = ISIC2018(path=root, protocol="spmix").load(cache=tmp_path / "c")
    # The challenge's test images play no part.
    assert len(manifest) == 29
    assert manifest.class_counts("test").tolist() == [1] * 7
    split = apply_split(manifest, fractions={"train": 0.7, "validation": 0.1, "test": 0.2}, seed=0)
    assert split.class_counts("test").tolist() == [1] * 7


def test_too_few_lesions(tmp_path: Path) -> None:
    table = pl.DataFrame({"path": ["a", "b"], "dx": ["mel", "mel"], "lesion_id": ["1", "1"]})
    with pytest.raises(ManifestError, match="class mel has 2 images: cannot hold out 46 of whole lesions"):
        hold_out(table, seed=0)
    with pytest.raises(ManifestError, match="class mel has 2 images: cannot hold out 1 of"):
        hold_out(table, seed=0, count=1)


def test_real_lesion_groupings(shared_data: Path, tmp_path: Path) -> None:
    """The published groupings can be written from HAM10000's table, byte for byte: the checksum is the archive's."""
    types = {
        "histo": "histopathology",
        "follow_up": "serial imaging showing no change",
        "consensus": "single image expert consensus",
        "confocal": "confocal microscopy with consensus dermoscopy",
    }
    root = tmp_path / "d"
    with (shared_data / "ham10000_128" / "HAM10000_metadata_all_10015.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["image_id"])
    lines = [f"{row['image_id']},{row['lesion_id']},{types[row['dx_type']]}" for row in rows]
    path = put_table(root / "ISIC2018_Task3_Training_LesionGroupings.csv", [GROUPS, *lines], end="\r\n")
    assert f"sha256:{hash_file(path)}" == OPEN["isic2018"][-1].checksum
    folder = root / "ISIC2018_Task3_Training_Input"
    folder.mkdir()
    for row in rows:
        (folder / f"{row['image_id']}.jpg").write_bytes(row["image_id"].encode())
    ones = [",".join([r["image_id"], *("1.0" if r["dx"] == k else "0.0" for k in ABOUT.classes)]) for r in rows]
    put_table(root / "ISIC2018_Task3_Training_GroundTruth.csv", [HEADER, *ones])
    manifest = ISIC2018(path=root).load(cache=tmp_path / "c")
    assert manifest.class_counts().tolist() == [1113, 6705, 514, 327, 1099, 115, 142]
    assert manifest.frame["group"].n_unique() == 7470


def test_options() -> None:
    with pytest.raises(ConfigError, match="protocol = 'smix'"):
        build(ISIC2018, {"path": "x", "protocol": "smix"}, where="data")
