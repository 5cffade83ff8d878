from pathlib import Path

import pytest
from tests.data.sources.miniatures import put_images, put_table

from raremix.core.errors import LeakageError, ManifestError, TargetError
from raremix.data.sources.fetal_planes import FetalPlanes

# The name of the last column ends with a space, as published.
HEADER = "Image_name;Patient_num;Plane;Brain_plane;Operator;US_Machine;Train "
ROWS = [
    "Patient00001_Plane1_1_of_2;1;Other;Not A Brain;Other;Aloka;1",
    "Patient00001_Plane3_1_of_1;1;Fetal brain;Trans-thalamic;Op. 1;Voluson E6;1",
    "Patient00002_Plane3_1_of_1;2;Fetal brain;Trans-cerebellum;Op. 1;Voluson E6;1",
    "Patient00003_Plane3_1_of_1;3;Fetal brain;Other;Op. 2;Voluson E6;0",
    "Patient00003_Plane1_2_of_2;3;Other;Not A Brain;Op. 2;Voluson E6;0",
]


def put(root: Path, rows: list[str] = ROWS) -> Path:
    put_table(root / "FETAL_PLANES_DB_data.csv", [HEADER, *rows])
    put_images(root, [f"Images/{row.split(';')[0]}.png" for row in rows], channels=1)
    return root


def test_planes(tmp_path: Path) -> None:
    manifest = FetalPlanes(path=put(tmp_path / "d")).load(cache=tmp_path / "c")
    assert len(manifest.card.classes) == 6
    assert manifest.frame["path"][0] == "Images/Patient00001_Plane1_1_of_2.png"
    assert manifest.class_counts("train").tolist() == [0, 2, 0, 0, 0, 1]
    assert manifest.class_counts("test").tolist() == [0, 1, 0, 0, 0, 1]
    assert manifest.frame["group"].n_unique() == 3
    assert manifest.attributes == ["operator", "machine"]


def test_brain_planes(tmp_path: Path) -> None:
    source = FetalPlanes(path=put(tmp_path / "d"), target="brain_plane", split=False)
    manifest = source.load(cache=tmp_path / "c")
    assert manifest.card.classes == ("Trans-cerebellum", "Trans-thalamic", "Trans-ventricular")
    assert manifest.class_counts().tolist() == [1, 1, 0]
    assert manifest.frame["split"].null_count() == 2


def test_folder_within_a_folder(tmp_path: Path) -> None:
    put(tmp_path / "d" / "FETAL_PLANES_ZENODO")
    assert len(FetalPlanes(path=tmp_path / "d").load(cache=tmp_path / "c")) == 5


def test_refusals(tmp_path: Path) -> None:
    root = put(tmp_path / "d")
    put_table(root / "FETAL_PLANES_DB_data.csv", [HEADER, *ROWS[:4], ROWS[4].replace(";3;", ";1;")])
    with pytest.raises(LeakageError, match="1 group is in two splits"):
        FetalPlanes(path=root).load(cache=tmp_path / "c")
    put_table(root / "FETAL_PLANES_DB_data.csv", [HEADER, ROWS[0].replace("Other", "Fetal foot", 1)])
    with pytest.raises(TargetError, match="unknown plane Fetal foot"):
        FetalPlanes(path=root).load(cache=tmp_path / "c")
    put_table(root / "FETAL_PLANES_DB_data.csv", [HEADER, ROWS[0][:-1] + "yes"])
    with pytest.raises(ManifestError, match="column Train holds yes"):
        FetalPlanes(path=root).load(cache=tmp_path / "c")
    put_table(root / "FETAL_PLANES_DB_data.csv", [line.replace(";", ",") for line in [HEADER, *ROWS]])
    with pytest.raises(ManifestError, match="no column 'Image_name'"):
        FetalPlanes(path=root).load(cache=tmp_path / "c")
    put(root, ROWS)
    (root / "Images" / "Patient00002_Plane3_1_of_1.png").unlink()
    with pytest.raises(ManifestError, match="1 of 5 images"):
        FetalPlanes(path=root).load(cache=tmp_path / "c")
    assert len(FetalPlanes(path=root, subset=True).load(cache=tmp_path / "c")) == 4
