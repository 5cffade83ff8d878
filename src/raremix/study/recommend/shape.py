"""The numbers of a plan: what the rules ask for, and what it costs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from raremix.models import usual_learning_rate
from raremix.study.recommend.fingerprint import Evidence, Fingerprint
from raremix.study.recommend.rules import Rules
from raremix.study.recommend.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a plan's cost depends on.

    Attributes:
        size: side of the images in pixels.
        second: side of the second configuration's images, or None.
        weights: pretrained weights, or None for a network from scratch.
        batch_size, steps: of every arm.
        seeds: how many.
        folds: how many, or None for one split.
        validations: how often a run scores its validation images.
        rates: learning rates of the grid; the first is the plan's own.
        arms: names of the recipes, before the grid multiplies them.
    """

    size: int
    second: int | None
    weights: Weights | None
    batch_size: int
    steps: int
    seeds: int
    folds: int | None
    validations: int
    rates: tuple[float, ...]
    arms: tuple[str, ...]

    @property
    def runs(self) -> int:
        """Number of classifiers to train."""
        return len(self.arms) * len(self.rates) * self.seeds * (self.folds or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a plan takes on this machine.

    Attributes:
        seconds_per_step: measured, by the side of the images.
        minutes_per_run: training and scoring of one classifier.
        minutes: of all, reading the images once included, the second configuration not counted.
        second_minutes: of the second configuration; 0 where there is none.
    """

    seconds_per_step: float
    minutes_per_run: float
    minutes: float
    second_minutes: float


def first_size(side: int, *, has_weights: bool, accelerated: bool, rules: Rules) -> int:
    """Return the side of the plan's images: R4's, and no more than the native side but where weights ask for it.

    Args:
        side: native side in pixels; 0 where nothing could be read.
        has_weights: whether pretrained weights are at hand.
        accelerated: whether there is an accelerator; without one, a network from scratch begins at the smaller size.
        rules: the table.

    Example:
        >>> from raremix.study.recommend.rules import read_rules
        >>> first_size(1024, has_weights=True, accelerated=False, rules=read_rules())
        224
    """
    rule = rules["R4"]
    if has_weights:
        return max(rule["pretrained_least"], min(rule["pretrained"], side or rule["pretrained"]))
    wanted = rule["scratch"] if accelerated else rule["scratch_least"]
    return max(rule["least"], min(wanted, side or wanted))


def shape_of(f: Fingerprint, rules: Rules, *, arms: tuple[str, ...] = ()) -> Shape:
    """Return the numbers that the rules ask for.

    Args:
        f: the fingerprint.
        rules: the table.
        arms: names of the recipes.
    """
    weights = chosen_weights(f, rules)
    size = first_size(f.side, has_weights=weights is not None, accelerated=f.accelerated, rules=rules)
    folds = folds_of(f, rules)
    train = evidence_of(f, folds).images[0]
    batch = batch_size_of(train, rules)
    network = weights.name if weights else rules["R5"]["network"]
    rate = usual_learning_rate(network, fine_tuned=weights is not None)
    return Shape(
        size=size,
        second=second_size(f, size, rules),
        weights=weights,
        batch_size=batch,
        steps=steps_of(train, batch, has_weights=weights is not None, rules=rules),
        seeds=rules["R16"]["claim"],
        folds=folds,
        validations=rules["F2"]["validations"],
        rates=tuple(rate * factor for factor in rules["R10"]["factors"]),
        arms=arms,
    )


def chosen_weights(f: Fingerprint, rules: Rules) -> Weights | None:
    """Return the first weights at hand that are not too large for so few images (R5)."""
    rule = rules["R5"]
    return next((w for w in f.weights if f.images >= rule["small_set"] or w.parameters <= rule["parameters"]), None)


def folds_of(f: Fingerprint, rules: Rules) -> int | None:
    """Return the number of folds, or None for one split, by the rarest class that can be scored at all (R1)."""
    rule = rules["R1"]
    scored = scored_classes(f, rules)
    if not f.can_fold:
        return None
    if f.holdout is None:
        return rule["folds"]
    # A class with one group would be in test only in one of the folds, and nothing could learn it.
    if f.holdout is None or not scored or min((count for count in f.class_groups if count), default=0) < 2:
        return None
    fewest = min(f.holdout.test[k] for k in scored)
    return rule["folds"] if fewest < rule["with_intervals"] and f.groups >= 2 * rule["folds"] else None


def scored_classes(f: Fingerprint, rules: Rules) -> tuple[int, ...]:
    """Return the classes with enough groups, over all rows, to be scored."""
    return tuple(k for k, count in enumerate(f.class_groups) if count >= rules["R1"]["pooled"])


def evidence_of(f: Fingerprint, folds: int | None) -> Evidence:
    """Return what a way of testing can show."""
    return f.holdout if folds is None and f.holdout is not None else f.pooled


def batch_size_of(train: int, rules: Rules) -> int:
    """Return the largest power of two within R6's bounds.

    Example:
        >>> from raremix.study.recommend.rules import read_rules
        >>> [batch_size_of(n, read_rules()) for n in (50, 700, 100_000)]
        [8, 32, 64]
    """
    rule = rules["R6"]
    allowed = min(rule["most"], max(rule["least"], train * rule["share"]))
    return 2 ** int(math.log2(allowed))


def steps_of(train: int, batch: int, *, has_weights: bool, rules: Rules) -> int:
    """Return the steps of every arm: a number of epochs within bounds (R7)."""
    rule = rules["R7"]
    epochs = rule["epochs_pretrained" if has_weights else "epochs_scratch"]
    steps = min(rule["most"], max(rule["least"], epochs * train / batch))
    return int(round(steps, -1))


def second_size(f: Fingerprint, size: int, rules: Rules) -> int | None:
    """Return the side of R4's second configuration, or None where the rule does not hold."""
    rule = rules["R4"]
    small = f.lesion_area is not None and f.lesion_area < rule["lesion_area"]
    if f.side >= rule["factor"] * size and (small or f.modality in rule["modalities"]):
        return rule["factor"] * size
    return None


def rarest_in_training(f: Fingerprint) -> int:
    """Return about how many training images the rarest class that has any would have."""
    train = evidence_of(f, None).images[0]
    return round(min((count for count in f.class_images if count), default=0) * train / max(f.images, 1))


def repeats(f: Fingerprint, shape: Shape) -> float:
    """Return how often an image of the rarest class would be shown under balanced sampling (R7)."""
    images = evidence_of(f, shape.folds).images[0]
    present = [count for count in f.class_images if count]
    rare = max(1.0, min(present, default=1) * images / max(f.images, 1))
    return shape.steps * shape.batch_size / max(len(present), 1) / rare


def cost_of(f: Fingerprint, shape: Shape, rules: Rules) -> Cost:
    """Return what a plan takes: steps x arms x seeds x folds, the scoring of held-out images, and what is done once."""
    run, once = _run_seconds(f, shape, shape.size), _once_seconds(f, shape, rules)
    second = 0.0 if shape.second is None else (_run_seconds(f, shape, shape.second) * shape.runs + once) / 60
    return Cost(
        seconds_per_step=_step_seconds(f, shape, shape.size),
        minutes_per_run=run / 60,
        minutes=(run * shape.runs + once) / 60,
        second_minutes=second,
    )


def seconds_per_image(measured: Mapping[int, float], size: int) -> float:
    """Return the measured time at the nearest size, scaled by the number of pixels; 0 where nothing was measured.

    Example:
        >>> seconds_per_image({64: 0.01, 128: 0.03}, 256)
        0.12
    """
    if not measured:
        return 0.0
    nearest = min(measured, key=lambda known: abs(math.log(known / size)))
    return measured[nearest] * (size / nearest) ** 2


def _step_seconds(f: Fingerprint, shape: Shape, size: int) -> float:
    return f.seconds_per_step + seconds_per_image(f.seconds_per_image, size) * shape.batch_size


def _run_seconds(f: Fingerprint, shape: Shape, size: int) -> float:
    _, validation, test = evidence_of(f, shape.folds).images
    scored = validation * (shape.validations + 1) + test
    scoring = seconds_per_image(f.seconds_per_image, size) * scored * f.scoring_share
    return shape.steps * _step_seconds(f, shape, size) + scoring + f.seconds_per_run


def _once_seconds(f: Fingerprint, shape: Shape, rules: Rules) -> float:
    """Return what is done once: reading the images, and the intervals of the report."""
    if not f.seconds_per_image:
        return 0.0
    return f.seconds_to_read + rules["F3"]["report_seconds"]


def total_minutes(f: Fingerprint, shape: Shape, rules: Rules) -> float:
    """Return the minutes of a plan and of its second configuration."""
    cost = cost_of(f, shape, rules)
    return cost.minutes + cost.second_minutes
