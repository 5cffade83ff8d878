"""Tau-normalisation: lengths by hand, and what is left alone."""

import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.models import ClassifierSpec, HeadSpec
from raremix.models.tau_normalise import tau_normalise


@pytest.mark.parametrize(("tau", "lengths"), [(0.0, [4.0, 1.0, 9.0]), (0.5, [2.0, 1.0, 3.0]), (1.0, [1.0, 1.0, 1.0])])
def test_lengths_by_hand(tau: float, lengths: list[float]) -> None:
    model = ClassifierSpec(name="resnet10t", stem="standard").build(num_classes=3, channels=3, size=32, seed=0).eval()
    with torch.no_grad():
        model.net.fc.weight.copy_(torch.zeros(3, 512).index_fill(1, torch.tensor([0]), 1.0))  # type: ignore[union-attr, operator]
        model.net.fc.weight.mul_(torch.tensor([[4.0], [1.0], [9.0]]))  # type: ignore[union-attr, operator]
        model.net.fc.bias.fill_(7.0)  # type: ignore[union-attr, operator]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = tau_normalise(model, tau=tau).requires_grad_(False)
    assert other.net.fc.weight.norm(dim=1).tolist() == pytest.approx(lengths)  # type: ignore[union-attr, operator]
    assert float(other.net.fc.bias.abs().max()) == 0  # type: ignore[union-attr, operator]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.load_state_dict(other.state_dict())
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(model(images), other(images)), "its weights fit the network that it came from"


def test_what_has_no_lengths_is_refused() -> None:
    model = ClassifierSpec(name="resnet10t", stem="standard", head=HeadSpec(name="cosine")).build(
        num_classes=3, channels=3, size=32, seed=0
    )
    with pytest.raises(ConfigError, match="linear last layer, and this one is a CosineHead"):
        tau_normalise(model)
    with pytest.raises(ConfigError, match="tau must lie"):
        tau_normalise(model, tau=2.0)
