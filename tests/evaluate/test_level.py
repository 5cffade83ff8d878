"""T2 and T7: how often are two equal arms called different, and would the test notice a wrong method?

Rejections at .05 among simulated nulls (rows: `pytest tests/evaluate/test_level.py -m slow -s`; the table in
docs/concepts/evidence.md comes from there).
"""

import sys
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import ttest_rel

from raremix.evaluate import ValidationRows, choose_thresholds, compare, decide, score
from raremix.evaluate.bootstrap import patients, replicate
from raremix.evaluate.sufficient import reduce_predictions

# 99 % acceptance bands for a true level of .05
BAND_500, BAND_2000 = (0.026, 0.076), (0.038, 0.063)
METRICS = ("balanced_accuracy", "auroc")
LARGE = {"patients": 400, "images": 1, "positives": 100}
CELLS = [(seeds, positives) for seeds in (3, 5) for positives in (12, 15)]


def p_compare(study, metric: str, number: int, **options) -> float:
    found = compare(
        study.targets,
        study.a,
        study.b,
        metric=metric,
        task="binary",
        groups=options.pop("groups", study.groups),
        resamples=400,
        seed=number,
        **options,
    )
    assert found.p is not None
    return found.p


def p_images(study, metric: str, number: int) -> float:
    """Mutation: images resampled as if each were a patient."""
    return p_compare(study, metric, number, groups=np.arange(len(study.groups)))


def p_seed_t_test(study, metric: str, number: int) -> float:
    """Mutation: a paired t-test over seeds on the one test set."""
    values = [[score(study.targets, seed, metric=metric, task="binary") for seed in arm] for arm in (study.a, study.b)]
    return float(ttest_rel(*values).pvalue)


def p_seeds_resampled(study, metric: str, number: int) -> float:
    """Mutation: seeds drawn with replacement like patients, as if three were enough for that."""
    who = patients(study.groups, study.targets)
    units = [
        reduce_predictions(
            study.targets,
            seed,
            decide(seed, task="binary"),
            task="binary",
            metrics=[metric],
            group=who.index,
            G=who.count,
            classes=[1],
        )
        for seed in (*study.a, *study.b)
    ]
    S = len(study.a)
    whole = np.array([unit.under(np.ones((1, who.count)))[metric][0, 0] for unit in units])
    drawn = replicate(units, who, resamples=400, seed=number)[metric][..., 0]
    shares = np.random.default_rng(number).multinomial(S, np.full(S, 1 / S), size=400) / S
    effect = (whole[:S] - whole[S:]).mean()
    away = np.abs((shares * (drawn[:, :S] - drawn[:, S:])).sum(axis=1) - effect)
    return (1 + (away >= abs(effect) - 1e-12).sum()) / 401


def p_patients_only(study, metric: str, number: int) -> float:
    """Mutation: a claim about recipes from patients alone."""
    return p_compare(study, metric, number, claim="weights")


def p_threshold_on_test(study, metric: str, number: int) -> float:
    """Mutation: one arm's thresholds come from the test rows."""
    tuned = [
        choose_thresholds(ValidationRows(targets=study.targets, outputs=seed, split="validation"), task="binary")
        for seed in study.a
    ]
    return p_compare(study, metric, number, thresholds_a=np.stack(tuned))


def level(simulate, method: Callable, *, studies: int, metrics=METRICS, **design) -> float:
    rejected = 0
    for number in range(studies):
        seeds, positives = CELLS[number % len(CELLS)]
        study = simulate(number, **{"seeds": seeds, "positives": positives, **design})
        rejected += method(study, metrics[number // len(CELLS) % len(metrics)], number) < 0.05
    return rejected / studies


def test_equal_arms_are_called_different_as_often_as_promised(simulate) -> None:
    assert BAND_500[0] <= level(simulate, p_compare, studies=500) <= BAND_500[1]


@pytest.mark.parametrize(
    ("mutation", "options"),
    [
        (p_images, {"arm_sd": 1.0, "seed_sd": 0.0}),
        (p_seed_t_test, {}),
        (p_patients_only, {"seed_sd": 0.6}),
        (p_seeds_resampled, {**LARGE, "seed_sd": 0.6}),
        (p_threshold_on_test, {"metrics": ("balanced_accuracy",)}),
    ],
    ids=["images", "seed-t-test", "patients-only", "seeds-resampled", "threshold-on-test"],
)
def test_the_level_test_notices_a_wrong_method(simulate, mutation, options) -> None:
    assert level(simulate, mutation, studies=160, **options) > BAND_500[1]


@pytest.mark.slow
def test_equal_arms_are_called_different_as_often_as_promised_2000(simulate) -> None:
    assert BAND_2000[0] <= level(simulate, p_compare, studies=2000) <= BAND_2000[1]


@pytest.mark.slow
@pytest.mark.parametrize("seed_sd", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("size", [{}, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("seeds", [3, 5])
def test_level_by_design(simulate, seeds, size, seed_sd, capsys) -> None:
    found = {
        method.__name__: level(simulate, method, studies=400, seeds=seeds, seed_sd=seed_sd, **size)
        for method in (p_compare, p_seeds_resampled, p_patients_only, p_seed_t_test)
    }
    with capsys.disabled():
        sys.stdout.write(f"\n{seeds} seeds, {size}, seed_sd {seed_sd}: {found}\n")
    # 99 % of 400 simulations of a true level of .06 lie below .095
    assert found["p_compare"] <= 0.095
