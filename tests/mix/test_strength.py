"""The share that rows keep: moments, also where numpy's sampler goes through its small-parameter branch."""

import numpy as np
import pytest
from scipy import stats

from raremix.core.random import rng
from raremix.mix.strength import kept_share


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 3.0])
def test_share_follows_beta(alpha: float) -> None:
    share = kept_share(5000, alpha=alpha, probability=1.0, rng=rng(0, "mix"))
    # The lower half: close to 1 a double cannot tell draws apart that it can close to 0.
    low = share[share < 0.5]
    assert abs(len(low) - 2500) < 5 * 1250**0.5
    assert stats.kstest(low, lambda x: 2 * stats.beta(alpha, alpha).cdf(x)).pvalue > 1e-3


def test_rows_that_are_not_mixed_keep_all() -> None:
    share = kept_share(4000, alpha=1.0, probability=0.25, rng=rng(0, "mix"))
    assert float(np.mean(share < 1)) == pytest.approx(0.25, abs=0.035)
