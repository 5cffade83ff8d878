"""T4 and T5: what a comparison must not depend on, what it refuses, and what it says."""

import dataclasses

import numpy as np
import pytest

from raremix.core.errors import ConfigError, DataError, UnknownNameError
from raremix.evaluate import METRICS, compare, score
from raremix.evaluate.metrics import PROBABILITY_FAMILIES
from raremix.evaluate.seeds import Spread, deviations, seed_draws, spread


@pytest.fixture(scope="module")
def study(simulate):
    return simulate(1, positives=20, seeds=3)


def run(study, a=None, b=None, **options):
    settings = {"metric": "auroc", "task": "binary", "groups": study.groups, "resamples": 400, **options}
    return compare(study.targets, study.a if a is None else a, study.b if b is None else b, **settings)


RANKING = [name for name, metric in METRICS.items() if metric.ideal is None]


def numbers(found) -> tuple:
    return found.effect, found.low, found.high, found.p, found.probability_better


def test_what_is_best_in_the_middle_ranks_nothing(study) -> None:
    for metric in ("calibration_slope", "calibration_intercept"):
        with pytest.raises(ConfigError, match=r"neither more nor less of it is better.*take brier"):
            run(study, metric=metric)


def test_probabilities_move_metrics_of_probabilities_alone(study) -> None:
    halves = np.full_like(study.a, 0.5)
    for metric in RANKING:
        plain, other = run(study, metric=metric), run(study, metric=metric, probabilities_a=halves)
        assert (plain.value_a != other.value_a) == (METRICS[metric].family in PROBABILITY_FAMILIES), metric
        assert plain.value_b == other.value_b


class TestInvariance:
    @pytest.mark.parametrize("metric", RANKING)
    @pytest.mark.parametrize("combine", ["metric", "scores"])
    def test_exchanged_arms_mirror_everything(self, study, metric: str, combine) -> None:
        there = run(study, metric=metric, combine=combine)
        back = run(study, study.b, study.a, metric=metric, combine=combine)
        assert numbers(back)[:4] == (-there.effect, -there.high, -there.low, there.p)
        assert back.probability_better == pytest.approx(1 - there.probability_better, abs=1e-12)

    @pytest.mark.parametrize("metric", RANKING)
    def test_order_of_the_rows(self, study, metric: str) -> None:
        order = np.random.default_rng(0).permutation(len(study.groups))
        mixed = dataclasses.replace(
            study,
            targets=study.targets[order],
            groups=study.groups[order],
            a=study.a[:, order],
            b=study.b[:, order],
        )
        assert numbers(run(mixed, metric=metric)) == numbers(run(study, metric=metric))

    def test_order_of_the_classes(self) -> None:
        rng = np.random.default_rng(0)
        targets = np.eye(3)[np.repeat([0, 1, 2], [60, 25, 15])]
        arms = rng.dirichlet(np.ones(3), size=(2, 3, 100)) * 0.7 + 0.3 * targets
        order = [2, 0, 1]
        options = {"task": "multiclass", "groups": np.arange(100), "resamples": 400}
        for metric in ("balanced_accuracy", "auroc", "mcc", "g_mean", "accuracy", "f1"):
            first = compare(targets, arms[0], arms[1], metric=metric, **options)
            second = compare(targets[:, order], arms[0][..., order], arms[1][..., order], metric=metric, **options)
            assert numbers(second) == numbers(first)

    def test_monotone_scores(self, study) -> None:
        def squeeze(scores: np.ndarray) -> np.ndarray:
            return scores**3 / (scores**3 + (1 - scores) ** 3)

        assert numbers(run(study, squeeze(study.a), squeeze(study.b))) == numbers(run(study))

    def test_names_of_the_patients(self, study) -> None:
        names = np.array([f"patient {g:04d}" for g in study.groups])
        assert numbers(run(study, groups=names)) == numbers(run(study))

    @pytest.mark.parametrize("claim", ["recipe", "weights"])
    @pytest.mark.parametrize("metric", ["auroc", "f1", "log_loss"])
    def test_identical_arms(self, study, metric: str, claim) -> None:
        found = run(study, b=study.a, metric=metric, claim=claim)
        assert (found.effect, found.p, found.probability_better) == (0.0, 1.0, 0.5)
        assert found.low <= 0 <= found.high


