import numpy as np
import pytest
import torch
from torch import nn

from raremix.core.errors import ConfigError
from raremix.models.cosine import CosineHead
from raremix.models.last_layer import shift_logits


def test_logits_are_shifted_and_the_model_is_left_as_it_is() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    images = torch.rand(5, 1, 2, 2)
    before = net(images)
    offsets = np.array([1.0, -2.0, 0.0])
    torch.testing.assert_close(shift_logits(net, offsets)(images), before + torch.tensor(offsets, dtype=torch.float32))
    assert torch.equal(net(images), before)


def test_a_layer_without_a_bias_is_refused() -> None:
    for layer in (nn.Linear(4, 3, bias=False), CosineHead(4, 3)):
        net = nn.Sequential(nn.Flatten(), layer)
        net.get_classifier = lambda layer=layer: layer  # type: ignore[assignment]
        net.feature_info = []  # type: ignore[assignment]
        with pytest.raises(ConfigError, match="bias of a linear last layer"):
            shift_logits(net, np.zeros(3))
