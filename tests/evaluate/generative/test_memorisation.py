"""The look for copies: checklist P1 to P3 on made-up images, and on real ones where they are."""

from dataclasses import replace
from math import comb
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from scipy.stats import beta

from raremix.core.errors import DataError
from raremix.evaluate.generative import (
    COPIES,
    MemorisationAudit,
    PixelViews,
    Sight,
    Space,
    audit_memorisation,
    pixel_space,
    pixel_views,
    plant_copies,
)

SEEN = ["exact", "JPEG 30", "noise 5 %", "flip", "gamma 0.7"]
"""What pixels at this size tell."""


def portraits(count: int, *, seed: int) -> np.ndarray:
    """Return smooth images, one per patient, (n, 1, 32, 32)."""
    stream = np.random.default_rng(seed)
    places = np.linspace(-1, 1, 32)
    y, x = np.meshgrid(places, places, indexing="ij")
    images = np.zeros((count, 32, 32))
    for _ in range(9):
        cy, cx, width, height = (stream.uniform(low, high, (count, 1, 1)) for low, high in
                                 ((-0.8, 0.8), (-0.8, 0.8), (0.05, 0.3), (-1, 1)))  # fmt: skip
        images += height * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * width**2))
    low, high = images.min(axis=(1, 2), keepdims=True), images.max(axis=(1, 2), keepdims=True)
    return ((images - low) / (high - low) * 255).astype(np.uint8)[:, None]


def space(made: np.ndarray, *, seed: int = 0) -> Space:
    train = portraits(100, seed=100 * seed + 1)
    return Space(
        name="pixels",
        train=pixel_space(train),
        reference=pixel_space(portraits(100, seed=100 * seed + 2)),
        calibration=pixel_views(portraits(300, seed=100 * seed + 3)),
        made=pixel_views(made),
        planted={kind: pixel_views(plant_copies(train[:20], kind=kind)) for kind in COPIES},
    )


def test_honest_images_are_not_called_copies() -> None:
    shares, alarms = [], 0
    for seed in range(8):
        found = audit_memorisation([space(portraits(100, seed=100 * seed + 4), seed=seed)], calibration_patients=300)
        shares.append(found.is_flagged.mean())
        alarms += found.has_copies
    assert np.mean(shares) < 0.02
    assert alarms <= 2  # of 8 at a level of .05; the thresholds themselves are drawn


def test_planted_copies_are_found_and_named() -> None:
    train, honest = portraits(100, seed=1), portraits(475, seed=4)
    copies = np.concatenate([plant_copies(train[i : i + 1], kind=kind) for i, kind in enumerate(SEEN * 5)])
    found = audit_memorisation([space(np.concatenate([honest, copies]))], calibration_patients=300)
    assert found.has_copies
    assert "Memorised" in found.words()
    hits = found.is_flagged[475:]
    assert hits.mean() > 0.9
    named = found.source[475:] == np.arange(25)
    assert named[hits].all()
    assert set(found.order()[: hits.sum()]) <= set(range(475, 500)) | set(np.flatnonzero(found.is_flagged))


def test_the_test_says_what_it_would_find() -> None:
    found = audit_memorisation([space(portraits(300, seed=4))], calibration_patients=300)
    assert found.sight.found["exact"] == found.sight.found["flip"] == 1.0
    assert found.sight.found["gamma 0.7"] > 0.9
    assert "planted copies" in found.words()
    assert 0 < found.every.most < 0.05


def test_a_space_in_which_nothing_is_seen_is_called_blind() -> None:
    seen = space(portraits(100, seed=4))
    stream = np.random.default_rng(0)
    noise = {kind: stream.normal(size=views.shape).astype(np.float32) for kind, views in seen.planted.items()}
    noise = {kind: views / np.linalg.norm(views, axis=2, keepdims=True) for kind, views in noise.items()}
    blind = replace(seen, name="noise", planted=noise)
    found = audit_memorisation([blind], calibration_patients=300)
    assert set(found.sight.blind) == set(COPIES)
    assert found.every.most > 0.5


def test_copies_in_a_rare_class_do_not_drown() -> None:
    """Nine flags among 1,000 are chance; five of them among the 36 images of one class are not."""
    is_flagged, is_rare = np.zeros(1000, dtype=bool), np.arange(1000) < 36
    is_flagged[[0, 1, 2, 3, 4, 500, 501, 502, 503]] = True
    sight = Sight(thresholds={"a": 0.5}, places=4, is_below=np.arange(500) < 3, found={"exact": 1.0, "flip": 0.5})
    audit = MemorisationAudit(sight=sight, ratios={}, source=np.zeros(1000, dtype=np.int64), is_flagged=is_flagged)
    assert not audit.has_copies
    assert audit.every.by_chance == pytest.approx(1000 * 4 / 501)
    alike = (np.arange(500) < 1) | (np.arange(500) >= 490)
    rare = audit.among(is_rare, alike=alike)
    # One of the 11 calibration images of its kind is below; before them, one of 501 / 4.
    assert (rare.flagged, rare.images, rare.by_chance) == (5, 36, pytest.approx(36 * 2 / (501 / 4 + 11)))
    # Polya's urn: of 36 draws, each of which adds a ball of its own colour, five or more are of the rarer colour.
    assert rare.p == pytest.approx(1 - sum(_urn(k, 36, 2, 501 / 4 + 9) for k in range(5)), rel=1e-6)
    assert rare.p < 0.01
    assert rare.p > audit.among(is_rare, alike=np.arange(500) >= 490).p
    assert rare.most == pytest.approx(float(beta.ppf(0.95, 6, 31)) / 0.75)
    nobody = audit.among(np.zeros(1000, dtype=bool), alike=alike)
    assert (nobody.flagged, nobody.images, nobody.p, nobody.most) == (0, 0, 1.0, 1.0)


