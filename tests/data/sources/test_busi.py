from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.sources.miniatures import put_images, put_table

from raremix.core import files
from raremix.core.errors import ManifestError, ReadError, TargetError
from raremix.data.readers import read_image
from raremix.data.sources.busi import BUSI
from raremix.data.split import linked_groups


def mask(path: Path, *, rows: slice, size: int = 6, colour: bool = False) -> None:
    pixels = np.zeros((size, size, 3) if colour else (size, size), dtype=np.uint8)
    pixels[rows] = 255
    files.write_image(path, pixels)


def put(root: Path) -> Path:
    put_images(root, [f"{name}/{name} ({i}).png" for name in ("benign", "malignant", "normal") for i in (1, 2)])
    for name in ("benign", "malignant"):
        for i in (1, 2):
            mask(root / name / f"{name} ({i})_mask.png", rows=slice(0, 2))
    for i in (1, 2):
        mask(root / "normal" / f"normal ({i})_mask.png", rows=slice(0, 0))
    mask(root / "benign" / "benign (1)_mask_1.png", rows=slice(4, 6), colour=True)
    # One bit per pixel, as some of the published masks.
    Image.fromarray(np.array([[False] * 6] * 3 + [[True] * 6] + [[False] * 6] * 2)).save(
        root / "benign" / "benign (1)_mask_2.png"
    )
    return root


def test_masks_are_merged(tmp_path: Path) -> None:
    manifest = BUSI(path=put(tmp_path / "Dataset_BUSI_with_GT")).load(cache=tmp_path / "c")
    assert manifest.card.classes == ("normal", "benign", "malignant")
    assert len(manifest) == 6
    assert manifest.class_counts().tolist() == [2, 2, 2]
    assert manifest.frame["path"][0] == "benign/benign (1).png"
    masks = [read_image(path)[:, 0, 0].tolist() for path in manifest.masks() if path is not None]
    assert masks[0] == [255, 255, 0, 255, 255, 255]
    assert masks[1] == [255, 255, 0, 0, 0, 0]
    assert masks[4] == [0] * 6
    assert manifest.mask_root is not None
    assert manifest.mask_root.is_relative_to(tmp_path / "c")
    # From the folder above, and from the cache.
    assert BUSI(path=tmp_path).load(cache=tmp_path / "c").hash() == manifest.hash()


def twin(root: Path, source: str, target: str) -> None:
    """Store the same pixels again, as colour and so in other bytes."""
    pixels = np.repeat(read_image(root / source)[..., :1], 3, axis=2)
    files.write_image(root / source, pixels[..., 0])
    files.write_image(root / target, pixels)
    stem = target.removesuffix(".png")
    mask(root / f"{stem}_mask.png", rows=slice(0, 2))


def test_duplicates(tmp_path: Path) -> None:
    root = put(tmp_path / "d")
    twin(root, "benign/benign (2).png", "benign/benign (3).png")
    linked = BUSI(path=root).load(cache=tmp_path / "c")
    assert len(linked) == 7
    units = dict(zip(linked.frame["path"], linked_groups(linked).tolist(), strict=True))
    assert units["benign/benign (2).png"] == units["benign/benign (3).png"]
    assert len(set(units.values())) == 6
    first = BUSI(path=root, duplicates="first").load(cache=tmp_path / "c")
    assert "benign/benign (3).png" not in first.frame["path"].to_list()
    assert len(first) == 6
    kept = BUSI(path=root, duplicates="keep").load(cache=tmp_path / "c")
    assert kept.frame["group"].n_unique() == 7


def test_one_picture_in_two_classes(tmp_path: Path) -> None:
    root = put(tmp_path / "d")
    twin(root, "benign/benign (2).png", "malignant/malignant (3).png")
    with pytest.raises(TargetError, match=r"one picture in two classes: benign/benign \(2\).png, malignant/mal"):
        BUSI(path=root).load(cache=tmp_path / "c")
    manifest = BUSI(path=root, duplicates="first").load(cache=tmp_path / "c")
    assert manifest.class_counts().tolist() == [2, 1, 2]
    assert len(BUSI(path=root, duplicates="keep").load(cache=tmp_path / "c")) == 7


def test_given_groups_join_twins(tmp_path: Path) -> None:
    root = put(tmp_path / "d")
    twin(root, "benign/benign (2).png", "benign/benign (3).png")
    table = put_table(
        tmp_path / "g.csv",
        ["file,group", "benign/benign (1).png,p1", "benign/benign (2).png,p1", "normal/normal (1).png,"],
    )
    manifest = BUSI(path=root, groups=table).load(cache=tmp_path / "c")
    group = dict(zip(manifest.frame["path"], manifest.frame["group"], strict=True))
    assert {group[f"benign/benign ({i}).png"] for i in (1, 2, 3)} == {"p1"}
    # Two groups of the table meet in twins: all of both belong together.
    put_table(
        tmp_path / "g.csv",
        ["file,group", "benign/benign (1).png,p1", "benign/benign (2).png,p1", "benign/benign (3).png,p2"],
    )
    frame = BUSI(path=root, groups=table).load(cache=tmp_path / "c").frame
    assert frame.filter(frame["path"].str.contains("benign"))["group"].n_unique() == 1
    put_table(tmp_path / "g.csv", ["file,group", "benign (1).png,p1"])
    with pytest.raises(ManifestError, match=r"no such images: benign \(1\).png: expected names as benign/benign"):
        BUSI(path=root, groups=table).load(cache=tmp_path / "c")


def test_refusals(tmp_path: Path) -> None:
    root = put(tmp_path / "d")
    mask(root / "benign" / "benign (9)_mask.png", rows=slice(0, 1))
    with pytest.raises(ManifestError, match=r"masks without an image: benign/benign \(9\)_mask.png"):
        BUSI(path=root).load(cache=tmp_path / "c")
    (root / "benign" / "benign (9)_mask.png").unlink()
    mask(root / "malignant" / "malignant (1)_mask_1.png", rows=slice(0, 1), size=5)
    with pytest.raises(ReadError, match=r"malignant \(1\)_mask_1.png: .*\(5, 5\) pixels, but .* \(6, 6\)"):
        BUSI(path=root).load(cache=tmp_path / "c")
    for path in (root / "normal").iterdir():
        path.unlink()
    (root / "normal").rmdir()
    with pytest.raises(ManifestError, match="no folder normal"):
        BUSI(path=root).load(cache=tmp_path / "c")
