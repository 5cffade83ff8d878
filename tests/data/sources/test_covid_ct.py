from pathlib import Path

import pytest
from tests.data.sources.miniatures import put_images, put_table
from tests.data.sources.spreadsheets import put_workbook

from raremix.core.errors import LeakageError, ManifestError
from raremix.data.sources.covid_ct import CovidCT

# Names with spaces, per cent signs, and rows of the table without ending, as published.
SICK = [
    "2020.02.10.20021584-p6-52%0.png",
    "2020.02.10.20021584-p6-52%1.png",
    "bmj.m606.full-p4-22%0.png",
    "kjr-21-e25-p1-6.png",
]
WELL = ["0.jpg", "10%2.jpg", "1.3.6.1.4.1.mhd_154.png", "1.3.6.1.4.1.mhd_314.png"]


def put(root: Path, *, xlsx: bool = True) -> Path:
    put_images(
        root / "Images-processed", [*(f"CT_COVID/{n}" for n in SICK), *(f"CT_NonCOVID/{n}" for n in WELL)], channels=1
    )
    rows: list[list[str | int | None]] = [
        ["File name", "Patient ID", "Age", "Gender", "Location"],
        [SICK[0], "Patient 2", 50, "M", "Beijing, China"],
        [SICK[1], "Patient 2", 50, "M", "Beijing, China"],
        ["bmj.m606.full-p4-22%0", "Patient 182 ", 32, "M ", None],
        [SICK[3], "Patient 190", "Young Child", None, None],
    ]
    if xlsx:
        put_workbook(root / "COVID-CT-MetaInfo.xlsx", rows)
    else:
        text = [",".join("" if v is None else f'"{v}"' for v in row) for row in rows]
        put_table(root / "COVID-CT-MetaInfo.csv", text)
    lines = [f"{i},{name},{name.split('.mhd')[0]}" for i, name in enumerate(WELL[2:])]
    put_table(root / "NonCOVID-CT-MetaInfo.csv", [",image name,patient id", *lines])
    lists = {
        ("COVID", "train"): SICK[:2],
        ("COVID", "val"): SICK[2:3],
        ("COVID", "test"): SICK[3:],
        ("NonCOVID", "train"): ["0.jpg"],
        ("NonCOVID", "val"): ["10%2.jpg"],
        ("NonCOVID", "test"): WELL[2:],
    }
    for (kind, part), names in lists.items():
        put_table(root / "Data-split" / kind / f"{part}CT_{kind}.txt", names)
    return root


@pytest.mark.parametrize("xlsx", [True, False])
def test_published_layout(tmp_path: Path, xlsx: bool) -> None:
    manifest = CovidCT(path=put(tmp_path / "d", xlsx=xlsx)).load(cache=tmp_path / "c")
    assert manifest.card.classes == ("non-COVID", "COVID")
    frame = manifest.frame
    assert [len(manifest.rows(s)) for s in ("train", "validation", "test")] == [3, 2, 3]
    group = {Path(path).name: value for path, value in frame.select("path", "group").iter_rows()}
    assert group[SICK[0]] == group[SICK[1]] == "COVID:Patient 2"
    assert group[SICK[2]] == "COVID:Patient 182"
    assert group[WELL[2]] == group[WELL[3]] == "NonCOVID:1.3.6.1.4.1"
    assert group["0.jpg"].startswith("row:")
    band = {Path(path).name: value for path, value in frame.select("path", "age_band").iter_rows()}
    assert (band[SICK[0]], band[SICK[3]], band["0.jpg"]) == ("40-59", None, None)


def test_lists_with_other_endings_and_folders(tmp_path: Path) -> None:
    root = put(tmp_path / "d")
    put_table(root / "Data-split" / "NonCOVID" / "trainCT_NonCOVID.txt", ["CT_NonCOVID/0.png"])
    assert len(CovidCT(path=root).load(cache=tmp_path / "c").rows("train")) == 3


def test_flat_folders_without_lists(tmp_path: Path) -> None:
    root = put(tmp_path / "d") / "Images-processed"
    manifest = CovidCT(path=root, split="none").load(cache=tmp_path / "c")
    assert manifest.frame["split"].null_count() == 8
    assert manifest.attributes == []
    with pytest.raises(ManifestError, match="no list of the train images"):
        CovidCT(path=root).load(cache=tmp_path / "c")


def test_refusals(tmp_path: Path) -> None:
    root = put(tmp_path / "d")
    put_table(root / "Data-split" / "COVID" / "testCT_COVID.txt", [SICK[1], SICK[3]])
    put_table(root / "Data-split" / "COVID" / "trainCT_COVID.txt", [SICK[0]])
    with pytest.raises(LeakageError, match="1 group is in two splits"):
        CovidCT(path=root).load(cache=tmp_path / "c")
    put_table(root / "Data-split" / "COVID" / "trainCT_COVID.txt", SICK[:2])
    with pytest.raises(ManifestError, match=r"52%1.png is in two lists"):
        CovidCT(path=root).load(cache=tmp_path / "c")
    put_table(root / "Data-split" / "COVID" / "testCT_COVID.txt", ["gone.png"])
    with pytest.raises(ManifestError, match=r"1 images of Data-split/COVID are missing: gone.png"):
        CovidCT(path=root).load(cache=tmp_path / "c")
    put_table(root / "Data-split" / "COVID" / "testCT_COVID.txt", [])
    with pytest.raises(ManifestError, match=r"1 images are in no list of Data-split/COVID: kjr-21-e25-p1-6.png"):
        CovidCT(path=root).load(cache=tmp_path / "c")
    (tmp_path / "e").mkdir()
    with pytest.raises(ManifestError, match=r"unpack Images-processed/CT_COVID.zip"):
        CovidCT(path=tmp_path / "e").load(cache=tmp_path / "c")
    put_table(root / "NonCOVID-CT-MetaInfo.csv", ["picture,patient id", "a,b"])
    with pytest.raises(ManifestError, match=r"NonCOVID-CT-MetaInfo.csv has no column File name or image name or image"):
        CovidCT(path=root, split="none").load(cache=tmp_path / "c")
