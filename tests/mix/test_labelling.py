"""Labelling grids: exact on chains, near the optimum elsewhere, and the same for a grid alone or among others."""

from itertools import product

import numpy as np
import pytest
import torch
from tests.mix.exact_labelling import optimum

from raremix.mix.labelling import Problem, cost, potts, quadratic, solve


def random_problem(grids: int, n: int, m: int, levels: int, *, seed: int = 0, weight: float = 0.5) -> Problem:
    generator = torch.Generator().manual_seed(seed)
    unary = torch.rand(levels, grids, n, m, generator=generator)
    down = weight * torch.rand(grids, n - 1, m, generator=generator)
    right = weight * torch.rand(grids, n, m - 1, generator=generator)
    return Problem(unary=unary, down=down, right=right, distance=quadratic(levels))


def least(problem: Problem) -> np.ndarray:
    """Return the cost of the best of all labellings of each grid."""
    L, B, n, m = problem.unary.shape
    every = torch.tensor(list(product(range(L), repeat=n * m))).reshape(-1, n, m)
    costs = []
    for b in range(B):
        part = Problem(
            unary=problem.unary[:, b : b + 1].expand(-1, len(every), -1, -1),
            down=problem.down[b : b + 1].expand(len(every), -1, -1),
            right=problem.right[b : b + 1].expand(len(every), -1, -1),
            distance=problem.distance,
        )
        costs.append(float(cost(part, every).min()))
    return np.array(costs)


def optima(problem: Problem) -> torch.Tensor:
    unary, down, right = (part.double().numpy() for part in (problem.unary, problem.down, problem.right))
    labels = [optimum(unary[:, b], down[b], right[b]) for b in range(unary.shape[1])]
    return torch.from_numpy(np.stack(labels))


def test_cost_by_hand() -> None:
    problem = Problem(
        unary=torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]], [[[10.0, 20.0], [30.0, 40.0]]], [[[0.5, 0.5], [0.5, 0.5]]]]),
        down=torch.tensor([[[100.0, 200.0]]]),
        right=torch.tensor([[[1000.0], [2000.0]]]),
        distance=quadratic(3),
    )
    # Labels 0 1 / 2 0 in the cells: right pairs differ by one level and by two, lower ones by two and by one.
    expected = 1 + 20 + 0.5 + 4 + 1000 * 0.25 + 2000 * 1 + 100 * 1 + 200 * 0.25
    assert float(cost(problem, torch.tensor([[[0, 1], [2, 0]]]))) == pytest.approx(expected)


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_the_cut_is_the_best_of_all_labellings(levels: int) -> None:
    problem = random_problem(4, 2, 3, levels)
    np.testing.assert_allclose(cost(problem, optima(problem)).numpy(), least(problem), atol=1e-5)


@pytest.mark.parametrize("distance", [quadratic(3), potts(3)], ids=["quadratic", "potts"])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 6), (6, 1)])
def test_chains_are_labelled_exactly(n: int, m: int, distance: np.ndarray) -> None:
    """Messages on a graph without loops say the truth once they have gone from end to end."""
    drawn = random_problem(20, n, m, 3)
    problem = Problem(unary=drawn.unary, down=drawn.down, right=drawn.right, distance=distance)
    np.testing.assert_allclose(cost(problem, solve(problem)).numpy(), least(problem), atol=1e-5)


@pytest.mark.parametrize("levels", [2, 3, 5])
@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_costs_are_within_one_percent_of_the_optimum(n: int, levels: int) -> None:
    problem = random_problem(12, n, n, levels, seed=n)
    ours, exact = cost(problem, solve(problem)), cost(problem, optima(problem))
    assert bool((ours >= exact - 1e-3).all())
    assert float((ours / exact).mean()) < 1.01
    alone = problem.unary.sum(dim=(2, 3)).amin(dim=0)
    assert bool((ours <= alone + 1e-4).all())
    assert float((alone / exact).mean()) > 1.03, "an instance that one label solves says nothing"


def test_no_cell_can_better_itself_among_the_last_colour() -> None:
    """Without messages, and with many sweeps, coordinate descent ends where no cell's change helps."""
    problem = random_problem(3, 5, 4, 3)
    found = solve(problem, messages=1, sweeps=30)
    before = cost(problem, found)
    for y, x, label in product(range(5), range(4), range(3)):
        other = found.clone()
        other[:, y, x] = label
        assert bool((cost(problem, other) >= before - 1e-5).all())


def test_a_grid_does_not_depend_on_its_batch() -> None:
    problem = random_problem(7, 8, 5, 3)
    alone = Problem(
        unary=problem.unary[:, 2:3], down=problem.down[2:3], right=problem.right[2:3], distance=problem.distance
    )
    assert torch.equal(solve(problem)[2:3], solve(alone))


def test_nothing_is_written_to() -> None:
    problem = random_problem(2, 4, 4, 3)
    before = [part.clone() for part in (problem.unary, problem.down, problem.right)]
    solve(problem)
    for part, copy in zip((problem.unary, problem.down, problem.right), before, strict=True):
        assert torch.equal(part, copy)
