"""Of a frozen classifier the last layer learns, and nothing else moves."""

import copy

import torch
from torch import nn

from raremix.train.checkpoint import plain_state
from raremix.train.frozen import Frozen


def test_steps_move_the_last_layer_alone() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.9), nn.Linear(48, 2))
    before = copy.deepcopy(net.state_dict())
    frozen = Frozen(net)
    frozen.eval()
    frozen.train()  # as after a validation
    optimizer = torch.optim.SGD((p for p in frozen.parameters() if p.requires_grad), lr=0.1)
    images = torch.rand(8, 1, 6, 6) * 5
    first = frozen(images)
    assert torch.equal(first, frozen(images)), "no dropout, and no batch statistics, in what is frozen"
    for _ in range(3):
        optimizer.zero_grad()
        frozen(images).square().mean().backward()
        optimizer.step()
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"4.weight", "4.bias"}
    assert not net[1].training
    assert net[4].training


def test_its_weights_go_back_into_the_classifier() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    other = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    Frozen(other).load_state_dict(plain_state(Frozen(net)))
    assert torch.equal(other[1].weight, net[1].weight)
