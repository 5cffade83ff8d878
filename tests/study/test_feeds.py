"""Streams of a mixer, and importance maps that are kept: from the study file to what the loop is given."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from raremix.core import files
from raremix.core.errors import ConfigError, CorruptError, UnknownNameError
from raremix.study import parse_study
from raremix.study.feeds import make_feed, make_guide
from raremix.study.mixers import kept_importance, make_mixer
from raremix.study.prepare import Prepared, prepare
from raremix.study.spec import StudySpec
from raremix.train.guide import GradientMaps, KeptMaps, RefreshedMaps


def study(**mix: Any) -> StudySpec:
    table = {
        "data": {"source": "phantom", "images": 150, "classes": 3, "imbalance_ratio": 5, "size": 32},
        "study": {"name": "s"},
        "train": {"steps": 8, "batch_size": 12},
        "arm": [{"name": "a", "mix": mix or {"name": "none"}}],
    }
    return parse_study(table, base=Path())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def prepared(place: Path) -> Prepared:
    return prepare(study(), cache=place)


def test_partners_of_balanced_mixup_come_from_a_balanced_stream(prepared: Prepared) -> None:
    spec = study(name="balanced_mixup")
    feed = make_feed(spec, prepared, spec.arms[0], seed=0)
    assert feed.pool is not None
    own, others = (
        np.concatenate([f.batch(step).targets.numpy() for step in range(30)]).mean(axis=0) for f in (feed, feed.pool)
    )
    assert own.max() > 0.5
    np.testing.assert_allclose(others, 1 / 3, atol=0.06)
    batch = feed.batch(0)
    assert batch.pool is not None
    assert batch.ids is not None
    assert batch.pool.ids is not None
    assert not torch.equal(batch.ids, batch.pool.ids)


def test_a_fixed_mixed_set_comes_again(prepared: Prepared) -> None:
    spec = study(name="genmix", offline_images=24)
    synthetic = prepared.manifest.rows("train")[::3].tolist()
    origin = pl.when(pl.col("id").is_in(synthetic)).then(pl.lit("synthetic")).otherwise(pl.lit("real"))
    manifest = type(prepared.manifest)(
        card=prepared.manifest.card,
        frame=prepared.manifest.frame.with_columns(origin.alias("origin")),
        root=prepared.manifest.root,
    )
    with_rows = Prepared(
        manifest=manifest, cache=prepared.cache, channels=prepared.channels, thinned=None, grouped=False
    )
    feed = make_feed(spec, with_rows, spec.arms[0], seed=0)
    assert feed.repeat == 2
    assert feed.pool is not None
    first, third = feed.batch(0), feed.batch(2)
    assert torch.equal(first.images, third.images)
    assert first.pool is not None
    assert first.is_synthetic is None
    assert first.pool.is_synthetic is not None
    assert bool(first.pool.is_synthetic.all())
    assert set(first.pool.ids.tolist()) <= set(synthetic)  # type: ignore[union-attr]
    assert not set(first.ids.tolist()) & set(synthetic)  # type: ignore[union-attr]


def test_no_synthetic_rows_no_genmix(prepared: Prepared) -> None:
    spec = study(name="genmix")
    with pytest.raises(ConfigError, match="synthetic images, and the training split has none"):
        make_feed(spec, prepared, spec.arms[0], seed=0)


@pytest.mark.parametrize(
    ("importance", "kind"),
    [
        ({"name": "gradcam", "every": 0.5}, RefreshedMaps),
        ({"name": "input_gradient", "grid": 8}, GradientMaps),
        ({"name": "fine_grained", "grid": 8}, KeptMaps),
        ({"name": "fine_grained"}, type(None)),
    ],
)
def test_what_keeps_maps(importance: dict[str, Any], kind: type, prepared: Prepared, place: Path) -> None:
    spec = study(name="saliencymix", importance=importance)
    arm = spec.arms[0]
    feed = make_feed(spec, prepared, arm, seed=0)
    guide = make_guide(arm, prepared, feed, cache=place)
    assert type(guide) is kind
    if isinstance(guide, RefreshedMaps):
        assert guide.every == max(1, round(0.5 * len(feed.ids) / 12))
    mixer = make_mixer(arm.mix, where="mix")
    batch = feed.batch(0) if guide is None else guide.attach(feed.batch(0))
    from raremix.core.random import rng

    assert mixer.plan(batch, batch, rng=rng(0, "mix", 0)).apply(batch).images.shape == batch.images.shape


def test_computed_maps_are_read_the_second_time(prepared: Prepared, place: Path) -> None:
    spec = study(name="saliencymix", importance={"name": "fine_grained", "grid": 16})
    arm = spec.arms[0]
    feed = make_feed(spec, prepared, arm, seed=0)
    first = make_guide(arm, prepared, feed, cache=place)
    said: list[int] = []
    second = make_guide(arm, prepared, feed, cache=place, progress=lambda what, done, total: said.append(done))
    assert isinstance(first, KeptMaps)
    assert isinstance(second, KeptMaps)
    assert torch.equal(first.maps, second.maps)
    assert said == [], "nothing was computed"
    train = torch.from_numpy(prepared.manifest.rows("train").copy())
    assert float(first.maps[train].float().std()) > 5
    entry = max((place / "importance").glob("*/maps.raw"), key=lambda path: path.stat().st_mtime_ns)
    entry.chmod(0o644)
    files.write_bytes(entry, b"x" + entry.read_bytes()[1:])
    with pytest.raises(CorruptError, match=r"maps\.raw"):
        make_guide(arm, prepared, feed, cache=place)
    files.remove_folder(entry.parent)


def test_tables_within_tables() -> None:
    inner = [{"name": "mixup", "alpha": 0.4}, {"name": "saliencymix", "importance": {"name": "gradcam", "grid": 8}}]
    spec = study(name="scheduled", stop=0.5, mixer={"name": "one_of", "mixers": inner, "probabilities": [1, 3]})
    kept = kept_importance(spec.arms[0].mix, where="mix")
    assert kept is not None
    assert (kept.grid, kept.needs_model) == (8, True)
    mixer = make_mixer(spec.arms[0].mix, where="mix")
    assert type(mixer.at_step(7, steps=8)).__name__ == "NoMix"
    chosen = mixer.at_step(0, steps=8)
    assert chosen.mixers[0].alpha == 0.4  # type: ignore[attr-defined]


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'gradcam'"):
        study(name="saliencymix", importance="gradcan")
    with pytest.raises(ConfigError, match="share the maps"):
        two = [
            {"name": "saliencymix", "importance": {"name": "gradcam"}},
            {"name": "saliencymix", "importance": {"name": "gradcam", "grid": 4}},
        ]
        study(name="one_of", mixers=two)
    with pytest.raises(ConfigError, match="at least 1"):
        study(name="saliencymix", importance={"name": "fine_grained", "grid": 0})
    with pytest.raises(ConfigError, match="list of tables"):
        study(name="one_of", mixers="mixup")


@pytest.mark.parametrize(
    ("mix", "words"),
    [
        ({"name": "mixup", "importance": "gradcam"}, "nothing in mixup looks at it"),
        ({"name": "cutmix", "label": "mass"}, "needs importance"),
        ({"name": "automix", "importance": "gradcam"}, "leave it out"),
        ({"name": "varimix", "importance": "gradcam"}, "partner's class"),
        ({"name": "saliencymix", "importance": {"name": "fine_grained", "grid": 8, "every": 2.0}}, "leave it out"),
        ({"name": "saliencymix", "importance": {"name": "input_gradient", "loss": "x"}}, "training loss"),
    ],
)
def test_what_would_be_ignored_is_refused(mix: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        study(**mix)


@pytest.mark.parametrize(
    ("key", "value"), [("learning_rate", -1.0), ("average", 1.5), ("warmup", 7.0), ("clip", -1.0), ("workers", -1)]
)
def test_a_budget_that_would_train_nothing_is_refused(key: str, value: float) -> None:
    table = {"study": {"name": "s"}, "data": {"source": "phantom"}, "train": {key: value}}
    with pytest.raises(ConfigError, match=key):
        parse_study(table, base=Path())


def test_a_sampler_that_the_mixer_overrules_is_refused() -> None:
    table = {
        "study": {"name": "s"},
        "data": {"source": "phantom"},
        "arm": [{"name": "a", "mix": "spmix", "sampler": "sqrt"}],
    }
    with pytest.raises(ConfigError, match="samples its own images balanced"):
        parse_study(table, base=Path())
