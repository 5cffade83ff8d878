"""Hyperplane maps and the gate: on a translator and classifiers whose answers are known."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from raremix.cli import app
from raremix.core import files
from raremix.core.errors import ConfigError, GuardError, HeldOutError, UnknownNameError
from raremix.generate import Form
from raremix.models import ClassifierCard
from raremix.study.apply import refuse_seen
from raremix.study.defaults import study_of
from raremix.study.generators import curate as curating
from raremix.study.generators import gate as translation_gate
from raremix.study.generators import hyperplane_maps
from raremix.study.generators.fit import fit_generator
from raremix.study.generators.gate import Towards, judge_translations
from raremix.study.generators.hyperplane_maps import animated, cross_boundaries, table_of, write_crossings
from raremix.study.generators.spec import read_generator
from raremix.study.prepare import Prepared, prepare

DATA = ["data.images=90", "data.classes=2", "data.imbalance_ratio=2", "data.size=32", "data.channels=1"]
CLASSES = ("a", "b")


class Bright(nn.Module):
    """Call an image the second class where it is brighter than a line."""

    def __init__(self, line: float) -> None:
        super().__init__()
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(1, 2)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([[-10.0], [10.0]]))
            self.fc.bias.copy_(torch.tensor([10.0 * line, -10.0 * line]))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.pool(images).flatten(1))


class Dimmer:
    """Shows the first class dark and the second bright."""

    form = Form(size=32, channels=1, classes=2)

    def along(self, images: Tensor, own: Tensor, other: Tensor, place: Tensor) -> Tensor:
        level = torch.lerp(0.2 + 0.6 * own.float(), 0.2 + 0.6 * other.float(), place)
        return level[:, None, None, None].expand_as(images).clone()

    def __call__(self, images: Tensor, targets: Tensor, *, rng: object) -> Tensor:
        level = 0.2 + 0.6 * targets[:, 1]
        return level[:, None, None, None].expand_as(images).clone()

    def reconstruct(self, images: Tensor, targets: Tensor | None = None) -> Tensor:
        return images


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(study_of("phantom", settings=DATA), cache=tmp_path_factory.mktemp("cache"))


def know(monkeypatch: pytest.MonkeyPatch, prepared: Prepared, *, line: float, drawer: object = None) -> None:
    """Put a known translator and a known classifier where folders are opened."""
    card = prepared.manifest.card
    told = ClassifierCard(
        task=card.task,
        classes=card.classes,
        size=32,
        channels=1,
        bits=8,
        resize="pad",
        thresholds=(0.5,) * len(card.classes),
        temperature=1.0,
        modality=card.modality,
        manifest_hash="",
        training={},
    )
    opened = (Dimmer() if drawer is None else drawer, SimpleNamespace(method="dimmer", classifier=""))
    for module in (hyperplane_maps, translation_gate):
        monkeypatch.setattr(module, "open_translator", lambda *_, **__: opened)
        monkeypatch.setattr(module, "refuse_other_form", lambda *_, **__: None)
        monkeypatch.setattr(module, "load_classifier", lambda _: (Bright(line), told))
    for name in ("refuse_leaking", "refuse_seen"):
        monkeypatch.setattr(translation_gate, name, lambda *_, **__: None)


def test_every_boundary_is_crossed_where_it_lies(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    know(monkeypatch, prepared, line=0.35)
    found = cross_boundaries(Path("g"), Path("c"), prepared, per_class=3)
    assert [one.other for one in found] == list(prepared.manifest.card.classes)
    frame = table_of(found)
    assert frame["reached"].all()
    assert (frame["residual"] < 1e-3).all()
    for name, place, change in zip(frame["to"], frame["place"], frame["change"], strict=True):
        expected = 0.25 if name == prepared.manifest.card.classes[1] else 0.75
        assert place == pytest.approx(expected, abs=1e-4)
        assert change == pytest.approx(0.6 * expected, abs=1e-4)
    paths = write_crossings(found, prepared, tmp_path)
    assert len(paths) == 5
    with Image.open(next(path for path in paths if path.suffix == ".gif")) as strip:
        assert strip.n_frames > 10


def test_a_boundary_out_of_reach_is_on_no_sheet(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    know(monkeypatch, prepared, line=0.95)
    found = cross_boundaries(Path("g"), Path("c"), prepared, per_class=2)
    assert not table_of(found)["reached"].any()
    assert table_of(found)["change"].null_count() == len(table_of(found))
    assert [path.name for path in write_crossings(found, prepared, tmp_path)] == ["hdm.csv"]


def test_the_gate_opens_for_a_translator_that_changes_the_class(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    know(monkeypatch, prepared, line=0.5)
    found = judge_translations(Path("g"), Path("c"), prepared)
    held, groups = prepared.manifest.rows("validation"), prepared.manifest.frame["group"]
    patients = groups.gather(prepared.manifest.positions(held)).n_unique()
    assert sum(one.images for one in found) == patients, "one image of each patient, sent to the class it is not of"
    for one in found:
        assert one.flipped == 1.0
        assert one.redrawn == one.before, "it redraws without an error"
        assert ("show what makes the class" in one.words(2)) == (one.low > max(0.5, one.before))
        assert 0 < one.tenth < one.area < 1
        assert one.cycle > 0.01


def test_the_gate_stays_shut_for_one_that_changes_nothing(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    class Idle(Dimmer):
        def __call__(self, images: Tensor, targets: Tensor, *, rng: object) -> Tensor:
            return images.clone()

    know(monkeypatch, prepared, line=0.9, drawer=Idle())
    _, second = judge_translations(Path("g"), Path("c"), prepared)
    assert second.flipped == second.before == 0.0
    assert second.change == second.cycle == 0.0
    assert "NOT" in second.words(2)


def test_words_follow_the_interval() -> None:
    def words(low: float, before: float, redrawn: float = 0.0) -> str:
        return Towards(
            name="x", images=9, flipped=0.45, low=low, high=0.6, before=before, redrawn=redrawn, change=0.1, cycle=0.1,
            area=0.1, tenth=0.1, kernel=None, kernel_before=None,
        ).words(4)  # fmt: skip

    assert "show what makes the class" in words(0.6, 0.1)
    assert "partly" in words(0.3, 0.1)
    assert "NOT" in words(0.3, 0.4)
    assert "NOT" in words(0.2, 0.1)
    assert "NOT" in words(0.7, 0.9), "they were taken for it as often before"
    assert "before they were translated (90 %)" in words(0.7, 0.9)
    assert "NOT" in words(0.7, 0.1, redrawn=0.77), "redrawing alone did it"
    assert "redrawn without a change of class (77 %)" in words(0.7, 0.1, redrawn=0.77)


def test_what_redrawing_does_by_itself_is_told_apart(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    class Faded(Dimmer):
        def reconstruct(self, images: Tensor, targets: Tensor | None = None) -> Tensor:
            assert targets is not None
            return torch.full_like(images, 0.9)

    know(monkeypatch, prepared, line=0.5, drawer=Faded())
    first, second = judge_translations(Path("g"), Path("c"), prepared)
    assert (first.redrawn, second.redrawn) == (0.0, 1.0)
    assert "show what makes" in first.words(2)
    assert "NOT" in second.words(2)


def test_neither_judge_of_its_own_nor_one_of_other_images(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    know(monkeypatch, prepared, line=0.5)
    files.write_bytes(tmp_path / "model.safetensors", b"weights")
    card = SimpleNamespace(method="dimmer", classifier=files.hash_file(tmp_path / "model.safetensors"))
    monkeypatch.setattr(translation_gate, "open_translator", lambda *_, **__: (Dimmer(), card))
    with pytest.raises(GuardError, match="helped to train"):
        judge_translations(Path("g"), tmp_path, prepared)
    files.write_bytes(tmp_path / "model.safetensors", b"others")
    assert judge_translations(Path("g"), tmp_path, prepared)
    _, told = translation_gate.load_classifier(tmp_path)
    for module in (translation_gate, hyperplane_maps):
        monkeypatch.setattr(module, "load_classifier", lambda _: (Bright(0.5), replace(told, size=224)))
    for judge in (judge_translations, cross_boundaries):
        with pytest.raises(ConfigError, match=r"data\.size=224"):
            judge(Path("g"), tmp_path, prepared)


def test_bad_requests_are_refused(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, prepared, line=0.5)
    with pytest.raises(UnknownNameError, match="nevus-like"):
        cross_boundaries(Path("g"), Path("c"), prepared, to=["nevus-like"])
    with pytest.raises(UnknownNameError, match="split"):
        cross_boundaries(Path("g"), Path("c"), prepared, split="tests")
    with pytest.raises(GuardError, match="knows its training images"):
        judge_translations(Path("g"), Path("c"), prepared, split="train")
    know(monkeypatch, prepared, line=0.5, drawer=object())
    with pytest.raises(ConfigError, match="no way between classes"):
        cross_boundaries(Path("g"), Path("c"), prepared)


def test_a_gif_holds_its_frames() -> None:
    frames = [np.full((8, 9, 3), 20 * k, dtype=np.uint8) for k in range(5)]
    assert animated(frames)[:6] == b"GIF89a"


def test_the_verbs_on_a_fitted_translator_and_a_trained_classifier(tmp_path: Path) -> None:
    """Nothing is known after three steps; it must run, and say so."""
    cache, own = tmp_path / "cache", [*DATA, "generator.width=2", "generator.widest=4", "generator.hidden=8"]
    budget = ["train.batch_size=2", "train.steps=3", 'train.precision="32"', "train.accelerator=cpu", "train.workers=0"]
    fit_generator(
        read_generator("phantom", method="stargan", settings=[*own, *budget]), folder=tmp_path / "star", cache=cache
    )
    trained = [*DATA, *(setting for setting in budget if "batch" not in setting)]
    arguments = [option for setting in trained for option in ("--set", setting)]
    done = CliRunner().invoke(
        app, ["train", "phantom", *arguments, "--set", 'model.name="resnet10t"', "--cache", str(cache), "--runs",
              str(tmp_path / "runs"), "--json"]
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    classifier = next((tmp_path / "runs").rglob("model.safetensors")).parent
    own_data = [option for setting in DATA for option in ("--set", setting)]
    for verb, name in (("hdm", "hdm.csv"), ("gate", "gate.json")):
        said = CliRunner().invoke(
            app, ["maps", verb, "phantom", str(tmp_path / "star"), str(classifier), *own_data, "--cache", str(cache),
                  "-o", str(tmp_path / "out")]
        )  # fmt: skip
        assert said.exit_code == 0, said.output
        assert (tmp_path / "out" / name).is_file()
    assert len(files.read_json(tmp_path / "out" / "gate.json")) == 2
    data = prepare(study_of("phantom", settings=DATA), cache=cache)
    believed = curating._belief(data, classifier, data.manifest.rows("validation"))
    assert believed.shape == (len(data.manifest.rows("validation")), 2)
    assert np.allclose(believed.sum(axis=1), 1, atol=1e-5)
    small = prepare(study_of("phantom", settings=[*DATA[:-2], "data.size=28", DATA[-1]]), cache=cache)
    with pytest.raises(ConfigError, match=r"set data\.size=32 and data\.channels=1"):
        curating._belief(small, classifier, small.manifest.rows("validation"))
    refuse_seen(classifier, data.manifest, data.manifest.rows("validation"))
    with pytest.raises(HeldOutError, match="trained on"):
        refuse_seen(classifier, data.manifest, data.manifest.rows("train"))
