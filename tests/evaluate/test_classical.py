"""Second opinions against published numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raremix.core.errors import DataError
from raremix.evaluate import (
    benjamini_hochberg,
    cochran_q,
    holm,
    mcnemar,
    nadeau_bengio,
    probability_false_claim,
)

CLOSE = 1e-9


class TestMcNemar:
    def test_large_table(self) -> None:
        found = mcnemar(121, 59)
        assert found.exact == pytest.approx(4.43444926375517e-06, rel=CLOSE)
        assert found.chi2 == pytest.approx(21.3555555555556, rel=CLOSE)
        assert found.p_chi2 == pytest.approx(3.8151358651e-06, rel=CLOSE)
        assert found.chi2_corrected == pytest.approx(20.6722222222222, rel=CLOSE)
        assert found.p_corrected == pytest.approx(5.4500948254e-06, rel=CLOSE)
        assert found.mid_p == pytest.approx(3.26664679577e-06, rel=CLOSE)

    def test_moderate_tables(self) -> None:
        found = mcnemar(70, 59)
        assert found.exact == pytest.approx(0.37868766, rel=1e-7)
        assert found.chi2 == pytest.approx(0.93798450, rel=1e-7)
        assert found.chi2_corrected == pytest.approx(0.77519380, rel=1e-7)
        assert found.mid_p == pytest.approx(0.33468776, rel=1e-7)
        assert mcnemar(80, 59).exact == pytest.approx(0.08945232, rel=1e-6)
        assert mcnemar(10, 30).exact == pytest.approx(0.00222143, rel=1e-5)

    @pytest.mark.parametrize(
        ("b", "c", "exact", "mid"), [(2, 9, 0.0654296875, 0.03857421875), (0, 6, 0.03125, 0.015625), (0, 0, 1, 1)]
    )
    def test_small_tables(self, b, c, exact, mid) -> None:
        found = mcnemar(b, c)
        assert (found.exact, found.mid_p) == pytest.approx((exact, mid), rel=1e-12)

    @given(st.integers(0, 200), st.integers(0, 200))
    def test_is_symmetric_and_a_probability(self, b: int, c: int) -> None:
        found, swapped = mcnemar(b, c), mcnemar(c, b)
        assert found.exact == swapped.exact
        assert found.chi2 == swapped.chi2
        assert 0 <= found.mid_p <= found.exact <= 1


class TestCochran:
    def test_published_tables(self) -> None:
        first = "1011 0111 1110 0100 0100 1010 0100 1111 0100"
        second = "00110 01010 01101 10001 11000 10100 01000 00110 00000"
        for table, q, degrees, rel in [(first, 4.2, 3, CLOSE), (second, 1.2174, 4, 1e-4)]:
            right = np.array([[c == "1" for c in row] for row in table.split()])
            found = cochran_q(right)
            assert found[0] == pytest.approx(q, rel=rel)
            assert found[1] == degrees

    def test_of_two_arms_is_mcnemar(self) -> None:
        right = np.random.default_rng(0).random((60, 2)) < [0.7, 0.5]
        only_a, only_b = int((right[:, 0] & ~right[:, 1]).sum()), int((~right[:, 0] & right[:, 1]).sum())
        q, _, p = cochran_q(right)
        assert q == pytest.approx(mcnemar(only_a, only_b).chi2, rel=1e-12)
        assert p == pytest.approx(mcnemar(only_a, only_b).p_chi2, rel=1e-12)

    def test_arms_that_agree_everywhere(self) -> None:
        assert cochran_q(np.ones((5, 3), dtype=bool)) == (0.0, 2, 1.0)


class TestCorrections:
    def test_published(self) -> None:
        np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02], rtol=1e-12)
        np.testing.assert_allclose(benjamini_hochberg([0.01, 0.04, 0.03, 0.005]), [0.02, 0.04, 0.04, 0.02], rtol=1e-12)

    @given(st.lists(st.floats(0, 1), max_size=12))
    def test_order_and_bounds(self, p: list[float]) -> None:
        values, strict, lax = np.array(p), holm(p), benjamini_hochberg(p)
        assert (values <= lax + 1e-12).all()
        assert (lax <= strict + 1e-12).all()
        assert (strict <= np.minimum(values * len(p), 1) + 1e-12).all()
        order = np.argsort(values)
        assert (np.diff(strict[order]) >= 0).all()
        assert (np.diff(lax[order]) >= 0).all()


class TestNadeauBengio:
    A, B = np.array([0.81, 0.83, 0.80, 0.85, 0.82]), np.array([0.79, 0.80, 0.80, 0.81, 0.80])

    def test_by_hand(self) -> None:
        found = nadeau_bengio(self.A - self.B, test_share=0.25)
        assert found.t == pytest.approx(2.211083193570267, rel=CLOSE)
        assert found.p == pytest.approx(0.0915156853, rel=CLOSE)
        assert nadeau_bengio(self.A - self.B, test_share=0).t == pytest.approx(3.316624790355400, rel=CLOSE)

    def test_correlated_posterior(self) -> None:
        """baycomp: mean 1, variance 16 (1/3 + 1/2), two degrees of freedom."""
        found = nadeau_bengio(np.array([5.0, 7, 3]) - np.array([4.0, 2, 6]), test_share=0.5)
        assert (found.mean, found.degrees) == (1.0, 2)
        assert (found.mean / found.t) ** 2 == pytest.approx(16 * (1 / 3 + 1 / 2), rel=CLOSE)

    def test_scikit_learn_example(self) -> None:
        from sklearn.datasets import make_moons
        from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
        from sklearn.svm import SVC

        images, targets = make_moons(noise=0.352, random_state=1, n_samples=100)
        folds = RepeatedStratifiedKFold(n_splits=10, n_repeats=10, random_state=0)
        by_kernel = {
            kernel: cross_val_score(SVC(kernel=kernel), images, targets, cv=folds, scoring="roc_auc")
            for kernel in ("rbf", "linear")
        }
        differences = by_kernel["rbf"] - by_kernel["linear"]
        found = nadeau_bengio(differences, test_share=1 / 9, rope=0.01)
        assert found.t == pytest.approx(0.7503126954, rel=CLOSE)
        assert found.p / 2 == pytest.approx(0.2274229710, rel=CLOSE)
        assert found.probability_equal == pytest.approx(0.4316824583, rel=CLOSE)
        assert nadeau_bengio(differences, test_share=1 / 9).probability_better == pytest.approx(0.7725770290, rel=CLOSE)
        naive = nadeau_bengio(differences, test_share=0)
        assert (naive.t, naive.p / 2) == pytest.approx((2.6111648393, 0.0052130132), rel=1e-8)

    def test_without_spread(self) -> None:
        assert nadeau_bengio(np.zeros(5), test_share=0.25).p == 1.0
        assert nadeau_bengio(np.full(5, 0.5), test_share=0.25).p == 0.0
        with pytest.raises(DataError):
            nadeau_bengio(np.zeros(1), test_share=0.25)


class TestFalseClaim:
    @pytest.mark.parametrize(
        ("n", "a", "b", "both", "expected"),
        [
            (100, 0.85, 0.83, 0.78, 0.29052734375),
            (1000, 0.85, 0.84, 0.80, 0.14723489228),
            (624, 0.90, 0.89, 0.86, 0.1753448797),
        ],
    )
    def test_published(self, n, a, b, both, expected) -> None:
        assert probability_false_claim(n, a, b, both) == pytest.approx(expected, rel=CLOSE)

    def test_impossible_shares(self) -> None:
        with pytest.raises(DataError):
            probability_false_claim(100, 0.8, 0.7, 0.75)