class TestAnswer:
    def test_effect_is_the_difference_of_the_means(self, study) -> None:
        found = run(study, metric="f1")
        assert found.value_a == pytest.approx(score(study.targets, study.a, metric="f1", task="binary"))
        assert found.effect == found.value_a - found.value_b
        assert (found.n, found.groups, found.positives, found.seeds) == (len(study.groups), 60, 20, 3)
        assert (found.claim, found.note) == ("recipe", "")

    @pytest.mark.parametrize("number", range(12))
    def test_interval_and_p_never_disagree(self, simulate, number: int) -> None:
        other = simulate(number, positives=20, signal=2.0)
        stronger = np.clip(other.a + 0.15 * (other.targets - 0.5), 0, 1)
        found = run(other, stronger, metric="auroc", seed=number)
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)

    def test_finds_a_large_difference(self, simulate) -> None:
        study = simulate(1, positives=30, seeds=5, seed_sd=0.1)
        better = 0.4 * study.a + 0.6 * study.targets
        for metric, sign in [("auroc", 1), ("brier", -1), ("balanced_accuracy", 1)]:
            found = run(study, better, metric=metric)
            assert found.p < 0.01
            assert np.sign(found.effect) == sign
            assert found.probability_better > 0.99

    def test_a_claim_about_weights_is_narrower(self, study) -> None:
        recipe, weights = run(study), run(study, claim="weights")
        assert weights.effect == recipe.effect
        assert weights.high - weights.low < recipe.high - recipe.low

    def test_thresholds_count(self, study) -> None:
        low = run(study, metric="sensitivity", thresholds_a=np.array([0.9, 0.1]))
        assert low.value_a > run(study, metric="sensitivity").value_a
        per_seed = run(study, metric="sensitivity", thresholds_a=np.tile([0.9, 0.1], (3, 1)))
        assert numbers(per_seed) == numbers(low)

    def test_other_patients_would_be_drawn_with_another_seed(self, study) -> None:
        assert run(study, seed=1).p != run(study, seed=2).p
        assert numbers(run(study, seed=1)) == numbers(run(study, seed=1))

    def test_some_classes_only(self) -> None:
        rng = np.random.default_rng(0)
        targets = np.eye(3)[np.repeat([0, 1, 2], [100, 50, 20])]
        arms = rng.dirichlet(np.ones(3), size=(2, 3, 170)) * 0.7 + 0.3 * targets
        found = compare(
            targets,
            arms[0],
            arms[1],
            metric="sensitivity",
            task="multiclass",
            groups=np.arange(170),
            labels=[2],
            resamples=200,
        )
        expected = score(targets, arms[0], metric="sensitivity", task="multiclass", labels=[2])
        assert found.value_a == pytest.approx(expected)
        assert found.positives == 20

    def test_scores_averaged_before_the_metric(self, study) -> None:
        found = run(study, combine="scores")
        assert found.value_a == score(study.targets, study.a.mean(axis=0), metric="auroc", task="binary")
        assert found.p is not None

    def test_arms_of_unequal_numbers_of_seeds(self, study, simulate) -> None:
        more = simulate(1, positives=20, seeds=5)
        b = np.concatenate([study.b, study.b[:2]])
        assert len(more.b) == len(b)
        assert run(study, b=b).seeds == 3
        with pytest.raises(DataError, match="as many seeds"):
            run(study, b=b, paired_seeds=True)

    def test_one_set_of_weights(self, study) -> None:
        found = run(study, study.a[0], study.b[0], claim="weights")
        assert found.seeds == 1
        assert found.p is not None

    def test_unlabelled_cells(self) -> None:
        rng = np.random.default_rng(0)
        targets = (rng.random((300, 2)) < [0.4, 0.2]).astype(float)
        targets[rng.random((300, 2)) < 0.3] = np.nan
        arms = np.clip(rng.random((2, 3, 300, 2)) * 0.7 + 0.3 * np.nan_to_num(targets), 0, 1)
        found = compare(
            targets, arms[0], arms[1], metric="auroc", task="multilabel", groups=np.arange(300), resamples=200
        )
        assert found.n == int((~np.isnan(targets)).any(axis=1).sum())
        assert found.p is not None


