"""Arms that add images: generated ones and real ones once more, from the file to what the network is fed with."""

import html
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.study.generators.generator_studies import ARMS, DCGAN, DIFFERENCE, STARS, study

from raremix.core import files
from raremix.core.errors import ConfigError, GuardError, RunError, StoppedError, UnknownNameError
from raremix.data import build_cache
from raremix.study import read_study, run_study
from raremix.study.arm_images import check_place, with_images
from raremix.study.extra_images import ExtraImages
from raremix.study.feeds import exchanged, make_feed, make_guide
from raremix.study.generators.own import Workshop, generator_keys, only_arm
from raremix.study.job import make_job
from raremix.study.prepare import Prepared, of_arm, prepare


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arms")


@pytest.fixture(scope="module")
def made(place: Path) -> Prepared:
    prepared = prepare(study(), cache=place / "cache")
    found, failed = with_images(Workshop(spec=study(), folder=place / "run", cache=place / "cache"), prepared)
    assert failed == {}
    return found


def counts(prepared: Prepared, split: str = "train") -> list[int]:
    return prepared.manifest.class_counts(split).tolist()  # pyright: ignore[reportArgumentType]


def test_each_arm_has_its_images(made: Prepared) -> None:
    common, rare = counts(made)
    assert common > 2 * rare
    added, half, again, genmix = (of_arm(made, study().arm(name)) for name in ("added", "half", "again", "genmix"))
    assert counts(added) == counts(again) == counts(genmix) == [common, common]
    assert counts(half) == [common, rare + round(0.5 * rare)]
    assert of_arm(made, study().arm("plain")) is made
    for one in (added, half, again, genmix):
        assert counts(one, "test") == counts(made, "test")
        ids = made.manifest.ids
        assert np.array_equal(one.cache.take(ids), made.cache.take(ids)), "real images stay what they are"
    assert counts(added, "validation") == counts(made, "validation")
    held = counts(made, "validation")
    assert counts(genmix, "validation") == [held[0], held[1] + round(held[1] * (common - rare) / rare)], "in proportion"
    # The first images of a generator are the same in every arm.
    first = np.setdiff1d(half.manifest.ids, made.manifest.ids)
    assert np.array_equal(half.cache.take(first), added.cache.take(first))
    assert set(first.tolist()) < set(added.manifest.ids.tolist())


def test_repeats_are_the_real_images_each_as_often(made: Prepared) -> None:
    again = of_arm(made, study().arm("again"))
    extra = np.setdiff1d(again.manifest.ids, made.manifest.ids)
    frame = again.manifest.frame
    rows = frame[again.manifest.positions(extra).tolist()]
    assert set(rows["origin"]) == {"repeated"}
    assert set(rows["split"]) == {"train"}
    for row, image in zip(rows.iter_rows(named=True), again.cache.take(extra), strict=True):
        source = made.manifest.frame["path"].to_list().index(row["path"])
        assert np.array_equal(image, made.cache.take(made.manifest.ids[source : source + 1])[0])
    times = rows["path"].value_counts()["count"]
    assert times.max() - times.min() <= 1


def test_what_the_network_is_fed_with(made: Prepared) -> None:
    spec = study()
    genmix = make_feed(spec, of_arm(made, spec.arm("genmix")), spec.arm("genmix"), seed=0)
    assert genmix.is_synthetic is None
    assert genmix.pool is not None
    assert genmix.pool.is_synthetic is not None
    assert genmix.pool.is_synthetic.all()
    added = make_feed(spec, of_arm(made, spec.arm("added")), spec.arm("added"), seed=0)
    assert added.is_synthetic is not None
    assert len(added.ids) == 2 * counts(made)[0]
    again = make_feed(spec, of_arm(made, spec.arm("again")), spec.arm("again"), seed=0)
    assert again.is_synthetic is None
    assert len(again.ids) == len(added.ids)


