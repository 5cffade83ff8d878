import gzip
from pathlib import Path

import numpy as np
import pytest
from tests.data.sources.miniatures import put_images, put_table

from raremix.core.errors import LeakageError, ManifestError, TargetError
from raremix.data.manifest import Manifest
from raremix.data.readers import read_image
from raremix.data.sources.chestxray14 import FINDINGS, ChestXray14, draw_boxes, read_boxes

# As published: two column names hold commas, and so fall apart.
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
ROWS = [
    ("00000001_000.png", "Cardiomegaly", "0,1,57,M,PA"),
    ("00000001_001.png", "Cardiomegaly|Emphysema", "1,1,58,M,PA"),
    ("00000002_000.png", "No Finding", "0,2,414,M,AP"),
    ("00000003_000.png", "Hernia", "0,3,081Y,F,PA"),
]
SIZES = "2682,2749,0.14300000000000002,0.14300000000000002"


def put(root: Path, *, flat: bool = False) -> Path:
    lines = [f"{name},{labels},{rest},{SIZES}" for name, labels, rest in ROWS]
    put_table(root / "Data_Entry_2017_v2020.csv", [HEADER, *lines])
    put_table(root / "train_val_list.txt", [ROWS[0][0], ROWS[1][0], ROWS[3][0]])
    put_table(root / "test_list.txt", [ROWS[2][0]])
    folders = (
        ["images"] * 4 if flat else ["images_001/images", "images_001/images", "images_002/images", "images_012/images"]
    )
    put_images(root, [f"{folder}/{row[0]}" for folder, row in zip(folders, ROWS, strict=True)], channels=1)
    return root


def test_parts(tmp_path: Path) -> None:
    manifest = ChestXray14(path=put(tmp_path / "d")).load(cache=tmp_path / "c")
    frame = manifest.frame
    assert manifest.card.classes == FINDINGS
    assert manifest.card.task == "multilabel"
    assert frame["path"].to_list()[2:] == ["images_002/images/00000002_000.png", "images_012/images/00000003_000.png"]
    assert frame["group"].to_list() == ["1", "1", "2", "3"]
    assert frame["split"].to_list() == ["train", "train", "test", "train"]
    counts = dict(zip(FINDINGS, manifest.class_counts().tolist(), strict=True))
    assert {name: count for name, count in counts.items() if count} == {"Cardiomegaly": 2, "Emphysema": 1, "Hernia": 1}
    assert manifest.targets()[2].tolist() == [0.0] * 14
    assert frame["sex"].to_list() == ["M", "M", "M", "F"]
    # 414 years is a slip of the keyboard; 081Y is how the first release writes ages.
    assert frame["age_band"].to_list() == ["40-59", "40-59", None, "80+"]
    assert manifest.masks() == [None] * 4


def test_one_folder_gives_the_same_rows(tmp_path: Path) -> None:
    first = ChestXray14(path=put(tmp_path / "d", flat=True)).load(cache=tmp_path / "c")
    assert first.frame["path"][0] == "images/00000001_000.png"
    (tmp_path / "d" / "images").rename(tmp_path / "d" / "png")
    second = ChestXray14(path=tmp_path / "d", images=["png"], split="none").load(cache=tmp_path / "c")
    assert second.frame["path"][0] == "png/00000001_000.png"
    assert second.frame["split"].null_count() == 4


def test_chexnet_lists(tmp_path: Path) -> None:
    root = put(tmp_path / "d")
    zeros = " 0" * 14
    put_table(root / "chexnet" / "train_list.txt", [f"images_001/{ROWS[0][0]}{zeros}", f"{ROWS[1][0]}{zeros}"])
    put_table(root / "chexnet" / "val_list.txt", [ROWS[2][0] + zeros])
    put_table(root / "chexnet" / "test_list.txt", [ROWS[3][0] + zeros])
    with pytest.raises(Exception, match="class Hernia is present in test only"):
        ChestXray14(path=root, split="chexnet").load(cache=tmp_path / "c")
    put_table(root / "chexnet" / "val_list.txt", [ROWS[3][0] + zeros])
    put_table(root / "chexnet" / "test_list.txt", [ROWS[2][0] + zeros])
    frame = ChestXray14(path=root, split="chexnet").load(cache=tmp_path / "c").frame
    assert frame["split"].to_list() == ["train", "train", "test", "validation"]
    put_table(root / "chexnet" / "test_list.txt", [ROWS[2][0], ROWS[1][0]])
    with pytest.raises(ManifestError, match=r"00000001_001.png is in two lists of the chexnet split"):
        ChestXray14(path=root, split="chexnet").load(cache=tmp_path / "c")


