"""What a study trains: losses that do not go with the classifier, the mixer, or the images are refused, others run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raremix.core.errors import ConfigError, UnknownNameError
from raremix.study import parse_study, run_study
from raremix.study.run import plan_study
from raremix.study.spec import StudySpec, loss_of
from raremix.train.checkpoint import latest

MODEL = {"name": "resnet10t", "stem": "standard"}
TRAIN = {"steps": 3, "batch_size": 8, "validations": 1, "checkpoints": 0, "workers": 0}


def tiny(one: dict[str, Any], **tables: Any) -> StudySpec:
    table = {
        "study": {"name": "s", "seeds": [0], "resamples": 100},
        "data": {"source": "phantom", "images": 120, "classes": 3, "imbalance_ratio": 3, "size": 28},
        "model": MODEL,
        "train": TRAIN,
        "arm": [{"name": "one", **one}],
    }
    return parse_study({**table, **tables}, base=Path())


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        ({"loss": {"name": "gpaco"}}, "queue = 8192, and there are .* training images"),
        ({"loss": "dual_weighted_metric"}, "measures distances to prototypes; set .model. head"),
        ({"loss": {"name": "ldam", "class_counts": [5, 4, 3]}}, "class_counts is .5.*leave it out"),
        ({"loss": {"name": "gpaco", "queue": 8}, "mix": "automix"}, "losses of logits alone"),
        (
            {"loss": {"name": "deferred", "first": "cross_entropy", "then": "proxy_anchor"}},
            "measures distances to prototypes",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(arm: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        plan_study(tiny(arm), runs=tmp_path / "runs", cache=tmp_path / "cache")


def test_wrong_keys_are_found_before_anything_is_trained() -> None:
    for arm, words in (
        ({"loss": {"name": "focall"}}, "focal"),
        ({"loss": {"name": "deferred", "first": "cross_entropy", "then": {"name": "focal", "gama": 2}}}, "gama"),
        ({"model": {"head": {"name": "cosine", "sccale": 3}}}, "sccale"),
    ):
        with pytest.raises(UnknownNameError, match=words):
            tiny(arm)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="needs then"):
        tiny({"loss": {"name": "deferred", "first": "cross_entropy"}})
    with pytest.raises(ConfigError, match="only name"):
        tiny({"model": {"head": {"name": "one_hot", "vectors": "x.npy"}}})


def test_counts_are_filled_in() -> None:
    arm = tiny({"loss": {"name": "deferred", "first": "focal", "then": {"name": "class_balanced", "beta": 0.9}}}).arms[
        0
    ]
    loss: Any = loss_of(arm, task="multiclass", class_counts=(5.0, 2.0))
    assert loss.then.class_counts == (5.0, 2.0)
    arm = tiny({"loss": "distribution_balanced"}).arms[0]
    loss = loss_of(arm, task="multilabel", class_counts=(5.0, 2.0), labelled_counts=(9.0, 8.0))
    assert loss.labelled_counts == (9.0, 8.0)


def test_vectors_are_looked_for_beside_the_study() -> None:
    head = {"name": "text", "vectors": "labels.safetensors"}
    table = {"study": {"name": "s"}, "data": {"source": "phantom"}, "model": {**MODEL, "head": head}}
    spec = parse_study(
        {**table, "arm": [{"name": "a"}, {"name": "b", "model": {"head": head}}]}, base=Path("/somewhere")
    )
    for arm in spec.arms:
        assert spec.model_of(arm).head.vectors == Path("/somewhere/labels.safetensors")


def test_a_loss_of_features_and_one_of_prototypes_run(tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", np.eye(3, 6, dtype=np.float32))
    data = {"source": "phantom", "modality": "chest_xray", "multilabel": True, "images": 120, "classes": 3, "size": 28}
    spec = tiny({}, data={**data, "imbalance_ratio": 3})
    classes = spec.source.load(cache=tmp_path / "cache").card.classes
    head = {"name": "text", "vectors": str(tmp_path / "labels.npy"), "names": list(classes), "hidden": [8], "width": 4}
    contrast = {"name": "contrast", "loss": {"name": "supervised_contrastive", "queue": 16}, "mix": "mixup"}
    metric = {"name": "metric", "loss": "dual_weighted_metric", "model": {"head": head}}
    one_label = {"source": "phantom", "images": 120, "classes": 3, "size": 28, "imbalance_ratio": 3}
    for arm, known in ((contrast, one_label), (metric, {**data, "imbalance_ratio": 3})):
        spec = tiny({}, data=known, arm=[arm])
        result = run_study(spec, runs=tmp_path / arm["name"], cache=tmp_path / "cache")
        (job,) = (result.folder / "jobs").iterdir()
        assert latest(job / "checkpoints") is None
