"""A generator that collapses is told from an honest one, while it learns and in words at the end."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raremix.core import files
from raremix.generate import DCGAN, Diffusion, Form, StarGAN
from raremix.study.generators import album as album_module
from raremix.study.generators.album import Album
from raremix.study.generators.collapse import expected_coverage, figures_of, notes_of
from raremix.study.generators.spec import read_generator
from raremix.study.prepare import Prepared, prepare

pytestmark = pytest.mark.usefixtures("no_fsync_in_module")

FORM = Form(size=32, channels=1, classes=2)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, no_fsync_in_module: None) -> Prepared:
    settings = ["data.images=240", "data.classes=2", "data.imbalance_ratio=1", "data.size=32", "data.channels=1"]
    spec = read_generator("phantom", method="dcgan", settings=settings)
    return prepare(spec.data, cache=tmp_path_factory.mktemp("collapse") / "cache")


def blobs(count: int, *, seed: int) -> Tensor:
    """Draw bright spots at places by chance."""
    places = np.random.default_rng(seed).uniform(6, 26, (count, 2))
    grid = np.mgrid[:32, :32]
    away = ((grid[None] - places[:, :, None, None]) ** 2).sum(axis=1)
    return torch.from_numpy(np.exp(-away / 40)).float()[:, None]


# Figures


def test_images_of_the_same_kind_reach_what_is_expected() -> None:
    found = [figures_of(blobs(64, seed=2 * s), blobs(64, seed=2 * s + 1)) for s in range(10)]
    for name, tolerance in (("diversity", 0.05), ("apart", 0.1), ("coverage", 0.03)):
        assert np.mean([one[name] for one in found]) == pytest.approx(1, abs=tolerance), name


def test_expected_coverage_by_chance() -> None:
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(4000):
        # On a line from the real image on, its neighbourhood ends at the third of the others.
        others, drawn = np.sort(rng.random(9)), rng.random(6)
        hits.append(drawn.min() < others[2])
    assert np.mean(hits) == pytest.approx(expected_coverage(10, 6, neighbours=3), abs=0.02)


@pytest.mark.parametrize(("kinds", "covered"), [(2, 0.3), (10, 0.75)])
def test_a_few_images_again_and_again(kinds: int, covered: float) -> None:
    found = figures_of(blobs(kinds, seed=1)[torch.arange(64) % kinds], blobs(64, seed=2))
    assert found["diversity"] > 0.25, "which the mean difference does not show"
    assert found["apart"] == pytest.approx(0, abs=1e-3)
    assert found["coverage"] < covered
    assert "collapsed" in notes_of("x", found, 1.0)[0]


def test_what_too_few_images_allow() -> None:
    assert set(figures_of(blobs(64, seed=1), blobs(5, seed=2))) == {"diversity"}
    assert figures_of(blobs(64, seed=1), blobs(1, seed=2)) == {}
    broken = blobs(8, seed=1).index_fill(0, torch.tensor([3]), torch.nan)
    assert np.isnan(figures_of(broken, blobs(64, seed=2))["diversity"])


def test_words() -> None:
    fine = {"diversity": 0.8, "apart": 0.9, "coverage": 0.7}
    assert notes_of("x", fine, 0.8) == []
    assert notes_of("x", {}, 0.0) == []
    assert notes_of("x", {**fine, "apart": 0.1}, 0.8) == [
        "x: a drawn image differs from another by 80% of what real ones do, and from the one most like it by 10%: "
        "collapsed"
    ]
    assert "come near 20% of the real ones that others would" in notes_of("x", {**fine, "coverage": 0.2}, 0.2)[0]
    assert (
        "came near 90% of the real ones that others would, and at the end 40%: collapsing"
        in (notes_of("x", {**fine, "coverage": 0.4}, 0.9)[0])
    )


# In the album


@dataclass
class Painter:
    """Draws what it is given, by the number of the call's row."""

    images: Tensor
    latent: int = 2
    seen: list[int] = field(default_factory=list)

    def generate(self, targets: Tensor, latents: Tensor) -> Tensor:
        first = sum(self.seen) % len(self.images)
        self.seen.append(len(latents))
        return self.images[(first + torch.arange(len(latents))) % len(self.images)]


