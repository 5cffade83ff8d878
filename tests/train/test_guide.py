"""Importance maps that are kept: where they lie after a warp, what a gradient teaches, what a resumed run knows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.train.toys import ROWS, SPEC, Toy
from torch import Tensor, nn

from raremix.core.protocols import ImportanceMap
from raremix.core.random import rng
from raremix.core.types import Batch, Boxes, MixPlan, Others
from raremix.data.augment import Classical
from raremix.train import fit
from raremix.train.guide import GradientMaps, Guide, KeptMaps, RefreshedMaps, empty_maps, invert, store, warp_maps
from raremix.train.spec import make_fabric


def test_a_map_moves_with_its_image() -> None:
    """A bright spot that is map and image at once lies at the same place in both after any augmentation."""
    spots = torch.zeros(24, 1, 32, 32)
    for row, (y, x) in enumerate(np.random.default_rng(0).integers(8, 22, (24, 2))):
        spots[row, 0, y : y + 4, x : x + 4] = 1.0
    augmentation = Classical(
        horizontal_flip=0.5, vertical_flip=0.5, rotation=90.0, crop=0.8, brightness=0.0, contrast=0.0
    )
    plan = augmentation.plan(24, rng=rng(0, "augment", 0))
    images = augmentation.apply(spots, plan)
    maps = empty_maps(24, grid=32)
    store(maps, torch.arange(24), spots)
    batch = Batch(images=images, targets=torch.zeros(24, 2), ids=torch.arange(24), warp=augmentation.warp(plan))
    found = KeptMaps(maps=maps).attach(batch).importance
    assert found is not None
    torch.testing.assert_close(found, images, atol=0.01, rtol=0)


def test_warping_back_undoes_warping() -> None:
    warp = Classical(rotation=40.0, crop=0.9).plan(6, rng=rng(1, "augment", 0)).warp
    blob = torch.zeros(6, 1, 32, 32)
    blob[:, :, 12:20, 12:20] = 1.0
    there = warp_maps(blob, warp)
    back = warp_maps(there, invert(warp), padding="zeros")
    assert float((back - blob).abs().mean()) < 0.02
    assert float((there - blob).abs().mean()) > 0.02


def test_maps_are_stored_in_256_steps_and_averaged_down() -> None:
    maps = empty_maps(3, grid=2)
    store(maps, torch.tensor([2, 0]), torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    drawn = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = (drawn.reshape(2, 1, 2, 4, 2, 4).mean(dim=(3, 5)) * 255).round()
    assert torch.equal(maps[[2, 0]].float(), expected)
    assert bool((maps[1] == 255).all())


def gradient_maps(plan: MixPlan, *, images: Tensor, weights: Tensor) -> Tensor:
    """Return the maps after one step whose loss is a weighted sum of the mixed pixels."""
    guide = GradientMaps(maps=empty_maps(len(images), grid=4))
    batch = guide.attach(Batch(images=images, targets=torch.zeros(len(images), 2), ids=torch.arange(len(images))))
    guide.watch(batch, plan)
    (plan.apply(batch).images * weights).sum().backward()
    guide.after_step(0, {})
    return guide.maps


def test_the_gradient_of_this_visit_guides_the_next() -> None:
    images = torch.rand(2, 3, 8, 8)
    weights = torch.zeros(8, 8)
    weights[0:2, 6:8] = 2.0
    weights[4:6, 0:2] = 1.0
    whole = MixPlan(
        own=torch.tensor([0, 1]), partner=torch.tensor([1, 0]), mask=torch.ones(2, 1, 1, 1), weight=torch.ones(2)
    )
    maps = gradient_maps(whole, images=images, weights=weights)
    expected = torch.zeros(4, 4, dtype=torch.uint8)
    expected[0, 3], expected[2, 0] = 255, 128
    assert torch.equal(maps[0, 0], expected)
    assert torch.equal(maps[1, 0], expected)


def test_what_mixing_hid_keeps_what_was_known_of_it() -> None:
    """The left half of image 0 is covered by image 1, which is seen twice there."""
    left = Boxes(edges=torch.tensor([[0, 0], [0, 0], [8, 0], [4, 0]]), height=8, width=8)
    plan = MixPlan(own=torch.tensor([0, 1]), partner=torch.tensor([1, 0]), mask=left, weight=left.share())
    maps = gradient_maps(plan, images=torch.rand(2, 3, 8, 8), weights=torch.linspace(1, 2, 8).expand(8, 8))
    assert bool((maps[0, 0, :, :2] == 255).all())
    torch.testing.assert_close(
        maps[0, 0, :, 2:].float() / 255, torch.tensor([1.64 / 1.93, 1.0]).expand(4, 2), atol=0.01, rtol=0
    )
    # Image 1 lies whole in row 1 and half in row 0: its gradient is divided by how much of it was seen.
    torch.testing.assert_close(
        maps[1, 0, 0].float() / 255, torch.tensor([1.07, 1.36, 1.64, 1.93]) / 1.93, atol=0.01, rtol=0
    )


@dataclass(frozen=True)
class Brightness(ImportanceMap):
    """A classifier's map that is easy to foresee: the images, times its first weight's sign."""

    model: nn.Module

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        weight = next(self.model.parameters()).detach().abs().mean().clamp(0, 1)
        return images.mean(dim=1, keepdim=True) * weight


def guided(kind: str, toy: Toy) -> Guide:
    if kind == "gradient":
        return GradientMaps(maps=empty_maps(ROWS, grid=4))
    return RefreshedMaps(
        maps=empty_maps(ROWS, grid=4),
        draw=Brightness,
        images=toy.images(),
        ids=np.arange(ROWS),
        targets=toy.targets(),
        every=5,
    )


@pytest.mark.parametrize("kind", ["gradient", "refreshed"])
def test_a_guided_run_resumes_exactly(kind: str, tmp_path: Path) -> None:
    """The maps at the end, and the weights that they led to, are those of a run that was never cut."""
    toy = Toy(mixer="saliencymix", spec=replace(SPEC, average=0.9))

    def run(folder: Path, stop_at: int | None = None) -> tuple[Mapping[str, Tensor], Tensor]:
        task = replace(toy.task().inner, guide=guided(kind, toy), steps=SPEC.steps)
        done = [0]
        result = None
        try:
            result = fit(
                task,
                toy.feed(),
                spec=toy.spec,
                fabric=make_fabric(toy.spec),
                folder=folder,
                identity="guided",
                progress=lambda what, step, total: done.__setitem__(0, step),
                should_stop=lambda: stop_at is not None and done[0] + 1 >= stop_at,
            )
        except Exception as error:
            if "stopped after" not in str(error):
                raise
        assert task.guide is not None
        return ({} if result is None else result.weights["classifier"]), task.guide.memory["importance"].clone()

    weights, maps = run(tmp_path / "whole")
    _, cut_maps = run(tmp_path / "cut", stop_at=7)
    assert not torch.equal(cut_maps, empty_maps(ROWS, grid=4))
    again, maps_again = run(tmp_path / "cut")
    assert torch.equal(maps_again, maps)
    assert all(torch.equal(again[key], value) for key, value in weights.items())


def test_what_further_images_show_is_learnt_too() -> None:
    """Three images fill a third each; the loss is the sum of pixels, so that all that is known is equally important."""
    thirds = torch.zeros(3, 3, 4, 4)
    thirds[:, 0, :, :1], thirds[:, 1, :, 1:2], thirds[:, 2, :, 2:] = 1, 1, 1
    rows = torch.arange(3)
    plan = MixPlan(
        own=rows,
        partner=rows.roll(1),
        mask=thirds[:, :1],
        weight=thirds[:, 0].mean(dim=(1, 2)),
        others=Others(rows=rows.roll(2)[:, None], masks=thirds[:, 1:2], weights=thirds[:, 1:2].mean(dim=(2, 3))),
    )
    maps = gradient_maps(plan, images=torch.rand(3, 3, 4, 4), weights=torch.ones(4, 4))
    assert bool((maps == 255).all())


def test_a_gradient_that_is_no_number_teaches_nothing() -> None:
    whole = MixPlan(own=torch.arange(2), partner=torch.arange(2), mask=torch.ones(2, 1, 1, 1), weight=torch.ones(2))
    weights = torch.ones(8, 8)
    weights[0, 0] = torch.inf
    assert bool((gradient_maps(whole, images=torch.rand(2, 3, 8, 8), weights=weights) == 255).all())