class TestRefusal:
    def test_two_seeds_say_nothing_about_a_recipe(self, study) -> None:
        found = run(study, study.a[:2], study.b[:2])
        assert found.effect is not None
        assert (found.low, found.high, found.p, found.probability_better) == (None, None, None, None)
        assert found.note.startswith("2 seeds: a claim about a recipe needs 3")
        assert run(study, study.a[:2], study.b[:2], claim="weights").p is not None

    def test_nine_positive_patients_are_not_ranked(self, simulate) -> None:
        few, enough = simulate(0, positives=9), simulate(0, positives=10)
        assert run(few).p is None
        assert "9 patients of the rarest class" in run(few).note
        assert run(enough).p is not None

    def test_images_of_few_patients_do_not_help(self, simulate) -> None:
        found = run(simulate(0, positives=5, images=20))
        assert found.positives == 5
        assert found.p is None

    def test_rarest_class_counts_where_it_is_averaged(self) -> None:
        targets = np.eye(3)[np.repeat([0, 1, 2], [100, 50, 4])]
        arms = np.random.default_rng(0).dirichlet(np.ones(3), size=(2, 3, 154))
        options = {"task": "multiclass", "groups": np.arange(154), "resamples": 200}
        assert compare(targets, arms[0], arms[1], metric="balanced_accuracy", **options).p is None
        assert compare(targets, arms[0], arms[1], metric="accuracy", **options).p is not None
        common = compare(targets, arms[0], arms[1], metric="sensitivity", labels=[0, 1], **options)
        assert (common.p is not None, common.positives) == (True, 50)

    def test_undefined(self) -> None:
        found = compare(
            np.ones((40, 1)),
            np.full((3, 40, 1), 0.5),
            np.full((3, 40, 1), 0.5),
            metric="auroc",
            task="multilabel",
            groups=np.arange(40),
        )
        assert (found.value_a, found.effect, found.p) == (None, None, None)
        assert "undefined" in found.note

    def test_unknown_metric(self, study) -> None:
        with pytest.raises(UnknownNameError):
            run(study, metric="accurracy")


class TestSeeds:
    def test_what_patients_bring_already_is_not_counted_twice(self) -> None:
        rng = np.random.default_rng(0)
        noise = rng.normal(size=(4000, 3))
        found = spread(np.array([0.0, 1.0, 2.0]), noise)
        assert found.variance == pytest.approx(1 / 3)
        assert found.known == pytest.approx(1 / 3, rel=0.05)
        # the variance of a mean of three seeds is bounded below by 0, so nothing can be taken away twice
        assert (deviations(Spread(variance=1e-9, known=1.0, degrees=2.0), seed_draws(500, seed=0)) == 0).all()

    def test_deviations_follow_student(self) -> None:
        drawn = deviations(Spread(variance=1.0, known=0.0, degrees=4.0), seed_draws(40_000, seed=0))
        assert np.quantile(drawn, [0.025, 0.5, 0.975]) == pytest.approx([-2.776, 0, 2.776], abs=0.08)

    def test_two_arms_add_up(self) -> None:
        one, two = Spread(variance=1.0, known=0.5, degrees=2.0), Spread(variance=3.0, known=0.0, degrees=2.0)
        assert one.plus(two) == Spread(variance=4.0, known=0.5, degrees=4.0)
        more = Spread(variance=3.0, known=0.0, degrees=4.0)
        assert one.plus(more).degrees == pytest.approx(16 / (1 / 2 + 9 / 4))
        assert one.plus(more) == more.plus(one)
