"""From a fingerprint and the rules to a plan: decisions with their reasons, and an ordinary study."""

import importlib
import importlib.util
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

from raremix.config import Table, override
from raremix.core.errors import RaremixError, UsageError
from raremix.data.samplers import SAMPLERS
from raremix.generate import GENERATORS
from raremix.losses import LOSS_COMBINATIONS, LOSSES
from raremix.mix import COMBINATIONS, LEARNED_MIXERS, MIXERS
from raremix.models import ClassifierSpec, HeadSpec
from raremix.study.arm_table import ArmSpec
from raremix.study.recommend.decisions import Decision, decide_all
from raremix.study.recommend.fingerprint import Fingerprint
from raremix.study.recommend.guess import Guess
from raremix.study.recommend.limit import Cut, fit_to_limit
from raremix.study.recommend.rules import ArmRule, Rules
from raremix.study.recommend.shape import (
    Cost,
    Shape,
    chosen_weights,
    cost_of,
    evidence_of,
    rarest_in_training,
    repeats,
    shape_of,
)
from raremix.study.spec import parse_study


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedArm:
    """An arm of a plan.

    Attributes:
        table: as it stands in the study file.
        rule: which rule asks for it.
        words: what it does.
        source: who found it.
        generator: the [[generator]] table that it needs, where it needs one.
    """

    table: Table
    rule: str
    words: str
    source: str
    generator: Table = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A study with its reasons.

    Attributes:
        fingerprint: what it was made for.
        shape: its numbers.
        decisions: one per rule.
        arms: the recipes, with every trial of the grid.
        offered: recipes that stand in the file as comments.
        left_out: arms that are not in the plan, with the reason.
        cuts: what was given up for the time limit.
        limit: the time limit in minutes, or None.
        cost: what it takes.
        metric: the primary metric.
        decidable: smallest paired difference that can be decided, and of which metric; None where there is none.
        note: what forbids a ranking of the arms; "" if nothing does.
        study: the study's tables, as the file has them.
    """

    fingerprint: Fingerprint
    shape: Shape
    decisions: tuple[Decision, ...]
    arms: tuple[PlannedArm, ...]
    offered: tuple[PlannedArm, ...]
    left_out: Mapping[str, str]
    cuts: tuple[Cut, ...]
    limit: float | None
    cost: Cost
    metric: str
    decidable: tuple[str, float] | None
    note: str
    study: Table

    @property
    def is_within_limit(self) -> bool:
        """Whether the time limit is kept."""
        return self.limit is None or self.cost.minutes + self.cost.second_minutes <= self.limit


def minutes_of(text: str) -> float:
    """Read a time such as 2h, 90m, 1h30m, 1d or 45 (minutes).

    Raises:
        UsageError: if it is no such time.

    Example:
        >>> minutes_of("1h30m"), minutes_of("45")
        (90.0, 45.0)
    """
    whole = re.fullmatch(
        r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m?(?:in)?)?", text.strip().lower()
    )
    days, hours, minutes = (float(part or 0) for part in whole.groups()) if whole else (0.0, 0.0, 0.0)
    total = days * 1440 + hours * 60 + minutes
    if not total > 0:
        raise UsageError(f"--time-limit {text}: expected a time such as 2h, 90m or 1h30m")
    return total


def make_plan(
    f: Fingerprint,
    guess: Guess,
    rules: Rules,
    *,
    name: str,
    minutes: float | None = None,
    settings: Sequence[str] = (),
) -> Plan:
    """Make the plan; reads no data and draws nothing.

    Args:
        f: the fingerprint.
        guess: the [data] table and its reasons.
        rules: the table of rules.
        name: of the study.
        minutes: time limit, or None.
        settings: overrides as `key.of.table=value`; they win over the rules, and the cost does not know of them.

    Raises:
        UsageError: for a setting that addresses nothing.
    """
    known = registered(f)
    against = {arm.name: speaks_against(arm, f, rules, known=known) for arm in rules.arms}

    shape = shape_of(f, rules)
    shape = replace(shape, arms=asked_arms(f, shape, rules))
    shape, cuts = fit_to_limit(f, shape, rules, minutes=minutes, arms=lambda shape: asked_arms(f, shape, rules))
    reasons = {arm.name: _all_against(arm, f, shape, rules, against) for arm in rules.arms}
    left_out = {name: one.text for name, one in reasons.items() if one is not None and one.is_asked}
    left_out = {name: text for name, text in left_out.items() if not rules.arm(name).is_offered}
    decisions = decide_all(f, shape, rules, left_out=left_out)
    planned = _trials(f, shape, rules)
    study: Table = {"study": {"name": name, "title": f"{f.name}: recommended plan"}}
    for decision in decisions:
        for place, value in decision.settings.items():
            table, _, key = place.partition(".")
            study.setdefault(table, {})[key] = value
    study["study"]["reference"] = planned[0].table["name"]
    drop = set(guess.split_keys) if shape.folds is not None else set()
    own = {key: value for key, value in guess.table.items() if key not in drop}
    # What was given by hand wins over what the rules say.
    study["data"] = {**own, **{key: value for key, value in study["data"].items() if key not in own}}
    study["arm"] = [arm.table for arm in planned]
    study = override(study, [text for text in settings if not text.startswith("data.")])
    metric = study["study"]["metric"]
    evidence = evidence_of(f, shape.folds)
    closed = metric if metric in evidence.decidable else "auroc"
    difference = evidence.decidable[closed]
    return Plan(
        fingerprint=f,
        shape=shape,
        decisions=decisions,
        arms=planned,
        offered=_offered(f, shape, rules, against),
        left_out=left_out,
        cuts=cuts,
        limit=minutes,
        cost=cost_of(f, shape, rules),
        metric=metric,
        decidable=None if difference is None else (closed, difference),
        note=evidence.notes[closed],
        study=study,
    )


def asked_arms(f: Fingerprint, shape: Shape, rules: Rules) -> tuple[str, ...]:
    """Return the names of the arms that the rules ask for and that this version can run, without the offered ones.

    Args:
        f: the fingerprint.
        shape: its numbers; steps and batch say how often rare images repeat.
        rules: the table of rules.
    """
    known = registered(f)
    against = {arm.name: speaks_against(arm, f, rules, known=known) for arm in rules.arms}
    return tuple(
        arm.name for arm in rules.arms if not arm.is_offered and _all_against(arm, f, shape, rules, against) is None
    )


def registered(f: Fingerprint) -> dict[str, set[str]]:
    """Return what can be named in a study file, by registry, as it is at this moment."""
    return {
        "mixers": {*MIXERS, *LEARNED_MIXERS, *COMBINATIONS},
        "losses": {*LOSSES, *LOSS_COMBINATIONS},
        "samplers": set(SAMPLERS),
        "recipes": set(_registry("raremix.study.recipes", "RECIPES")),
        "generators": set(GENERATORS),
        "model": set(ClassifierSpec.__slots__),
        "heads": set(get_args(HeadSpec.__annotations__["name"])),
        "arm": set(ArmSpec.__slots__),
        "weights": {weights.name.partition("_")[0] for weights in f.weights},
    }


def _registry(module: str, name: str) -> Mapping[str, Any]:
    """Return a registry of a module that this version may not have."""
    if importlib.util.find_spec(module) is None:
        return {}
    return getattr(importlib.import_module(module), name, {})


@dataclass(frozen=True, slots=True)
class Against:
    """What speaks against an arm.

    Attributes:
        text: in words.
        is_asked: whether the rules ask for the arm, so that its absence must be told.
    """

    text: str
    is_asked: bool


def speaks_against(arm: ArmRule, f: Fingerprint, rules: Rules, *, known: Mapping[str, set[str]]) -> Against | None:
    """Return what speaks against an arm for any number of steps, or None."""
    reason = _not_asked(arm, f, rules) or _missing(arm, known)
    if reason is not None:
        return reason
    misfit = _misfit(json.dumps([arm_table(arm, f), arm.generator, arm.with_weights]))
    return None if misfit is None else Against(f"it does not fit this version of raremix: {misfit}", True)


@cache
def _misfit(tables: str) -> str | None:
    """Return why a study file cannot hold an arm's keys and its generator, or None; the answer is kept."""
    keys, generator, with_weights = json.loads(tables)
    own: Table = {"generator": [generator]} if generator else {}
    if with_weights:
        own["model"] = {"pretrained": True}
    try:
        parse_study({"study": {"name": "probe"}, **own, "arm": [{"name": "probe", **keys}]}, base=Path())
    except RaremixError as error:
        return str(error).partition(": ")[0]
    return None


