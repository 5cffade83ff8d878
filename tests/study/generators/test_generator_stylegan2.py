"""StyleGAN2 from data to images, through the same functions and verbs as every other generator."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from PIL import Image

from raremix import cli
from raremix.core.errors import ConfigError, StoppedError, UnknownNameError
from raremix.data.manifest import Manifest
from raremix.generate import StyleDrawer, StyleGAN2, generator_hash, read_card
from raremix.study.generators.album import Album
from raremix.study.generators.draw import sample_class
from raremix.study.generators.fit import fit_generator
from raremix.study.generators.spec import fitted_ids, form_of, read_generator
from raremix.study.generators.synthesize import synthesize
from raremix.study.generators.use import drawn_with, open_generator
from raremix.study.prepare import Prepared, prepare

pytestmark = pytest.mark.usefixtures("no_fsync_in_module")

DATA = ["data.images=60", "data.classes=2", "data.imbalance_ratio=3", "data.size=32", "data.channels=1"]
SMALL = ["generator.latent=4", "generator.style=4", "generator.channel_max=4"]
# A penalty at every second step, and augmentation that moves: what a resumed run could get wrong.
MOVING = ["generator.r1_every=2", "generator.path=1", "generator.path_every=2", "generator.probability=0.5"]
MOVING += ["generator.span=50", "generator.transition=[0.2, 0.8]"]
TRAIN = ["train.batch_size=2", 'train.precision="32"', "train.accelerator=cpu", "train.workers=0"]
RARE, COMMON = "keratosis", "nevus"


def spec(*more: str) -> Any:
    budget = [*TRAIN, "train.steps=6", "train.validations=3", "train.checkpoints=6"]
    return read_generator("phantom", method="stylegan2", settings=[*DATA, *SMALL, *MOVING, *budget, *more])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, no_fsync_in_module: None) -> Path:
    """A folder with a cache and a fitted StyleGAN2."""
    folder = tmp_path_factory.mktemp("stylegan2")
    fit_generator(spec(), folder=folder / "g", cache=folder / "cache")
    return folder


@pytest.fixture(scope="module")
def prepared(place: Path) -> Prepared:
    return prepare(spec().data, cache=place / "cache")


def test_the_average_follows_the_batch_unless_it_is_told() -> None:
    train = read_generator("phantom", method="stylegan2", settings=["train.batch_size=10"]).table.train
    assert train.average == pytest.approx(0.5 ** (10 / 10_000))
    assert train.precision == "auto"
    told = ["train.batch_size=10", "train.average=0.9"]
    assert read_generator("phantom", method="stylegan2", settings=told).table.train.average == 0.9
    assert read_generator("phantom", method="dcgan", settings=["train.batch_size=10"]).table.train.average == 0.999


@pytest.mark.parametrize("moments", [(3,), (1, 4)])
def test_killed_and_resumed_it_is_the_same_generator(place: Path, tmp_path: Path, moments: tuple[int, ...]) -> None:
    done = 0
    for moment in moments:
        asked = [False] * (moment - done - 1) + [True]
        with pytest.raises(StoppedError):
            fit_generator(spec(), folder=tmp_path / "cut", cache=place / "cache", should_stop=lambda a=asked: a.pop(0))
        done = moment
    fit_generator(spec(), folder=tmp_path / "cut", cache=place / "cache")
    assert generator_hash(tmp_path / "cut") == generator_hash(place / "g")
    for name in ("evolution.png", "log.jsonl", "samples/step-00000006.png"):
        assert (tmp_path / "cut" / name).read_bytes() == (place / "g" / name).read_bytes(), name


def test_the_folder_says_what_it_is(place: Path) -> None:
    card = read_card(place / "g")
    assert card.method == "stylegan2"
    assert StyleGAN2(**card.settings).transition == (0.2, 0.8), "what JSON made a list of"
    assert card.settings["depth"] == 2, "what so few images allow, and not that it was left to them"
    assert set(card.measured) == {
        f"{kind}_{name}" for kind in ("diversity", "apart", "coverage") for name in (COMMON, RARE)
    }
    lines = [json.loads(line) for line in (place / "g" / "log.jsonl").read_text().splitlines()]
    probabilities = [line["discriminator/probability"] for line in lines if "discriminator/probability" in line]
    assert probabilities[0] == 0.5
    assert probabilities[-1] in [pytest.approx(0.5 + 8 / 50), pytest.approx(0.5 - 8 / 50)]
    assert all(line["r1/penalty"] > 0 for line in lines if "r1/penalty" in line)
    drawer, _ = open_generator(place / "g")
    assert isinstance(drawer, StyleDrawer)
    assert dict(drawer.mapping.named_buffers())["share"].item() == 1.0, "by the last step classes count in full"


def test_samples_come_again_and_are_truncated_by_name(place: Path, tmp_path: Path) -> None:
    few = sample_class(place / "g", label=RARE, count=2, seed=5, output=tmp_path / "few")
    many = sample_class(place / "g", label=RARE, count=18, seed=5, output=tmp_path / "many")
    assert [p.read_bytes() for p in few] == [p.read_bytes() for p in many[:2]]
    mean = sample_class(place / "g", label=RARE, count=2, seed=5, output=tmp_path / "mean", drawing={"truncation": 0})
    assert [p.read_bytes() for p in mean] != [p.read_bytes() for p in few]
    drawer, _ = open_generator(place / "g")
    with pytest.raises(UnknownNameError, match="did you mean 'truncation'"):
        drawn_with(drawer, {"truncate": 0.5})
    with pytest.raises(ConfigError, match=r"truncation must be in \[0, 2\]"):
        drawn_with(drawer, {"truncation": 3.0})


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("generator.channels_max=3", "did you mean 'channel_max'"),
        ("generator.augment=['colour']", "did you mean 'color'"),
        ("generator.transition=[0.5]", "generator.transition"),
        ("generator.transition=[0.5, 0.2]", "the first one smaller"),
        ('train.precision="16"', "generators train in .bf16."),
    ],
)
def test_settings_that_do_not_fit(setting: str, words: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=words):
        spec(setting)


def test_collapse_is_said_in_words(prepared: Prepared, tmp_path: Path) -> None:
    asked = spec()
    form, ids = form_of(asked, prepared), fitted_ids(prepared)
    album = Album(folder=tmp_path, method=asked.table.method, seed=0, prepared=prepared, form=form, ids=ids, steps=1)
    networks = asked.table.method.networks(form, seed=0)
    for parameter in networks["synthesis"].parameters():
        parameter.data.zero_()
    found = album.add({name: networks[name].eval() for name in asked.table.method.kept})
    assert {value for name, value in found.items() if name.startswith(("diversity", "apart"))} == {0.0}
    assert all("collapsed" in note for note in album.verdict()[0])


def test_images_for_a_study(place: Path, prepared: Prepared, tmp_path: Path) -> None:
    made = Manifest.read(synthesize(prepared, generator=place / "g", output=tmp_path / "made"))
    real = prepared.manifest.class_counts("train")
    assert made.class_counts("train").tolist() == [real.max()] * 2
    recipe = json.loads(made.frame.filter(pl.col("origin") == "synthetic")["recipe"][0])
    assert (recipe["method"], recipe["generator"]) == ("stylegan2", generator_hash(place / "g"))


def test_verbs(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["raremix", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        return code, *capsys.readouterr()

    own = [part for setting in (*DATA, *SMALL, *TRAIN) for part in ("--set", setting)]
    folder = tmp_path / "fitted"
    code, said, _ = run(
        *("generator", "fit", "phantom", "--method", "stylegan2", "--steps", "1", "--cache", place / "cache"),
        *("-o", folder, *own),
    )
    assert code == 0
    assert f"raremix generator sample {folder}" in said
    code, said, _ = run("generator", "inspect", place / "g", "--json")
    assert (code, json.loads(said)["hash"]) == (0, generator_hash(place / "g"))
    code, said, _ = run(
        *("generator", "sample", folder, "--class", RARE, "-n", "2", "-o", tmp_path / "drawn"),
        *("--set", "draw.truncation=0.7", "--json"),
    )
    assert code == 0
    with Image.open(json.loads(said)["images"][1]) as image:
        assert image.size == (32, 32)
    code, _, said = run("generator", "translate", folder, "phantom", *own[: 2 * len(DATA)], "--cache", place / "cache")
    assert code == 2
    assert "draws from noise" in said


def test_a_whole_run_on_real_images(shared_data: Path, tmp_path: Path) -> None:
    """In colour: hue and saturation take part, which phantoms of one channel have not."""
    table = tmp_path / "some.csv"
    frame = pl.read_csv(shared_data / "ham10000_128" / "labels.csv")
    some = pl.concat([frame.filter(pl.col("dx") == name).head(12) for name in ("df", "vasc")])
    some.write_csv(table)
    settings = ["data.label=dx", "data.group=lesion_id", "data.image=file", "data.size=32", *SMALL, *TRAIN]
    settings += [f"data.images_root={shared_data / 'ham10000_128' / 'images'}"]
    settings += ["train.steps=2", "train.validations=1", "generator.probability=0.8", "generator.span=0"]
    asked = read_generator(str(table), method="stylegan2", settings=settings)
    folder = fit_generator(asked, folder=tmp_path / "g", cache=tmp_path / "cache")
    drawer, card = open_generator(folder)
    assert isinstance(drawer, StyleDrawer)
    assert card.form.channels == 3
    drawn = drawer.generate(torch.eye(2), torch.randn(2, drawer.latent))
    assert bool(drawn.isfinite().all())
