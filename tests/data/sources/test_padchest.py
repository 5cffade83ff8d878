from pathlib import Path

import pytest
from tests.data.sources.miniatures import put_images, put_table

from raremix.core.errors import ConfigError, ManifestError, UnknownNameError
from raremix.data.sources.padchest import PadChest, terms_of

HEADER = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,Projection,MethodLabel,Labels"
)
ROWS = [
    ("a.png", "0", "p1", "PA", "Physician", "['pneumonia', 'pleural effusion']"),
    ("b.png", "0", "p1", "L", "Physician", "['pneumonia']"),
    ("c.png", "54", "p2", "PA", "RNN_model", "['normal']"),
    ("d.png", "54", "p3", "PA", "RNN_model", "[' Pneumonia ', 'unchanged']"),
    ("e.png", "54", "p4", "PA", "RNN_model", "['exclude']"),
    ("f.png", "54", "p5", "PA", "RNN_model", ""),
]


def put(root: Path) -> Path:
    lines = [
        f'{i},{image},{folder},20140915,s{i},{patient},1964.0,F,{view},{method},"{labels}"'
        for i, (image, folder, patient, view, method, labels) in enumerate(ROWS)
    ]
    put_table(root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", [HEADER, *lines])
    put_images(root, [f"{row[1]}/{row[0]}" for row in ROWS], channels=1)
    return root


def test_published_layout(tmp_path: Path) -> None:
    manifest = PadChest(path=put(tmp_path / "d"), at_least=1).load(cache=tmp_path / "c")
    assert manifest.card.classes == ("pleural effusion", "pneumonia")
    # The lateral view, the excluded image and the one without labels are left out.
    assert manifest.frame["path"].to_list() == ["0/a.png", "54/c.png", "54/d.png"]
    assert manifest.targets().tolist() == [[1, 1], [0, 0], [0, 1]]
    assert manifest.frame["group"].to_list() == ["p1", "p2", "p3"]
    assert manifest.frame["age_band"].to_list() == ["40-59"] * 3


def test_options(tmp_path: Path) -> None:
    root = put(tmp_path / "d")
    source = PadChest(path=root, labels=["pneumonia"], projections=["PA", "L"], only_physicians=True)
    assert source.load(cache=tmp_path / "c").frame["path"].to_list() == ["0/a.png", "0/b.png"]
    with pytest.raises(UnknownNameError, match="did you mean 'pneumonia'"):
        PadChest(path=root, labels=["pneumona"]).load(cache=tmp_path / "c")
    with pytest.raises(ManifestError, match="no label has 50 images"):
        PadChest(path=root).load(cache=tmp_path / "c")
    with pytest.raises(ManifestError, match="no image is left"):
        PadChest(path=root, projections=["AP"]).load(cache=tmp_path / "c")
    with pytest.raises(ConfigError, match="projections must be a list"):
        PadChest(path=root, projections="PA")
    (root / "54" / "d.png").unlink()
    with pytest.raises(ManifestError, match="are missing"):
        PadChest(path=root, at_least=1).load(cache=tmp_path / "c")
    assert len(PadChest(path=root, at_least=1, subset=True).load(cache=tmp_path / "c")) == 2


def test_terms() -> None:
    assert terms_of("""['normal', "air's sign", '']""") == {"normal", "air's sign"}
    assert terms_of(None) == terms_of("[]") == set()