def test_a_patient_in_two_lists(tmp_path: Path) -> None:
    root = put(tmp_path / "d")
    put_table(root / "train_val_list.txt", [ROWS[0][0], ROWS[3][0]])
    with pytest.raises(ManifestError, match=r"1 images are in no list of the official split: 00000001_001.png"):
        ChestXray14(path=root).load(cache=tmp_path / "c")
    put_table(root / "test_list.txt", [ROWS[1][0], ROWS[2][0]])
    with pytest.raises(LeakageError, match="1 group is in two splits"):
        ChestXray14(path=root).load(cache=tmp_path / "c")


def test_subset(tmp_path: Path) -> None:
    root = put(tmp_path / "d")
    (root / "images_002" / "images" / ROWS[2][0]).unlink()
    with pytest.raises(
        ManifestError, match=r"1 of 4 images .* 00000002_000.png: unpack all parts, or set subset = true"
    ):
        ChestXray14(path=root).load(cache=tmp_path / "c")
    assert len(ChestXray14(path=root, subset=True).load(cache=tmp_path / "c")) == 3


def test_boxes_become_masks(tmp_path: Path) -> None:
    root = put(tmp_path / "d")
    boxes = [
        "00000001_000.png,Cardiomegaly,512.0,256.0,256.0,128.0",
        "00000001_001.png,Cardiomegaly,0,0,512,512",
        "00000001_001.png,Infiltrate,256,256,512,512",
        "99999999_000.png,Mass,1,1,1,1",
    ]
    put_table(root / "BBox_List_2017.csv", ["Image Index,Finding Label,Bbox [x,y,w,h],,,", *boxes])
    manifest = ChestXray14(path=root, boxes=True).load(cache=tmp_path / "c")
    masks = manifest.masks()
    assert [mask is not None for mask in masks] == [True, True, False, False]
    assert masks[0] is not None
    assert masks[1] is not None
    single = read_image(masks[0])[..., 0]
    # A quarter of the published 1024 pixels: 64 x 32 pixels with bit 1, for Cardiomegaly.
    assert single.shape == (256, 256)
    assert np.unique(single).tolist() == [0, 2]
    assert int((single == 2).sum()) == 64 * 32
    assert (single[64:96, 128:192] == 2).all()
    both = read_image(masks[1])[..., 0]
    # "Infiltrate" is Infiltration, bit 3; the two boxes share a quarter.
    assert np.unique(both).tolist() == [0, 2, 8, 10]
    assert int((both == 10).sum()) == 64 * 64
    again = ChestXray14(path=root, boxes=True).load(cache=tmp_path / "c")
    assert again.masks() == masks
    manifest.write(tmp_path / "m" / "manifest.parquet")
    assert Manifest.read(tmp_path / "m" / "manifest.parquet").masks()[1] == masks[1].resolve()


