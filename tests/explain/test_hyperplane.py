"""Hyperplane difference maps, on a classifier and a way whose boundary is known."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from raremix.core.errors import ConfigError
from raremix.explain import ClassPath, hyperplane_maps, signed_distance


class LeftOrRight(nn.Module):
    """Two logits: the mean of the left half, and that of the right half."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.fc = nn.AdaptiveAvgPool2d((1, 2)), nn.Linear(2, 2)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([[4.0, 0.0], [0.0, 3.0]]))
            self.fc.bias.copy_(torch.tensor([0.0, 0.5]))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.pool(images.mean(dim=1, keepdim=True)).flatten(1))


@dataclass
class Moving:
    """Move brightness from the left to the right half; at 1 all of it."""

    reach: float = 1.0

    def along(self, images: Tensor, own: Tensor, other: Tensor, place: Tensor) -> Tensor:
        left, right = images.chunk(2, dim=3)
        moved = left * (place * self.reach)[:, None, None, None]
        return torch.cat([left - moved, right + moved], dim=3)


def images() -> Tensor:
    """Left halves of brightness .8 and .6."""
    made = torch.zeros(2, 3, 4, 8)
    made[0, :, :, :4], made[1, :, :, :4] = 0.8, 0.6
    return made


OWN, OTHER = torch.tensor([0, 0]), torch.tensor([1, 1])


def test_distances_by_hand() -> None:
    """(4 l - 3 r - .5) / |(4, -3)|."""
    found = signed_distance(LeftOrRight(), images(), own=OWN, other=OTHER)
    assert torch.allclose(found, torch.tensor([(4 * 0.8 - 0.5) / 5, (4 * 0.6 - 0.5) / 5]))
    assert torch.allclose(signed_distance(LeftOrRight(), images(), own=OTHER, other=OWN), -found)


def test_the_boundary_is_found_where_it_is() -> None:
    """4 l (1 - a) = 3 l a + .5, so a = (4 l - .5) / 7 l."""
    found = hyperplane_maps(LeftOrRight(), Moving(), images(), own=OWN, other=OTHER)
    expected = torch.tensor([(4 * l - 0.5) / (7 * l) for l in (0.8, 0.6)])  # noqa: E741
    assert found.is_reached.all()
    assert torch.allclose(found.place, expected, atol=1e-5)
    assert (found.residual < 1e-4).all()
    change = (torch.tensor([0.8, 0.6]) * expected)[:, None, None, None]
    assert torch.allclose(found.maps, change.expand(2, 1, 4, 8), atol=1e-4)


def test_where_the_boundary_is_not_reached_there_is_no_map() -> None:
    short = hyperplane_maps(LeftOrRight(), Moving(reach=0.2), images(), own=OWN, other=OTHER)
    assert not short.is_reached.any()
    assert short.maps.isnan().all()
    assert (short.place == 1).all()
    assert (short.residual > 0.1).all()
    wrong = hyperplane_maps(LeftOrRight(), Moving(), images(), own=OTHER, other=OWN)
    assert not wrong.is_reached.any()  # it starts on the other side


def test_the_network_is_left_as_it_was() -> None:
    model = LeftOrRight().train()
    hyperplane_maps(model, Moving(), images(), own=OWN, other=OTHER)
    assert model.training
    assert model.fc.weight.grad is None
    assert isinstance(Moving(), ClassPath)


def test_what_has_no_plane_is_refused() -> None:
    with pytest.raises(ConfigError, match="must differ"):
        signed_distance(LeftOrRight(), images(), own=OWN, other=OWN)

    class Curved(LeftOrRight):
        def get_classifier(self) -> nn.Module:
            return nn.Bilinear(2, 2, 2)

    with pytest.raises(ConfigError, match="linear last layer"):
        signed_distance(Curved(), images(), own=OWN, other=OTHER)
