"""Diffusion models from data to images, through the same functions and verbs as every other generator."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from raremix.core.errors import ConfigError, ResumeError, RunError, StoppedError, UnknownNameError
from raremix.data.manifest import Manifest
from raremix.generate import GENERATORS, ClassTranslator, generator_hash, read_card
from raremix.generate.diffusion import DiffusionTraining
from raremix.study.generators.draw import sample_class
from raremix.study.generators.fit import fit_generator, remedy_of
from raremix.study.generators.spec import fitted_ids, read_generator
from raremix.study.generators.synthesize import synthesize
from raremix.study.generators.use import drawing_of, drawn_with, open_generator, open_translator
from raremix.study.mixers import make_mixer
from raremix.study.prepare import Prepared, prepare

pytestmark = pytest.mark.usefixtures("no_fsync_in_module")

DATA = ["data.images=60", "data.classes=2", "data.imbalance_ratio=3", "data.size=32", "data.channels=1"]
SMALL = ["generator.width=8", "generator.layers=1", "generator.dropout=0", "generator.num_inference_steps=2"]
TRAIN = ["train.batch_size=2", 'train.precision="32"', "train.accelerator=cpu", "train.workers=0"]
RARE, COMMON = "keratosis", "nevus"


def spec(*more: str, force: tuple[str, ...] = (RARE,), without: tuple[str, ...] = ()) -> Any:
    budget = [*TRAIN, "train.steps=3", "train.validations=3", "train.checkpoints=3"]
    settings = [*DATA, *SMALL, *budget, *more]
    return read_generator("phantom", method="diffusion", settings=settings, force=force, without=without)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, no_fsync_in_module: None) -> Path:
    """A folder with a cache and a fitted diffusion model."""
    folder = tmp_path_factory.mktemp("diffusion")
    fit_generator(spec(), folder=folder / "g", cache=folder / "cache")
    return folder


@pytest.fixture(scope="module")
def prepared(place: Path) -> Prepared:
    return prepare(spec().data, cache=place / "cache")


def test_names_are_those_of_the_phantoms(prepared: Prepared) -> None:
    assert prepared.manifest.card.classes == (COMMON, RARE)


def test_what_it_trains_with_where_nobody_says_otherwise() -> None:
    train = read_generator("phantom", method="diffusion").table.train
    assert (train.precision, train.clip, train.warmup, train.average) == ("auto", 1.0, 0.01, 0.9995)
    assert read_generator("phantom", method="dcgan").table.train.precision == "32"
    for name in GENERATORS:
        with pytest.raises(ConfigError, match='generators train in "bf16"'):
            read_generator("phantom", method=name, settings=['train.precision="16"'])


def test_killed_and_resumed_it_is_the_same(place: Path, tmp_path: Path) -> None:
    asked = [False, True, False]
    with pytest.raises(StoppedError):
        fit_generator(spec(), folder=tmp_path / "cut", cache=place / "cache", should_stop=lambda: asked.pop(0))
    fit_generator(spec(), folder=tmp_path / "cut", cache=place / "cache")
    assert generator_hash(tmp_path / "cut") == generator_hash(place / "g")
    assert (tmp_path / "cut" / "evolution.png").read_bytes() == (place / "g" / "evolution.png").read_bytes()


def test_few_images_are_refused_unless_by_name(place: Path, tmp_path: Path) -> None:
    folder, cache = tmp_path / "g", place / "cache"
    with pytest.raises(ConfigError, match=rf"{RARE} has \d+ training images.*needs at least 20.*--force {RARE}"):
        fit_generator(spec(force=()), folder=folder, cache=cache)
    assert not (folder / "log.jsonl").exists(), "before any training"
    with pytest.raises(UnknownNameError, match="class to force"):
        fit_generator(spec(force=("melanoma",)), folder=folder, cache=cache)


def test_a_class_that_is_left_out(place: Path, prepared: Prepared, tmp_path: Path) -> None:
    asked = spec("train.steps=1", force=(), without=(RARE,))
    folder = fit_generator(asked, folder=tmp_path / "g", cache=place / "cache")
    card = read_card(folder)
    assert card.images[1] == 0
    assert card.images[0] == len(fitted_ids(prepared, without=(RARE,))) > 0
    with pytest.raises(ConfigError, match=f"never saw an image of '{RARE}'"):
        sample_class(folder, label=RARE, count=1, seed=0, output=tmp_path / "drawn")
    with pytest.raises(ConfigError, match="never saw"):
        synthesize(prepared, generator=folder, output=tmp_path / "made")
    assert len(sample_class(folder, label=COMMON, count=1, seed=0, output=tmp_path / "drawn")) == 1
    for without, error in ((("x",), UnknownNameError), ((COMMON, RARE), ConfigError)):
        with pytest.raises(error):
            fitted_ids(prepared, without=without)


@pytest.mark.parametrize("kind", ["device", "processor", "host"])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ([], "train.batch_size=1, or --set generator.gradient_checkpointing=true, or smaller images"),
        (["train.batch_size=1"], "per step: --set generator.gradient_checkpointing=true, or smaller images"),
        (["train.batch_size=1", "generator.gradient_checkpointing=true"], "per step: smaller images"),
    ],
)
def test_out_of_memory_says_what_helps(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, settings: list[str], words: str
) -> None:
    def full(self: Any, phase: str, batch: Any, *, step: int) -> Any:
        if kind == "processor":
            torch.empty(10**15)
        raise torch.OutOfMemoryError("no") if kind == "device" else MemoryError

    monkeypatch.setattr(DiffusionTraining, "loss", full)
    with pytest.raises(RunError, match=words):
        fit_generator(spec(*settings), folder=tmp_path, cache=place / "cache")


def test_a_loss_that_is_no_number_stops_the_fit_and_the_advice_can_be_followed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = DiffusionTraining.loss

    def broken(self: Any, phase: str, batch: Any, *, step: int) -> Any:
        found = plain(self, phase, batch, step=step)
        return {key: value * torch.nan for key, value in found.items()} if step == 2 else found

    monkeypatch.setattr(DiffusionTraining, "loss", broken)
    with pytest.raises(
        RunError, match="loss is nan at step 3: fit it anew with a lower learning rate, --set "
    ) as caught:
        fit_generator(spec(), folder=tmp_path / "g", cache=place / "cache")
    said = str(caught.value)
    assert re.search(r"the last good checkpoint is \S+/g/checkpoints/step-0000000[12]: the same settings go on", said)
    assert "train.precision" not in said, "it is 32 already"
    monkeypatch.undo()
    (setting,) = re.findall(r"--set (\S+)", said)
    calmer = spec(setting)
    assert calmer.table.method.learning_rate == pytest.approx(spec().table.method.learning_rate / 4)
    fit_generator(calmer, folder=tmp_path / "other", cache=place / "cache")


def test_the_advice_names_bf16_and_each_method_has_a_rate() -> None:
    for name in GENERATORS:
        asked = read_generator("phantom", method=name, settings=['train.precision="bf16"'])
        assert "--set generator.learning_rate=" in remedy_of(asked.table)
        assert '--set train.precision="32"' in remedy_of(asked.table)


# Drawing


def test_settings_of_drawing_are_parted_and_checked(place: Path) -> None:
    assert drawing_of(["draw.strength=0.3", "data.size=32", "draw.solver=heun"]) == (
        {"strength": 0.3, "solver": "heun"},
        ["data.size=32"],
    )
    drawer, _ = open_generator(place / "g")
    changed: Any = drawn_with(drawer, {"strength": 0.3, "solver": "heun"})
    assert (changed.strength, changed.solver, changed.num_inference_steps) == (0.3, "heun", 2)
    with pytest.raises(UnknownNameError, match="did you mean 'strength'"):
        drawn_with(drawer, {"strenght": 0.3})
    for settings, words in (
        ({"strength": 0}, "strength must be above 0"),
        ({"strength": 1.5}, "at most 1"),
        ({"solver": "euler"}, "draw.solver"),
        ({"num_inference_steps": "many"}, "draw.num_inference_steps"),
    ):
        with pytest.raises(ConfigError, match=words):
            drawn_with(drawer, settings)


def test_steps_change_the_images(place: Path, tmp_path: Path) -> None:
    drawn = {
        steps: sample_class(
            place / "g",
            label=RARE,
            count=1,
            seed=0,
            output=tmp_path / str(steps),
            drawing={"num_inference_steps": steps},
        )[0].read_bytes()
        for steps in (2, 3)
    }
    assert drawn[2] != drawn[3]


def test_it_makes_maps_in_a_study(place: Path) -> None:
    assert isinstance(open_translator(place / "g")[0], ClassTranslator)
    translator = {"name": str(place / "g"), "strength": 0.4, "num_inference_steps": 3}
    importance = {"name": "difference", "translator": translator, "to_reconstruction": True}
    mixer: Any = make_mixer({"name": "varimix", "importance": importance}, where="mix")
    assert (mixer.importance.translator.strength, mixer.importance.translator.num_inference_steps) == (0.4, 3)
    mixed, _ = mixer(torch.rand(2, 1, 32, 32), torch.eye(2), rng=np.random.default_rng(0))
    assert mixed.shape == (4, 1, 32, 32)


def test_images_begin_as_noise_or_as_training_images(place: Path, prepared: Prepared, tmp_path: Path) -> None:
    real = dict(zip(prepared.manifest.card.classes, prepared.manifest.class_counts("train").tolist(), strict=True))
    to, made = f"{RARE}={real[RARE] + 5}", {}
    for begin in ("auto", "own", "others"):
        path = synthesize(
            prepared,
            generator=place / "g",
            output=tmp_path / begin,
            to=to,
            begin=begin,  # type: ignore[arg-type]
            drawing={} if begin == "auto" else {"strength": 0.5},
        )
        made[begin] = Manifest.read(path)
    synthetic = {name: found.frame.filter(pl.col("origin") == "synthetic") for name, found in made.items()}
    assert [len(p) for p in synthetic["auto"]["parents"].to_list()] == [0] * 5
    for begin, label in (("own", 1), ("others", 0)):
        parents = np.array(synthetic[begin]["parents"].to_list()).ravel()
        assert len(parents) == 5
        assert (made[begin].targets(parents)[:, label] == 1).all()
        recipe = json.loads(synthetic[begin]["recipe"][0])
        assert (recipe["begin"], recipe["drawing"]) == (begin, {"strength": 0.5})
    with pytest.raises(ResumeError, match="another generator, seed or data set"):
        synthesize(
            prepared, generator=place / "g", output=tmp_path / "own", to=to, begin="own", drawing={"strength": 0.7}
        )


def test_a_synthesis_that_was_cut_goes_on(place: Path, prepared: Prepared, tmp_path: Path) -> None:
    real = dict(zip(prepared.manifest.card.classes, prepared.manifest.class_counts("train").tolist(), strict=True))
    to = f"{RARE}={real[RARE] + 20}"
    whole = synthesize(prepared, generator=place / "g", output=tmp_path / "whole", to=to)

    def stop(what: str, done: int, total: int) -> None:
        raise StoppedError("enough")

    with pytest.raises(StoppedError):
        synthesize(prepared, generator=place / "g", output=tmp_path / "cut", to=to, progress=stop)
    assert len(list((tmp_path / "cut" / "images").rglob("*.png"))) == 16, "a block"
    cut = synthesize(prepared, generator=place / "g", output=tmp_path / "cut", to=to)
    hashes = [Manifest.read(p).frame["sha256"].to_list() for p in (whole, cut)]
    assert hashes[0] == hashes[1]


# The command line


def test_the_same_verbs(place: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    own = ["--set", "data.images=60", "--set", "data.classes=2", "--set", "data.imbalance_ratio=3"]
    own += ["--cache", str(place / "cache")]
    code, said, _ = run("generator", "inspect", place / "g", "--json")
    assert code == 0
    facts = json.loads(said)
    assert facts["drawing"] == {
        "solver": "dpm++", "num_inference_steps": 2, "guidance_scale": 1.0, "strength": 0.5,
        "precision": "auto",
    }  # fmt: skip
    assert Path(facts["evolution"]).is_file()
    few = ["--set", "draw.num_inference_steps=2"]
    code, _, _ = run("generator", "sample", place / "g", "--class", RARE, "-n", "2", "-o", tmp_path, *few)
    assert code == 0
    code, _, said = run("generator", "sample", place / "g", "--class", RARE, "--set", "data.size=3")
    assert (code, "draw.KEY=VALUE" in said) == (2, True)
    code, _, said = run("generator", "sample", place / "g", "-c", RARE, "--set", "draw.strength=2", "--dry-run")
    assert (code, "at most 1" in said) == (2, True)
    picture = tmp_path / "t.png"
    strong = ["--set", "draw.strength=0.9"]
    code, _, _ = run("generator", "translate", place / "g", "phantom", *own, *strong, "-n", "1", "-o", picture)
    assert (code, picture.is_file()) == (0, True)
    made = tmp_path / "made"
    code, said, _ = run("synthesize", "phantom", place / "g", *own, *few, "--begin", "own", "-o", made)
    assert code == 0
    assert (made / "manifest.parquet").is_file()
    fit = ["generator", "fit", "phantom", *own, "-m", "diffusion", "--size", "32", "--dry-run"]
    code, _, said = run(*fit)
    assert (code, f"--force {RARE}" in " ".join(said.split())) == (2, True)
    code, said, _ = run(*fit, "--force", RARE, "--json")
    assert (code, json.loads(said)["steps"]) == (0, 50_000)