def test_box_outside_the_image_is_cut() -> None:
    assert int((draw_boxes([("Hernia", 1000.0, 1000.0, 500.0, 500.0)]) > 0).sum()) == 6 * 6


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    with pytest.raises(ManifestError, match=r"no table below .*Data_Entry_2017"):
        ChestXray14(path=tmp_path / "e").load(cache=tmp_path / "c")
    root = put(tmp_path / "d")
    line = f"{ROWS[0][0]},Cardiomegalie,0,1,57,M,PA,{SIZES}"
    put_table(root / "Data_Entry_2017_v2020.csv", [HEADER, line])
    with pytest.raises(TargetError, match="unknown finding Cardiomegalie"):
        ChestXray14(path=root).load(cache=tmp_path / "c")
    put_table(
        root / "Data_Entry_2017_v2020.csv", [HEADER, line.replace("galie", "galy"), line.replace("galie", "galy")]
    )
    with pytest.raises(ManifestError, match=r"lists an image twice: 00000001_000.png"):
        ChestXray14(path=root).load(cache=tmp_path / "c")
    with pytest.raises(ManifestError, match="no boxes below"):
        ChestXray14(path=put(tmp_path / "f"), boxes=True).load(cache=tmp_path / "c")


def real(shared_data: Path, tmp_path: Path) -> Path:
    """The published tables of all 112,120 images beside the 1,000 images that are there."""
    folder, root = shared_data / "nih_cxr14_64", tmp_path / "d"
    root.mkdir()
    for name in ("Data_Entry_2017_v2020.csv.gz", "BBox_List_2017.csv.gz"):
        (root / name).write_bytes((folder / "official_labels" / name).read_bytes())
    for part in ("train", "val", "test"):
        name = f"chexnet_{part}_list.txt"
        (root / name).write_bytes((folder / "official_labels" / name).read_bytes())
    (root / "images").mkdir()
    for path in (folder / "images").iterdir():
        (root / "images" / path.name).write_bytes(path.read_bytes())
    return root


def test_real_tables_with_1000_images(shared_data: Path, tmp_path: Path) -> None:
    root = real(shared_data, tmp_path)
    with pytest.raises(ManifestError, match=r"111120 of 112120 images of Data_Entry_2017_v2020.csv.gz are missing"):
        ChestXray14(path=root, split="none").load(cache=tmp_path / "c")
    manifest = ChestXray14(path=root, split="chexnet", subset=True, boxes=True).load(cache=tmp_path / "c")
    counts = dict(zip(manifest.card.classes, manifest.class_counts().tolist(), strict=True))
    assert (counts["Effusion"], counts["Hernia"]) == (170, 9)
    assert manifest.frame["group"].n_unique() == 264
    boxed = [mask for mask in manifest.masks() if mask is not None]
    assert len(boxed) == len(
        set(manifest.frame["path"].str.split("/").list.last()) & set(read_boxes(root / "BBox_List_2017.csv.gz"))
    )


def test_all_984_real_boxes(shared_data: Path) -> None:
    boxes = read_boxes(shared_data / "nih_cxr14_64" / "official_labels" / "BBox_List_2017.csv.gz")
    assert len(boxes) == 880
    assert sum(len(rows) for rows in boxes.values()) == 984
    assert "Infiltration" in {row[0] for rows in boxes.values() for row in rows}
    assert all((draw_boxes(rows) > 0).any() for rows in boxes.values())


def test_real_lists_are_patient_disjoint(shared_data: Path, tmp_path: Path) -> None:
    """All 112,120 rows with the 70/10/20 lists: every image is placed, and no patient twice."""
    root = tmp_path / "d"
    labels = shared_data / "nih_cxr14_64" / "official_labels"
    root.mkdir()
    for part in ("train", "val", "test"):
        (root / f"chexnet_{part}_list.txt").write_bytes((labels / f"chexnet_{part}_list.txt").read_bytes())
    table = gzip.decompress((labels / "Data_Entry_2017_v2020.csv.gz").read_bytes()).decode().splitlines()[1:]
    rows = [line.split(",") for line in table]
    splits = ChestXray14(path=root, split="chexnet")._splits(root, [row[0] for row in rows])
    assert splits is not None
    assert [splits.count(name) for name in ("train", "validation", "test")] == [78468, 11219, 22433]
    patients: dict[str, set[str | None]] = {}
    for row, split in zip(rows, splits, strict=True):
        patients.setdefault(row[3], set()).add(split)
    assert len(patients) == 30805
    assert all(len(found) == 1 for found in patients.values())
