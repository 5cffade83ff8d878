"""Latent diffusion and textual inversion from data to images: the common class first, the rare one as a token."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from tests.generate.toys import write_tiny_pipeline

from raremix.core.errors import ConfigError, HeldOutError, ResumeError, StoppedError
from raremix.core.fitted import fitted_on, read_fitted
from raremix.data.manifest import Manifest
from raremix.generate import ClassTranslator, LatentDrawer, generator_hash, load_generator, read_card
from raremix.generate.latent_diffusion import parts_of
from raremix.study.generators.draw import sample_class
from raremix.study.generators.fit import fit_generator, make_feed, rows_before
from raremix.study.generators.guard import refuse_leaking
from raremix.study.generators.spec import fitted_ids, learnt_ids, read_generator, suited
from raremix.study.generators.synthesize import synthesize
from raremix.study.prepare import Prepared, prepare

pytestmark = pytest.mark.usefixtures("no_fsync_in_module")

DATA = ["data.images=60", "data.classes=2", "data.imbalance_ratio=3", "data.size=32", "data.channels=1"]
SMALL = ["generator.width=8", "generator.text_width=32", "generator.autoencoder_width=8", "generator.dropout=0"]
FEW = ["generator.num_inference_steps=2"]
TRAIN = ["train.batch_size=2", 'train.precision="32"', "train.accelerator=cpu", "train.workers=0"]
BUDGET = [*TRAIN, "train.steps=3", "train.validations=3", "train.checkpoints=3"]
COMMON, RARE = "nevus", "keratosis"


def scratch(*more: str) -> Any:
    settings = [*DATA, *SMALL, *FEW, *BUDGET, *more]
    return read_generator("phantom", method="latent_diffusion", settings=settings, without=(RARE,))


def inverted(base: Path, *more: str) -> Any:
    settings = [*DATA, *FEW, *BUDGET, f'generator.weights="{base}"', "generator.vectors=2", *more]
    return read_generator("phantom", method="textual_inversion", settings=settings)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, no_fsync_in_module: None) -> Path:
    """A folder with a cache, a model of the common class from scratch, the rare one as its token, and a pipeline."""
    folder = tmp_path_factory.mktemp("latent")
    fit_generator(scratch(), folder=folder / "common", cache=folder / "cache")
    learn = f'generator.learn=["{RARE}"]'
    fit_generator(inverted(folder / "common", learn), folder=folder / "token", cache=folder / "cache")
    write_tiny_pipeline(folder / "pipeline")
    return folder


@pytest.fixture(scope="module")
def prepared(place: Path) -> Prepared:
    return prepare(scratch().data, cache=place / "cache")


def test_from_scratch_it_is_a_generator_like_any_other(place: Path, prepared: Prepared) -> None:
    drawer, card = load_generator(place / "common")
    assert isinstance(drawer, LatentDrawer)
    assert isinstance(drawer, ClassTranslator)
    assert card.images == (len(fitted_ids(prepared, without=(RARE,))), 0)
    assert drawer.prompts == ("a dermatoscopy image of nevus", "a dermatoscopy image of keratosis")
    assert (place / "common" / "evolution.png").is_file()
    assert (place / "common" / "diffusers" / "model_index.json").is_file()
    with pytest.raises(ConfigError, match="learn it as a token"):
        sample_class(place / "common", label=RARE, count=1, seed=0, output=place / "drawn")


def test_killed_and_resumed_it_is_the_same(place: Path, tmp_path: Path) -> None:
    asked = [False, True, False]
    with pytest.raises(StoppedError):
        fit_generator(scratch(), folder=tmp_path / "cut", cache=place / "cache", should_stop=lambda: asked.pop(0))
    fit_generator(scratch(), folder=tmp_path / "cut", cache=place / "cache")
    assert generator_hash(tmp_path / "cut") == generator_hash(place / "common")
    part = "diffusers/unet/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "cut" / part).read_bytes() == (place / "common" / part).read_bytes()


def test_the_rare_class_is_learnt_with_the_network_frozen(place: Path) -> None:
    before, token = (load_file(place / name / "model.safetensors") for name in ("common", "token"))
    assert list(token) == ["network.text/embeddings/token_embedding/rows"]
    assert token["network.text/embeddings/token_embedding/rows"].shape == (2, 32)
    drawer, card = load_generator(place / "token")
    assert isinstance(drawer, LatentDrawer)
    assert drawer.prompts == ("a dermatoscopy image of nevus", "a dermatoscopy image of <keratosis>")
    now = parts_of({"network": drawer.network}).unet.state_dict()
    assert all(torch.equal(now[key], before[f"network.unet/{key.replace('.', '/')}"]) for key in now)
    assert card.settings["table"] == {RARE: "<keratosis>"}
    assert (place / "token" / "diffusers" / "keratosis.safetensors").is_file()


def test_only_images_of_the_learnt_class_are_learnt_from(place: Path, prepared: Prepared) -> None:
    spec = inverted(place / "common", f'generator.learn=["{RARE}"]')
    spec = spec.with_method(suited(spec.table.method, prepared))
    ids = learnt_ids(spec.table, prepared)
    feed = make_feed(spec, prepared, ids)
    assert all(feed.batch(step).targets.argmax(dim=1).tolist() == [1, 1] for step in range(20))
    card, seen = read_card(place / "token"), read_fitted(place / "token")
    assert card.images == (0, len(ids))
    manifest = prepared.manifest
    assert seen is not None
    assert seen["train"].hash() == fitted_on(manifest.frame["sha256"].gather(manifest.positions(ids))).hash()
    every = inverted(place / "common")
    assert learnt_ids(every.table, prepared).tolist() == fitted_ids(prepared).tolist()
    with pytest.raises(ConfigError, match=f"would learn a token of {RARE}, whose images are left out"):
        learnt_ids(replace(spec.table, without=(RARE,)), prepared)


def test_what_was_not_learnt_is_drawn_by_the_words_of_the_model(place: Path, tmp_path: Path) -> None:
    assert sample_class(place / "token", label=COMMON, count=1, seed=0, output=tmp_path / "drawn")[0].is_file()


def test_a_token_is_drawn_as_its_model_draws(place: Path, prepared: Prepared) -> None:
    learnt = {name: suited(inverted(place / name).table.method, prepared) for name in ("common", "pipeline")}
    assert learnt["common"].drawn["guidance_scale"] == 2.0, "a small model from scratch"
    assert learnt["pipeline"].drawn["guidance_scale"] == 7.5
    own = inverted(place / "common", "generator.guidance_scale=4", "generator.num_inference_steps=9")
    drawn = suited(own.table.method, prepared).drawn
    assert (drawn["guidance_scale"], drawn["num_inference_steps"]) == (4.0, 9)
    drawer, _ = load_generator(place / "token")
    assert isinstance(drawer, LatentDrawer)
    assert (drawer.guidance_scale, drawer.num_inference_steps) == (2.0, 2)


def test_the_token_remembers_what_its_model_was_fitted_on(place: Path, prepared: Prepared) -> None:
    seen = read_fitted(place / "token")
    assert seen is not None
    assert set(seen) == {"train", "before/train"}
    manifest = prepared.manifest
    alone = fitted_on(manifest.frame["sha256"].gather(manifest.positions(fitted_ids(prepared, without=(RARE,)))))
    assert seen["before/train"].hash() == alone.hash()
    exported = inverted(place / "common" / "diffusers").table.method
    assert rows_before(exported)["before/train"].hash() == alone.hash(), "as another program sees it, too"
    assert not rows_before(inverted(place / "pipeline").table.method)
    turned = {"train": "test", "test": "train"}
    with pytest.raises(HeldOutError, match="was fitted on"):
        refuse_leaking(
            place / "token", manifest.with_split([turned.get(s, s) for s in manifest.frame["split"]]), what="it"
        )


def test_a_model_that_saw_held_out_rows_is_no_beginning(place: Path, prepared: Prepared, tmp_path: Path) -> None:
    manifest, turned = prepared.manifest, {"train": "test", "test": "train"}
    split = manifest.with_split([turned.get(s, s) for s in manifest.frame["split"]])
    with pytest.raises(HeldOutError, match=r"what textual_inversion begins with \(before/train\) was fitted on"):
        fit_generator(
            inverted(place / "common"),
            folder=tmp_path / "token",
            cache=place / "cache",
            prepared=replace(prepared, manifest=split),
        )
    assert not (tmp_path / "token").exists(), "before anything is made"


def test_other_models_and_classes_are_refused(place: Path, tmp_path: Path, prepared: Prepared) -> None:
    with pytest.raises(ConfigError, match="is a textual_inversion: textual_inversion needs a latent_diffusion"):
        suited(replace(inverted(place / "token").table.method), prepared)
    with pytest.raises(ResumeError, match="another --output"):
        fit_generator(
            inverted(place / "common", "generator.initial=lesion"), folder=place / "token", cache=place / "cache"
        )
    with pytest.raises(ConfigError, match=r"generator\.learn: 'x' is no class"):
        suited(inverted(place / "common", 'generator.learn=["x"]').table.method, prepared)


def test_both_draw_and_translate_in_a_synthesis(place: Path, prepared: Prepared, tmp_path: Path) -> None:
    real = dict(zip(prepared.manifest.card.classes, prepared.manifest.class_counts("train").tolist(), strict=True))
    to = f"{RARE}={real[RARE] + 3}"
    for begin, parents in (("noise", 0), ("own", 1)):
        path = synthesize(
            prepared,
            generator=place / "token",
            output=tmp_path / begin,
            to=to,
            begin=begin,  # type: ignore[arg-type]
            drawing={"guidance_scale": 1.5},
        )
        made = Manifest.read(path)
        synthetic = made.frame.filter(pl.col("origin") == "synthetic")
        assert [len(p) for p in synthetic["parents"].to_list()] == [parents] * 3
        assert json.loads(synthetic["recipe"][0])["drawing"] == {"guidance_scale": 1.5}


def test_low_rank_additions_to_a_pipeline(place: Path, tmp_path: Path) -> None:
    settings = [*DATA, *FEW, *BUDGET, f'generator.weights="{place / "pipeline"}"', "generator.rank=2"]
    spec = read_generator("phantom", method="latent_diffusion", settings=settings)
    folder = fit_generator(spec, folder=tmp_path / "lora", cache=place / "cache")
    assert all("lora_" in name for name in load_file(folder / "model.safetensors"))
    assert (folder / "diffusers" / "pytorch_lora_weights.safetensors").is_file()
    again = fit_generator(spec, folder=tmp_path / "again", cache=place / "cache")
    assert generator_hash(again) == generator_hash(folder)
    paths = [sample_class(one, label=RARE, count=1, seed=3, output=one / "drawn")[0] for one in (folder, again)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert read_card(folder).images[1] < 20, "a tuned model may learn few images"


def test_images_that_are_not_to_be_forgotten_come_beside(place: Path, prepared: Prepared) -> None:
    settings = [*DATA, *BUDGET, f'generator.weights="{place / "pipeline"}"', f"generator.prior={COMMON}"]
    spec = read_generator("phantom", method="latent_diffusion", settings=settings)
    feed = make_feed(spec, prepared, fitted_ids(prepared))
    for step in range(5):
        batch = feed.batch(step)
        assert batch.pool is not None
        assert batch.pool.targets.argmax(dim=1).tolist() == [0, 0]
        assert batch.pool.ids is not None
        assert set(batch.pool.ids.tolist()) <= set(fitted_ids(prepared, without=(RARE,)).tolist())


def test_a_class_that_is_not_to_be_forgotten_cannot_be_left_out(place: Path, tmp_path: Path) -> None:
    settings = [*DATA, *BUDGET, f'generator.weights="{place / "pipeline"}"', f"generator.prior={COMMON}"]
    spec = read_generator("phantom", method="latent_diffusion", settings=settings, without=(COMMON,))
    with pytest.raises(ConfigError, match=r"generator\.prior = 'nevus' asks for images of nevus, and --without nevus"):
        fit_generator(spec, folder=tmp_path / "g", cache=place / "cache")
    assert not (tmp_path / "g").exists()


def test_the_verbs_say_what_is_wrong(
    place: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ["--set", "data.images=60", "--set", "data.classes=2", "--set", "data.imbalance_ratio=3"]
    own += ["--cache", str(place / "cache"), "--size", "32", "--dry-run"]

    def told(*arguments: str | Path) -> tuple[int, str]:
        code, out, err = run(*arguments)
        return code, " ".join((out + err).split())

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    fit = ["generator", "fit", "phantom", *own, "-m"]
    for method, setting, words in (
        ("latent_diffusion", "generator.weights=nobody/nothing", "generator.download=true"),
        ("latent_diffusion", f"generator.weights={tmp_path}", "model_index.json"),
        ("latent_diffusion", "generator.prompt='{klass}'", "{klass} is not known"),
        ("latent_diffusion", "generator.strength=1.5", "at most 1"),
        ("textual_inversion", "generator.vectors=2", "generator.weights=FOLDER"),
        ("textual_inversion", f"generator.weights={place / 'token'}", "textual_inversion"),
    ):
        code, said = told(*fit, method, "--force", RARE, "--set", setting)
        assert (code, words in said) == (2, True), said
    code, said = told(*fit, "textual_inversion", "--set", f"generator.weights={place / 'common'}")
    assert (code, "would fit textual_inversion" in said) == (0, True)
    code, said = told("generator", "inspect", place / "token")
    assert code == 0
    assert "evolution.png" in said
