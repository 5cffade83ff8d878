"""PuzzleMix: the objective by hand, its optimum on real saliency, blocks that move, and any size."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.contract.mixer_promises import PROMISES, random_batch
from tests.mix.exact_labelling import optimum

from raremix.core.errors import ConfigError, DataError
from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.data.readers import read_image
from raremix.data.sources.phantom import Phantom
from raremix.explain import FineGrained
from raremix.mix import PuzzleMix
from raremix.mix.labelling import Problem, cost, solve
from raremix.mix.puzzlemix import block_importance


def halves(*, left: float, right: float, rows: int = 2) -> torch.Tensor:
    maps = torch.empty(rows, 1, 8, 8)
    maps[..., :4], maps[..., 4:] = left, right
    return maps


def pair_problem(images: torch.Tensor, maps: torch.Tensor, *, n: int, share: float, **settings: Any) -> Problem:
    own = block_importance(maps, n=n)
    shares = np.full(2, share)
    return PuzzleMix(**settings).problem(images, images, own, own, partner=torch.tensor([1, 0]), share=shares)


def test_what_matters_on_the_left_of_one_and_the_right_of_the_other_is_kept() -> None:
    images = torch.arange(2.0)[:, None, None, None].expand(2, 1, 8, 8)
    maps = torch.cat([halves(left=1.0, right=0.0, rows=1), halves(left=0.0, right=1.0, rows=1)])
    batch = Batch(images=images, targets=torch.eye(2), importance=maps)
    for seed in range(8):
        mixer = PuzzleMix(grids=(4,), pairing="different_class", levels=2, beta=0.1, eta=0.0)
        mixed = mixer.plan(batch, batch, rng=rng(seed, "mix")).apply(batch)
        assert torch.equal(mixed.images, halves(left=0.0, right=1.0))
        assert torch.equal(mixed.targets, torch.full((2, 2), 0.5))


def test_objective_by_hand() -> None:
    """Two blocks in a row of one pixel each (a 2 x 2 grid whose rows are equal), black and white images."""
    black_white = torch.tensor([[[[0.0, 0.4], [0.0, 0.4]]], [[[1.0, 0.7], [1.0, 0.7]]]])
    maps = torch.tensor([[[[3.0, 1.0], [0.0, 0.0]]], [[[1.0, 1.0], [1.0, 1.0]]]])
    settings: dict[str, Any] = {"beta": 1.6, "gamma": 0.5, "eta": 0.2, "levels": 3}
    problem = pair_problem(black_white, maps, n=2, share=0.3, **settings)
    smooth = 1.6 / (2 * 16)
    # First image: own 0 0.4 / 0 0.4, partner 1 0.7 / 1 0.7; importance 3/4 1/4 / 0 0 and 1/4 everywhere.
    own, other = np.array([[0.0, 0.4], [0.0, 0.4]]), np.array([[1.0, 0.7], [1.0, 0.7]])
    s, t = np.array([[0.75, 0.25], [0.0, 0.0]]), np.full((2, 2), 0.25)

    def objective(z: np.ndarray) -> float:
        prior = {0.0: 0.7**2, 0.5: 2 * 0.3 * 0.7, 1.0: 0.3**2}
        total = float(((1 - z) * s + z * t).sum()) - 0.2 / 4 * sum(np.log(prior[float(v)]) for v in z.flat)
        for one, two in (((0, 0), (0, 1)), ((1, 0), (1, 1)), ((0, 0), (1, 0)), ((0, 1), (1, 1))):
            total += smooth * (z[one] - z[two]) ** 2
            # Between z = 0 and 1 the difference is interpolated as the authors do: by cells, and by (z_i - z_j)^2.
            d = {(a, b): abs((own if a else other)[one] - (own if b else other)[two]) for a in (0, 1) for b in (0, 1)}
            cells = z[one] * (d[1, 0] + d[1, 1]) + (1 - z[one]) * (d[0, 0] + d[0, 1])
            cells += z[two] * (d[0, 1] + d[1, 1]) + (1 - z[two]) * (d[0, 0] + d[1, 0])
            cells -= d[0, 1] + d[1, 0]
            edge = d[0, 1] + d[1, 0] - d[0, 0] - d[1, 1]
            total += smooth * 0.5 * (cells + edge * (z[one] - z[two]) ** 2) / 2
        return total

    for labels in ([[0, 0], [0, 0]], [[2, 2], [2, 2]], [[2, 0], [1, 0]], [[0, 1], [2, 2]]):
        z = np.array(labels) / 2
        found = float(cost(problem, torch.tensor([labels, labels]))[0])
        assert found == pytest.approx(objective(z), abs=1e-5)


def test_seams_are_paid_for_where_the_patches_that_meet_differ() -> None:
    """Whole blocks of two images: what the objective adds for a seam is the difference of the pixels beside it."""
    images = torch.rand(2, 3, 8, 8)
    maps = torch.ones(2, 1, 8, 8)
    with_seams, without = (pair_problem(images, maps, n=2, share=0.5, gamma=g, patch=4) for g in (1.0, 0.0))
    labels = torch.tensor([[[2, 0], [2, 0]]] * 2)
    added = cost(with_seams, labels) - cost(without, labels)
    means = images.reshape(2, 3, 2, 4, 2, 4).mean(dim=(3, 5))
    for row, other in ((0, 1), (1, 0)):
        left, right = means[row, :, :, 0], means[other, :, :, 1]
        seams = (left - right).abs().mean(dim=0).sum()
        seams = seams + (left[:, 0] - left[:, 1]).abs().mean() + (right[:, 0] - right[:, 1]).abs().mean()
        assert float(added[row]) == pytest.approx(1.2 / 32 * float(seams), abs=1e-6)


@pytest.fixture(scope="module")
def lesions(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """Return 24 drawn skin lesions of 64 pixels."""
    manifest = Phantom(images=42, size=64, imbalance_ratio=2.0).load(cache=tmp_path_factory.mktemp("phantoms"))
    pixels = [read_image(manifest.root / path) for path in manifest.frame["path"][:24]]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float().contiguous() / 255


@pytest.mark.parametrize("n", [4, 8, 16])
@pytest.mark.parametrize("kind", ["saliency", "noise", "spots"])
def test_the_optimum_is_reached_within_one_percent(lesions: torch.Tensor, n: int, kind: str) -> None:
    rows = len(lesions)
    generator = torch.Generator().manual_seed(1)
    maps = {
        "saliency": FineGrained()(lesions, torch.zeros(rows, 1)),
        "noise": torch.rand(rows, 1, 64, 64, generator=generator) ** 8,
        "spots": torch.nn.functional.interpolate(
            torch.rand(rows, 1, 3, 3, generator=generator) ** 6, size=(64, 64), mode="bicubic"
        ).clamp(min=0.01),
    }[kind]
    blocks = block_importance(maps, n=n)
    share = rng(0, "mix").random(rows)
    partner = torch.arange(rows).roll(1)
    problem = PuzzleMix().problem(lesions, lesions, blocks, blocks, partner=partner, share=share)
    unary, down, right = (part.double().numpy() for part in (problem.unary, problem.down, problem.right))
    best = torch.from_numpy(np.stack([optimum(unary[:, b], down[b], right[b]) for b in range(rows)]))
    exact, ours = cost(problem, best), cost(problem, solve(problem))
    assert bool((ours >= exact - 1e-4).all())
    assert float((ours / exact - 1).mean()) < 0.01
    if kind != "noise":  # where one label alone is the best for nearly every image
        alone = problem.unary.sum(dim=(2, 3)).amin(dim=0)
        assert float((alone - ours).sum()) >= 0.95 * float((alone - exact).sum()) > 0


@pytest.mark.parametrize(("height", "width"), [(28, 28), (16, 16), (17, 40), (3, 2), (1, 5), (224, 224)])
@pytest.mark.parametrize("transport", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_will_do_and_pixels_are_counted(height: int, width: int, transport: bool, channels: int) -> None:
    """Image i is i everywhere, wherever its blocks lie: its pixels can be counted."""
    rows = 4
    images = torch.eye(rows)[:, :, None, None].expand(rows, rows, height, width).contiguous()[:, :channels]
    maps = torch.rand(rows, 1, height, width, generator=torch.Generator().manual_seed(0)) ** 4
    batch = Batch(images=images, targets=torch.eye(rows), importance=maps)
    for seed in range(6):
        mixer = PuzzleMix(transport=transport, distance=0.05)
        mixed = mixer.plan(batch, batch, rng=rng(seed, "mix")).apply(batch)
        torch.testing.assert_close(mixed.images.mean(dim=(2, 3)), mixed.targets[:, :channels], rtol=0, atol=1e-5)


def test_transport_shows_more_of_what_matters() -> None:
    """Images that are their own importance: mixing with transport keeps more of their sum than without."""
    blocks = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)) ** 4
    maps = blocks.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    batch = Batch(images=maps, targets=torch.eye(16), importance=maps)
    plans = [
        PuzzleMix(grids=(8,), transport=moves, distance=0.02, beta=0.1, pairing="different_class").plan(
            batch, batch, rng=rng(0, "mix")
        )
        for moves in (False, True)
    ]
    plain, moved = plans
    assert torch.equal(plain.weight, moved.weight)
    assert moved.own_images is not None
    assert moved.partner_images is not None
    assert torch.equal(moved.own_images.flatten(1).sort().values, maps.flatten(1).sort().values)
    assert float(moved.apply(batch).images.mean()) > 1.02 * float(plain.apply(batch).images.mean())
    with pytest.raises(DataError, match="warps"):
        moved.apply_masks(maps)


def test_rows_that_are_not_mixed_stay_as_they_were() -> None:
    batch = replace(random_batch(40, height=16, width=16), importance=torch.rand(40, 1, 16, 16) ** 3)
    mixer = PuzzleMix(transport=True, distance=0.01, probability=0.5, pairing="different_class")
    plan = mixer.plan(batch, batch, rng=rng(0, "mix"))
    is_whole = plan.weight == 1
    assert 10 < int(is_whole.sum()) < 30
    assert plan.own_images is not None
    assert not torch.equal(plan.own_images, batch.images)
    assert torch.equal(plan.apply(batch).images[is_whole], batch.images[is_whole])


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_promises_are_kept_with_transport_and_other_levels(promise: Any) -> None:
    promise(PuzzleMix(transport=True, distance=0.01, levels=4))


def test_a_map_of_zeros_says_that_all_matters_alike() -> None:
    assert torch.equal(block_importance(torch.zeros(1, 1, 4, 4), n=2), torch.full((1, 2, 2), 0.25))


@pytest.mark.parametrize(
    "settings",
    [
        {"alpha": 0.0},
        {"grids": ()},
        {"grids": (0,)},
        {"levels": 1},
        {"patch": 0},
        {"beta": -1.0},
        {"eta": float("nan")},
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        PuzzleMix(**settings)


def test_maps_are_needed() -> None:
    batch = random_batch(2)
    with pytest.raises(ConfigError, match="importance"):
        PuzzleMix(importance=None).plan(batch, batch, rng=rng(0, "mix"))
