import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, mutual_info_score
from sklearn.preprocessing import StandardScaler

from raremix.core.errors import ConfigError
from raremix.core.files import hash_file
from raremix.data.manifest import Manifest
from raremix.data.phantoms.canvas import Stroke, curve, discs, noise, polygons, sensor, step, strokes
from raremix.data.phantoms.cohort import long_tail
from raremix.data.readers import read_image
from raremix.data.sources import SOURCES
from raremix.data.sources.phantom import MODALITIES, Phantom

SMALL: dict[str, Any] = {"images": 42, "size": 28, "imbalance_ratio": 2.0}


def mask_of(manifest: Manifest, row: int) -> np.ndarray:
    return np.asarray(Image.open(manifest.root / manifest.frame["mask"][row]))


def test_registered() -> None:
    assert SOURCES["phantom"] is Phantom


def test_load_gives_a_whole_manifest(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    manifest = Phantom(**SMALL).load(cache=tmp_path, progress=lambda *args: told.append(args))
    assert len(manifest) == 42
    assert told[-1] == ("draw phantoms", 42, 42)
    assert manifest.card.task == "multiclass"
    assert manifest.card.classes == ("nevus", "keratosis", "melanoma", "carcinoma", "actinic", "vascular", "fibroma")
    assert manifest.card.modality == "dermatoscopy"
    assert set(manifest.attributes) == {"device", "sex", "age_band", "view"}
    assert manifest.targets().sum(axis=1).tolist() == [1.0] * 42
    for row in range(0, 42, 7):
        path = manifest.root / manifest.frame["path"][row]
        assert read_image(path).shape == (28, 28, 3)
        assert hash_file(path) == manifest.frame["sha256"][row]
        assert mask_of(manifest, row).shape == (28, 28)
        assert set(np.unique(mask_of(manifest, row))) == {0, 255}


def test_chest_is_grey_and_healthy_lungs_have_an_empty_mask(tmp_path: Path) -> None:
    manifest = Phantom(modality="chest_xray", classes=2, **SMALL).load(cache=tmp_path)
    assert manifest.card.task == "binary"
    assert manifest.card.classes == ("normal", "pneumonia")
    assert read_image(manifest.root / manifest.frame["path"][0]).shape == (28, 28, 1)
    is_sick = manifest.targets()[:, 1] == 1
    assert [bool(mask_of(manifest, row).any()) for row in range(42)] == is_sick.tolist()


@pytest.mark.parametrize("modality", MODALITIES)
def test_lesion_changes_the_image_inside_its_mask_and_nowhere_else(modality: Any) -> None:
    phantom = Phantom(modality=modality, images=70, size=64, imbalance_ratio=1.0, images_per_group=1.0, devices=4)
    cohort = phantom.draw_cohort()
    inside: dict[str, list[float]] = {}
    for row in range(70):
        name = phantom.class_names[int(cohort.labels[row].argmax())]
        with_lesion, without = (phantom.render(row, cohort=cohort, with_lesion=flag) for flag in (True, False))
        differs = (with_lesion.image != without.image).reshape(64, 64, -1).any(axis=-1)
        assert not without.masks
        if name == "normal":
            assert not with_lesion.masks
            assert not differs.any()
            continue
        assert set(with_lesion.masks) == {name}
        mask = with_lesion.masks[name]
        assert 8 <= mask.sum() <= 0.6 * mask.size
        assert not differs[~mask].any()
        inside.setdefault(name, []).append(float(differs[mask].mean()))
    assert set(inside) == set(phantom.class_names) - {"normal"}
    for name, shares in inside.items():
        assert np.mean(shares) > 0.8, (name, shares)


def test_lesions_are_seen(tmp_path: Path) -> None:
    phantom = Phantom(images=35, size=64, imbalance_ratio=1.0)
    for row in range(35):
        with_lesion, without = (phantom.render(row, with_lesion=flag) for flag in (True, False))
        (mask,) = with_lesion.masks.values()
        change = np.abs(with_lesion.image.astype(float) - without.image.astype(float)).max(axis=-1)
        assert change[mask].mean() > 5


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("size", [28, 64, 96, 224])
def test_sizes_show_the_same_scene(modality: Any, size: int) -> None:
    settings: dict[str, Any] = {"modality": modality, "images": 28, "imbalance_ratio": 1.0, "noise": 0.0}
    picture = Phantom(size=size, **settings).render(3)
    large = Phantom(size=448, **settings).render(3)
    assert picture.image.shape[:2] == (size, size)
    shrunk = np.asarray(Image.fromarray(large.image).resize((size, size), Image.Resampling.BOX)).astype(float)
    assert np.corrcoef(picture.image.ravel(), shrunk.ravel())[0, 1] > 0.97
    for name, mask in picture.masks.items():
        assert mask.mean() == pytest.approx(large.masks[name].mean(), rel=0.25)


def test_same_arguments_same_bytes_in_another_process(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from raremix.data.sources.phantom import Phantom\n"
        f"m = Phantom(images=42, size=28, imbalance_ratio=2.0).load(cache=Path({str(tmp_path / 'there')!r}))\n"
        "print(m.hash())"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "7"}
    other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    ).stdout.strip()
    here = Phantom(**SMALL).load(cache=tmp_path / "here")
    assert here.hash() == other
    for part in ("images", "masks"):
        mine = sorted((here.root / part).iterdir())
        theirs = [tmp_path / "there" / "phantoms" / here.root.name / part / path.name for path in mine]
        assert [path.read_bytes() for path in mine] == [path.read_bytes() for path in theirs]