def _not_asked(arm: ArmRule, f: Fingerprint, rules: Rules) -> Against | None:
    silent = {
        "the classes are not so unequal": f.imbalance < rules.threshold(arm.ratio_from, 0.0),
        "the images are too few": f.images <= rules.threshold(arm.images_above, -1.0),
        "the rarest class has too few images": rarest_in_training(f) < rules.threshold(arm.rarest_from, 0.0),
        "no pretrained weights at hand": arm.with_weights and chosen_weights(f, rules) is None,
    }
    for reason, holds in silent.items():
        if holds:
            return Against(reason, False)
    if arm.tasks and f.task not in arm.tasks:
        # An arm for several labels alone has its counterpart for one.
        return Against(f"it is not for {f.task} tasks", arm.tasks != ("multilabel",))
    if arm.every_class and not all(f.class_images):
        return Against("a class has no image", True)
    return None


def _missing(arm: ArmRule, known: Mapping[str, set[str]]) -> Against | None:
    for need in arm.needs:
        registry, _, name = need.partition(":")
        have = known.get(registry, set())
        if have and name in {"*", *have}:
            continue
        if registry == "weights":
            return Against(f"no {name} weights at hand", True)
        thing = _THINGS.get(registry, registry)
        named = "" if name == "*" else f" {name!r}"
        return Against(f"this version of raremix has no {thing}{named} yet", True)
    return None


