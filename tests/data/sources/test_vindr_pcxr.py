from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.data.sources.miniatures import put_images, put_table

from raremix.core.errors import ConfigError, ManifestError, TargetError
from raremix.data.readers import read_image
from raremix.data.sources.vindr_pcxr import DISEASES, VindrPCXR, merge_rows

HEADER = ",".join(["image_id", "rad_ID", "No finding", *DISEASES])


def line(image: str, reader: str, *found: str) -> str:
    return ",".join([image, reader, str(int(not found)), *(str(int(name in found)) for name in DISEASES)])


def put(root: Path) -> Path:
    train = [line("aa01", "R1", "Bronchitis"), line("aa02", "R2"), line("aa02", "R3", "Pneumonia")]
    put_table(root / "image_labels_train.csv", [HEADER, *train, line("aa03", "R1", "Pneumonia", "CPAM")])
    put_table(root / "image_labels_test.csv", [HEADER, line("bb01", "R1", "Bronchitis")])
    put_images(root, ["train/aa01.dicom", "train/aa02.dicom", "train/aa03.dicom", "test/bb01.dicom"], channels=1)
    return root


def test_published_layout(tmp_path: Path) -> None:
    manifest = VindrPCXR(path=put(tmp_path / "d")).load(cache=tmp_path / "c")
    assert manifest.card.classes == DISEASES
    assert manifest.frame["path"].to_list() == ["test/bb01.dicom", *(f"train/aa0{i}.dicom" for i in (1, 2, 3))]
    assert manifest.frame["split"].to_list() == ["test", "train", "train", "train"]
    assert manifest.class_counts("train")[DISEASES.index("Pneumonia")] == 1
    # Two readers disagree about aa02: a tie is not labelled.
    assert np.isnan(manifest.targets()[2, DISEASES.index("Pneumonia")])
    assert manifest.targets()[2, DISEASES.index("CPAM")] == 0


def test_chosen_labels_and_columns_of_other_case(tmp_path: Path) -> None:
    root = put(tmp_path / "d")
    for part in ("train", "test"):
        path = root / f"image_labels_{part}.csv"
        path.write_text(path.read_text().replace("rad_ID", "rad_id"))
    manifest = VindrPCXR(path=root).load(cache=tmp_path / "c")
    assert "rad_id" not in manifest.card.classes
    few = VindrPCXR(path=root, labels=["No finding", "Bronchitis"]).load(cache=tmp_path / "c")
    assert few.card.classes == ("No finding", "Bronchitis")
    with pytest.raises(ManifestError, match="no column 'Bronchitus': did you mean 'Bronchitis'"):
        VindrPCXR(path=root, labels=["Bronchitus"]).load(cache=tmp_path / "c")
    with pytest.raises(ConfigError, match="labels must be a list"):
        VindrPCXR(path=root, labels="Pneumonia")


def test_classes_that_exclude_each_other(tmp_path: Path) -> None:
    """One image of the miniature's training set has pneumonia and no tie, one of the test set neither class."""
    root = put(tmp_path / "d")
    put_table(root / "image_labels_test.csv", [HEADER, line("bb01", "R1", "Bronchitis"), line("bb02", "R1")])
    train = (root / "image_labels_train.csv").read_text().splitlines()
    put_table(root / "image_labels_train.csv", [*train, line("aa04", "R1")])
    put_images(root, ["test/bb02.dicom", "train/aa04.dicom"], channels=1)
    manifest = VindrPCXR(path=root, classes=["No finding", "Pneumonia"]).load(cache=tmp_path / "c")
    assert (manifest.card.task, manifest.card.classes) == ("binary", ("No finding", "Pneumonia"))
    assert manifest.frame["path"].to_list() == ["test/bb02.dicom", "train/aa03.dicom", "train/aa04.dicom"]
    assert manifest.targets().tolist() == [[1, 0], [0, 1], [1, 0]]
    three = VindrPCXR(path=root, classes=["No finding", "Pneumonia", "CPAM"]).load(cache=tmp_path / "c")
    assert three.card.task == "multiclass"
    assert three.frame["path"].to_list() == ["test/bb02.dicom", "train/aa04.dicom"], "aa03 shows two of them"
    for wrong, words in (
        ({"classes": ["Pneumonia"]}, "at least two"),
        ({"classes": "Pneumonia"}, "classes must be a list"),
        ({"classes": ["No finding", "CPAM"], "labels": ["CPAM"]}, "exclude each other"),
    ):
        with pytest.raises(ConfigError, match=words):
            VindrPCXR(path=root, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("merge", "expected"),
    [
        ("majority", [1.0, 0.0, np.nan, 1.0]),
        ("any", [1.0, 1.0, 1.0, 1.0]),
        ("all", [0.0, 0.0, 0.0, 1.0]),
        ("agree", [np.nan, np.nan, np.nan, 1.0]),
    ],
)
def test_merging(merge: str, expected: list[float]) -> None:
    votes = {"a": "110", "b": "100", "c": "10", "d": "1"}
    rows = [(image, vote) for image, given in votes.items() for vote in given]
    table = pl.DataFrame({"image_id": [r[0] for r in rows], "Pneumonia": [r[1] for r in rows]})
    images, values = merge_rows(table, labels=["Pneumonia"], merge=merge, name="t.csv")
    assert images == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(values[:, 0], expected)


def test_refusals(tmp_path: Path) -> None:
    root = put(tmp_path / "d")
    put_images(root, ["train/aa01.dcm"])
    with pytest.raises(ManifestError, match="one image lies in two places"):
        VindrPCXR(path=root).load(cache=tmp_path / "c")
    (root / "train" / "aa01.dcm").unlink()
    (root / "train" / "aa01.dicom").unlink()
    with pytest.raises(ManifestError, match=r"1 of 3 images of image_labels_train.csv are missing"):
        VindrPCXR(path=root).load(cache=tmp_path / "c")
    put_table(root / "image_labels_train.csv", [HEADER, line("aa02", "R1").replace(",0", ",2", 1)])
    with pytest.raises(TargetError, match="other than 0 and 1 in line 2"):
        VindrPCXR(path=root).load(cache=tmp_path / "c")


def test_dicom_decodes(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    root = put(tmp_path / "d")
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    data.Rows, data.Columns, data.SamplesPerPixel, data.BitsAllocated, data.BitsStored, data.HighBit = (
        4,
        5,
        1,
        16,
        12,
        11,
    )
    data.PixelRepresentation, data.PhotometricInterpretation = 0, "MONOCHROME2"
    data.PixelData = np.arange(20, dtype=np.uint16).tobytes()
    pydicom.dcmwrite(root / "train" / "aa01.dicom", data, enforce_file_format=True)
    manifest = VindrPCXR(path=root).load(cache=tmp_path / "c")
    assert read_image(manifest.paths()[1]).shape == (4, 5, 1)
