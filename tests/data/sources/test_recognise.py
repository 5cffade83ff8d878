"""Public sets are known by their published layout, from the folder, the one above it, and the table in it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.data.sources import (
    test_busi,
    test_chestxray14,
    test_chexpert,
    test_covid_ct,
    test_fetal_planes,
    test_isic2018,
    test_padchest,
    test_vindr_pcxr,
)
from tests.data.sources.miniatures import put_images, put_table

from raremix.core.errors import ManifestError
from raremix.data.sources.catalogue import CATALOGUE
from raremix.data.sources.recognise import recognise
from raremix.data.sources.text_table import read_header
from raremix.study.defaults import data_table, study_of
from raremix.study.recommend.guess import guess_data


def kermany(root: Path) -> Path:
    names = [f"{part}/NORMAL/IM-0{k}-0001.jpeg" for part, k in (("train", 115), ("test", 7))]
    names += [f"{part}/PNEUMONIA/person{k}_virus_{k}.jpeg" for part, k in (("train", 1), ("test", 2))]
    put_images(root / "chest_xray", names)
    return root / "chest_xray"


def ham10000(root: Path) -> Path:
    header = "lesion_id,image_id,dx,dx_type,age,sex,localization"
    rows = ["HAM_1,ISIC_0000001,nv,histo,45.0,male,back", "HAM_2,ISIC_0000002,mel,histo,50.0,female,foot"]
    put_table(root / "HAM10000_metadata.csv", [header, *rows])
    put_images(root, ["HAM10000_images_part_1/ISIC_0000001.jpg", "HAM10000_images_part_2/ISIC_0000002.jpg"])
    return root


LAYOUTS: dict[str, tuple[str, Callable[[Path], Path], str | None]] = {
    "challenge": (
        "isic2018",
        test_isic2018.challenge,
        "ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv",
    ),
    "ham10000": ("isic2018", ham10000, "HAM10000_metadata.csv"),
    "chestxray14": ("chestxray14", test_chestxray14.put, "Data_Entry_2017_v2020.csv"),
    "vindr_pcxr": ("vindr_pcxr", test_vindr_pcxr.put, "image_labels_train.csv"),
    "kermany": ("kermany", kermany, None),
    "busi": ("busi", test_busi.put, None),
    "fetal_planes": ("fetal_planes", test_fetal_planes.put, "FETAL_PLANES_DB_data.csv"),
    "covid_ct": ("covid_ct", test_covid_ct.put, None),
    "chexpert": ("chexpert", test_chexpert.put, "train.csv"),
    "padchest": ("padchest", test_padchest.put, "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_layout_is_recognised_and_read(layout: str, tmp_path: Path) -> None:
    name, make, table = LAYOUTS[layout]
    root = make(tmp_path / "above" / "d")
    assert recognise(root) == (name, root)
    if table is not None:
        assert recognise(root / table) == (name, root)
    guess = guess_data(str(root))
    assert guess.table["source"] == name
    assert CATALOGUE[name].title in guess.reasons["source"]
    assert any(CATALOGUE[name].title in note for note in guess.notes)
    settings = {"chexpert": ['data.uncertain="ignore"'], "padchest": ["data.at_least=1"]}.get(name, [])
    study = study_of(str(root), settings=settings)
    assert len(study.source.load(cache=tmp_path / "cache"))


def test_every_public_set_but_the_files_of_medmnist_has_a_mark() -> None:
    assert {name for name, _, _ in LAYOUTS.values()} == set(CATALOGUE) - {"medmnist"}


def test_the_folder_above_leads_to_the_set(tmp_path: Path) -> None:
    test_busi.put(tmp_path / "download" / "Dataset_BUSI_with_GT")
    assert recognise(tmp_path / "download") == ("busi", tmp_path / "download")
    kermany(tmp_path / "zip" / "archive")
    assert recognise(tmp_path / "zip") == ("kermany", tmp_path / "zip" / "archive")


def test_what_only_looks_alike_is_not_taken(tmp_path: Path) -> None:
    put_images(tmp_path / "mine", ["train/NORMAL/a.png", "train/PNEUMONIA/b.png", "test/NORMAL/c.png"])
    assert recognise(tmp_path / "mine") is None, "patients are not in these names"
    put_images(tmp_path / "breast", ["benign/1.png", "malignant/2.png", "normal/3.png"])
    assert recognise(tmp_path / "breast") is None, "no masks"
    put_table(tmp_path / "cxr" / "image_labels_train.csv", ["image_id,rad_id,Aortic enlargement,No finding"])
    put_images(tmp_path / "cxr", ["train/a.png"])
    assert recognise(tmp_path / "cxr") is None, "the adults' set of the same makers"
    assert recognise(tmp_path / "nowhere") is None


def test_a_table_of_ones_own_beside_the_images_is_read_as_it_is(tmp_path: Path) -> None:
    root = ham10000(tmp_path / "d")
    own = put_table(root / "mine.csv", ["file,dx", "ISIC_0000001.jpg,a"])
    assert recognise(own) is None
    settings = ['data.label="dx"']
    assert data_table(str(root / "HAM10000_metadata.csv"), settings=settings)["source"] == "table"
    assert data_table(str(root))["source"] == "isic2018"


def test_what_a_source_would_refuse_to_choose_is_chosen_and_said(tmp_path: Path) -> None:
    guess = guess_data(str(test_chexpert.put(tmp_path / "d")))
    assert guess.table["uncertain"] == "ignore"
    assert "uncertain" in guess.reasons["uncertain"]
    assert guess_data(str(tmp_path / "d"), settings=['data.uncertain="ones"']).table["uncertain"] == "ones"
    root = test_chestxray14.put(tmp_path / "nih")
    assert "split" not in guess_data(str(root)).table
    (root / "train_val_list.txt").unlink()
    assert guess_data(str(root)).table["split"] == "none"


def test_a_header_is_read_without_its_rows(tmp_path: Path) -> None:
    path = put_table(tmp_path / "t.csv", ["\ufeffImage name; Plane ;Train "])
    assert read_header(path) == ["Image name", "Plane", "Train"]
    assert read_header(put_table(tmp_path / "u.csv", ['a,"b, c"', "1,2"])) == ["a", "b, c"]
    assert read_header(put_table(tmp_path / "empty.csv", [""])) == []
    with pytest.raises(ManifestError, match="cannot be read"):
        read_header(tmp_path / "nowhere.csv")
