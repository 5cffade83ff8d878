"""The share that rows keep: moments, also where numpy's sampler goes through its small-parameter branch."""

import pytest
from scipy import stats

from raremix.core.random import rng
from raremix.mix.strength import kept_share


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 3.0])
def test_share_follows_beta(alpha: float) -> None:
    share = kept_share(5000, alpha=alpha, rng=rng(0, "mix"))
    # The lower half: close to 1 a double cannot tell draws apart that it can close to 0.
    low = share[share < 0.5]
    assert abs(len(low) - 2500) < 5 * 1250**0.5
    assert stats.kstest(low, lambda x: 2 * stats.beta(alpha, alpha).cdf(x)).pvalue > 1e-3
