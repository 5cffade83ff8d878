"""Study files: everything that can be wrong in one is found before any work."""

from pathlib import Path
from typing import Any

import pytest

from raremix.core.errors import ConfigError, UnknownNameError
from raremix.study.spec import parse_study, read_study

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.toml"))


def parsed(**tables: Any) -> Any:
    return parse_study({"study": {"name": "s"}, "data": {"source": "phantom"}, **tables}, base=Path())


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_committed_study_parses(path: Path) -> None:
    spec = read_study(path)
    assert len(spec.seeds) >= 3
    names = [arm.name for arm in spec.arms]
    assert names[0] == "baseline"
    if path.stem.startswith(("varimix_", "genmix_", "cxr_")):
        # What generated images are worth beyond classical augmentation, and beyond as many repeats.
        assert spec.reference == "classical"
        assert any(arm.images is not None and arm.images.name == "repeated" for arm in spec.arms)
        return
    assert spec.reference == "baseline"
    no_mixers = ("leakage_", "losses_", "spmix_", "dwml_", "rules_", "repeats_", "samplers_", "base_", "targets_")
    if path.stem.startswith((*no_mixers, "localise_")):
        return  # no mixers are compared
    assert {"mixup", "cutmix"} < set(names)
    assert ("classical" in names) != path.stem.startswith("mixers_"), (
        "where mixers are compared, all arms are augmented"
    )


def test_the_networks_of_committed_studies_take_their_options_and_images() -> None:
    """Those with options, and the one that has a least size; all are tried when a study is planned."""
    tried = set()
    for spec in map(read_study, STUDIES):
        for model in map(spec.model_of, spec.arms):
            asked = (model.name, str(model.options), spec.data.size)
            if (model.options or model.name == "inception_v3") and asked not in tried:
                model.try_on(channels=spec.data.channels or 3, size=spec.data.size)
                tried.add(asked)
    assert {name for name, *_ in tried} > {"vgg16_bn", "inception_v3", "vit_tiny_patch16_224"}


def test_a_resolved_study_reads_back_as_itself(tmp_path: Path) -> None:
    spec = parsed(
        data={"source": "phantom", "imbalance": {"ratio": 20}, "on_unreadable": "skip"},
        arm=[
            {"name": "a", "mix": {"name": "mixup", "alpha": 0.3}, "train": {"learning_rate": 0.1}},
            {"name": "b", "imbalance": {"ratio": 9, "profile": "step", "rare": 0.25}},
        ],
    )
    path = tmp_path / "study.toml"
    path.write_text(spec.to_toml())
    assert read_study(path) == spec


def test_the_learning_rate_is_the_network_s_own_unless_one_is_set() -> None:
    arms = [
        {"name": "resnet"},
        {"name": "vit", "model": {"name": "vit_tiny_patch16_224"}},
        {"name": "scratch", "model": {"pretrained": False}},
        {"name": "set", "train": {"learning_rate": 0.02}},
    ]
    spec = parsed(model={"name": "resnet18", "pretrained": True}, arm=arms)
    assert [spec.train_of(arm).learning_rate for arm in spec.arms] == [3e-4, 1e-4, 1e-3, 0.02]
    assert "learning_rate" not in spec.to_toml().replace("learning_rate = 0.02", "")
    fixed = parsed(model={"name": "resnet18", "pretrained": True}, train={"learning_rate": 5e-3}, arm=arms)
    assert [fixed.train_of(arm).learning_rate for arm in fixed.arms] == [5e-3, 5e-3, 5e-3, 0.02]


def test_tables_at_the_top_are_defaults_of_every_arm() -> None:
    spec = parsed(augment="classical", arm=[{"name": "a"}, {"name": "b", "augment": "none", "sampler": "sqrt"}])
    assert [arm.augment["name"] for arm in spec.arms] == ["classical", "none"]
    assert [arm.sampler["name"] for arm in spec.arms] == ["natural", "sqrt"]


def test_a_file_may_extend_another(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(
        '[data]\nsource = "phantom"\nimages = 900\n[train]\nsteps = 9\n[[arm]]\nname = "a"\n'
    )
    (tmp_path / "top.toml").write_text('extends = "base.toml"\n[train]\nsteps = 3\n')
    spec = read_study(tmp_path / "top.toml", settings=["train.batch_size=4"])
    assert (spec.name, spec.train.steps, spec.train.batch_size, spec.arms[0].name) == ("top", 3, 4, "a")
    assert spec.source_table["images"] == 900
    (tmp_path / "loop.toml").write_text('extends = "loop.toml"\n')
    with pytest.raises(ConfigError, match="circles"):
        read_study(tmp_path / "loop.toml")


@pytest.mark.parametrize(
    ("tables", "error", "words"),
    [
        ({"trian": {}}, UnknownNameError, "did you mean 'train'"),
        ({"arm": [{"name": "a", "mix": "mixpu"}]}, UnknownNameError, "did you mean 'mixup'"),
        ({"arm": [{"name": "a", "sampler": "balancd"}]}, UnknownNameError, "did you mean 'balanced'"),
        ({"arm": [{"name": "a", "loss": {"name": "cross_entropi"}}]}, UnknownNameError, "did you mean 'cross_entropy'"),
        ({"arm": [{"name": "a", "train": {"steps": 5}}]}, ConfigError, "every arm gets the same steps"),
        ({"arm": [{"name": "a"}, {"name": "a"}]}, ConfigError, "two arms"),
        ({"arm": [{"name": "../a"}]}, ConfigError, "names a folder"),
        ({"arm": [{}]}, ConfigError, "needs a name"),
        ({"study": {"name": "s", "reference": "b"}}, UnknownNameError, "arm"),
        ({"study": {"name": "s", "seeds": [1, 1]}}, ConfigError, "different"),
        ({"study": {"name": "s", "metric": "aurocc"}}, UnknownNameError, "did you mean 'auroc'"),
        ({"study": {"name": "s", "folds": 1}}, ConfigError, "at least 2"),
        ({"train": {"steps": 0}}, ConfigError, "at least 1"),
        ({"train": {"batch_size": 5, "devices": 2}}, ConfigError, "divisible"),
        ({"data": {"source": "folder", "path": "x", "size": 4}}, ConfigError, "8 to 4096"),
        ({"data": {"source": "phantom", "bits": 12}}, ConfigError, "bits"),
        ({"data": {"source": "phantom", "imbalance_ration": 3}}, UnknownNameError, "imbalance_ratio"),
        ({"data": {"source": "phantom", "imbalance": 3}}, ConfigError, r"expected a table, for example { ratio = 50 }"),
        (
            {"data": {"source": "phantom", "imbalance": {"ratio": 9, "profile": "exponental"}}},
            ConfigError,
            "exponential",
        ),
        ({"data": {"source": "phantom", "imbalance": {"ratoi": 9}}}, UnknownNameError, "did you mean 'ratio'"),
        (
            {"data": {"source": "phantom", "imbalance": {"ratio": 9}, "thin": {"counts": {"nevus": 9}}}},
            ConfigError,
            "leave one of them out",
        ),
        ({"arm": [{"name": "a", "imbalance": {"ratio": 0.1}}]}, ConfigError, "at least 1"),
        ({"data": {"source": "phantom", "on_unreadable": "ignore"}}, ConfigError, "on_unreadable"),
        ({"data": {"source": "phantom", "allow_synthetic": ["tset"]}}, ConfigError, "did you mean 'test'"),
    ],
)
def test_what_is_wrong_is_named(tables: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        parsed(**tables)
