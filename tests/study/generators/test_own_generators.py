"""Generators that a study fits itself: what their keys know, when they are fitted, and reports without them."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.study.generators.generator_studies import ARMS, DCGAN, DIFFERENCE, STARS, study

from raremix.core import files
from raremix.generate import read_card
from raremix.study import plan_study, run_study
from raremix.study import run as running
from raremix.study.arm_images import with_images
from raremix.study.generators import own as module
from raremix.study.generators.own import Workshop, generator_folder, generator_keys, generators_left, generators_of
from raremix.study.job import make_job
from raremix.study.prepare import Prepared, prepare

pytestmark = pytest.mark.usefixtures("no_fsync")

BASE = {"name": "base", "method": {"name": "latent_diffusion"}, "without": ["keratosis"]}
TOKEN = {"name": "token", "method": {"name": "textual_inversion", "weights": "base"}}
VARIMIX = {"name": "varimix", "mix": {"name": "varimix", "importance": DIFFERENCE}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def plain(place: Path) -> Prepared:
    return prepare(study(), cache=place / "cache")


def card(prepared: Prepared, **changes: Any) -> Prepared:
    return replace(prepared, manifest=replace(prepared.manifest, card=replace(prepared.manifest.card, **changes)))


# Keys


def test_another_modality_is_another_generator_and_another_job(plain: Prepared) -> None:
    spec, turned = study(generator=[DCGAN]), card(plain, modality="chest_xray")
    mine, other = generator_keys(spec, plain), generator_keys(spec, turned)
    assert mine != other, "it decides which images are flipped"
    jobs = [
        make_job(spec, prepared, arm=spec.arm("plain"), seed=0, fold=None, keys=keys).key
        for prepared, keys in ((plain, mine), (turned, other))
    ]
    assert jobs[0] != jobs[1]


def test_a_key_is_of_what_is_used(plain: Prepared) -> None:
    arms = [{"name": "a", "images": {"generator": "base"}}]

    def key(prepared: Prepared, **method: Any) -> str:
        told = {**BASE, "method": {**BASE["method"], **method}}  # type: ignore[dict-item]
        return generator_keys(study(generator=[told], arm=arms), prepared)["base"]

    # A template and the prompts that come of it are the same.
    prompts = ["a dermatoscopy image of nevus", "a dermatoscopy image of keratosis"]
    assert key(plain) == key(plain, prompts=prompts)
    assert key(plain) != key(plain, prompt="{class}")
    named = card(plain, name="others")
    assert key(plain, prompt="{class} of {data}") != key(named, prompt="{class} of {data}")
    dcgan = study(generator=[DCGAN])
    assert generator_keys(dcgan, plain) == generator_keys(dcgan, named), "words matter to those that are told some"


def test_what_begins_with_another_has_its_key_and_the_words(plain: Prepared) -> None:
    arms = [{"name": "a", "images": {"generator": "token"}}]

    def key(prepared: Prepared, **base: Any) -> str:
        return generator_keys(study(generator=[{**BASE, **base}, TOKEN], arm=arms), prepared)["token"]

    assert key(plain) != key(plain, seed=1)
    assert key(plain) != key(card(plain, name="others"))


def test_the_key_is_the_identity_of_what_is_fitted(plain: Prepared, tmp_path: Path, place: Path) -> None:
    spec = study(arm=ARMS[:2])
    keys = generator_keys(spec, plain)
    found, _ = with_images(Workshop(spec=spec, folder=tmp_path, cache=place / "cache"), plain)
    assert found.generators["dcgan"] == generator_folder(tmp_path, "dcgan", keys["dcgan"])
    assert read_card(found.generators["dcgan"]).identity == keys["dcgan"]


def test_keys_are_computed_once_per_fold(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(*arguments: Any) -> Any:
        asked.append(1)
        return generator_keys(*arguments)

    monkeypatch.setattr(running, "generator_keys", counted)
    spec = study(study={"name": "s", "seeds": [0, 1], "folds": 2}, arm=ARMS[:3])
    plan = plan_study(spec, runs=tmp_path, cache=place / "cache")
    assert len(plan.jobs) == 12
    assert len(asked) == 2
    assert set(plan.keys) == {0, 1}
    assert plan.keys[0] != plan.keys[1], "a generator of its own for each fold"
    assert plan.generators == ("dcgan, fold 0 (2 steps)", "dcgan, fold 1 (2 steps)")


# Which are fitted


def test_what_arms_need(tmp_path: Path) -> None:
    arms = [{"name": "plain"}, {"name": "a", "images": {"generator": "token"}}, VARIMIX]
    spec = study(generator=[BASE, TOKEN, STARS], arm=arms)
    assert generators_of(spec, ["plain"]) == set()
    assert generators_of(spec, ["varimix"]) == {"stars"}
    assert generators_of(spec, ["a"]) == {"token", "base"}, "what it begins with, too"
    keys = {"base": "0" * 32, "token": "1" * 32, "stars": "2" * 32}
    assert generators_left(spec, tmp_path, keys=keys, arms=["a", "plain"]) == ["base", "token"]
    files.write_json(generator_folder(tmp_path, "base", keys["base"]) / files.MANIFEST, {})
    assert generators_left(spec, tmp_path, keys=keys, arms=["a", "plain"]) == ["token"]


def test_a_finished_study_draws_its_report_without_its_generators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = [*ARMS[:2], ARMS[3], VARIMIX]
    spec, places = study(generator=[DCGAN, STARS], arm=arms), {"runs": tmp_path / "runs", "cache": tmp_path / "cache"}
    first = run_study(spec, **places)
    assert first.failed == {}
    before = files.read_json(first.folder / "record.json")

    def never(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("nothing is fitted or drawn for a report")

    shutil.rmtree(first.folder / "generators")
    monkeypatch.setattr(module, "fit_generator", never)
    monkeypatch.setattr("raremix.study.arm_images.synthesize", never)
    assert plan_study(spec, **places).generators == ()
    again = run_study(spec, **places)
    assert again.failed == {}
    assert not (first.folder / "generators").exists()
    record = files.read_json(again.folder / "record.json")
    assert record["metrics"] == before["metrics"]
    assert record["controls"] == before["controls"], "images that were drawn are there without their generator"
    assert [entry["added"] for entry in record["arms"]] == [entry["added"] for entry in before["arms"]]
    shown = files.read_json(again.folder / "images.json")
    assert [entry["arm"] for entry in shown["arms"]] == ["plain", "added", "again"]
    assert shown["origins"]["evolutions"] == []
    assert {entry["words"] for entry in record["translators"]} == {"It is not there, and was not asked."}
    said = " ".join(record["warnings"])
    assert "varimix: its results stand, but its batch" in said
    assert "The generator dcgan is not in the run folder" in said
    assert "The generator stars is not in the run folder" in said
    assert "The generator stars is not in the run folder" in again.report.read_text()

    shutil.rmtree(first.folder / "synthetic")
    last = run_study(spec, **places)
    record = files.read_json(last.folder / "record.json")
    assert last.failed == {}
    assert record["metrics"] == before["metrics"]
    assert "added: its results stand" in " ".join(record["warnings"])
    assert [entry["arm"] for entry in files.read_json(last.folder / "images.json")["arms"]] == ["plain", "again"]


def test_only_what_is_left_to_train_has_its_generator_fitted(plain: Prepared, tmp_path: Path, place: Path) -> None:
    other = {**DCGAN, "name": "other", "seed": 1}
    arms = [*ARMS[:2], {"name": "others", "images": {"generator": "other"}}, ARMS[3]]
    shop = Workshop(spec=study(generator=[DCGAN, other], arm=arms), folder=tmp_path, cache=place / "cache")
    found, failed = with_images(shop, plain, finished=["plain", "added", "again"])
    assert set(found.generators) == {"other"}
    assert set(found.arms) == {"others", "again"}
    assert list(failed) == ["added"]
    assert "is missing, which held them" in failed["added"]
    assert [path.name.split("-")[0] for path in (tmp_path / "generators").iterdir()] == ["other"]
    # Once they are there, they are opened, with their generator and without it.
    whole, failed = with_images(shop, plain)
    assert failed == {}
    shutil.rmtree(whole.generators["dcgan"])
    again, failed = with_images(shop, plain, finished=["plain", "added", "others", "again"])
    assert failed == {}
    assert set(again.arms) == {"added", "others", "again"}
    assert set(again.generators) == {"other"}
    assert again.arms["added"].manifest.hash() == whole.arms["added"].manifest.hash()
