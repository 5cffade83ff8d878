"""What a plan gives up to keep a time limit, in the order of the table of rules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from raremix.study.recommend.fingerprint import Fingerprint
from raremix.study.recommend.rules import Rules
from raremix.study.recommend.shape import Shape, seconds_per_image, shape_of, total_minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Something that was given up for the time limit.

    Attributes:
        what: in words, from what to what.
        cost: what it costs the evidence.
        minutes: what the plan takes after it.
    """

    what: str
    cost: str
    minutes: float


def fit_to_limit(
    f: Fingerprint,
    shape: Shape,
    rules: Rules,
    *,
    minutes: float | None,
    arms: Callable[[Shape], tuple[str, ...]] = lambda shape: shape.arms,
) -> tuple[Shape, tuple[Cut, ...]]:
    """Give things up, in the order of the table, until the plan takes no longer than the limit.

    Args:
        f: the fingerprint.
        shape: what the rules ask for.
        rules: the table.
        minutes: the limit; None keeps everything.
        arms: the arms of a shape, since some depend on the number of steps.

    Returns:
        The plan, and what was given up. A plan that is too long after all cuts is returned as it is then.
    """
    if minutes is None:
        return shape, ()
    allowed = minutes * (1 - rules["F3"]["margin"])
    whole = shape

    def after(made: Sequence[str]) -> tuple[Shape, tuple[Cut, ...]]:
        return _give_up(f, whole, rules, made, arms=arms)

    made: list[str] = []
    for cut in rules.cuts:
        while total_minutes(f, shape, rules) > allowed:
            changed = after([*made, cut.id])[0]
            if changed == shape:
                break
            shape, made = changed, [*made, cut.id]
    # A later cut may have made an earlier one needless; the later ones cost the evidence most, so they go first.
    for place in reversed(range(len(made))):
        others = made[:place] + made[place + 1 :]
        if total_minutes(f, after(others)[0], rules) <= allowed:
            made = others
    return after(made)


def _give_up(
    f: Fingerprint,
    shape: Shape,
    rules: Rules,
    made: Sequence[str],
    *,
    arms: Callable[[Shape], tuple[str, ...]],
) -> tuple[Shape, tuple[Cut, ...]]:
    """Make cuts by name, one after the other; one that changes nothing is left out."""
    cost = {cut.id: cut.cost for cut in rules.cuts}
    told: dict[str, Cut] = {}
    dropped: set[str] = set()
    for name in made:
        changed = _CUTS[name](f, shape, rules)
        if changed is None:
            continue
        smaller, what = changed
        dropped |= set(shape.arms) - set(smaller.arms)
        # Fewer steps repeat rare images less often, which may bring an arm back; not where arms are given up.
        found = tuple(arm for arm in arms(smaller) if arm not in dropped and (not dropped or arm in smaller.arms))
        shape = replace(smaller, arms=found)
        key = f"{name} {len(told)}" if name in _REPEATED else name
        told[key] = Cut(what=what, cost=cost[name] + _evidence_cost(f, name), minutes=total_minutes(f, shape, rules))
    return shape, tuple(told.values())


Change = tuple[Shape, str]

_WORTH = 0.8
"""Share of an image's time that half the side must not exceed to be worth its cost."""


def _without_second(f: Fingerprint, shape: Shape, rules: Rules) -> Change | None:
    if shape.second is None:
        return None
    return replace(shape, second=None), f"no second configuration at {shape.second} px"


def _one_rate(f: Fingerprint, shape: Shape, rules: Rules) -> Change | None:
    if len(shape.rates) == 1:
        return None
    return replace(shape, rates=shape.rates[:1]), f"{len(shape.rates)} learning rates per arm become 1"


def _fewer_steps(share: int) -> Callable[[Fingerprint, Shape, Rules], Change | None]:
    def cut(f: Fingerprint, shape: Shape, rules: Rules) -> Change | None:
        whole = shape_of(f, rules).steps
        steps = max(20, whole // share)
        return None if shape.steps <= steps else (replace(shape, steps=steps), f"{shape.steps} steps become {steps}")

    return cut


def _screening_seeds(f: Fingerprint, shape: Shape, rules: Rules) -> Change | None:
    seeds = rules["R16"]["screen"]
    return None if shape.seeds <= seeds else (replace(shape, seeds=seeds), f"{shape.seeds} seeds become {seeds}")


def _smaller_images(f: Fingerprint, shape: Shape, rules: Rules) -> Change | None:
    size, known = shape.size // 2, f.seconds_per_image
    # A network for small images may have another stem, and be no faster.
    if seconds_per_image(known, size) > _WORTH * seconds_per_image(known, shape.size):
        return None
    if size < rules["R4"]["pretrained_least" if shape.weights else "scratch_least"]:
        return None
    return replace(shape, size=size), f"images of {shape.size} px become {size} px"


def _fewer_arms(f: Fingerprint, shape: Shape, rules: Rules) -> Change | None:
    # Two arms are the least that a comparison has.
    if len(shape.arms) <= 2:
        return None
    return replace(shape, arms=shape.arms[:-1]), f"the arm {shape.arms[-1]} is not run"


def _fewer_validations(f: Fingerprint, shape: Shape, rules: Rules) -> Change | None:
    least = rules["F2"]["least_validations"]
    if shape.validations <= least:
        return None
    words = f"{shape.validations} looks at the validation images in each run become {least}"
    return replace(shape, validations=least), words


def _smaller_batches(f: Fingerprint, shape: Shape, rules: Rules) -> Change | None:
    if shape.batch_size <= rules["R6"]["least"]:
        return None
    half = shape.batch_size // 2
    return replace(shape, batch_size=half), f"batches of {shape.batch_size} images become {half}"


def _no_folds(f: Fingerprint, shape: Shape, rules: Rules) -> Change | None:
    if shape.folds is None or f.holdout is None:
        return None
    return replace(shape, folds=None), f"{shape.folds} folds become one split"


def _evidence_cost(f: Fingerprint, cut: str) -> str:
    if cut != "no folds" or f.holdout is None:
        return ""
    metric = "auroc" if f.task == "multilabel" else "balanced_accuracy"
    before, after = (evidence.decidable.get(metric) for evidence in (f.pooled, f.holdout))
    if before is None or after is None:
        return ""
    return f"; the smallest decidable difference grows from {100 * before:.1f} to {100 * after:.1f} points"


_REPEATED = ("fewer arms", "smaller images", "smaller batches")
"""Cuts that can be made more than once."""

_CUTS: dict[str, Callable[[Fingerprint, Shape, Rules], Change | None]] = {
    "second configuration": _without_second,
    "fewer validations": _fewer_validations,
    "grid": _one_rate,
    "half the steps": _fewer_steps(2),
    "screening seeds": _screening_seeds,
    "smaller images": _smaller_images,
    "fewer arms": _fewer_arms,
    "quarter of the steps": _fewer_steps(4),
    "no folds": _no_folds,
    "smaller batches": _smaller_batches,
    "an eighth of the steps": _fewer_steps(8),
    "a sixteenth of the steps": _fewer_steps(16),
}
