from pathlib import Path

import numpy as np
import pytest
from tests.data.toys import pictures

from raremix.core import files
from raremix.core.errors import ConfigError, LeakageError, ManifestError, UnknownNameError
from raremix.data.sources import SOURCES
from raremix.data.sources.folder import Folder


def fill(root: Path, names: list[str]) -> None:
    stream = np.random.default_rng(len(names))
    for name in names:
        files.write_image(root / name, stream.integers(0, 256, (6, 6, 3), dtype=np.uint8))


def test_class_per_folder(tmp_path: Path) -> None:
    root = tmp_path / "lesions"
    fill(root, ["nevus/b.png", "nevus/a.PNG", "melanoma/c.png", "nevus/deep/d.png"])
    (root / "nevus" / ".hidden.png").write_bytes(b"x")
    (root / ".cache" / "x").mkdir(parents=True)
    (root / "nevus" / "readme.txt").write_text("notes")
    manifest = Folder(path=root, modality="dermatoscopy").load(cache=tmp_path / "c")
    assert manifest.card.name == "lesions"
    assert manifest.card.task == "binary"
    assert manifest.card.classes == ("melanoma", "nevus")
    assert manifest.card.modality == "dermatoscopy"
    assert manifest.frame["path"].to_list() == ["melanoma/c.png", "nevus/a.PNG", "nevus/b.png", "nevus/deep/d.png"]
    assert manifest.ids.tolist() == [0, 1, 2, 3]
    assert manifest.targets().tolist() == [[1, 0], [0, 1], [0, 1], [0, 1]]
    assert manifest.frame["split"].null_count() == 4
    assert manifest.frame["sha256"].null_count() == 0
    assert manifest.hash() == Folder(path=root).load(cache=tmp_path / "c2").hash()


def test_given_class_order(tmp_path: Path) -> None:
    fill(tmp_path / "d", ["sick/a.png", "well/b.png", "other/c.png"])
    manifest = Folder(path=tmp_path / "d", classes=["well", "other", "sick"]).load(cache=tmp_path / "c")
    assert manifest.card.classes == ("well", "other", "sick")
    assert manifest.card.task == "multiclass"
    assert manifest.targets().argmax(1).tolist() == [1, 2, 0]
    with pytest.raises(UnknownNameError, match="unknown class folder 'sick': did you mean 'sic'"):
        Folder(path=tmp_path / "d", classes=["well", "other", "sic"]).load(cache=tmp_path / "c")
    with pytest.raises(ManifestError, match="no images of class cured"):
        Folder(path=tmp_path / "d", classes=["well", "other", "sick", "cured"]).load(cache=tmp_path / "c")


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_split_folders(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "d", ["train/a/1.png", "train/b/2.png", f"{name}/a/3.png", "test/a/5.png", "test/b/6.png"])
    frame = Folder(path=tmp_path / "d").load(cache=tmp_path / "c").frame
    found = dict(zip(frame["path"], frame["split"], strict=True))
    assert found["train/a/1.png"] == "train"
    assert found[f"{name}/a/3.png"] == "validation"
    assert found["test/b/6.png"] == "test"


def test_a_class_called_test_is_a_class(tmp_path: Path) -> None:
    fill(tmp_path / "d", ["test/1.png", "control/2.png"])
    assert Folder(path=tmp_path / "d").load(cache=tmp_path / "c").card.classes == ("control", "test")


def test_groups_from_file_names(tmp_path: Path) -> None:
    fill(tmp_path / "d", ["train/a/p1_x.png", "train/b/p2_y.png", "test/b/p3_z.png", "test/a/p3_w.png"])
    frame = Folder(path=tmp_path / "d", group=r"^(p\d)_").load(cache=tmp_path / "c").frame
    assert dict(zip(frame["path"], frame["group"], strict=True))["test/a/p3_w.png"] == "p3"
    assert Folder(path=tmp_path / "d", group=r"^p\d").load(cache=tmp_path / "c").frame["group"].to_list() == [
        "p3",
        "p3",
        "p1",
        "p2",
    ]
    with pytest.raises(
        ManifestError, match=r"2 file names do not match group = '\^p\[12\]': test/a/p3_w.png, test/b/p3_z.png"
    ):
        Folder(path=tmp_path / "d", group="^p[12]").load(cache=tmp_path / "c")
    fill(tmp_path / "d", ["test/a/p1_y.png"])
    with pytest.raises(LeakageError, match="p1"):
        Folder(path=tmp_path / "d", group=r"^(p\d)_").load(cache=tmp_path / "c")
    with pytest.raises(ConfigError, match="not a regular expression"):
        Folder(path=tmp_path / "d", group="(p")


def test_the_same_file_in_train_and_test(tmp_path: Path) -> None:
    fill(tmp_path / "d", ["train/a/1.png", "train/b/2.png", "test/a/3.png"])
    (tmp_path / "d/test/a/4.png").write_bytes((tmp_path / "d/train/a/1.png").read_bytes())
    with pytest.raises(LeakageError, match="1 file is in two splits"):
        Folder(path=tmp_path / "d").load(cache=tmp_path / "c")


def test_files_of_other_kinds_are_listed(tmp_path: Path) -> None:
    fill(tmp_path / "d", ["a/1.png", "b/2.png"])
    for name in ("a/3.dcm", "a/4.dcm", "b/5.gif"):
        (tmp_path / "d" / name).write_bytes(b"x")
    with pytest.raises(ManifestError, match=r"2 \.dcm|3 files"):
        Folder(path=tmp_path / "d").load(cache=tmp_path / "c")
    assert len(Folder(path=tmp_path / "d", ignore=[".dcm", ".GIF"]).load(cache=tmp_path / "c")) == 2


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such folder"):
        Folder(path=tmp_path / "gone").load(cache=tmp_path / "c")
    pictures(tmp_path / "flat", 2)
    with pytest.raises(ManifestError, match="no class folders"):
        Folder(path=tmp_path / "flat").load(cache=tmp_path / "c")
    fill(tmp_path / "one", ["a/1.png"])
    with pytest.raises(ManifestError, match="one class only"):
        Folder(path=tmp_path / "one").load(cache=tmp_path / "c")
    with pytest.raises(ConfigError, match="classes must be a list"):
        Folder(path=tmp_path, classes="ab")


def test_registry_names_are_the_classes() -> None:
    assert {"folder", "table", "medmnist"} <= set(SOURCES)
    for name, source in SOURCES.items():
        assert source.__name__.lower() == name