def test_where_images_come_from_is_shown(tmp_path: Path) -> None:
    union = {"name": "union", "mix": "mixup", "images": {"generator": "dcgan"}}
    arms = [ARMS[0], ARMS[1], union, ARMS[4]]
    result = run_study(study(arm=arms), runs=tmp_path / "runs", cache=tmp_path / "cache")
    assert result.failed == {}
    found = files.read_json(result.folder / "record.json")["origins"]
    assert found["arm"] == "genmix", "the arm that mixes generated with real images is preferred"
    counts = Counter(point["origin"] for point in found["points"])
    assert set(counts) == {"real", "generated", "mixed"}
    assert max(counts.values()) <= 200
    kept = files.read_json(result.folder / "images.json")["origins"]
    assert {row["origin"] for row in kept["rows"]} == {"real", "generated", "mixed"}
    assert [one["generator"] for one in kept["evolutions"]] == ["dcgan"]
    page = result.report.read_text()
    assert "Real, generated and mixed" in page
    assert "made up" in page, "validation with generated images is flagged"


def test_generated_images_are_compared_with_as_many_repeats(tmp_path: Path) -> None:
    arms = [ARMS[0], ARMS[1], ARMS[3], ARMS[2]]
    result = run_study(study(arm=arms), runs=tmp_path / "runs", cache=tmp_path / "cache")
    record = files.read_json(result.folder / "record.json")
    assert [(entry["arm"], entry["reference"]) for entry in record["controls"]] == [("added", "again")]
    assert {entry["reference"] for entry in record["comparisons"]} == {"plain"}
    assert "against as many repeated real ones" in result.report.read_text()


def test_the_resolved_study_is_read_back_as_the_same(tmp_path: Path) -> None:
    base = {"name": "base", "method": {"name": "latent_diffusion"}, "without": ["keratosis"]}
    token = {"name": "token", "method": {"name": "textual_inversion", "weights": "base"}}
    arms = [*ARMS, {"name": "a", "images": {"generator": "token", "draw": {"guidance_scale": 2.0}}}]
    spec = study(generator=[DCGAN, base, token], arm=arms)
    (tmp_path / "study.toml").write_text(spec.to_toml())
    again = read_study(tmp_path / "study.toml")
    assert again.generators == spec.generators
    assert again.arms == spec.arms


def test_another_process_opens_what_was_made_and_fails_without_it(made: Prepared, place: Path) -> None:
    plain, spec = replace(made, arms={}, generators={}), only_arm(study(), "added")
    with files.claim(place / "run" / "synthetic" / "claimed", what="another rank"):
        shop = Workshop(spec=spec, folder=place / "run", cache=place / "cache", is_maker=False)
        opened, _ = with_images(shop, plain)
    assert set(opened.arms) == {"added"}
    assert counts(opened.arms["added"]) == counts(of_arm(made, study().arm("added")))
    with pytest.raises(RunError, match="run the study again"):
        with_images(replace(shop, folder=place / "nothing"), plain)


def test_synthetic_images_that_the_data_brought_stay_what_they_are(made: Prepared, tmp_path: Path) -> None:
    shop = Workshop(spec=study(), folder=tmp_path / "run", cache=tmp_path / "cache")
    first = of_arm(made, study().arm("half"))
    brought = replace(
        first, arms={}, generators={}, cache=build_cache(first.manifest, size=32, channels=1, root=tmp_path)
    )
    again, failed = with_images(shop, brought)
    assert failed == {}
    half = of_arm(again, study().arm("half")).manifest
    old = set(first.manifest.ids.tolist())
    new = [i for i in half.ids.tolist() if i not in old]
    assert old < set(half.ids.tolist())
    assert len(new) == round(0.5 * counts(made)[1])


def test_a_run_folder_among_the_real_images_is_refused_before_anything_is_fitted(made: Prepared) -> None:
    with pytest.raises(GuardError, match="--runs"):
        check_place(study(), made, made.manifest.root / "runs" / "s")
    check_place(study(generator=[], arm=[ARMS[0], ARMS[3]]), made, made.manifest.root / "runs" / "s")