def test_seed_and_row_decide(tmp_path: Path) -> None:
    phantom = Phantom(**SMALL)
    assert (phantom.render(5).image == phantom.render(5).image).all()
    assert (phantom.render(5).image != phantom.render(6).image).any()
    assert (phantom.render(5).image != Phantom(seed=1, **SMALL).render(5).image).any()
    one, other = (Phantom(seed=seed, **SMALL).load(cache=tmp_path) for seed in (0, 1))
    assert one.root != other.root
    assert one.hash() != other.hash()


def test_second_load_draws_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Phantom(**SMALL).load(cache=tmp_path)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(Phantom, "render", refuse)
    assert Phantom(**SMALL).load(cache=tmp_path).hash() == first.hash()
    with pytest.raises(AssertionError, match="drawn again"):
        Phantom(**{**SMALL, "seed": 1}).load(cache=tmp_path)


def test_a_broken_off_load_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render = Phantom.render

    def fail_late(self: Phantom, row: int, **options: Any) -> Any:
        if row == 30:
            raise KeyboardInterrupt
        return render(self, row, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Phantom, "render", fail_late)
        Phantom(**SMALL).load(cache=tmp_path)
    assert not list((tmp_path / "phantoms").iterdir())
    assert len(Phantom(**SMALL).load(cache=tmp_path)) == 42


@pytest.mark.parametrize("missing", ["digests.json", "images/000007.png", "masks/000007.png"])
def test_a_partial_folder_is_not_believed(tmp_path: Path, missing: str) -> None:
    first = Phantom(**SMALL).load(cache=tmp_path)
    (first.root / missing).unlink()
    again = Phantom(**SMALL).load(cache=tmp_path)
    assert (again.root / missing).is_file()
    assert again.hash() == first.hash()


@pytest.mark.parametrize(("total", "classes", "ratio"), [(1200, 7, 50.0), (301, 5, 10.0), (90, 3, 1.0), (77, 2, 9.5)])
def test_long_tail_follows_the_formula(total: int, classes: int, ratio: float) -> None:
    counts = long_tail(total, classes=classes, imbalance_ratio=ratio)
    profile = ratio ** -(np.arange(classes) / (classes - 1))
    assert counts.sum() == total
    assert (np.abs(counts - total * profile / profile.sum()) < 1).all()
    manifest_counts = Phantom(images=1200).draw_cohort().labels.sum(axis=0)
    assert manifest_counts.tolist() == long_tail(1200, classes=7, imbalance_ratio=50.0).tolist()


def test_one_class_has_no_tail() -> None:
    assert long_tail(9, classes=1, imbalance_ratio=50.0).tolist() == [9]


@pytest.mark.parametrize("options", [{}, {"modality": "chest_xray"}, {"modality": "chest_xray", "multilabel": True}])
@pytest.mark.parametrize("images_per_group", [1.0, 1.7, 3.0])
def test_patients_are_in_one_split_and_classes_in_each(options: dict[str, Any], images_per_group: float) -> None:
    cohort = Phantom(images=900, images_per_group=images_per_group, **options).draw_cohort()
    for array in (cohort.split, cohort.device, cohort.age, cohort.is_female):
        assert all(len(np.unique(array[cohort.patient == p])) == 1 for p in range(cohort.patient.max() + 1))
    for part, share in enumerate((0.6, 0.15, 0.25)):
        assert cohort.labels[cohort.split == part].any(axis=0).all()
        assert (cohort.split == part).mean() == pytest.approx(share, abs=0.02)
    sizes = np.bincount(cohort.patient)
    assert set(sizes) <= {1, 2, 3}
    assert sizes.mean() == pytest.approx(images_per_group, rel=0.08)


