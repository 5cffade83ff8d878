"""What an audit finds in data sets whose faults are known, planted ones and those of published sets."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from raremix.core import files
from raremix.data import guards
from raremix.data.audit import Audit, Problem, audit, border_shares
from raremix.data.audit.census import association
from raremix.data.manifest import Card, Manifest
from raremix.data.sources import MedMNIST, Table


def scene(number: int, *, size: int = 96) -> np.ndarray:
    """A smooth picture that differs from all others."""
    coarse = np.random.default_rng(number).integers(30, 220, (6, 6), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def data(root: Path, pictures: Sequence[np.ndarray], labels: Sequence[int], **columns: object) -> Manifest:
    for k, pixels in enumerate(pictures):
        files.write_image(root / f"{k:03d}.png", pixels)
    frame = pl.DataFrame(
        {
            "path": [f"{k:03d}.png" for k in range(len(pictures))],
            "target:well": [1 - label for label in labels],
            "target:sick": list(labels),
            **columns,
        }
    )
    return Manifest(frame=frame, card=Card(name="toy", task="binary", classes=("well", "sick")), root=root)


def found(manifest: Manifest, cache: Path) -> dict[str, Problem]:
    return {problem.kind: problem for problem in audit(manifest, cache=cache, workers=1).problems}


def test_a_clean_data_set_has_no_problem(tmp_path: Path) -> None:
    manifest = data(tmp_path / "d", [scene(k) for k in range(44)], [0, 1] * 22, group=[str(k // 2) for k in range(44)])
    assert audit(manifest, cache=tmp_path / "cache").problems == ()


def test_planted_copies_are_found_by_kind(tmp_path: Path) -> None:
    pictures = [scene(k) for k in range(40)]
    pictures[1] = pictures[0]
    pictures[3] = np.clip(pictures[2] * 1.15 + 8, 0, 255).astype(np.uint8)
    pictures[5] = np.asarray(Image.fromarray(pictures[4]).resize((64, 64), Image.Resampling.BILINEAR))
    manifest = data(tmp_path / "d", pictures, [0, 1] * 20)
    # The same pixels in a file of other bytes.
    Image.fromarray(pictures[6]).save(tmp_path / "d" / "007.png", compress_level=1)
    result = audit(manifest, cache=tmp_path / "cache")
    assert [rows.tolist() for rows in result.copies.identical] == [[0, 1], [6, 7]]
    assert result.copies.same_file == (True, False)
    assert sorted(result.copies.near.tolist()) == [[2, 3], [4, 5]]
    assert result.copies.similarity.min() > 0.97
    problems = {problem.kind: problem for problem in result.problems}
    assert problems["copy"].sets == ((0, 1), (6, 7))
    assert "1 of them the same to the byte" in problems["copy"].title
    assert problems["labels in conflict"].sets == ((0, 1), (6, 7))
    assert sorted(problems["near-duplicate"].sets) == [(2, 3), (4, 5)]
    assert len(problems["near-duplicate"].scores) == 2


def test_leaks_are_counted_by_split(tmp_path: Path) -> None:
    pictures = [scene(k) for k in range(12)]
    pictures[9] = pictures[0]
    pictures[10] = np.clip(pictures[1] * 1.15 + 8, 0, 255).astype(np.uint8)
    splits = ["train"] * 6 + ["validation"] * 2 + ["test"] * 4
    groups = ["a", "b", "a", "c", "d", "e", "c", "f", "a", "g", "h", "i"]
    problems = found(
        data(tmp_path / "d", pictures, [0, 1] * 6, split=splits, group=groups, id=range(100, 112)), tmp_path / "cache"
    )
    leak = problems["group across splits"]
    assert leak.level == "leak"
    assert leak.sets == ((100, 102, 108), (103, 106))
    assert "Train and test share 1 group: 1 of 4 test images (25%)" in leak.cost
    assert "Train and validation share 1 group: 1 of 2 validation images (50%)" in leak.cost
    assert "Validation and test" not in leak.cost
    assert problems["copy across splits"].sets == ((100, 109),)
    assert problems["near-duplicate across splits"].sets == ((101, 110),)
    assert problems["near-duplicate across splits"].level == "leak"
    assert problems["copy in two groups"].sets == ((100, 109),)
    assert "no groups" not in problems


def test_a_group_is_never_named(tmp_path: Path) -> None:
    manifest = data(
        tmp_path / "d",
        [scene(k) for k in range(4)],
        [0, 1, 0, 1],
        group=["MRN-4711", "b", "MRN-4711", "c"],
        split=["train", "train", "test", "test"],
    )
    problems = audit(manifest, cache=tmp_path / "cache").problems
    assert any(problem.kind == "group across splits" for problem in problems)
    assert "4711" not in str(problems)


def test_that_no_patients_are_named_comes_first_with_a_split_or_without(tmp_path: Path) -> None:
    pictures = [scene(0)] * 2 + [scene(k) for k in range(1, 21)]
    plain = audit(data(tmp_path / "d", pictures, [0, 1] * 11), cache=tmp_path / "cache", workers=1).problems
    assert plain[0].kind == "no groups"
    assert {problem.kind for problem in plain} == {"no groups", "copy", "labels in conflict"}
    assert "may put one patient on both sides" in plain[0].cost
    splits = ["train"] * 11 + ["test"] * 11
    with_split = found(data(tmp_path / "d", pictures, [0, 1] * 11, split=splits), tmp_path / "cache")
    assert "cannot be seen" in with_split["no groups"].cost
    assert with_split["no groups"].level == "unknown"


@pytest.mark.parametrize(("named", "is_told"), [(22, False), (11, False), (10, True), (0, True)])
def test_groups_are_named_where_half_of_the_rows_have_one(tmp_path: Path, named: int, is_told: bool) -> None:
    groups = [f"lesion {k}" if k < named else None for k in range(22)]
    manifest = data(tmp_path / "d", [scene(k) for k in range(22)], [0, 1] * 11, group=groups)
    assert ("no groups" in found(manifest, tmp_path / "cache")) is is_told


def test_pictures_with_nothing_in_them(tmp_path: Path) -> None:
    pictures = [scene(k) for k in range(40)]
    pictures[0] = np.full((40, 40), 77, dtype=np.uint8)
    pictures[1] = np.full((40, 40), 78, dtype=np.uint8)
    pictures[2] = scene(2) // 14
    pictures[3] = 255 - scene(3) // 20
    pictures[4] = np.pad(scene(4), ((0, 0), (30, 30)))
    pictures[5] = np.repeat(scene(5)[:16], 2, axis=0)[:20]
    problems = found(data(tmp_path / "d", pictures, [0, 1] * 20), tmp_path / "cache")
    assert problems["blank"].rows == (0, 1)
    assert "near-duplicate" not in problems
    assert problems["dark"].rows == (2,)
    assert problems["bright"].rows == (3,)
    assert problems["black borders"].rows == (4,)
    assert problems["odd shape"].rows == (5,)


def test_a_mark_that_goes_with_a_class_is_a_shortcut(tmp_path: Path) -> None:
    labels = [int(k % 4 == 0) for k in range(48)]
    pictures = [np.pad(scene(k), 20) if label else scene(k) for k, label in enumerate(labels)]
    borders = found(data(tmp_path / "d", pictures, labels), tmp_path / "cache")["black borders"]
    assert borders.level == "harm"
    assert "100% of the images of sick, 0% of the others" in borders.cost or "well" in borders.cost


def test_association_needs_more_than_chance() -> None:
    targets = np.eye(2)[np.arange(400) % 2]
    stream = np.random.default_rng(0)
    assert association(stream.random(400) < 0.3, targets) is None
    marked = (np.arange(400) % 2 == 1) & (stream.random(400) < 0.5)
    k, inside, outside = association(marked, targets) or (9, 0.0, 0.0)
    assert {round(inside, 3), round(outside, 3)} == {0.0, round(float(marked[1::2].mean()), 3)}
    assert k in {0, 1}


def test_files_that_are_not_what_they_seem(tmp_path: Path) -> None:
    manifest = data(tmp_path, [scene(k) for k in range(24)], [0, 1] * 12)
    hashes = [files.hash_file(tmp_path / path) for path in manifest.frame["path"]]
    hashes[3] = "0" * 64
    (tmp_path / "001.png").write_bytes((tmp_path / "000.png").read_bytes()[:300])
    (tmp_path / "002.png").unlink()
    Image.fromarray(scene(4)).save(tmp_path / "004.png", format="JPEG")
    hashes[4] = files.hash_file(tmp_path / "004.png")
    frame = manifest.frame.with_columns(sha256=pl.Series(hashes))
    with guards.suspended():
        guards.check(Manifest(frame=frame, card=manifest.card, root=tmp_path))
    problems = found(Manifest(frame=frame, card=manifest.card, root=tmp_path), tmp_path / "cache")
    assert problems["unreadable file"].rows == (1, 2)
    assert problems["changed file"].rows == (3,)
    assert problems["wrong ending"].rows == (4,)
    assert problems["mixed kinds of files"].rows == (4,)


def test_classes(tmp_path: Path) -> None:
    labels = [1] * 3 + [0] * 45
    result = audit(data(tmp_path / "d", [scene(k) for k in range(48)], labels), cache=tmp_path / "cache")
    assert result.census.image_ratio == 15
    problems = {problem.kind: problem for problem in result.problems}
    assert "sick (3)" in problems["rare class"].title
    assert problems["imbalance"].title == "imbalance 15 to 1 by image, 15 to 1 by group"


def test_a_class_in_test_only_and_synthetic_rows(tmp_path: Path) -> None:
    manifest = data(
        tmp_path / "d",
        [scene(k) for k in range(4)],
        [0, 0, 1, 0],
        split=["train", "train", "test", "test"],
        origin=["real", "synthetic", "real", "synthetic"],
        parents=[[], [2], [], []],
    )
    problems = found(manifest, tmp_path / "cache")
    assert problems["test only class"].rows == (2,)
    assert problems["synthetic row"].rows == (3,)
    assert problems["held out parent"].rows == (1,)
    allowed = audit(manifest, cache=tmp_path / "cache", allow_synthetic=["test"])
    assert "synthetic row" not in {problem.kind for problem in allowed.problems}


def test_borders_by_hand() -> None:
    thumbnails = np.full((3, 32, 32), 90, dtype=np.uint8)
    thumbnails[1, :4] = 8
    thumbnails[1, :, 28:] = 0
    thumbnails[2] = 0
    assert border_shares(thumbnails).tolist() == [0, 1 - 28 * 28 / 1024, 1]


def test_loading_refuses_again_once_the_guards_are_back(tmp_path: Path) -> None:
    data(tmp_path, [scene(k) for k in range(4)], [0, 1, 0, 1])
    table = pl.DataFrame(
        {
            "file": [f"{k:03d}.png" for k in range(4)],
            "dx": list("abab"),
            "who": list("pqpr"),
            "fold": ["train", "train", "test", "test"],
        }
    )
    table.write_csv(tmp_path / "labels.csv")
    source = Table(path=tmp_path / "labels.csv", label="dx", group="who", split="fold")
    with guards.suspended():
        assert len(source.load(cache=tmp_path / "cache")) == 4
    with pytest.raises(guards.LeakageError):
        source.load(cache=tmp_path / "cache")


@pytest.fixture(scope="module")
def kermany(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    source = Table(
        path=shared_data / "kermany_cxr_224" / "labels.csv",
        images_root="images",
        label="label",
        group="patient_group",
        split="repo_split_leaky",
        attributes=["subtype"],
    )
    cache = tmp_path_factory.mktemp("cache")
    with guards.suspended():
        return audit(source.load(cache=cache), cache=cache)


@pytest.mark.slow
def test_kermanys_shared_patients_are_found(kermany: Audit) -> None:
    problems = {problem.kind: problem for problem in kermany.problems}
    leak = problems["group across splits"]
    assert len(leak.sets) == 703
    assert "Train and test share 384 groups: 473 of 879 test images (54%)" in leak.cost
    # Counted by hand from the table: bacteria and virus of one number taken for two patients, it is 265.
    frame = kermany.manifest.frame
    kind, split = frame["subtype"].to_list(), frame["split"].to_list()
    places = dict(zip(frame["id"], range(frame.height), strict=True))
    rows = [[places[row] for row in ids] for ids in leak.sets]
    shared = {(k, kind[i]) for k, ids in enumerate(rows) for i in ids if split[i] == "train"}
    assert len(shared & {(k, kind[i]) for k, ids in enumerate(rows) for i in ids if split[i] == "test"}) == 265


@pytest.mark.slow
def test_kermanys_identical_images_are_found(kermany: Audit) -> None:
    assert len(kermany.copies.identical) == 30
    assert all(kermany.copies.same_file)
    # No two patients are taken for copies.
    assert len(kermany.copies.near) == 0


@pytest.mark.slow
def test_pneumoniamnists_shared_patients_are_found(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "medmnist"
    source = MedMNIST(path=folder / "pneumoniamnist_content.npz", groups=folder / "pneumoniamnist_groups.csv")
    with guards.suspended():
        manifest = source.load(cache=tmp_path)
    problems = found(manifest, tmp_path)
    assert "Train and validation share 288 groups: 340 of 524 validation images" in problems["group across splits"].cost
    assert "Train and validation share 8 sets" in problems["copy across splits"].cost