def test_made_once_and_taken_up_again(made: Prepared, place: Path) -> None:
    def never() -> bool:
        raise AssertionError("nothing is fitted twice")

    before = {path: path.stat().st_mtime_ns for path in (place / "run").rglob("*.png")}
    assert before
    shop = Workshop(spec=study(), folder=place / "run", cache=place / "cache", should_stop=never)
    plain = replace(made, arms={}, generators={})
    again, _ = with_images(shop, plain)
    assert counts(of_arm(again, study().arm("added"))) == counts(of_arm(made, study().arm("added")))
    assert {path: path.stat().st_mtime_ns for path in (place / "run").rglob("*.png")} == before
    stopping = Workshop(spec=study(), folder=place / "other", cache=place / "cache", should_stop=lambda: True)
    with pytest.raises(StoppedError):
        with_images(stopping, plain)


def test_keys_know_generator_and_number(made: Prepared) -> None:
    def key(name: str, **tables: Any) -> str:
        spec = study(**tables)
        keys = generator_keys(spec, made)
        return make_job(spec, made, arm=spec.arm(name), seed=0, fold=None, keys=keys).key

    assert key("plain") == key("plain", generator=[{**DCGAN, "seed": 1}])
    assert key("added") != key("added", generator=[{**DCGAN, "seed": 1}])
    assert len({key(name) for name in ("plain", "added", "half", "again")}) == 4
    # The order and the name of generators change nothing but what arms call them.
    renamed = [{**arm, "images": {**arm["images"], "generator": "g"}} if "generator" in arm.get("images", {}) else arm
               for arm in ARMS]  # fmt: skip
    assert key("added") == key("added", generator=[{**DCGAN, "name": "g"}], arm=renamed)


def test_a_translator_of_the_study_draws_its_maps(tmp_path: Path, made: Prepared) -> None:
    importance = DIFFERENCE
    arms = [
        {"name": "plain"},
        {"name": "varimix", "mix": {"name": "varimix", "importance": importance}},
        {"name": "shuffled", "mix": {"name": "varimix", "importance": {**importance, "shuffled": True}}},
        {"name": "stopped", "mix": {"name": "scheduled", "mixer": {"name": "varimix", "importance": importance}}},
    ]
    spec = study(generator=[STARS], arm=arms)
    result = run_study(spec, runs=tmp_path / "runs", cache=tmp_path / "cache")
    assert result.failed == {}
    record = files.read_json(result.folder / "record.json")
    assert [entry["to"] for entry in record["translators"]] == ["nevus", "keratosis"]
    page = result.report.read_text()
    assert all(html.escape(entry["words"]).split(":")[1][:30] in page for entry in record["translators"])
    prepared, _ = with_images(Workshop(spec=spec, folder=result.folder, cache=tmp_path / "cache"), made)
    folder = prepared.generators["stars"]
    told = [replace(arm, mix={**arm.mix, "importance": {**arm.mix["importance"], "translator": str(folder)}})
            for arm in spec.arms[1:3]]  # fmt: skip
    feed = make_feed(spec, prepared, told[0], seed=0)
    guides = [make_guide(arm, prepared, feed, cache=tmp_path / "cache") for arm in told]
    plain, shuffled = (guide.attach(feed.batch(0)).importance for guide in guides if guide is not None)
    assert plain is not None
    assert shuffled is not None
    assert plain.shape == (8, 2, 8, 8), "one map for each class, the image's own too"
    assert plain.amax(dim=(2, 3)).min() > 0
    assert not torch.equal(plain, shuffled)


def test_maps_go_round_within_their_class() -> None:
    maps = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 1, 1, 1).contiguous()
    targets = np.eye(2)[[0, 0, 0, 1, 1]]
    found = exchanged(maps, np.arange(5), targets).flatten().tolist()
    assert sorted(found[:3]) == [0, 1, 2]
    assert found[3:] == [4, 3, 5]
    assert all(found[i] != i for i in range(5))