def test_images_of_a_patient_share_the_skin() -> None:
    phantom = Phantom(images=300, size=28, images_per_group=3.0, difficulty=0.0, noise=0.0)
    cohort = phantom.draw_cohort()
    rows = np.arange(60)
    tones = np.array([phantom.render(int(r), cohort=cohort, with_lesion=False).image[8:20, 8:20].mean() for r in rows])
    same = np.array([abs(tones[i] - tones[i + 1]) for i in rows[:-1] if cohort.patient[i] == cohort.patient[i + 1]])
    other = np.array([abs(tones[i] - tones[i + 1]) for i in rows[:-1] if cohort.patient[i] != cohort.patient[i + 1]])
    assert same.mean() < 0.7 * other.mean()


def test_balanced_test_split() -> None:
    cohort = Phantom(images=700, test_imbalance="balanced", imbalance_ratio=20.0).draw_cohort()
    counts = np.stack([cohort.labels[cohort.split == part].sum(axis=0) for part in range(3)])
    assert counts[2].tolist() == [25] * 7
    assert counts[0, 0] / counts[0, -1] == pytest.approx(20, rel=0.2)
    assert counts.sum() == 700


@pytest.mark.parametrize("options", [{}, {"modality": "chest_xray", "multilabel": True, "imbalance_ratio": 5.0}])
def test_device_depends_on_class_only_on_demand(options: dict[str, Any]) -> None:
    shared = []
    for shift in (0.0, 0.9):
        cohort = Phantom(images=2000, device_shift=shift, **options).draw_cohort()
        findings = cohort.labels @ (2 ** np.arange(cohort.labels.shape[1]))
        entropies = [mutual_info_score(values, values) for values in (findings, cohort.device)]
        shared.append(mutual_info_score(findings, cohort.device) / min(entropies))
    assert shared[0] < 0.03
    assert shared[1] > 0.3


def test_devices_look_different() -> None:
    means = []
    for device in range(4):
        phantom = Phantom(images=40, size=28, imbalance_ratio=1.0, devices=4)
        cohort = phantom.draw_cohort()
        rows = np.flatnonzero(cohort.device == device)
        means.append(np.mean([phantom.render(int(row), cohort=cohort).image.mean(axis=(0, 1)) for row in rows], axis=0))
    assert all(np.abs(means[i] - means[j]).max() > 2 for i in range(4) for j in range(i))


def test_multilabel(tmp_path: Path) -> None:
    phantom = Phantom(modality="chest_xray", multilabel=True, images=240, size=28, imbalance_ratio=8.0)
    manifest = phantom.load(cache=tmp_path)
    targets = manifest.targets()
    assert manifest.card.task == "multilabel"
    assert manifest.card.classes == ("pneumonia", "effusion", "cardiomegaly", "nodule", "pneumothorax", "hernia")
    assert targets.sum(axis=1).max() == 3
    assert 0.3 < (targets.sum(axis=1) == 0).mean() < 0.8
    for part, rows in ((name, manifest.rows(name)) for name in ("train", "validation", "test")):
        prevalence = 0.3 * 8.0 ** -(np.arange(6) / 5)
        assert manifest.class_counts(part).tolist() == np.maximum(np.rint(prevalence * len(rows)), 1).tolist()
    # Findings come together more often than chance would have it.
    together = np.corrcoef(targets.T)[np.triu_indices(6, 1)]
    assert together.mean() > 0.05
    for row in range(0, 240, 6):
        bits = mask_of(manifest, row)
        assert [bool((bits >> k & 1).any()) for k in range(6)] == (targets[row] == 1).tolist()


def test_findings_of_one_image_do_not_move_each_other() -> None:
    phantom = Phantom(modality="chest_xray", multilabel=True, images=240, size=28, imbalance_ratio=2.0)
    cohort = phantom.draw_cohort()
    row = int(np.flatnonzero(cohort.labels.sum(axis=1) == 3)[0])
    both = phantom.render(row, cohort=cohort)
    chosen = next(iter(both.masks))
    body = MODALITIES["chest_xray"]
    assert set(both.masks) == {n for n, shown in zip(phantom.class_names, cohort.labels[row], strict=True) if shown}
    labels = cohort.labels.copy()
    labels[row] = [name == chosen for name in phantom.class_names]
    alone = phantom.render(row, cohort=type(cohort)(**{**fields_of(cohort), "labels": labels}))
    assert (alone.masks[chosen] == both.masks[chosen]).all()
    assert chosen in body.CLASSES


