"""Transport: blocks trade places by twos, all are kept, and what is shown grows by more than the moves cost."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from raremix.core.pixels import all_rows
from raremix.mix.transport import plan_swaps, swap_blocks


def random_maps(rows: int, n: int, *, seed: int = 0, power: int = 3) -> torch.Tensor:
    maps = torch.rand(rows, n, n, generator=torch.Generator().manual_seed(seed)) ** power
    return maps / maps.sum(dim=(1, 2), keepdim=True)


def costs(importance: torch.Tensor, is_shown: torch.Tensor, *, eta: float) -> np.ndarray:
    """Return what it costs to put each block into each place, as in the paper: distance minus what is shown."""
    rows, n, _ = importance.shape
    y, x = np.divmod(np.arange(n * n), n)
    away = ((y[:, None] - y) ** 2 + (x[:, None] - x) ** 2) / (n - 1) ** 2
    exposed = importance.reshape(rows, -1, 1).double().numpy() * is_shown.reshape(rows, 1, -1).numpy()
    return eta * away - exposed


def places(swaps: torch.Tensor, rows: int, n: int) -> np.ndarray:
    """Return the place of each block."""
    found = np.tile(np.arange(n * n), (rows, 1))
    for row, one, other in swaps.T.tolist():
        found[row, [one, other]] = found[row, [other, one]]
    return found


@pytest.mark.parametrize("n", [2, 4, 8])
@pytest.mark.parametrize("eta", [0.1, 0.4])
def test_nearly_all_that_moving_can_gain_is_gained(n: int, eta: float) -> None:
    """Against the best permutation of all, which may also move blocks in rings."""
    importance, is_shown = (
        random_maps(30, n, power=6),
        torch.rand(30, n, n, generator=torch.Generator().manual_seed(1)) < 0.5,
    )
    table = costs(importance, is_shown, eta=eta)
    swaps = plan_swaps(importance, is_shown, eta=eta)
    blocks = np.arange(n * n)
    ours = np.array([one[blocks, to].sum() for one, to in zip(table, places(swaps, 30, n), strict=True)])
    stay = table[:, blocks, blocks].sum(axis=1)
    best = np.array([one[linear_sum_assignment(one)].sum() for one in table])
    assert (ours <= stay + 1e-6).all()
    assert (stay - ours).sum() >= 0.9 * (stay - best).sum() > 0


def test_a_block_trades_places_once_at_most_and_from_hidden_to_shown() -> None:
    importance, is_shown = random_maps(9, 8), torch.rand(9, 8, 8) < 0.5
    row, hidden, shown = plan_swaps(importance, is_shown, eta=0.05)
    assert len(row) > 20
    assert not bool(is_shown.flatten(1)[row, hidden].any())
    assert bool(is_shown.flatten(1)[row, shown].all())
    moved = torch.cat([row * 64 + hidden, row * 64 + shown])
    assert len(moved.unique()) == len(moved)


def test_nothing_moves_where_it_does_not_pay() -> None:
    importance = random_maps(3, 4)
    assert plan_swaps(importance, torch.ones(3, 4, 4, dtype=torch.bool), eta=0.0).shape == (3, 0)
    assert plan_swaps(importance, torch.rand(3, 4, 4) < 0.5, eta=1e6).shape == (3, 0)
    assert plan_swaps(importance[:, :1, :1], torch.ones(3, 1, 1, dtype=torch.bool), eta=0.1).shape == (3, 0)


@pytest.mark.parametrize(("height", "width"), [(8, 12), (9, 14), (4, 4)])
def test_blocks_trade_places(height: int, width: int) -> None:
    images = torch.rand(3, 2, height, width)
    swaps = torch.tensor([[1], [2], [13]])  # second image: row 0, column 2 with row 3, column 1
    moved = swap_blocks(images, all_rows(3), swaps, n=4)
    h, w = height // 4, width // 4
    rows, columns = [-(-(2 * i * height - 4) // 8) for i in range(4)], [-(-(2 * i * width - 4) // 8) for i in range(4)]
    expected = images.clone()
    one, other = (
        np.s_[rows[0] : rows[0] + h, columns[2] : columns[2] + w],
        np.s_[rows[3] : rows[3] + h, columns[1] : columns[1] + w],
    )
    expected[1, :, *one], expected[1, :, *other] = images[1, :, *other], images[1, :, *one]
    assert torch.equal(moved, expected)
    assert torch.equal(moved.flatten(2).sort(dim=2).values, images.flatten(2).sort(dim=2).values)


def test_moved_blocks_carry_gradients_and_keep_the_layout() -> None:
    images = torch.rand(2, 3, 8, 8).requires_grad_()
    swaps = torch.tensor([[0, 1], [0, 3], [5, 9]])
    moved = swap_blocks(images, all_rows(2), swaps, n=4)
    weights = torch.rand(2, 3, 8, 8)
    (gradient,) = torch.autograd.grad((moved * weights).sum(), images)
    assert torch.equal(gradient, swap_blocks(weights, all_rows(2), swaps, n=4))  # a swap undoes itself
    last = images.detach().contiguous(memory_format=torch.channels_last)
    assert swap_blocks(last, all_rows(2), swaps, n=4).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(
        swap_blocks(last, all_rows(2), swaps, n=4), swap_blocks(images.detach(), all_rows(2), swaps, n=4)
    )