@dataclass
class Steps(Painter):
    num_inference_steps: int = 20


@dataclass
class Restyler:
    """Moves images by a class, and by as much as it heeds the style."""

    heeds: float
    form: Form = FORM

    def __call__(self, images: Tensor, targets: Tensor, *, rng: np.random.Generator) -> Tensor:
        style = torch.from_numpy(rng.standard_normal((len(images), 1))).float()[:, :, None, None]
        return images * 0.5 + 0.3 * targets[:, :1, None, None] + self.heeds * style

    def reconstruct(self, images: Tensor, targets: Tensor | None = None) -> Tensor:
        return images


def album_of(prepared: Prepared, folder: Path, drawer: Any, monkeypatch: pytest.MonkeyPatch, method: Any) -> Album:
    monkeypatch.setattr(type(method), "drawer", lambda self, networks, form: drawer)
    ids = prepared.manifest.rows("train")
    return Album(folder=folder, method=method, seed=0, prepared=prepared, form=FORM, ids=ids, steps=2)


MODULES = {
    "generator": nn.Linear(1, 1),
    "denoiser": nn.Linear(1, 1),
    "mapping": nn.Identity(),
    "encoder": nn.Identity(),
}


def real_images(prepared: Prepared, *splits: str) -> Tensor:
    ids = np.concatenate([prepared.manifest.rows(split) for split in splits])
    return torch.from_numpy(prepared.cache.take(ids)).float() / 255


def test_two_images_are_noticed_and_honest_ones_are_not(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = real_images(prepared, "validation", "test")
    for images, words in ((others, None), (others[:2], "collapsed")):
        album = album_of(prepared, tmp_path / str(words), Painter(images), monkeypatch, DCGAN(width=2, latent=4))
        for album.step in (1, 2):
            found = album.add(MODULES)
        notes, measured = album.verdict()
        assert measured == found
        assert len(notes) == (0 if words is None else 2), notes
        assert all(words in note for note in notes if words)


def test_coverage_that_fell_is_read_from_the_log(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = prepared.manifest.card.classes[0]
    album = album_of(prepared, tmp_path, Painter(torch.zeros(1)), monkeypatch, DCGAN(width=2, latent=4))
    lines = [{"step": step, f"validation/coverage_{name}": value} for step, value in ((1, 0.9), (2, 0.4))]
    files.write_records(tmp_path / "log.jsonl", lines)
    album.last = {f"coverage_{name}": 0.4, f"apart_{name}": 0.8, f"diversity_{name}": 0.8}
    assert [note.partition(" came near ")[0] for note in album.verdict()[0]] == [f"{name}: drawn images"]


def test_how_many_are_drawn(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = real_images(prepared, "validation")
    for method, drawer, counts in (
        (DCGAN(width=2, latent=4), Painter(others), (64, 64)),
        (Diffusion(width=8), Steps(others), (8, 32)),
    ):
        album = album_of(prepared, tmp_path, drawer, monkeypatch, method)
        for album.step, count in zip((1, 2), counts, strict=True):
            drawer.seen.clear()
            kinds = {key.partition("_")[0] for key in album.add(MODULES)}
            assert sum(drawer.seen) == 2 * count
            assert kinds == ({"diversity"} if count == 8 else {"diversity", "apart", "coverage"})


def test_a_style_that_is_ignored_is_noticed(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for heeds, words in ((0.1, []), (0.001, ["the style is ignored"])):
        album = album_of(prepared, tmp_path, Restyler(heeds), monkeypatch, StarGAN(width=2, widest=4, hidden=8))
        album.step = 2
        found = album.add(MODULES)
        assert found["styles"] == pytest.approx(heeds * 2 / np.sqrt(np.pi), rel=0.3), "of two normal numbers"
        notes, _ = album.verdict()
        assert len(notes) == len(words), notes
        assert all(said in note for said, note in zip(words, notes, strict=True))
    album.last = {"change": 0.001, "reconstruction": 0.1, "styles": 0.0}
    assert "difference maps show nothing" in album.verdict()[0][0]
    assert len(album.verdict()[0]) == 1
    assert album_module.STYLELESS < 1
