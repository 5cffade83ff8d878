import os
from pathlib import Path

import numpy as np
import pytest
from tests.data.toys import pictures

from raremix.core import files
from raremix.core.errors import ConfigError, GuardError, LeakageError, ManifestError, TargetError, UnknownNameError
from raremix.data.guards import check
from raremix.data.sources import SOURCES
from raremix.data.sources.folder import Folder
from raremix.data.split import apply_split


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
    for name in ("a/3.mp4", "a/4.mp4", "b/5.avi"):
        (tmp_path / "d" / name).write_bytes(b"x")
    with pytest.raises(
        ManifestError, match=r"2 files that are no PNG.*\(2 \.mp4\): a/3.mp4, a/4.mp4: convert them, or"
    ):
        Folder(path=tmp_path / "d").load(cache=tmp_path / "c")
    assert len(Folder(path=tmp_path / "d", ignore=[".mp4", ".AVI"]).load(cache=tmp_path / "c")) == 2


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
        # `manifest` is taken by what a source makes.
        assert source.__name__.lower() == {"manifest": "written"}.get(name, name.replace("_", ""))


def test_links_out_of_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "d"
    fill(root, ["a/1.png", "b/2.png"])
    fill(tmp_path / "secret", ["3.png", "deep/4.png"])
    (root / "a" / "inside.png").symlink_to(root / "a" / "1.png")
    assert len(Folder(path=root).load(cache=tmp_path / "c")) == 3
    (root / "b" / "3.png").symlink_to(tmp_path / "secret" / "3.png")
    with pytest.raises(
        ManifestError, match=r"1 files are links that lead out of .*: row 3 \(b/3.png\): copy the files"
    ):
        Folder(path=root).load(cache=tmp_path / "c")
    (root / "b" / "3.png").unlink()
    # A linked folder below a class is not entered; a linked class folder is refused.
    (root / "b" / "more").symlink_to(tmp_path / "secret")
    assert len(Folder(path=root).load(cache=tmp_path / "c")) == 3
    (root / "c").symlink_to(tmp_path / "secret")
    with pytest.raises(ManifestError, match="2 files are links that lead out"):
        Folder(path=root).load(cache=tmp_path / "c")


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    fill(tmp_path / "d", ["a/1.png", "b/2.png"])
    (tmp_path / "link").symlink_to(tmp_path / "d")
    assert len(Folder(path=tmp_path / "link").load(cache=tmp_path / "c")) == 2


def test_one_class_spelled_two_ways(tmp_path: Path) -> None:
    fill(tmp_path / "d", ["train/Melanoma/1.png", "train/nevus/2.png", "test/melanoma/3.png"])
    with pytest.raises(
        TargetError, match="one class is spelled in two ways, 'Melanoma', 'melanoma', in the folders below"
    ):
        Folder(path=tmp_path / "d").load(cache=tmp_path / "c")
    with pytest.raises(GuardError, match="class melanoma is present in test only"):
        Folder(path=tmp_path / "d", classes=["nevus", "Melanoma", "melanoma"]).load(cache=tmp_path / "c")


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "d"
    fill(root, ["a/1.png", "b/2.png", "b/locked/3.png"])
    scan = os.scandir

    def refuse(path: object = ".") -> object:
        if Path(str(path)).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)  # type: ignore[arg-type]

    # Root may list everything, so the system's answer is put in its place. An image must not get lost in silence.
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ManifestError, match=r"locked cannot be listed \(Permission denied\): give yourself the right"):
        Folder(path=root).load(cache=tmp_path / "c")
    with pytest.raises(ManifestError, match="locked cannot be listed"):
        Folder(path=root / "b" / "locked").load(cache=tmp_path / "c")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ManifestError, match="is a file; expected a folder"):
        Folder(path=tmp_path / "file").load(cache=tmp_path / "c")


@pytest.mark.parametrize("name", ["x\n.png", "x\x1b[31m.png", "gpj.\u202egnp.png", "x\x7f.png"])
def test_names_with_control_characters(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "d", ["a/1.png", "b/2.png"])
    fill(tmp_path / "d" / "b", [name])
    with pytest.raises(ManifestError, match="file names with control characters: row") as caught:
        Folder(path=tmp_path / "d").load(cache=tmp_path / "c")
    assert str(caught.value).isprintable()


def test_names_that_are_no_text(tmp_path: Path) -> None:
    fill(tmp_path / "d", ["a/1.png", "b/2.png"])
    Path(os.fsdecode(os.fsencode(tmp_path / "d" / "b") + b"/\xff.png")).write_bytes(b"x")
    with pytest.raises(ManifestError, match=r"file names that are not UTF-8: 'b/\\udcff.png': rename"):
        Folder(path=tmp_path / "d").load(cache=tmp_path / "c")


SCRIPTS = ["<script>alert(1)<", "'; drop table--", "[bold]x[link=http]", "{{7*7}}", "$(touch x)", "a&amp;b"]


def test_script_bearing_names_are_only_names(tmp_path: Path) -> None:
    names = [f"{'a' if i % 2 else 'b'}/{text}.png" for i, text in enumerate(SCRIPTS)]
    fill(tmp_path / "d", names)
    assert sorted(Folder(path=tmp_path / "d").load(cache=tmp_path / "c").frame["path"]) == sorted(names)
    fill(tmp_path / "e", ["<img src=x onerror=alert(1)>/1.png", "nevus/2.png"])
    manifest = Folder(path=tmp_path / "e").load(cache=tmp_path / "c")
    assert manifest.card.classes[0] == "<img src=x onerror=alert(1)>"
    fill(tmp_path / "f", ["ne\x1bvus/1.png", "b/2.png"])
    with pytest.raises(ManifestError, match="control characters"):
        Folder(path=tmp_path / "f").load(cache=tmp_path / "c")


def test_a_class_with_one_image_is_learned_or_missed_but_never_only_tested(tmp_path: Path) -> None:
    fill(tmp_path / "d", [*(f"common/{i}.png" for i in range(20)), "rare/1.png"])
    manifest = Folder(path=tmp_path / "d").load(cache=tmp_path / "c")
    shares = {"train": 0.6, "validation": 0.2, "test": 0.2}
    for seed in range(5):
        split = apply_split(manifest, fractions=shares, seed=seed)
        if split.class_counts("test")[1]:
            with pytest.raises(GuardError, match="class rare is present in test only"):
                check(split)
        else:
            check(split)
