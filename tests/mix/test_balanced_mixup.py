"""Balanced-MixUp: the natural image keeps nearly all, the balanced one gets alpha / (1 + alpha) on average."""

import pytest
import torch

from raremix.core.errors import ConfigError
from raremix.core.random import rng
from raremix.core.types import Batch, Stream, Streams
from raremix.mix import BalancedMixUp


def test_hand_computed_blend() -> None:
    natural, balanced = torch.zeros(3, 1, 2, 2), torch.ones(3, 1, 2, 2)
    stream = rng(0, "mix")
    stream.permutation(3)
    kept = torch.from_numpy(stream.beta(1.0, 0.2, size=3)).float()
    images, targets = BalancedMixUp(alpha=0.2)(
        natural,
        torch.tensor([[1.0, 0.0]]).expand(3, 2),
        pool=(balanced, torch.tensor([[0.0, 1.0]]).expand(3, 2)),
        rng=rng(0, "mix"),
    )
    torch.testing.assert_close(images, (1 - kept)[:, None, None, None].expand(3, 1, 2, 2))
    torch.testing.assert_close(targets, torch.stack([kept, 1 - kept], dim=1))


@pytest.mark.parametrize("alpha", [0.1, 0.3, 1.0])
def test_the_balanced_share_is_beta_of_alpha_and_one(alpha: float) -> None:
    """P(b <= t) = t^alpha: the distribution function of Beta(alpha, 1)."""
    batch = Batch(images=torch.zeros(20_000, 1, 1, 1), targets=torch.zeros(20_000, 1))
    share = 1 - BalancedMixUp(alpha=alpha).plan(batch, batch, rng=rng(1, "mix")).weight.double()
    assert float(share.mean()) == pytest.approx(alpha / (1 + alpha), abs=0.01)
    for bound in (0.01, 0.1, 0.5, 0.9):
        assert float((share <= bound).double().mean()) == pytest.approx(bound**alpha, abs=5 * (0.25 / 20_000) ** 0.5)


def test_streams() -> None:
    expected = Streams(own=Stream(sampling="natural"), pool=Stream(sampling="balanced"))
    assert BalancedMixUp().streams == expected


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"probability": -0.1}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        BalancedMixUp(**settings)
