"""Bugs found in how others train and report: of VariMix's generator, of MedMNIST's published results, of samplers."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit
from tests.generate.toys import FORM, METHODS
from tests.generate.toys import SPEC as GENERATOR
from tests.generate.toys import run as run_generator
from tests.train.toys import SPEC, Toy

from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.data.cache import ImageCache
from raremix.data.samplers import Balanced
from raremix.evaluate.calibration import scores_from_logits
from raremix.evaluate.probability import Probabilities
from raremix.evaluate.score import score
from raremix.explain import DifferenceMap
from raremix.generate import StarTranslator
from raremix.mix import VariMix
from raremix.study import parse_study
from raremix.study.prepare import prepare
from raremix.study.training import Run, train_stage
from raremix.train import TrainSpec
from raremix.train.spec import make_fabric

pytestmark = pytest.mark.usefixtures("no_fsync")


def test_varimix_generator_cannot_be_trained(tmp_path: Path) -> None:
    """VariMix's code: the training of its StarGAN v2 cannot start as committed; here it trains, and guides VariMix."""
    method = METHODS["stargan"]
    start = {name: network.state_dict() for name, network in method.networks(FORM, seed=0).items()}
    fitted = run_generator(method, tmp_path, spec=replace(GENERATOR, steps=2))
    assert fitted is not None
    assert fitted.steps_done == 2
    networks = method.networks(FORM, seed=0)
    for name, weights in fitted.weights.items():
        assert any(not torch.equal(value, start[name][key]) for key, value in weights.items()), name
        assert all(bool(value.isfinite().all()) for value in weights.values()), name
        networks[name].load_state_dict(weights)
    translator = method.drawer(networks, FORM)
    assert isinstance(translator, StarTranslator)
    batch = Batch(images=torch.rand(4, FORM.channels, FORM.size, FORM.size), targets=torch.eye(2)[[0, 1, 0, 1]])
    mixer = VariMix(importance=DifferenceMap(translator=translator))
    mixed = mixer.plan(batch, batch, rng=rng(0, "mix")).apply(batch)
    assert len(mixed.images) == 8
    assert bool(mixed.images.isfinite().all())


def test_medmnist_checkpoints_are_chosen_on_the_test_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MedViTV2's code: the epoch with the best test result is reported. Here training never opens a test image."""
    data = {"source": "phantom", "images": 90, "classes": 3, "imbalance_ratio": 2, "size": 28}
    table: dict[str, Any] = {
        "study": {"name": "s", "seeds": [0]},
        "data": data,
        "model": {"name": "resnet10t", "stem": "standard"},
        "train": {"steps": 3, "batch_size": 4, "validations": 3, "checkpoints": 0, "workers": 0},
        "arm": [{"name": "one", "mix": "mixup"}],
    }
    spec = parse_study(table, base=Path())
    prepared = prepare(spec, cache=tmp_path / "cache")
    (arm,) = spec.arms
    train: TrainSpec = spec.train_of(arm)
    run = Run(
        spec=spec,
        prepared=prepared,
        arm=arm,
        seed=0,
        fabric=make_fabric(train),
        cache=tmp_path / "cache",
        key="x",
        progress=None,
        should_stop=lambda: False,
    )
    opened: set[int] = set()
    take = ImageCache.take

    def watched(self: ImageCache, ids: np.ndarray) -> np.ndarray:
        opened.update(np.asarray(ids).tolist())
        return take(self, ids)

    monkeypatch.setattr(ImageCache, "take", watched)
    fitted, _ = train_stage(run, arm, run.model(), train, folder=tmp_path / "run", identity="x", seed=0)
    rows = {split: set(prepared.manifest.rows(split).tolist()) for split in ("train", "validation", "test")}
    assert rows["validation"] <= opened
    assert rows["test"]
    assert not rows["test"] & opened
    assert fitted.best_value is not None


def test_medmnist_auc_is_reported_as_accuracy() -> None:
    """Published MedMNIST tables with AUC under the heading of accuracy: here a perfect order that decides nothing."""
    targets = np.eye(2)[[0, 0, 0, 1]]
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    found = {name: score(targets, scores, metric=name, task="binary") for name in ("auroc", "accuracy")}
    assert found == {"auroc": 1.0, "accuracy": 0.75}


def test_medmnist_several_labels_get_softmax() -> None:
    """Softmax scores for several labels: two findings that are both certain would get a half each."""
    logits = np.array([[8.0, 8.0, -8.0]])
    found = scores_from_logits(logits, task="multilabel")
    np.testing.assert_allclose(found, expit(logits))
    assert found[0, :2].min() > 0.999
    # A label's score does not depend on the others, whatever corrects it.
    fitted = Probabilities(temperature=2.0, offsets=(0.5, 0.0, -0.5), prevalence=(0.2, 0.2, 0.2))
    first, second = (fitted.of(np.array([[8.0, other, -8.0]]), task="multilabel") for other in (8.0, -3.0))
    np.testing.assert_allclose(first[0, [0, 2]], second[0, [0, 2]])
    np.testing.assert_allclose(first[0, 0], expit(8.0 / 2 + 0.5))


def test_lightning_replays_the_first_epochs_order(tmp_path: Path) -> None:
    """lightning#21938: a resumed run goes through the data as in epoch 0; here as the whole run does, draws too."""
    toy = Toy(spec=SPEC)
    whole = toy.run(tmp_path / "whole")
    toy.run(tmp_path / "cut", stop_at=4)
    rest = toy.run(tmp_path / "cut")
    assert sorted(rest.task.steps) == list(range(4, 12)), "the second and third epoch of four steps"
    assert {step: entry for step, entry in whole.task.steps.items() if step >= 4} == rest.task.steps
    epochs = [[whole.task.steps[step]["ids"] for step in range(first, first + 4)] for first in (0, 4, 8)]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert all(sorted(row for batch in epoch for row in batch) == list(range(20)) for epoch in epochs)


@pytest.mark.parametrize("ranks", [2, 4])
def test_balanced_sampling_is_unsolved_over_several_ranks(ranks: int) -> None:
    """pytorch#77154, accelerate#2865: ranks that each draw by weights repeat rows, and leave others out.

    Here ranks share one order: classes come alike, any two rows of a class as often but for one time, and epochs
    differ.
    """

    class Rare(Toy):
        def targets(self) -> np.ndarray:
            return np.eye(2)[[0] * 16 + [1] * 4]

    toy = Rare(sampler="balanced", augmentation="none", spec=replace(SPEC, batch_size=4))
    whole = toy.feed()
    parts = [toy.feed(rank=rank, ranks=ranks) for rank in range(ranks)]
    drawn: list[int] = []
    for step in range(40):
        ids = [row for part in parts for row in part.batch(step).ids.tolist()]  # type: ignore[union-attr]
        assert ids == whole.batch(step).ids.tolist()  # type: ignore[union-attr]
        drawn += ids
    seen = Counter(drawn)
    common, rare = [seen[row] for row in range(16)], [seen[row] for row in range(16, 20)]
    assert abs(sum(common) - sum(rare)) <= 2
    assert max(common) - min(common) <= 1
    assert max(rare) - min(rare) <= 1
    assert drawn[:20] != drawn[20:40]
    assert drawn[:40] == Balanced(targets=toy.targets(), seed=0).row(np.arange(40)).tolist()