def test_a_class_whose_honest_images_lie_near_to_training_images_is_not_called_memorised() -> None:
    """Honest images of one class of two are flagged in three of a hundred cases, of the other in none.

    By the rate of all images alone, nine in ten such sets would be called memorised.
    """
    stream = np.random.default_rng(0)
    kind = np.tile([0, 1], 500)
    alarms = 0
    for _ in range(400):
        is_below = stream.random(1000) < 0.03 * kind
        is_flagged = stream.random(1000) < 0.03 * kind
        sight = Sight(thresholds={"a": 0.5}, places=15, is_below=is_below, found={"exact": 1.0})
        audit = MemorisationAudit(sight=sight, ratios={}, source=np.zeros(1000, dtype=np.int64), is_flagged=is_flagged)
        alarms += audit.among(kind == 1, alike=kind == 1).p < 0.05
    assert alarms <= 0.1 * 400


def _urn(k: int, n: int, a: float, b: float) -> float:
    ways = comb(n, k)
    for place in range(n):
        ways *= ((a + place) if place < k else (b + place - k)) / (a + b + place)
    return ways


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(DataError, match="49 patients"):
        audit_memorisation([space(portraits(10, seed=4))], calibration_patients=49)


def test_without_images_it_is_refused() -> None:
    seen = space(portraits(10, seed=4))
    with pytest.raises(DataError, match="made images"):
        audit_memorisation([replace(seen, made=seen.made[:0])], calibration_patients=300)


@pytest.mark.parametrize("kind", list(COPIES))
def test_copies_are_of_the_same_form_and_close(kind: str) -> None:
    images = np.repeat(portraits(4, seed=5), 3, axis=1)
    copies = plant_copies(images, kind=kind, seed=3)
    assert copies.shape == images.shape
    assert copies.dtype == np.uint8
    assert (copies == plant_copies(images, kind=kind, seed=3)).all()
    if kind == "exact":
        assert (copies == images).all()
        assert copies is not images
    else:
        assert (copies != images).any()
    if kind == "flip":
        assert (copies[..., ::-1] == images).all()
    if kind == "shift 4 px":
        inner, steps = copies[0, :, 8:-8, 8:-8], [(down, across) for down in (-4, 4) for across in (-4, 4)]
        same = [(inner == images[0, :, 8 - down : 24 - down, 8 - across : 24 - across]).all() for down, across in steps]
        assert sum(map(bool, same)) == 1


def test_views_hold_flips_and_shifts() -> None:
    images = portraits(3, seed=6)
    views = pixel_views(images)
    assert views.shape == (3, 18, 32 * 32)
    assert len(np.unique(views[0].round(5), axis=0)) == 18
    assert np.allclose(np.linalg.norm(views, axis=2), 1, atol=1e-5)
    assert np.allclose(views[:, 0], pixel_space(images))
    assert np.allclose(views[:, 1], pixel_space(images[..., ::-1]))
    assert np.allclose(pixel_views(images // 2 + 60)[:, 0], views[:, 0], atol=0.05)


def test_a_shift_of_four_pixels_is_seen_in_large_images() -> None:
    """4 of 224 are 1.14 of the 64 pixels that are compared; an image without noise shows what is left of it."""
    stream = np.random.default_rng(0)
    small = np.round(255 * stream.random((40, 1, 56, 56))).astype(np.uint8)
    images = np.repeat(np.repeat(small, 4, axis=2), 4, axis=3)
    copies = pixel_views(plant_copies(images, kind="shift 4 px"))
    assert copies.shape == (40, 26, 64 * 64)
    nearest = (copies @ pixel_space(images)[:, :, None]).max(axis=(1, 2))
    assert nearest.min() > 0.9


def test_shifted_copies_of_x_rays_are_found(shared_data: Path) -> None:
    """P1 and P3 in pixels alone, on 700 X-rays at 224 px, one of each patient."""
    table = pl.read_csv(shared_data / "kermany_cxr_224" / "labels.csv").unique("patient_group", maintain_order=True)
    names = table["file"].gather(np.random.default_rng(0).permutation(len(table))[:700]).to_list()
    folder = shared_data / "kermany_cxr_224" / "images"
    images = np.stack([np.asarray(Image.open(folder / name).convert("L"))[None] for name in names])
    train, reference, calibration, made = np.split(images, [200, 400, 600])
    kinds = ("exact", "noise 5 %", "shift 4 px", "gamma 0.7")
    xrays = Space(
        name="pixels",
        train=pixel_space(train),
        reference=pixel_space(reference),
        calibration=PixelViews(calibration),
        made=PixelViews(made),
        planted={kind: PixelViews(plant_copies(train[:60], kind=kind)) for kind in kinds},
    )
    found = audit_memorisation([xrays], calibration_patients=200)
    assert all(found.sight.found[kind] >= 0.95 for kind in kinds), found.sight.found
    assert not found.has_copies


def test_views_made_on_demand_are_the_same() -> None:
    images = portraits(7, seed=5)
    views = PixelViews(images)
    assert len(views) == 7
    assert np.array_equal(views[2:5], pixel_views(images)[2:5])
