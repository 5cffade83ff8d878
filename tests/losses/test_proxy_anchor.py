"""Proxy-Anchor: the paper's formula on columns, the same on rows, and cosines taken back from logits."""

import numpy as np
import pytest
import torch
from tests.contract.loss_promises import example

from raremix.core.errors import ConfigError
from raremix.losses import ProxyAnchor
from raremix.losses.proxy_anchor import distances, proxy_anchor
from raremix.models import PrototypeHead


def written_out(cosines: np.ndarray, is_positive: np.ndarray, *, margin: float = 0.1, sharpness: float = 32.0) -> float:
    """Equation 4 of the paper, proxies in columns."""
    pull, push = [], []
    for c in range(cosines.shape[1]):
        near, far = cosines[is_positive[:, c], c], cosines[~is_positive[:, c], c]
        if len(near):
            pull.append(np.log(1 + np.exp(-sharpness * (near - margin)).sum()))
        push.append(np.log(1 + np.exp(sharpness * (far + margin)).sum()))
    return float(np.mean(pull) + np.mean(push))


def test_it_is_the_papers_formula_both_ways() -> None:
    generator = torch.Generator().manual_seed(0)
    cosines, is_positive = 0.5 * torch.rand(6, 4, generator=generator), torch.rand(6, 4, generator=generator) < 0.3
    arrays = cosines.double().numpy(), is_positive.numpy()
    expected = (written_out(*arrays) + written_out(*(a.T for a in arrays))) / 2
    assert float(proxy_anchor(cosines, is_positive.float())) == pytest.approx(expected, rel=1e-5)


def test_hand_computed_case() -> None:
    """A negative at cosine -margin: log(1 + e^0), both ways."""
    assert float(proxy_anchor(torch.full((1, 1), -0.1), torch.zeros(1, 1))) == pytest.approx(np.log(2), rel=1e-6)


def test_cosines_come_back_from_a_heads_logits() -> None:
    torch.manual_seed(0)
    head = PrototypeHead(5, 4, scale=3.0, margin=0.7)
    features, targets = torch.randn(6, 5), (example()[1] > 0.25).float()
    images = torch.nn.functional.normalize(head.of_images(features), dim=1)
    cosines = images @ head.points().T
    torch.testing.assert_close(1 - distances(head(features), head.scale, head.margin) / 2, cosines)
    loss = ProxyAnchor(mu=0.0)
    torch.testing.assert_close(
        loss.with_head(head(features), targets, head=head), proxy_anchor(cosines, targets), rtol=1e-4, atol=1e-5
    )


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="sharpness > 0"):
        ProxyAnchor(sharpness=0.0)
