"""FunctionMap refuses what would mislead a mixer."""

import pytest
import torch
from torch import Tensor

from raremix.core.errors import DataError
from raremix.explain import FunctionMap

IMAGES, TARGETS = torch.rand(2, 3, 4, 5), torch.zeros(2, 1)


def returning(maps: object, **settings: bool) -> Tensor:
    return FunctionMap(function=lambda images, targets: maps, **settings)(IMAGES, TARGETS)  # type: ignore[arg-type]


def test_maps_in_range_pass_unchanged_whatever_their_size() -> None:
    maps = torch.rand(2, 1, 7, 3)
    assert torch.equal(returning(maps), maps)
    assert torch.equal(returning(maps[:, 0]), maps)
    assert returning(maps.half()).dtype == torch.float32
    assert returning(maps.requires_grad_()).requires_grad is False
    assert torch.equal(returning(torch.tensor([[[0, 1]], [[1, 0]]])).flatten(), torch.tensor([0.0, 1.0, 1.0, 0.0]))


def test_rescales_each_map_by_itself() -> None:
    maps = torch.tensor([[[-1.0, 0.0, 3.0]], [[5.0, 5.0, 5.0]]])
    assert returning(maps, rescale=True).flatten().tolist() == [0, 0.25, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ("map", "str"),
        (torch.rand(2, 3, 4, 5), r"\(2, 3, 4, 5\)"),
        (torch.rand(1, 1, 4, 5), r"\(1, 1, 4, 5\)"),
        (torch.rand(4, 5), r"\(4, 5\)"),
        (torch.rand(2, 1, 0, 5), r"\(2, 1, 0, 5\)"),
        (torch.full((2, 1, 2, 2), float("nan")), "finite"),
        (torch.full((2, 1, 2, 2), float("inf")), "finite"),
        (2 * torch.ones(2, 1, 2, 2), "rescale=True"),
        (-torch.ones(2, 1, 2, 2), "rescale=True"),
    ],
)
def test_says_what_is_wrong(maps: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        returning(maps)
