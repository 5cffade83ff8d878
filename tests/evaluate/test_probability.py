"""Probabilities after rebalancing: right again on images as they come, at any stated prevalence, ranking untouched."""

import numpy as np
import pytest
from scipy.special import expit, log_softmax, logit, softmax

from raremix.core.errors import ConfigError, DataError, HeldOutError
from raremix.evaluate import ValidationRows, score
from raremix.evaluate.probability import Probabilities, check_known, fit_probabilities, stated_prevalence

TASKS = ("binary", "multiclass", "multilabel")


def rebalanced(task: str, *, n: int = 6000, seed: int = 0, shares: tuple[float, ...] = (0.9, 0.08, 0.02)):
    """Rows as frequent as `shares`; logits, twice too sharp, as if the classes were equally frequent."""
    rng = np.random.default_rng(seed)
    if task == "multilabel":
        prior = np.array([0.3, 0.05, 0.01])
        targets = (rng.random((n, 3)) < prior).astype(float)
        evidence = rng.normal(size=(n, 3)) + 2.0 * targets - 1.0  # log likelihood ratio is 2 x
        return targets, 2.0 * (2.0 * evidence)
    K = 2 if task == "binary" else 3
    prior = np.array(shares[:K]) / sum(shares[:K])
    truth = rng.choice(K, n, p=prior)
    x = rng.normal(size=(n, K)) + 1.5 * np.eye(K)[truth]
    return np.eye(K)[truth], 2.0 * (1.5 * x)


def rows(targets: np.ndarray, logits: np.ndarray) -> ValidationRows:
    return ValidationRows(targets=targets, outputs=logits, split="validation")


@pytest.mark.parametrize("task", TASKS)
def test_what_rebalancing_did_is_undone(task) -> None:
    targets, logits = rebalanced(task)
    found = fit_probabilities(rows(targets, logits), task=task, shifts=True)
    assert found.temperature == pytest.approx(2.0, rel=0.1), "they were twice too sharp"
    new_targets, new_logits = rebalanced(task, seed=1)
    plain = fit_probabilities(rows(targets, logits), task=task, shifts=False)
    before, after = plain.of(new_logits, task=task), found.of(new_logits, task=task)
    for metric in ("brier", "log_loss", "ece"):
        worse, better = (score(new_targets, p, metric=metric, task=task) for p in (before, after))
        assert better < worse, metric
    assert score(new_targets, after, metric="calibration_slope", task=task) == pytest.approx(1.0, abs=0.15)
    assert score(new_targets, after, metric="calibration_intercept", task=task) == pytest.approx(0.0, abs=0.2)
    assert abs(score(new_targets, before, metric="calibration_intercept", task=task) or 0) > 0.4


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_auroc_stays_to_the_bit(task) -> None:
    targets, logits = rebalanced(task, n=800)
    raw = expit(logits) if task == "multilabel" else softmax(logits, axis=1)
    found = fit_probabilities(rows(targets, logits), task=task, shifts=True)
    deployed = (0.99, 0.01) if task == "binary" else (0.5, 0.2, 0.001)
    for said in (found.of(logits, task=task), found.of(logits, task=task, deployed=deployed)):
        for metric in ("auroc", "average_precision"):
            assert score(targets, said, metric=metric, task=task) == pytest.approx(
                score(targets, raw, metric=metric, task=task), rel=1e-12
            )


@pytest.mark.parametrize("task", TASKS)
def test_a_stated_prevalence_is_that_of_images_drawn_at_it(task) -> None:
    """Thin the test images to another prevalence: probabilities that were told so are right again."""
    targets, logits = rebalanced(task, n=20_000)
    found = fit_probabilities(rows(targets, logits), task=task, shifts=True)
    new_targets, new_logits = rebalanced(task, n=60_000, seed=2)
    last = new_targets[:, -1] == 1
    keep = last | (np.random.default_rng(0).random(len(last)) < 0.2)
    shares = new_targets[keep].mean(axis=0)
    stated = tuple(float(s) for s in (shares / shares.sum() if task != "multilabel" else shares))
    said = found.of(new_logits[keep], task=task, deployed=stated)
    natural = found.of(new_logits[keep], task=task)
    options = {"metric": "calibration_intercept", "task": task, "labels": [new_targets.shape[1] - 1]}
    assert score(new_targets[keep], said, **options) == pytest.approx(0.0, abs=0.15)
    assert score(new_targets[keep], natural, **options) > 1.0, "five times as frequent as was said"


