"""SimCLR's loss by hand, and that the loop trains an encoder by it."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.train.toys import Arrays
from torch import nn

from raremix.data.augment import Classical
from raremix.data.samplers import Natural
from raremix.models.small_encoder import small_encoder
from raremix.train import Feed, TrainSpec, fit
from raremix.train.simclr import SimCLR, projection, view_loss
from raremix.train.spec import make_fabric

SPEC = TrainSpec(
    steps=30, batch_size=16, learning_rate=5e-3, average=None, validations=0, checkpoints=0, precision="32", workers=0
)


def test_the_loss_by_hand() -> None:
    """Two images, both views alike, at right angles: each row sees e^2 for its own view among e^2 + 1 + 1."""
    views = torch.tensor([[1.0, 0], [0, 3.0], [2.0, 0], [0, 1.0]])
    expected = -math.log(math.exp(2) / (math.exp(2) + 2))
    assert float(view_loss(views, 0.5)) == pytest.approx(expected, rel=1e-6)


def test_views_that_differ_cost_more_than_views_that_agree() -> None:
    one = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    agree, crossed = (float(view_loss(torch.cat([one, other]), 0.2)) for other in (one, one.roll(1, 0)))
    assert agree < crossed


def test_the_order_of_images_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(1)
    one, other = torch.randn(2, 6, 4, generator=generator)
    order = torch.randperm(6, generator=generator)
    losses = [float(view_loss(torch.cat(pair), 0.3)) for pair in ((one, other), (one[order], other[order]))]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_the_loop_brings_views_together_and_leaves_no_trace_of_labels(tmp_path: Path) -> None:
    pixels = (
        np.random.default_rng(0).integers(0, 255, (32, 3, 4, 4), dtype=np.uint8).repeat(4, axis=2).repeat(4, axis=3)
    )
    nothing = np.zeros((32, 1))
    kept = []
    for labels in (nothing, nothing + 1):
        feed = Feed(
            images=Arrays(pixels),
            ids=np.arange(32),
            targets=labels,
            sampler=Natural(targets=nothing, seed=0),
            batch_size=16,
            seed=0,
        )
        modules = nn.ModuleDict(
            {"encoder": small_encoder(channels=3, width=4, seed=0), "projection": projection(32, width=16, seed=0)}
        )
        task = SimCLR(
            modules=dict(modules.items()),
            optimizers={"views": torch.optim.AdamW(modules.parameters(), lr=SPEC.learning_rate)},
            augmentation=Classical(),
            seed=0,
        )
        start = float(task.loss("views", feed.batch(0), step=0)["loss"].detach())
        folder = tmp_path / str(len(kept))
        result = fit(task, feed, spec=SPEC, fabric=make_fabric(SPEC), folder=folder, identity="views")
        assert float(task.loss("views", feed.batch(0), step=0)["loss"].detach()) < 0.8 * start
        kept.append(result.weights["encoder"])
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])
