"""Co-Mixup: more than two images in one, the objective of the batch, diversity, and counted labels."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.mix import CoMixup
from raremix.mix.comixup import candidates
from raremix.mix.puzzlemix import block_importance


def objective(mixer: CoMixup, cost: torch.Tensor, chosen: torch.Tensor, number: torch.Tensor) -> float:
    """Return what the docstring says is minimised, with costs of blocks as given, block by block in plain loops."""
    _, B, n, _ = cost.shape
    blocks = n * n
    total, shown = 0.0, np.zeros((B, int(number.max()) + 1))
    for j, y, x in product(range(B), range(n), range(n)):
        k = int(chosen[j, y, x])
        total += float(cost[k, j, y, x])
        shown[j, int(number[j, k])] += 1
        for y2, x2 in ((y + 1, x), (y, x + 1)):
            if y2 < n and x2 < n:
                total += mixer.beta / blocks * float(chosen[j, y2, x2] != k)
    for j in range(B):
        others = shown.sum(axis=0) - shown[j]
        total += mixer.gamma / blocks * float((shown[j] * np.where(others > mixer.tau * blocks, others, 0)).sum())
    return total


def corners() -> Batch:
    """Return four images, of which image i matters in its own quarter alone; image i is 1 in channel i."""
    maps = torch.full((4, 1, 8, 8), 0.01)
    for i, (y, x) in enumerate(product((0, 4), (0, 4))):
        maps[i, 0, y : y + 4, x : x + 4] = 1.0
    return Batch(images=torch.eye(4)[:, :, None, None].expand(4, 4, 8, 8), targets=torch.eye(4), importance=maps)


def test_four_quarters_of_four_images_come_together() -> None:
    """Where nothing is said about diversity, every output shows what matters of all four."""
    batch = corners()
    seen = 0
    for seed in range(20):
        plan = CoMixup(gamma=0.0, eta=0.0, beta=0.1).plan(batch, batch, rng=rng(seed, "mix"))
        rows = candidates(plan.partner, images=4, is_shared=True)
        mixed = plan.apply(batch)
        for row in range(4):
            if len(set(rows[row].tolist())) == 4:  # the permutation is one ring
                seen += 1
                assert torch.equal(
                    mixed.images[row].argmax(dim=0), torch.arange(4).reshape(2, 2).kron(torch.ones(4, 4)).long()
                )
                assert torch.equal(mixed.targets[row], torch.full((4,), 0.25))
    assert seen > 0


def test_counted_pixels_are_the_label_for_more_than_two_images() -> None:
    batch = corners()
    for seed, size in product(range(6), ((8, 8), (7, 13), (3, 2), (1, 1))):
        images = torch.eye(4)[:, :, None, None].expand(4, 4, *size).contiguous()
        given = Batch(images=images, targets=torch.eye(4), importance=batch.importance)
        mixed = CoMixup(beta=0.05, gamma=0.1).plan(given, given, rng=rng(seed, "mix")).apply(given)
        torch.testing.assert_close(mixed.images.mean(dim=(2, 3)), mixed.targets, rtol=0, atol=1e-6)


def random_choice(mixer: CoMixup, *, rows: int = 12) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    worth = block_importance(torch.rand(rows, 1, 16, 16, generator=generator) ** 2, n=4)
    partner = torch.arange(rows).roll(1)
    number = candidates(partner, images=mixer.images, is_shared=True)
    prior = rng(0, "mix").dirichlet(np.full(mixer.images, mixer.alpha), size=rows)
    first = torch.randint(mixer.images, (rows, 4, 4), generator=generator)
    return {"cost": mixer.block_costs(worth, worth, number, number, prior=prior), "chosen": first, "number": number}


def test_turns_lower_the_objective() -> None:
    mixer = CoMixup(rounds=1)
    given = random_choice(mixer)
    values = [objective(mixer, given["cost"], given["chosen"], given["number"])]
    for _ in range(3):
        given["chosen"] = mixer.choose(**given)
        values.append(objective(mixer, given["cost"], given["chosen"], given["number"]))
    assert values[1] < values[0] - 1.0
    assert values[3] <= values[1] + 1e-3


def test_no_image_is_shown_much_oftener_than_others_where_diversity_counts() -> None:
    """One image matters more, by its prior, in all outputs; diversity keeps it from taking over."""
    rows = 12
    usage = {}
    for gamma in (0.0, 1.0):
        mixer = CoMixup(gamma=gamma, images=6)
        given = random_choice(mixer, rows=rows)
        given["cost"] = given["cost"] - (given["number"] == 0).float().T[:, :, None, None] * 0.2
        chosen = mixer.choose(**given)
        shown = given["number"].gather(1, chosen.flatten(1))
        usage[gamma] = int((shown == 0).sum())
    assert usage[0.0] > 4 * 16
    assert usage[1.0] < 2 * 16


def test_crowding_by_hand() -> None:
    number = torch.tensor([[0, 1], [1, 2], [2, 0]])
    chosen = torch.tensor([[[1, 1], [1, 1]], [[0, 0], [0, 1]], [[0, 1], [1, 1]]])
    # Image 0 is shown by output 2 thrice; image 1 by output 0 four times, by 1 thrice; image 2 by 1 and 2 once.
    assert CoMixup(tau=0.5).crowding(chosen, number).tolist() == [[3.0, 3.0], [4.0, 0.0], [0.0, 0.0]]
    assert CoMixup(tau=0.8).crowding(chosen, number).tolist() == [[0.0, 0.0], [4.0, 0.0], [0.0, 0.0]]


def test_candidates_of_a_pool() -> None:
    assert candidates(torch.tensor([7, 8, 9]), images=3, is_shared=False).tolist() == [[0, 7, 8], [1, 8, 9], [2, 9, 7]]


def test_an_image_is_chosen_under_one_number() -> None:
    """In a batch of two all candidates are one of two images; each has one number, so that the shares are its own."""
    batch = Batch(images=torch.rand(2, 3, 16, 16), targets=torch.eye(2), importance=torch.rand(2, 1, 16, 16) ** 4)
    for seed in range(8):
        plan = CoMixup(images=5, beta=0.0).plan(batch, batch, rng=rng(seed, "mix"))
        assert plan.others is not None
        rows = candidates(plan.partner, images=5, is_shared=True)
        for row in range(2):
            used = [0, 1][: 1 + int(rows[row, 0] != rows[row, 1])]
            weights = [plan.weight[row], None, *plan.others.weights[row]]
            assert all(
                float(weights[k]) == 0 for k in range(2, 5) if k not in used and int(rows[row, k]) in rows[row, used]
            )


@pytest.mark.parametrize(
    "settings",
    [{"images": 1}, {"grid": 0}, {"rounds": 0}, {"alpha": 0.0}, {"beta": -1.0}, {"tau": -0.1}, {"label": "mass"}],
)
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        CoMixup(**settings)
