"""What a test set can decide, against published figures and against comparisons themselves; and the bands."""

import numpy as np
import pytest

from raremix.core.errors import DataError
from raremix.evaluate import (
    SEEDS_AVERAGED,
    SINGLE_RUNS,
    bands,
    compare,
    decidable_difference,
    explain_bands,
    half_width,
)

LESIONS = np.array([4323, 583, 491, 264, 183, 80, 60])
"""HAM10000, one image per lesion."""


def one_per_lesion(share: float) -> np.ndarray:
    return np.eye(7)[np.repeat(np.arange(7), np.round(LESIONS * share).astype(int))]


class TestDecidable:
    @pytest.mark.parametrize(
        ("share", "disagreement", "points"),
        [(0.2, SINGLE_RUNS, 5.8), (1.0, SINGLE_RUNS, 2.6), (0.2, SEEDS_AVERAGED, 4.1), (1.0, SEEDS_AVERAGED, 1.8)],
    )
    def test_skin_lesions(self, share: float, disagreement: float, points: float) -> None:
        targets = one_per_lesion(share)
        found = decidable_difference(
            targets, groups=np.arange(len(targets)), task="multiclass", disagreement=disagreement
        )
        assert found.difference is not None
        assert round(100 * found.difference, 1) == pytest.approx(points, abs=0.051)
        assert found.positives == round(60 * share)

    @pytest.mark.parametrize(("accuracy", "n", "points"), [(0.524, 400, 4.9), (0.854, 624, 2.8), (0.735, 2005, 1.9)])
    def test_published_test_sets(self, accuracy: float, n: int, points: float) -> None:
        assert round(100 * half_width(accuracy, n), 1) == points

    def test_agrees_with_the_comparison_it_foretells(self) -> None:
        """Two arms that disagree on a fifth of each class: the comparison's interval is as wide as was foretold."""
        targets = one_per_lesion(0.3)
        n = len(targets)
        within = np.concatenate([np.arange(count) for count in targets.sum(axis=0).astype(int)])
        flip = np.stack([within % 10 == 0, within % 10 == 5])
        wrong = np.roll(targets, 1, axis=1)
        arms = [np.where(f[:, None], wrong, targets) for f in flip]
        foretold = decidable_difference(targets, groups=np.arange(n), task="multiclass", disagreement=0.2)
        found = compare(
            targets,
            arms[0],
            arms[1],
            metric="balanced_accuracy",
            task="multiclass",
            groups=np.arange(n),
            claim="weights",
            resamples=2000,
        )
        assert (found.high - found.low) / 2 == pytest.approx(foretold.difference, rel=0.12)

    def test_area_agrees_with_the_comparison_it_foretells(self) -> None:
        rng = np.random.default_rng(0)
        truth = np.arange(1000) < 200
        alike = np.cos(np.pi * 0.2)
        shared = rng.standard_normal(1000)
        arms = []
        for _ in range(2):
            latent = np.sqrt(alike) * shared + np.sqrt(1 - alike) * rng.standard_normal(1000) + 1.466 * truth
            positive = 1 / (1 + np.exp(-latent))
            arms.append(np.stack([1 - positive, positive], axis=1))
        options = {"groups": np.arange(1000), "task": "binary"}
        targets = np.eye(2)[truth.astype(int)]
        found = compare(targets, arms[0], arms[1], metric="auroc", claim="weights", resamples=2000, **options)
        foretold = decidable_difference(targets, metric="auroc", **options)
        assert (found.high - found.low) / 2 == pytest.approx(foretold.difference, rel=0.2)

    def test_patients_count_and_not_images(self) -> None:
        targets = np.repeat(np.eye(2)[np.arange(100) % 2], 10, axis=0)
        found = decidable_difference(targets, groups=np.arange(1000) // 10, task="binary")
        assert found.groups == 100
        assert found.difference == pytest.approx(1.96 * np.sqrt((0.2 / 50 + 0.2 / 50) / 4), rel=1e-3)

    @pytest.mark.parametrize(
        "metric", ["accuracy", "sensitivity", "specificity", "balanced_accuracy", "youden_j", "auroc"]
    )
    @pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
    def test_smaller_with_less_disagreement_and_more_patients(self, metric: str, task) -> None:
        def ask(times: int, disagreement: float) -> float:
            targets = np.tile(np.eye(2), (times, 1))
            found = decidable_difference(
                targets, groups=np.arange(len(targets)), task=task, metric=metric, disagreement=disagreement
            )
            assert found.difference is not None
            return found.difference

        assert ask(50, 0.1) < ask(50, 0.2)
        assert ask(200, 0.2) == pytest.approx(ask(50, 0.2) / 2, rel=0.02)

    def test_says_why_not(self) -> None:
        targets = np.eye(2)[(np.arange(40) < 5).astype(int)]
        few = decidable_difference(targets, groups=np.arange(40), task="binary")
        assert "5 patients of the rarest class" in few.note
        assert few.difference is not None
        assert decidable_difference(targets, groups=np.arange(40), task="binary", metric="ece").difference is None
        alone = decidable_difference(np.eye(2)[np.zeros(9, int)], groups=np.arange(9), task="binary")
        assert (alone.difference, alone.note) == (None, "no class has both positive and negative patients")
        with pytest.raises(DataError):
            decidable_difference(targets, groups=np.arange(40), task="binary", disagreement=0.0)


class TestBands:
    @pytest.mark.parametrize(
        ("counts", "expected"),
        [
            ([500, 101, 100, 20, 19, 1], "hhmmtt"),
            ([4323, 583, 491, 264, 183, 110], "hmmttt"),
            ([18, 9, 4, 2], "hhtt"),
            ([60, 55, 50], "hhh"),
            ([1214, 3494], "th"),
            ([5, 0], "ht"),
            ([0, 0], "hh"),
        ],
    )
    def test_bands(self, counts: list[int], expected: str) -> None:
        assert "".join(band[0] for band in bands(np.array(counts))) == expected

    def test_rarer_is_never_nearer_to_the_head(self) -> None:
        rng = np.random.default_rng(0)
        for _ in range(200):
            counts = np.sort(np.exp(rng.uniform(0, 9, size=rng.integers(2, 15))).astype(int))[::-1]
            found = [["head", "medium", "tail"].index(band) for band in bands(counts)]
            assert found == sorted(found)

    def test_explanations(self) -> None:
        assert "more than 100" in explain_bands(np.array([500, 50, 5]))
        assert "thirds" in explain_bands(np.array([5000, 500]))
        assert "no class is rare" in explain_bands(np.array([60, 50]))