def fields_of(cohort: Any) -> dict[str, Any]:
    return {name: getattr(cohort, name) for name in type(cohort).__dataclass_fields__}


def test_mean_colour_does_not_give_the_class_away() -> None:
    phantom = Phantom(images=315, size=28, imbalance_ratio=1.0)
    cohort = phantom.draw_cohort()
    images = np.stack([phantom.render(row, cohort=cohort).image for row in range(315)])
    features = StandardScaler().fit_transform(images.mean(axis=(1, 2)))
    labels, is_test = cohort.labels.argmax(axis=1), cohort.split == 2
    model = LogisticRegression(max_iter=500).fit(features[~is_test], labels[~is_test])
    assert balanced_accuracy_score(labels[is_test], model.predict(features[is_test])) < 0.45


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 27}, "size must lie between 28 and 512, got 27"),
        ({"classes": 8}, "classes must lie between 2 and 7"),
        ({"classes": 1}, "classes must lie between 2 and 7"),
        ({"classes": 7, "modality": "chest_xray", "multilabel": True}, "classes must lie between 1 and 6"),
        ({"imbalance_ratio": 0.5}, "imbalance_ratio must lie"),
        ({"images_per_group": 4.0}, "images_per_group must lie"),
        ({"devices": 5}, "devices must lie between 1 and 4"),
        ({"device_shift": -0.1}, "device_shift"),
        ({"images": 60}, "leave a class without images in a split .* raise images"),
        ({"multilabel": True}, "chest_xray"),
        ({"modality": "chest_xray", "multilabel": True, "images": 30}, "cannot hold 6 findings"),
        ({"validation": 0.6, "test": 0.4}, "no images for training"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Phantom(**options)


def test_splits_can_be_left_out() -> None:
    cohort = Phantom(images=100, imbalance_ratio=2.0, validation=0.0, test=0.0).draw_cohort()
    assert set(cohort.split) == {0}


def test_noise_is_standardised_and_does_not_count_its_pixels() -> None:
    fields = np.stack([noise(np.random.default_rng(seed), 64, 5, 12) for seed in range(60)])
    assert abs(fields.mean()) < 0.1
    assert fields.std() == pytest.approx(1.0, abs=0.1)
    small, large = (noise(np.random.default_rng(0), size, 4) for size in (32, 96))
    assert np.abs(large.reshape(32, 3, 32, 3)[:, 1, :, 1] - small).max() < 1e-9


def test_shapes_cover_their_area() -> None:
    disc = discs(np.array([[0.1, -0.2]]), np.array([0.5]), 64)
    assert disc.mean() == pytest.approx(np.pi * 0.25 / 4, rel=0.04)
    square = polygons([np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])], 64)
    assert square.mean() == pytest.approx(0.25, rel=0.05)
    line = strokes([Stroke(points=np.array([[-0.8, 0.0], [0.8, 0.0]]), width=(0.2, 0.2))], 64)
    assert line.mean() == pytest.approx(1.6 * 0.2 / 4, rel=0.1)


def test_step_and_curve_by_hand() -> None:
    assert step(np.array([-1.0, 0.0, 0.5, 1.0, 2.0]), 0.0, 1.0).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert step(np.array([0.0, 1.0]), 1.0, 0.0).tolist() == [1.0, 0.0]
    points = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]])
    assert np.allclose(curve(points, count=3), points)
    assert np.allclose(curve(points, count=3, closed=True), points)
    straight = np.stack([np.arange(4.0), np.arange(4.0)], axis=1)
    assert np.allclose(curve(straight, count=7)[2:5], [[1, 1], [1.5, 1.5], [2, 2]])


def test_sensor_noise_has_its_size() -> None:
    seen = sensor(np.full((100, 100), 0.5), noise=0.04, rng=np.random.default_rng(0)).astype(float)
    assert seen.std() == pytest.approx(255 * 0.04 * np.sqrt(0.625), rel=0.05)


def test_groups_and_paths_are_in_row_order(tmp_path: Path) -> None:
    phantom = Phantom(**SMALL)
    manifest, cohort = phantom.load(cache=tmp_path), phantom.draw_cohort()
    assert manifest.frame["group"].to_list() == [f"patient-{p:05d}" for p in cohort.patient]
    assert manifest.frame["path"].to_list() == [f"images/{row:06d}.png" for row in range(42)]
    assert (manifest.targets().argmax(axis=1) == cohort.labels.argmax(axis=1)).all()
    table = manifest.frame.group_by("group").agg(pl.col("split").n_unique())
    assert table["split"].max() == 1