_THINGS: Mapping[str, str] = {
    "mixers": "mixing called",
    "losses": "loss called",
    "samplers": "sampler called",
    "recipes": "recipe called",
    "generators": "generator called",
    "heads": "head called",
    "model": "[model] key called",
    "arm": "[[arm]] key called",
}
"""What the entries of the registries are called in messages."""


def arm_table(arm: ArmRule, f: Fingerprint) -> Table:
    """Return an arm's keys in a study file; a loss called "auto" is the task's own, and a queue is counted."""
    table = _with_plain_loss(arm.table, "binary_cross_entropy" if f.task == "multilabel" else "cross_entropy")
    if table.get("model", {}).get("name", "").startswith("convnext"):
        own = next((w for w in f.weights if w.name.startswith("convnext")), None)
        if own is not None:
            table["model"] = own.table(channels=f.channels)
    if table.get("loss", {}).get("queue") == "half of train":
        # As many as the loss takes by itself, and at most half of the images that a fold trains on.
        table["loss"]["queue"] = min(8192, 2 ** int(math.log2(max(2, f.images // 4))))
    return table


def _with_plain_loss(table: Table, plain: str) -> Table:
    changed = {
        key: _with_plain_loss(value, plain) if isinstance(value, dict) else value for key, value in table.items()
    }
    return {**changed, "name": plain} if table.get("name") == "auto" else changed


def _all_against(
    arm: ArmRule, f: Fingerprint, shape: Shape, rules: Rules, against: Mapping[str, Against | None]
) -> Against | None:
    """Return what speaks against an arm, its number of repeats and its stand-in included."""
    if against[arm.name] is not None:
        return against[arm.name]
    if arm.until is not None and against[arm.until] is None:
        return Against(f"{arm.until} is there", False)
    if repeats(f, shape) <= rules.threshold(arm.repeats_above, -1.0):
        return Against("no rare image repeats too often", False)
    return None


def _offered(
    f: Fingerprint, shape: Shape, rules: Rules, against: Mapping[str, Against | None]
) -> tuple[PlannedArm, ...]:
    """Return what the study file offers."""
    return tuple(
        PlannedArm(
            table={"name": arm.name, **arm_table(arm, f)},
            rule=arm.rule,
            words=arm.words,
            source=rules.cite(arm.sources),
            generator=arm.generator,
        )
        for arm in rules.arms
        if arm.is_offered and _all_against(arm, f, shape, rules, against) is None
    )


def _trials(f: Fingerprint, shape: Shape, rules: Rules) -> tuple[PlannedArm, ...]:
    """Return every arm at every learning rate of the grid; the plan's own rate has no suffix."""
    trials = []
    for arm in rules.arms:
        if arm.name not in shape.arms:
            continue
        for rate in shape.rates:
            table = {"name": arm.name, **arm_table(arm, f)}
            own = table.get("train", {}).get("learning_rate", shape.rates[0])
            if rate == shape.rates[0]:
                trials.append(PlannedArm(table=table, rule=arm.rule, words=arm.words, source=rules.cite(arm.sources)))
            else:
                other = own * rate / shape.rates[0]
                table = {**table, "name": f"{arm.name}-lr{other:g}", "train": {"learning_rate": other}}
                words, source = f"{arm.name} at another learning rate", rules.cite(rules["R10"].sources)
                trials.append(PlannedArm(table=table, rule="R10", words=words, source=source))
    return tuple(trials)
