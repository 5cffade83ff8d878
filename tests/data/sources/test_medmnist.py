import io
import urllib.request
import zipfile
from dataclasses import replace
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
from tests.data.sources.web import Web

from raremix.core import files
from raremix.core.errors import (
    ConfigError,
    LeakageError,
    ManifestError,
    ReadError,
    StorageError,
    TargetError,
    UnknownNameError,
)
from raremix.data.manifest import Manifest
from raremix.data.readers import read_image
from raremix.data.sources import download, medmnist
from raremix.data.sources.medmnist import MedMNIST
from raremix.data.sources.medmnist_sets import SETS


def arrays(counts: dict[str, int], *, classes: int = 3, shape: tuple[int, ...] = (6, 6, 3)) -> dict[str, np.ndarray]:
    stream = np.random.default_rng(0)
    made = {}
    for part, count in counts.items():
        made[f"{part}_images"] = stream.integers(0, 256, (count, *shape), dtype=np.uint8)
        made[f"{part}_labels"] = (np.arange(count) % classes).astype(np.uint8)[:, None]
    return made


def save(path: Path, made: dict[str, np.ndarray]) -> Path:
    file = io.BytesIO()
    np.savez_compressed(file, **made)
    return files.write_bytes(path, file.getvalue())


COUNTS = {"train": 12, "val": 6, "test": 6}


def load(tmp_path: Path, made: dict[str, np.ndarray], name: str = "toy.npz", **options: object) -> Manifest:
    return MedMNIST(path=save(tmp_path / name, made), **options).load(cache=tmp_path / "cache")


def test_images_and_splits(tmp_path: Path) -> None:
    made = arrays(COUNTS)
    manifest = load(tmp_path, made)
    assert manifest.card.classes == ("0", "1", "2")
    assert manifest.card.task == "multiclass"
    assert [len(manifest.rows(name)) for name in ("train", "validation", "test")] == [12, 6, 6]
    for split, part in (("train", "train"), ("validation", "val"), ("test", "test")):
        rows = manifest.rows(split)
        pixels = np.stack([read_image(path) for path in manifest.paths(rows)])
        np.testing.assert_array_equal(pixels, made[f"{part}_images"])
        np.testing.assert_array_equal(manifest.targets(rows).argmax(1), made[f"{part}_labels"][:, 0])
    assert manifest.hash() == load(tmp_path / "elsewhere", made).hash()