def test_the_fit_is_the_maximum() -> None:
    targets, logits = rebalanced("multiclass", n=500)
    found = fit_probabilities(rows(targets, logits), task="multiclass", shifts=True)

    def loss(temperature: float, offsets: np.ndarray) -> float:
        said = log_softmax(logits / temperature + offsets, axis=1)
        return -float((said * targets).sum()) + 0.05 * float(offsets @ offsets)

    best = loss(found.temperature, np.array(found.offsets))
    rng = np.random.default_rng(0)
    for _ in range(50):
        near = loss(found.temperature * np.exp(rng.normal(0, 0.05)), np.array(found.offsets) + rng.normal(0, 0.05, 3))
        assert near >= best - 1e-9


def test_a_class_without_validation_images_stays_finite_and_unlabelled_cells_do_not_count() -> None:
    targets, logits = rebalanced("multiclass", n=400)
    keep = targets[:, 2] == 0
    found = fit_probabilities(rows(targets[keep], logits[keep]), task="multiclass", shifts=True)
    assert np.isfinite(found.offsets).all()
    assert found.prevalence[2] == 0
    with pytest.raises(DataError, match="0% of the validation images show c"):
        check_known(found.prevalence, classes=("a", "b", "c"))
    targets, logits = rebalanced("multilabel", n=400)
    holes = targets.copy()
    holes[::3, 1] = np.nan
    some = fit_probabilities(rows(holes, logits), task="multilabel", shifts=True)
    changed = logits.copy()
    changed[::3, 1] = 77.0
    again = fit_probabilities(rows(holes, changed), task="multilabel", shifts=True)
    assert again.offsets == pytest.approx(some.offsets, abs=1e-4)


def test_a_plain_classifier_keeps_its_classes_where_they_are() -> None:
    targets, logits = rebalanced("binary")
    found = fit_probabilities(rows(targets, logits), task="binary", shifts=False)
    assert found.offsets == (0.0, 0.0)
    with pytest.raises(HeldOutError, match="validation rows only"):
        ValidationRows(targets=targets, outputs=logits, split=["test"] * len(targets))


def test_by_hand() -> None:
    at = Probabilities(temperature=2.0, offsets=(0.0, float(np.log(3))), prevalence=(0.25, 0.75))
    even = np.zeros((1, 2))
    assert at.of(even, task="binary")[0] == pytest.approx([0.25, 0.75])
    assert at.of(even, task="binary", deployed=(0.9, 0.1))[0] == pytest.approx([0.9, 0.1])
    assert at.of(2 * np.log([[2.0, 1.0]]), task="binary")[0] == pytest.approx([0.4, 0.6])
    alone = at.of(np.full((1, 2), 4.0), task="multilabel", deployed=(0.25, 0.5))
    assert logit(alone[0]) == pytest.approx([2.0, 2.0 + np.log(3) - np.log(3)])


@pytest.mark.parametrize(
    ("stated", "task", "words"),
    [
        ({"d": 0.1}, "multiclass", "prevalence of d"),
        ({"a": 1.0}, "multilabel", "above 0 and below 1"),
        ({"a": 0.5}, "multiclass", "name all classes, or all but one"),
        ({"a": 0.5, "b": 0.4, "c": 0.2}, "multiclass", "sum to 1, and these to 1.1"),
        ({"a": 0.7, "b": 0.4}, "multiclass", "without c"),
    ],
)
def test_what_is_no_prevalence_is_refused(stated: dict[str, float], task, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        stated_prevalence(stated, classes=("a", "b", "c"), task=task, prevalence=(0.5, 0.3, 0.2))


def test_what_is_left_out_is_filled_in() -> None:
    asked = {"classes": ("a", "b", "c"), "prevalence": (0.5, 0.3, 0.2)}
    assert stated_prevalence({}, task="multiclass", **asked) is None
    assert stated_prevalence({"a": 0.5, "c": 0.2}, task="multiclass", **asked) == pytest.approx((0.5, 0.3, 0.2))
    assert stated_prevalence({"c": 0.01}, task="multilabel", **asked) == (0.5, 0.3, 0.01)
