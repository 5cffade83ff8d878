"""Features that are kept: what enters the queue, that a resumed run goes on with it, what the slow network draws."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.core.faults import CountingDisk
from tests.train.toys import Net, Toy, Traced, digest

from raremix.core import files
from raremix.core.features import features_seen
from raremix.core.protocols import FeatureLoss
from raremix.core.random import torch_seed
from raremix.losses import CrossEntropy, Deferred, GPaCo, SupervisedContrastive
from raremix.mix import MIXERS
from raremix.train import Classification
from raremix.train.contrast import Projection, feature_width, make_contrast

COUNTS = (10.0, 10.0)
SLOW = GPaCo(queue=8, width=4, momentum=0.9, class_counts=COUNTS)


@dataclass(frozen=True, kw_only=True)
class ContrastToy(Toy):
    """The toy, trained by a loss that compares features."""

    criterion: FeatureLoss = SLOW
    deferred: bool = False

    def task(self, *, rank: int = 0) -> Traced:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(self.seed, "init"))
            net, projection = Net(), Projection(8, self.criterion.width)
        parameters = [*net.parameters(), *projection.parameters()]
        loss = Deferred(first=CrossEntropy(), then=self.criterion, start=0.5) if self.deferred else self.criterion
        return Traced(
            Classification(
                modules={"classifier": net, "projection": projection},
                optimizers={"classifier": self.optimizer(parameters, lr=self.spec.learning_rate, **self.options)},
                criterion=loss,
                mixer=MIXERS[self.mixer](),
                seed=self.seed,
                steps=self.spec.steps,
                contrast=make_contrast(self.criterion, net, projection, num_classes=2),
            )
        )


TOYS = {
    "gpaco": ContrastToy(),
    "own features": ContrastToy(criterion=GPaCo(queue=8, width=4, class_counts=COUNTS), mixer="cutmix"),
    "no queue": ContrastToy(criterion=SupervisedContrastive(width=4), deferred=True),
    "deferred": ContrastToy(deferred=True),
}


@pytest.mark.parametrize("name", TOYS)
def test_a_resumed_run_goes_on_with_the_same_features(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "DISK", CountingDisk())
    toy = TOYS[name]
    whole = toy.run(tmp_path / "whole")
    for step in (7,):
        here = tmp_path / str(step)
        toy.run(here, stop_at=step)
        rest = toy.run(here)
        assert {s: whole.task.steps[s] for s in range(step, 12)} == rest.task.steps, step
        assert rest.state() == whole.state(), step
        assert digest(rest.task.memory) == digest(whole.task.memory), step


def test_the_projection_is_trained_and_the_queue_turns(tmp_path: Path) -> None:
    toy = TOYS["own features"]
    before = digest(toy.task().modules["projection"].state_dict())
    task = toy.run(tmp_path).task
    after = task.modules["projection"].module.state_dict()  # type: ignore[union-attr]
    assert digest(after) != before
    memory = task.memory
    assert int(memory["contrast/place"]) == 12 * 5 % 8
    assert not bool(memory["contrast/targets"].isnan().any())
    torch.testing.assert_close(memory["contrast/features"].norm(dim=1), torch.ones(8))


def test_what_is_kept_is_what_was_seen() -> None:
    """A queue of 8 and steps of 5 rows: the second step's last two wrap round to the first places."""
    toy = ContrastToy(criterion=GPaCo(queue=8, width=4, class_counts=COUNTS), mixer="none")
    task, feed = toy.task().inner, toy.feed()
    assert task.contrast is not None
    rows, projection = [], task.modules["projection"]
    task.modules["classifier"].eval()
    for step in range(2):
        batch = feed.batch(step)
        with torch.no_grad(), features_seen(task.modules["classifier"]) as seen:
            task.modules["classifier"](batch.images)
            rows.append((projection(seen[0]), batch.targets))
        assert bool(task.loss("classifier", batch, step=step)["loss"].isfinite())
        task.after_step(step, task.modules)
    queue, targets = task.contrast.features, task.contrast.targets
    torch.testing.assert_close(queue[5:], rows[1][0][:3])
    torch.testing.assert_close(queue[:2], rows[1][0][3:])
    torch.testing.assert_close(queue[2:5], rows[0][0][2:])
    torch.testing.assert_close(targets[2:5], rows[0][1][2:].to(targets))


def test_a_queue_shorter_than_the_batch_keeps_the_last() -> None:
    toy = ContrastToy(criterion=GPaCo(queue=3, width=4, class_counts=COUNTS), mixer="none")
    task, batch = toy.task().inner, toy.feed().batch(0)
    assert task.contrast is not None
    task.loss("classifier", batch, step=0)
    task.after_step(0, task.modules)
    torch.testing.assert_close(task.contrast.targets, batch.targets[2:].to(task.contrast.targets))


def test_features_that_overflowed_are_not_kept() -> None:
    toy = ContrastToy(criterion=GPaCo(queue=8, width=4, class_counts=COUNTS), mixer="none")
    contrast = toy.task().inner.contrast
    assert contrast is not None
    contrast._fresh.append((torch.tensor([[torch.inf] * 4, [0.5] * 4]), torch.eye(2)))
    contrast.after_step(toy.task().inner, 0)
    assert bool(contrast.targets[0].isnan().all())
    assert contrast.targets[1].tolist() == [0, 1]
    assert bool(contrast.features.isfinite().all())


def test_the_slow_network_follows_and_never_leads() -> None:
    toy = TOYS["gpaco"]
    task, batch = toy.task().inner, toy.feed().batch(0)
    assert task.contrast is not None
    task.loss("classifier", batch, step=0)["loss"].backward()
    slow = task.contrast.slow["classifier"]
    assert all(parameter.grad is None for parameter in slow.parameters())
    assert not slow.training
    with torch.no_grad():
        task.modules["classifier"].head.weight.add_(1.0)  # type: ignore[operator, union-attr]
    before = slow.head.weight.clone()  # type: ignore[operator, union-attr]
    task.after_step(50, task.modules)
    moved = (slow.head.weight - before).mean()  # type: ignore[operator, union-attr]
    assert 0 < float(moved) < 1


def test_the_width_is_that_of_the_last_layers_input() -> None:
    net = Net()
    assert feature_width(net, torch.rand(2, 3, 12, 12)) == 8
    assert net.training
    assert np.isfinite(float(Projection(8, 4)(torch.rand(2, 8)).detach().sum()))
