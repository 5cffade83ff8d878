"""A module of which a part is trained: what its state is, what a copy shares, what moves."""

import copy

import torch
from torch import nn

from raremix.generate.partly import Partly


def made() -> tuple[Partly, nn.Sequential]:
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5), nn.Linear(3, 1))
    return Partly(whole, lambda name: name == "2.weight"), whole


def test_its_state_is_what_is_trained() -> None:
    part, whole = made()
    assert list(part.state_dict()) == ["2/weight"]
    assert [name for name, p in whole.named_parameters() if p.requires_grad] == ["2.weight"]
    part.eval()
    part(torch.ones(1, 2)).sum().backward()
    assert [name for name, p in whole.named_parameters() if p.grad is not None] == ["2.weight"]
    part.load_state_dict({"2/weight": torch.full((1, 3), 2.0)})
    assert whole[2].weight.tolist() == [[2.0] * 3], "the module's own values"


def test_a_copy_has_values_of_its_own_and_shares_the_rest() -> None:
    part, whole = made()
    average = copy.deepcopy(part).requires_grad_(False).eval()
    assert part.training, "the original goes on training"
    assert whole.training
    assert next(part.parameters()).requires_grad
    assert average.whole is whole
    x, before = torch.ones(1, 2), part.eval()(torch.ones(1, 2))
    part.train()
    with torch.no_grad():
        whole[2].weight.add_(1.0)
    assert torch.equal(average(x), before)
    assert whole.training, "and is left as it was"
    assert not torch.equal(part.eval()(x), before)
    again = copy.deepcopy(average)
    assert torch.equal(again(x), before)


def test_the_rest_moves_along() -> None:
    part, whole = made()
    part.to(torch.float64)
    assert {p.dtype for p in whole.parameters()} == {torch.float64}
    assert next(part.parameters()) is whole[2].weight