def test_grey_binary_and_progress(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    path = save(tmp_path / "toy.npz", arrays(COUNTS, classes=2, shape=(5, 5)))
    source = MedMNIST(path=path, classes=["well", "sick"])
    manifest = source.load(cache=tmp_path / "c", progress=lambda *call: calls.append(call))
    assert manifest.card.task == "binary"
    assert manifest.card.classes == ("well", "sick")
    assert read_image(manifest.paths()[0]).shape == (5, 5, 1)
    assert calls == [("unpack images", 24, 24), ("hash files", 24, 24)]


def test_several_columns_are_findings(tmp_path: Path) -> None:
    made = arrays(COUNTS)
    for part, count in COUNTS.items():
        made[f"{part}_labels"] = np.tile(np.array([[0, 1], [1, 1], [0, 0]], dtype=np.uint8), (count // 3, 1))
    manifest = load(tmp_path, made)
    assert manifest.card.task == "multilabel"
    assert manifest.class_counts("train").tolist() == [4, 8]


def test_published_names(tmp_path: Path) -> None:
    manifest = load(tmp_path, arrays(COUNTS, classes=2), name="pneumoniamnist_64.npz")
    assert manifest.card.classes == ("normal", "pneumonia")
    assert manifest.card.modality == "chest_xray"
    assert manifest.targets()[:, 1].sum() == 12
    # Label 0 is the malignant one: it becomes the last, positive class.
    breast = load(tmp_path, arrays({**COUNTS, "test": 5}, classes=2), name="breastmnist.npz")
    assert breast.card.classes == ("normal or benign", "malignant")
    assert breast.class_counts("test").tolist() == [2, 3]


def test_leaky_official_split(tmp_path: Path) -> None:
    made = arrays({"train": 30, "val": 12, "test": 12})
    made["val_images"][3] = made["train_images"][6]
    made["train_images"][8] = made["test_images"][2]
    with pytest.raises(LeakageError, match=r"2 files are in two splits.*or set resplit = true"):
        load(tmp_path, made)
    manifest = load(tmp_path, made, resplit=True)
    # The training image that is in test is dropped; test stays; the twins stay together.
    assert len(manifest) == 53
    assert manifest.ids.tolist() == list(range(53))
    assert len(manifest.rows("test")) == 12
    assert "train/000008.png" not in manifest.frame["path"].to_list()
    where = dict(zip(manifest.frame["path"], manifest.frame["split"], strict=True))
    assert where["val/000003.png"] == where["train/000006.png"]
    assert len(manifest.rows("validation")) == pytest.approx(41 * 12 / 42, abs=1.5)
    assert load(tmp_path, made, resplit=True).hash() == manifest.hash()
    assert load(tmp_path, made, resplit=True, seed=1).hash() != manifest.hash()


def groups(tmp_path: Path, lines: list[str], header: str = "split,index,patient_group,label") -> Path:
    return files.write_text(tmp_path / "groups.csv", "\n".join([header, *lines]))


def test_groups(tmp_path: Path) -> None:
    made = arrays(COUNTS)
    table = groups(tmp_path, ["train,0,p1,0", "train,5,p2,2", "val,1,p2,1", "test,2,p3,2"])
    with pytest.raises(LeakageError, match=r"1 group is in two splits: row \d+ .*resplit = true"):
        load(tmp_path, made, groups=table)
    frame = load(tmp_path, made, groups=table, resplit=True).frame
    group = dict(zip(frame["path"], frame["group"], strict=True))
    assert group["train/000005.png"] == group["val/000001.png"] == "p2"
    assert group["test/000002.png"] == "p3"
    assert group["train/000001.png"].startswith("row:")


@pytest.mark.parametrize(
    ("lines", "header", "words"),
    [
        (["train,12,p,0"], "split,index,patient_group,label", "no such image in line 2"),
        (["train,x,p,0"], "split,index,patient_group,label", "no such image in line 2"),
        (["trian,1,p,1"], "split,index,patient_group,label", "no such image in line 2"),
        (["train,0,p,0", "train,1,p,2"], "split,index,patient_group,label", "another label than the image's in line 3"),
        (["train,0,p"], "split,index,patient", "no column patient_group"),
    ],
)
def test_groups_refused(tmp_path: Path, lines: list[str], header: str, words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        load(tmp_path, arrays(COUNTS), groups=groups(tmp_path, lines, header))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"val_labels": None}, ManifestError, "no array val_labels"),
        ({"train_images": np.zeros((12, 6, 6, 3))}, ManifestError, "holds float64 of shape"),
        ({"train_images": np.zeros((12, 6, 6, 6, 3), dtype=np.uint8)}, ManifestError, "holds volumes of shape"),
        ({"train_images": np.zeros((12, 6, 6, 6), dtype=np.uint8)}, ManifestError, "two-dimensional sets of MedMNIST"),
        ({"train_images": np.zeros((12, 6, 6, 2), dtype=np.uint8)}, ManifestError, "expected uint8 of shape"),
        ({"train_images": np.zeros((12, 2000, 1, 3), dtype=np.uint8)}, ManifestError, "expected uint8 of shape"),
        (
            {"train_images": np.zeros((11, 6, 6, 3), dtype=np.uint8)},
            ManifestError,
            "11 train images and 12 train labels",
        ),
        ({"train_labels": np.zeros((12, 1))}, ManifestError, "expected whole numbers"),
        ({"train_labels": np.array([[{}]] * 12, dtype=object)}, ReadError, "Python objects"),
        ({"train_labels": np.zeros((12, 2), dtype=np.uint8)}, TargetError, "labels of 1, 2 columns"),
        ({"train_images": np.asfortranarray(np.zeros((12, 6, 6), dtype=np.uint8))}, ReadError, "Fortran order"),
    ],
)
def test_refused(tmp_path: Path, change: dict, error: type[Exception], words: str) -> None:
    made = {key: value for key, value in {**arrays(COUNTS), **change}.items() if value is not None}
    with pytest.raises(error, match=words):
        load(tmp_path, made)
    assert not any((tmp_path / "cache").rglob("*.png"))


def test_class_numbers_outside_the_names(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="class numbers 0 to 2 given, expected 0 to 1"):
        load(tmp_path, arrays(COUNTS), classes=["a", "b"])