def test_a_failed_generator_leaves_the_other_arms(tmp_path: Path) -> None:
    few = {"name": "small", "method": {"name": "diffusion"}, "train": {"steps": 1, "batch_size": 2}}
    data = {"source": "phantom", "images": 60, "classes": 2, "imbalance_ratio": 20, "size": 32, "channels": 1}
    arms = [{"name": "plain"}, {"name": "added", "images": {"generator": "small"}}]
    result = run_study(study(generator=[few], data=data, arm=arms), runs=tmp_path / "runs", cache=tmp_path / "cache")
    assert next(iter(result.failed)).startswith("added-seed0")
    assert "needs at least" in next(iter(result.failed.values()))
    metrics = files.read_json(result.folder / "record.json")["metrics"]
    assert {row["arm"] for row in metrics} == {"plain"}


@pytest.mark.parametrize(
    ("tables", "error", "words"),
    [
        ({"arm": [{"name": "a", "images": {"generator": "dcgann"}}]}, UnknownNameError, "did you mean"),
        ({"arm": [{"name": "a"}]}, ConfigError, "no arm asks for it"),
        ({"arm": [{"name": "a", "images": {"name": "generated"}}]}, ConfigError, "need a generator"),
        ({"arm": [{"name": "a", "images": {"name": "repeated", "to": 9, "ratio": 1}}]}, ConfigError, "leave one"),
        ({"arm": [{"name": "a", "images": {"name": "repeated", "draw": {"x": 1}}}]}, ConfigError, "are real"),
        ({"arm": [{"name": "a", "images": "dcgan"}]}, ConfigError, "expected a table"),
        (
            {"generator": [STARS], "arm": [{"name": "a", "mix": {"name": "cutmix", "importance": DIFFERENCE}}]},
            ConfigError,
            "only varimix",
        ),
        (
            {
                "generator": [STARS],
                "arm": [{"name": "a", "mix": {"name": "varimix", "importance": {**DIFFERENCE, "gird": 8}}}],
            },
            UnknownNameError,
            "did you mean 'grid'",
        ),
        ({"generator": [DCGAN, DCGAN]}, ConfigError, "two generators"),
        ({"generator": [{**DCGAN, "stepz": 1}]}, UnknownNameError, "generator dcgan"),
        ({"generator": [{**DCGAN, "train": {"learning_rate": 1}}]}, ConfigError, "has its own"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_done(
    tables: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        study(**tables)


def test_numbers() -> None:
    real = {"a": 10, "b": 4, "c": 2}
    assert ExtraImages(name="repeated").added(real) == {"a": 0, "b": 6, "c": 8}
    assert ExtraImages(name="repeated", to=5).added(real) == {"a": 0, "b": 1, "c": 3}
    assert ExtraImages(name="repeated", to="c=7").added(real) == {"a": 0, "b": 0, "c": 5}
    assert ExtraImages(name="repeated", classes=("c",)).added(real) == {"a": 0, "b": 0, "c": 8}
    assert ExtraImages(name="repeated", ratio=1.5).added(real) == {"a": 0, "b": 6, "c": 3}
    assert ExtraImages(name="repeated", ratio=1.0, classes=("a",)).added(real) == {"a": 10, "b": 0, "c": 0}
    with pytest.raises(UnknownNameError):
        ExtraImages(name="repeated", classes=("d",)).added(real)


def test_generators_that_begin_with_one_another(made: Prepared) -> None:
    latent = {"name": "base", "method": {"name": "latent_diffusion"}, "without": ["keratosis"]}
    token = {"name": "token", "method": {"name": "textual_inversion", "weights": "base"}}
    arms = [{"name": "a", "images": {"generator": "token"}}]
    keys = generator_keys(study(generator=[latent, token], arm=arms), made)
    other = generator_keys(study(generator=[{**latent, "seed": 1}, token], arm=arms), made)
    assert keys["token"] != other["token"], "what one begins with is part of what it is"
    with pytest.raises(ConfigError, match="name base before it"):
        study(generator=[token, latent], arm=arms)
