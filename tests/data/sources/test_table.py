from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.data.toys import pictures

from raremix.core.errors import ConfigError, GuardError, LeakageError, ManifestError, TargetError, UnknownNameError
from raremix.data.manifest import Manifest
from raremix.data.sources.table import Table

FINDINGS = [
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
]


class Toy:
    """A folder of six images; `load` writes a table beside them and reads it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        pictures(root / "images", 6)

    def load(self, text: str, **options: object) -> Manifest:
        (self.root / "t.csv").write_text(text)
        table = Table(path=self.root / "t.csv", **{"images_root": "images", **options})
        return table.load(cache=self.root / "cache")


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


def test_single_label(toy: Toy) -> None:
    text = "file,dx,patient,fold,sex,age\n" + "\n".join(
        [
            "002.png,nv,01,val,f,17",
            "000.png,mel,1,train,m,18",
            "001.png, nv ,1,TRAIN,,59",
            "003.png,nv,,test,f,",
            "004.png,mel,4,,f,80",
            "005.png,nv,5,train,m,60.0",
        ]
    )
    manifest = toy.load(text, label="dx", group="patient", split="fold", attributes=["sex", "age"], licence="CC0")
    frame = manifest.frame
    assert frame["path"].to_list() == [f"00{i}.png" for i in range(6)]
    assert manifest.card.classes == ("mel", "nv")
    assert manifest.card.task == "binary"
    assert manifest.card.name == "t"
    assert manifest.card.licence == "CC0"
    assert manifest.targets()[:, 0].tolist() == [1, 0, 0, 0, 1, 0]
    assert frame["group"].to_list() == ["1", "1", "01", "row:3", "4", "5"]
    assert frame["split"].to_list() == ["train", "train", "validation", "test", None, "train"]
    assert frame["sex"].to_list() == ["m", None, "f", "f", "f", "m"]
    assert frame["age_band"].to_list() == ["18-39", "40-59", "0-17", None, "80+", "60-79"]
    assert manifest.attributes == ["sex", "age_band"]


def test_parquet_gives_the_same(toy: Toy) -> None:
    text = "file,dx,age\n000.png,a,3\n001.png,b,90\n"
    first = toy.load(text, label="dx", attributes=["age"])
    pl.read_csv(toy.root / "t.csv").write_parquet(toy.root / "t.parquet")
    source = Table(path=str(toy.root / "t.parquet"), images_root="images", label="dx", attributes=["age"])
    assert source.load(cache=toy.root / "cache").hash() == first.hash()


def test_order_of_lines_does_not_matter(toy: Toy) -> None:
    lines = ["000.png,a", "001.png,b", "002.png,a"]
    first = toy.load("file,dx\n" + "\n".join(lines), label="dx")
    assert toy.load("file,dx\n" + "\n".join(lines[::-1]), label="dx").hash() == first.hash()


def test_classes_and_rename(toy: Toy) -> None:
    text = "file,dx\n000.png,NORMAL\n001.png,virus\n002.png,bacteria\n"
    rename = {"NORMAL": "normal", "virus": "pneumonia", "bacteria": "pneumonia"}
    manifest = toy.load(text, label="dx", rename=rename, classes=["normal", "pneumonia"])
    assert manifest.card.task == "binary"
    assert manifest.targets().tolist() == [[1, 0], [0, 1], [0, 1]]
    assert toy.load(text, label="dx", classes=["virus", "NORMAL", "bacteria"]).card.task == "multiclass"
    assert toy.load(text, label="dx", classes=["virus", "NORMAL", "bacteria", "tb"]).class_counts().tolist() == [
        1,
        1,
        1,
        0,
    ]


def test_findings(toy: Toy) -> None:
    text = "file,Mass,Edema\n000.png,1,0\n001.png,0.0,\n002.png,true,1.0\n003.png,,\n"
    manifest = toy.load(text, labels=["Edema", "Mass"])
    assert manifest.card.task == "multilabel"
    assert manifest.card.classes == ("Edema", "Mass")
    np.testing.assert_array_equal(manifest.targets(), [[0, 1], [np.nan, 0], [1, 1], [np.nan, np.nan]])


@pytest.mark.parametrize(("meaning", "value"), [("empty", np.nan), ("positive", 1.0), ("negative", 0.0)])
def test_uncertain_findings(toy: Toy, meaning: str, value: float) -> None:
    text = "file,Mass\n000.png,1\n001.png,-1\n002.png,-1.0\n"
    with pytest.raises(
        TargetError, match=r"-1 in column 'Mass', in line 3, 4: say what it means: uncertain = \"empty\""
    ):
        toy.load(text, labels=["Mass"])
    np.testing.assert_array_equal(toy.load(text, labels=["Mass"], uncertain=meaning).targets()[1:, 0], [value, value])


def test_uncertain_findings_one_by_one(toy: Toy) -> None:
    text = "file,Mass,Edema\n000.png,-1,-1\n001.png,1,0\n"
    manifest = toy.load(text, labels=["Mass", "Edema"], uncertain={"Mass": "ones", "Edema": "ignore"})
    np.testing.assert_array_equal(manifest.targets(), [[1, np.nan], [1, 0]])
    with pytest.raises(TargetError, match="-1 in column 'Edema', in line 2"):
        toy.load(text, labels=["Mass", "Edema"], uncertain={"Mass": "zeros"})
    with pytest.raises(UnknownNameError, match="unknown finding in uncertain 'Nodule'"):
        toy.load(text, labels=["Mass", "Edema"], uncertain={"Nodule": "zeros"})


@pytest.mark.parametrize("uncertain", [None, "empty"])
def test_a_finding_without_any_label(toy: Toy, uncertain: str | None) -> None:
    value = "" if uncertain is None else "-1"
    text = f"file,Mass,Edema\n000.png,{value},1\n001.png,,0\n"
    with pytest.raises(TargetError, match="column 'Mass' has no label in any row: leave it out of labels"):
        toy.load(text, labels=["Mass", "Edema"], uncertain=uncertain)


def test_one_class_spelled_two_ways(toy: Toy) -> None:
    # Spaces around a name never count; case, and spaces within, would make two classes of one.
    assert toy.load("file,dx\n000.png,nv\n001.png,mel\n002.png, mel \n", label="dx").card.classes == ("mel", "nv")
    text = "file,dx\n000.png,nv\n001.png,Melanoma\n002.png,melanoma \n"
    with pytest.raises(
        TargetError, match="spelled in two ways, 'Melanoma', 'melanoma', in column 'dx': map one to the"
    ):
        toy.load(text, label="dx")
    assert toy.load(text, label="dx", rename={"Melanoma": "melanoma"}).class_counts().tolist() == [2, 1]
    assert len(toy.load(text, label="dx", classes=["nv", "Melanoma", "melanoma"]).card.classes) == 3
    with pytest.raises(TargetError, match="'basal cell', 'basal_cell'"):
        toy.load("file,dx\n000.png,basal cell\n001.png,basal_cell\n", label="dx")


def test_other_encodings_and_separators(toy: Toy) -> None:
    text = "file;dx\n000.png;Mélanome\n001.png;nævus\n"
    path = toy.root / "t.csv"
    options = {"path": path, "images_root": "images", "label": "dx", "separator": ";"}
    for encoding in ("cp1252", "utf-16", "utf-8-sig"):
        path.write_bytes(text.encode(encoding))
        manifest = Table(**options, encoding=encoding).load(cache=toy.root / "cache")
        assert manifest.card.classes == ("Mélanome", "nævus")
    assert Table(**options).load(cache=toy.root / "cache").hash() == manifest.hash()
    path.write_bytes(text.encode("cp1252"))
    with pytest.raises(
        ManifestError, match=r't.csv is not UTF-8 in line 2: set encoding = "cp1252", or save it as UTF-8'
    ):
        Table(**options).load(cache=toy.root / "cache")
    with pytest.raises(ConfigError, match="separator must be one character"):
        Table(path=path, label="dx", separator=";;")


@pytest.mark.parametrize(
    "place",
    ["../secret.png", "a/../../secret.png", "..\\\\secret.png", "C:/x.png", "\\\\\\\\server\\\\x.png"],
)
def test_paths_that_leave_the_root(toy: Toy, place: str) -> None:
    (toy.root / "secret.png").write_bytes((toy.root / "images" / "000.png").read_bytes())
    with pytest.raises(ManifestError, match="must be relative and stay below the root"):
        toy.load(f"file,dx\n000.png,a\n{place},b\n", label="dx")


def test_links_that_leave_the_root(toy: Toy) -> None:
    (toy.root / "secret.png").write_bytes((toy.root / "images" / "000.png").read_bytes())
    (toy.root / "images" / "link.png").symlink_to(toy.root / "secret.png")
    with pytest.raises(ManifestError, match="1 files are links that lead out"):
        toy.load("file,dx\n000.png,a\nlink.png,b\n", label="dx")


def test_hostile_names_in_cells(toy: Toy) -> None:
    manifest = toy.load("file,dx\n000.png,<script>alert(1)</script>\n001.png,\"=cmd|' /C calc'!A0\"\n", label="dx")
    assert "<script>alert(1)</script>" in manifest.card.classes
    with pytest.raises(ManifestError, match="class names with control characters"):
        toy.load("file,dx\n000.png,a\n001.png,b\x1b[2Jc\n", label="dx")


def test_split_values(toy: Toy) -> None:
    text = "file,dx,fold\n000.png,a,0\n001.png,b,0\n002.png,a,1\n003.png,b,2\n"
    manifest = toy.load(text, label="dx", split="fold", split_values={"0": "train", "1": "val", "2": "test"})
    assert manifest.frame["split"].to_list() == ["train", "train", "validation", "test"]
    with pytest.raises(ManifestError, match="unknown values in the split column 'fold', in line 5: map them"):
        toy.load(text, label="dx", split="fold", split_values={"0": "train", "1": "val"})
    with pytest.raises(ConfigError, match="maps to tset"):
        toy.load(text, label="dx", split="fold", split_values={"0": "tset"})


def test_images_beside_the_table_and_absolute(toy: Toy) -> None:
    manifest = toy.load("file,dx\nimages/000.png,a\nimages/001.png,b\n", label="dx", images_root=None)
    assert manifest.frame["path"][0] == "images/000.png"
    inside = (toy.root / "images" / "000.png").resolve()
    assert toy.load(f"file,dx\n{inside},a\n001.png,b\n", label="dx").frame["path"].to_list() == ["000.png", "001.png"]
    with pytest.raises(ManifestError, match="must be relative and stay below the root"):
        toy.load("file,dx\n/etc/000.png,a\n001.png,b\n", label="dx")


@pytest.mark.parametrize(
    ("text", "options", "error", "words"),
    [
        ("file,dx\n000.png,a\n", {"label": "dxx"}, ManifestError, "no column 'dxx': did you mean 'dx'"),
        ("filename,dx\n000.png,a\n", {"label": "dx"}, ManifestError, "no column 'file': did you mean 'filename'"),
        ("file,dx\n000.png,a\n", {"label": "dx", "attributes": ["sex"]}, ManifestError, "no column 'sex'"),
        (
            "file,dx\n000.png,a\n001.png,\n002.png, \n",
            {"label": "dx"},
            TargetError,
            "no label in column 'dx', in line 3, 4",
        ),
        (
            "file,dx\n000.png,a\n001.png,melanom\n",
            {"label": "dx", "classes": ["a", "melanoma"]},
            TargetError,
            "unknown class 'melanom' in column 'dx', in line 3: did you mean 'melanoma'",
        ),
        ("file,dx\n000.png,a\n000.png,b\n", {"label": "dx"}, ManifestError, "one file in several rows"),
        ("file,dx\n000.png,a\n,b\n", {"label": "dx"}, ManifestError, "no file in column 'file', in line 3"),
        (
            "file,dx\n000.png,a\n9.png,b\n",
            {"label": "dx"},
            ManifestError,
            r"1 of 2 files are missing .*row 1 \(9.png\)",
        ),
        ("file,dx\n000.png,a\n001.png,a\n", {"label": "dx"}, ManifestError, "at least two classes"),
        ("file,dx\n", {"label": "dx"}, ManifestError, "has no rows"),
        ("", {"label": "dx"}, ManifestError, "not a table"),
        ("file,Mass\n000.png,2\n", {"labels": ["Mass"]}, TargetError, "other than 1, 0 or empty, in line 2"),
        ("file,dx\n../t.csv,a\n001.png,b\n", {"label": "dx"}, ManifestError, "below the root"),
        (
            "file,dx,p,s\n000.png,a,1,train\n001.png,b,1,test\n002.png,b,2,train\n",
            {"label": "dx", "group": "p", "split": "s"},
            LeakageError,
            r"1 group is in two splits: row 0 ",
        ),
        (
            "file,dx,s\n000.png,a,train\n001.png,b,test\n",
            {"label": "dx", "split": "s"},
            GuardError,
            "class b is present in test only",
        ),
    ],
)
def test_refusals(toy: Toy, text: str, options: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        toy.load(text, **options)


def test_many_bad_lines_are_counted(toy: Toy) -> None:
    text = "file,dx\n" + "\n".join(f"00{i}.png," for i in range(6)) + "\n007.png,\n"
    with pytest.raises(TargetError, match="in line 2, 3, 4, 5, 6 and 2 more"):
        toy.load(text, label="dx")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"label": "a", "labels": ["b"]},
        {"labels": "ab"},
        {"labels": ["a"], "classes": ["a"]},
        {"label": "a", "attributes": "x"},
    ],
)
def test_options_refused(options: dict) -> None:
    with pytest.raises(ConfigError):
        Table(path="t.csv", **options)


def test_no_such_table(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such table"):
        Table(path=tmp_path / "t.csv", label="dx").load(cache=tmp_path)


def test_kermany(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "kermany_cxr_224"
    options = {"path": folder / "labels.csv", "images_root": "images", "label": "label", "group": "patient_group"}
    manifest = Table(**options, split="official_split").load(cache=tmp_path)
    assert manifest.class_counts().tolist() == [1583, 4273]
    assert len(manifest.rows("test")) == 624
    with pytest.raises(LeakageError, match=r"703 groups are in two splits: row \d+ \(.*\) in train with") as caught:
        Table(**options, split="repo_split_leaky").load(cache=tmp_path)
    assert "and 698 more: split by group" in str(caught.value)
    # Without the groups, the pixel-identical images still give the leak away.
    ungrouped = {key: value for key, value in options.items() if key != "group"}
    with pytest.raises(LeakageError, match="15 files are in two splits"):
        Table(**ungrouped, split="repo_split_leaky").load(cache=tmp_path)
    three = {**options, "label": "subtype"}
    assert Table(**three).load(cache=tmp_path).class_counts().tolist() == [2780, 1583, 1493]


def test_ham10000(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "ham10000_128"
    source = Table(
        path=folder / "labels.csv",
        images_root="images",
        label="dx",
        group="lesion_id",
        attributes=["sex", "age", "dx_type"],
    )
    manifest = source.load(cache=tmp_path)
    expected = {"nv": 4323, "bkl": 583, "mel": 491, "bcc": 264, "akiec": 183, "vasc": 80, "df": 60}
    assert dict(zip(manifest.card.classes, manifest.class_counts().tolist(), strict=True)) == expected
    assert manifest.frame["age_band"].null_count() == 36
    assert manifest.attributes == ["sex", "age_band", "dx_type"]


def test_nih(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "nih_cxr14_64"
    options = {"path": folder / "labels.csv", "images_root": "images", "labels": FINDINGS, "group": "patient_id"}
    manifest = Table(**options, split="chexnet_split").load(cache=tmp_path)
    assert manifest.card.task == "multilabel"
    counts = dict(zip(manifest.card.classes, manifest.class_counts().tolist(), strict=True))
    assert (counts["Effusion"], counts["Hernia"]) == (170, 9)
    assert manifest.frame["group"].n_unique() == 264
    with pytest.raises(LeakageError, match="30 groups are in two splits"):
        Table(**options, split="repo_split_leaky").load(cache=tmp_path)


def test_rows_that_count_are_chosen_by_other_columns(toy: Toy) -> None:
    text = "file,label,kind\n" + "\n".join(
        f"00{i}.png,{label},{kind}"
        for i, (label, kind) in enumerate(
            [("ill", "virus"), ("ill", "bacteria"), ("well", "none"), ("ill", " virus"), ("well", "none"), ("ill", "")]
        )
    )
    manifest = toy.load(text, label="label", only={"kind": ["virus", "none"]})
    assert manifest.frame["path"].to_list() == ["000.png", "002.png", "003.png", "004.png"]
    with pytest.raises(UnknownNameError, match="did you mean 'virus'"):
        toy.load(text, label="label", only={"kind": ["virs"]})
    with pytest.raises(ManifestError, match="sort"):
        toy.load(text, label="label", only={"sort": ["virus"]})