def test_damaged_archive(tmp_path: Path) -> None:
    path = save(tmp_path / "toy.npz", arrays(COUNTS))
    data = path.read_bytes()
    for damaged in (b"", b"PK", data[: len(data) // 2], data[:200] + bytes(100) + data[300:]):
        path.write_bytes(damaged)
        with pytest.raises(ReadError, match=r"toy\.npz: is not a readable"):
            MedMNIST(path=path).load(cache=tmp_path / "cache")


def test_a_header_that_asks_for_the_moon(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for part in COUNTS:
            for kind in ("images", "labels"):
                body = io.BytesIO()
                np.lib.format.write_array_header_1_0(
                    body, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 1)}
                )
                archive.writestr(f"{part}_{kind}.npy", body.getvalue())
    (tmp_path / "toy.npz").write_bytes(file.getvalue())
    with pytest.raises(ReadError, match=r"train_images holds 128 bytes, its header says 1,000,000,000,128"):
        MedMNIST(path=tmp_path / "toy.npz").load(cache=tmp_path / "cache")


def test_options_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="either path"):
        MedMNIST()
    with pytest.raises(ConfigError, match="either path"):
        MedMNIST(path="x.npz", name="retinamnist")
    with pytest.raises(UnknownNameError, match="did you mean 'retinamnist'"):
        MedMNIST(name="retinamist")
    with pytest.raises(ManifestError, match="no such file"):
        MedMNIST(path=tmp_path / "x.npz").load(cache=tmp_path)


def test_nothing_is_fetched_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    with pytest.raises(
        ManifestError, match=r"download = true to fetch https://zenodo.org/records/10519652/files/retinamnist_64.npz"
    ):
        MedMNIST(name="retinamnist", size=64).load(cache=tmp_path)


def test_download(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = save(tmp_path / "made.npz", arrays(COUNTS, classes=5)).read_bytes()
    web.files["/retinamnist_64.npz"] = data
    monkeypatch.setattr(medmnist, "RECORD", web.url)
    source = MedMNIST(name="retinamnist", size=64, download=True)
    with pytest.raises(ReadError, match=r"the download is damaged"):
        source.load(cache=tmp_path / "c")
    assert list((tmp_path / "c" / "downloads").iterdir()) == []
    right = replace(SETS["retinamnist"], md5=("", md5(data).hexdigest(), "", ""))
    monkeypatch.setattr(medmnist, "SETS", {**SETS, "retinamnist": right})
    web.breaks = [100]
    monkeypatch.setattr(download, "PAUSE", 0.0)
    manifest = source.load(cache=tmp_path / "c")
    assert manifest.card.modality == "fundus"
    source.load(cache=tmp_path / "c")
    assert web.asked == [("/retinamnist_64.npz?download=1", span) for span in (None, None, "bytes=100-")]


def test_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medmnist, "RECORD", "http://127.0.0.1:9")
    with pytest.raises(
        StorageError, match=r"retinamnist.npz.* cannot be reached .*fetch it elsewhere and give its path"
    ):
        MedMNIST(name="retinamnist", download=True).load(cache=tmp_path)


@pytest.mark.parametrize("name", ["organmnist3d", "OrganMNIST3D", "synapsemnist3d_64"])
def test_volumes_are_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=r"holds volumes of 28 x 28 x 28 .*reads the two-dimensional sets: pathmnist"):
        MedMNIST(name=name)


def test_every_set_and_size_has_its_sum() -> None:
    assert len(SETS) == 12
    sums = [digest for facts in SETS.values() for digest in facts.md5]
    assert len(set(sums)) == 48
    assert all(len(digest) == 32 and set(digest) <= set("0123456789abcdef") for digest in sums)
    # Scientific Data 10:41 counts 708,069; since then 107 blank images were taken out of the three organ sets.
    assert sum(sum(facts.images) for facts in SETS.values()) == 708_069 - 107
    assert {name for name, facts in SETS.items() if facts.channels == 3} == {
        "pathmnist",
        "dermamnist",
        "retinamnist",
        "bloodmnist",
    }


def test_retinamnist(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "medmnist" / "retinamnist.npz"
    assert md5(path.read_bytes()).hexdigest() == SETS["retinamnist"].md5[0]
    manifest = MedMNIST(path=path).load(cache=tmp_path)
    assert manifest.class_counts("train").tolist() == [486, 128, 206, 194, 66]
    assert len(manifest.rows("test")) == 400


@pytest.mark.slow
def test_pneumoniamnist(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "medmnist"
    options = {"path": folder / "pneumoniamnist_content.npz", "groups": folder / "pneumoniamnist_groups.csv"}
    with pytest.raises(LeakageError, match=r"288 groups are in two splits.*resplit = true"):
        MedMNIST(**options).load(cache=tmp_path)
    with pytest.raises(LeakageError, match="8 files are in two splits"):
        MedMNIST(path=options["path"]).load(cache=tmp_path)
    manifest = MedMNIST(**options, resplit=True).load(cache=tmp_path)
    assert manifest.card.classes == ("normal", "pneumonia")
    assert manifest.class_counts("test").tolist() == [234, 390]
    assert len(manifest.rows("validation")) == pytest.approx(524, abs=3)
    assert manifest.class_counts("validation").tolist() == pytest.approx([135, 389], abs=3)
