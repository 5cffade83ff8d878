"""A plan as a study file in which every line carries its reason and its source."""

import math
import textwrap
from collections.abc import Mapping
from typing import Any

from raremix.config import Table, write_toml
from raremix.study.recommend.decisions import Decision
from raremix.study.recommend.fingerprint import Fingerprint
from raremix.study.recommend.guess import Guess
from raremix.study.recommend.plan import Plan
from raremix.study.recommend.rules import Rules

WIDTH = 110

WORDS: Mapping[str, str] = {
    "fixed": "fixed in code, the same for all data",
    "rule": "follows from the fingerprint",
    "empirical": "decided by arms, on validation or out-of-fold",
}


def render(plan: Plan, guess: Guess, rules: Rules, *, place: str) -> str:
    """Return the study file as text.

    Args:
        plan: the plan.
        guess: where the keys of [data] come from.
        rules: the table, for the sources.
        place: what the plan was made for, as typed.
    """
    by_key = {key: decision for decision in plan.decisions for key in decision.settings}
    lines = [*_head(plan, guess, rules, place=place)]
    order = ("study", "data", "split", "model", "train", "augment", "evaluate")
    for table in order:
        entries = plan.study.get(table, {})
        lines += ["", f"[{table}]"]
        last: list[str] = []
        for key, value in entries.items():
            reason = _reason(f"{table}.{key}", by_key, guess, plan.fingerprint)
            lines += reason if reason != last or not last[1:] else [f"{last[0].partition(' (')[0]}: as above"]
            lines += _key(key, value)
            last = reason
        if table == "evaluate":
            rarest = min(zip(plan.fingerprint.class_groups, plan.fingerprint.classes, strict=True))[1]
            lines += _comment("R9: the share of each class where you will use it; take the # away:")
            lines += [f"# {_key('prevalence', {rarest: 0.01})[0]}"]
        if table == "data":
            lines += _by_site(plan, guess)
            if plan.fingerprint.proposed_group is not None:
                pattern = plan.fingerprint.proposed_group
                lines += _comment("R2: if this finds the patient in your file names, take the # away:")
                lines += [f"# {write_toml({'group': pattern}).strip()}"]
    for arm in plan.arms:
        rule = rules[arm.rule]
        lines += [
            "",
            *_comment(f"{arm.rule} (empirical, {rule.strength}): {arm.words}. {rule.reason} Source: {arm.source}"),
        ]
        lines += ["[[arm]]", *[line for key, value in arm.table.items() for line in _key(key, value)]]
    lines += _offers(plan, rules)
    if plan.left_out:
        lines += ["", *_comment("Left out, though the rules ask for them:")]
        for name, reason in plan.left_out.items():
            lines += _comment(f"  {name}: {reason}")
    return "\n".join(lines) + "\n"


def _offers(plan: Plan, rules: Rules) -> list[str]:
    """Return the arms that are not run as comments, ready to be used."""
    if not plan.offered:
        return []
    shape, cost = plan.shape, plan.cost
    minutes = cost.minutes_per_run * shape.seeds * (shape.folds or 1)
    price = f" Each costs about {max(1, minutes):,.0f} minutes more." if cost.minutes else ""
    lines = ["", *_comment(f"Offered, and not run: take the # away from its lines to run an arm too.{price}")]
    shown: set[str] = set()
    for arm in plan.offered:
        rule = rules[arm.rule]
        lines += ["#", *_comment(f"{arm.rule} (empirical, {rule.strength}): {arm.words}. Source: {arm.source}")]
        if arm.generator and arm.generator["name"] not in shown:
            shown.add(arm.generator["name"])
            lines += _comment(
                "It is fitted before the arms are trained, with folds once for each; see how long that takes you:"
            )
            lines += [
                "# [[generator]]",
                *[f"# {line}" for key, value in arm.generator.items() for line in _key(key, value)],
            ]
        elif arm.generator:
            lines += _comment(f"It takes the [[generator]] {arm.generator['name']} above.")
        lines += ["# [[arm]]", *[f"# {line}" for key, value in arm.table.items() for line in _key(key, value)]]
    return lines


def render_second(plan: Plan, rules: Rules, *, base: str) -> str | None:
    """Return R4's second configuration as a file that extends the first, or None where there is none.

    Args:
        plan: the plan.
        rules: the table, for the reason.
        base: name of the first file, in the same folder.
    """
    if plan.shape.second is None:
        return None
    rule = rules["R4"]
    name = f"{plan.study['study']['name']}-{plan.shape.second}px"
    lines = _comment(
        f"R4 (empirical, {rule.strength}): the same plan at {plan.shape.second} px, about "
        f"{plan.cost.second_minutes:,.0f} minutes. {rule.reason} Source: {rules.cite(rule.sources)}"
    )
    lines += _comment(
        "Compare the two on validation: run both with --best --keep-test-closed, then look at the test rows with the "
        "better one only. F2: what was chosen on test images looks better on them than on the next patient."
    )
    lines += [f'extends = "{base}"', "", "[study]"]
    lines += _comment("a run folder of its own")
    lines += _key("name", name)
    lines += ["", "[data]", *_comment(f"R4: {rule.does}"), *_key("size", plan.shape.second)]
    return "\n".join(lines) + "\n"


def cost_words(plan: Plan) -> str:
    """Say what a plan takes on this machine."""
    shape, cost = plan.shape, plan.cost
    arms = f"{len(plan.arms)} arm{'s' if len(plan.arms) > 1 else ''}"
    parts = f"{arms} x {shape.seeds} seeds" + (f" x {shape.folds} folds" if shape.folds else "")
    if not cost.minutes:
        return f"{parts} = {shape.runs} classifiers; no step was timed, so the minutes are not known"
    hours = f" ({cost.minutes / 60:,.0f} hours)" if cost.minutes >= 180 else ""
    words = (
        f"{parts} = {shape.runs} classifiers of {shape.steps} steps at {cost.seconds_per_step:.2g} s (measured), "
        f"scoring, start and report: about {max(1, cost.minutes):,.0f} minutes{hours}"
    )
    return words + (f", and {cost.second_minutes:,.0f} for the second configuration" if shape.second else "")


def decidable_words(plan: Plan) -> str:
    """Say which difference the plan can decide."""
    if plan.decidable is None:
        return "these data cannot decide any difference between recipes"
    metric, difference = plan.decidable
    name = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy"}[metric]
    words = f"the smallest difference in {name} that can be decided is about {100 * difference:.1f} points"
    words += "" if metric == plan.metric else f" ({plan.metric.replace('_', ' ')} has no closed form)"
    return words + (f"; but {plan.note}" if plan.note else "")


def limit_words(plan: Plan) -> str:
    """Say whether a time limit is kept, and where it is not, what the least plan takes and what can be done."""
    total = plan.cost.minutes + plan.cost.second_minutes
    if plan.is_within_limit:
        return f"kept, {total:,.0f} are planned" if total >= 1 else "kept"
    least = math.ceil(total)
    return (
        f"CANNOT BE KEPT. The least plan takes about {least:,} minute{'s' if least != 1 else ''} on this machine and "
        "is written here; give it that, or a GPU, or smaller images (--set data.size=...)"
    )


def loudest(plan: Plan) -> list[Decision]:
    """Return the decisions that must not be overlooked; that no patients are named comes first."""
    return sorted((one for one in plan.decisions if one.is_loud), key=lambda one: one.id != "R2")


def _head(plan: Plan, guess: Guess, rules: Rules, *, place: str) -> list[str]:
    f = plan.fingerprint
    lines = _comment(f"A plan for {f.name}, made by `raremix recommend {place}`. An ordinary study: edit it.")
    lines += ["#"]
    loud = loudest(plan)
    if loud or guess.notes:
        lines += _comment("Before anything else:")
        for decision in loud:
            lines += _comment(f"  ! {decision.id} {decision.name}: {decision.what}.")
        for note in guess.notes:
            lines += _comment(f"  ! {note}")
        lines += ["#"]
    lines += _comment(
        f"{f.images:,} images{f' of {f.groups:,} groups' if f.grouped else ''}, {f.task}, "
        f"{len(f.classes)} classes, imbalance {f.ratio_images:.1f}:1 by image and {f.ratio_groups:.1f}:1 by group."
    )
    lines += _comment(f"Cost: {cost_words(plan)}.")
    lines += _comment(f"Evidence: {decidable_words(plan)}.")
    if plan.limit is not None:
        lines += ["#", *_comment(f"Time limit {plan.limit:,.0f} minutes: {limit_words(plan)}.")]
        for cut in plan.cuts:
            lines += _comment(f"  cut: {cut.what}. Its cost: {cut.cost}.")
    letters = (
        "Letters are the strength of the evidence: A several medical data sets or a consensus, B one medical study or "
        "natural images, C convention or own arithmetic. The rules are hypotheses."
    )
    lines += ["#", *_comment(letters), "#", *_comment("What else was decided, beside what stands with its line below:")]
    for decision in plan.decisions:
        if decision.settings or decision.is_loud:
            continue
        lines += _comment(f"  {decision.id} {decision.name} ({decision.kind}, {decision.strength}): {decision.what}.")
    return lines


def _reason(key: str, by_key: Mapping[str, Decision], guess: Guess, f: Fingerprint) -> list[str]:
    table, _, name = key.partition(".")
    if table == "data" and name in guess.reasons:
        return _comment(f"D: {guess.reasons[name]}")
    decision = by_key.get(key)
    if decision is None or key == "data.channels":
        fixed = {
            "study.name": "D: names the run folder",
            "study.title": "D: heading of the report",
            "study.reference": "R8: the arm that every other one is compared with; plain, since it must be beaten",
            "data.channels": "D: all images looked at are grey" if f.channels == 1 else "D: the images have colour",
        }
        return _comment(fixed.get(key, "D: given"))
    return [
        *_comment(f"{decision.id} ({WORDS[decision.kind]}; {decision.strength}): {decision.what}."),
        *_comment(f"{decision.why} Source: {decision.source}"),
    ]


def _key(key: str, value: Any) -> list[str]:
    return [f"{key} = {_inline(value)}"]


def _inline(value: Any) -> str:
    """Write a value on one line, as TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_bare(key)} = {_inline(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_inline(entry) for entry in value) + "]"
    if isinstance(value, float):
        value = float(f"{value:.6g}")
    return write_toml({"x": value}).partition("=")[2].strip()


def _bare(key: str) -> str:
    return write_toml({key: 0}).partition(" = ")[0]


def _comment(text: str) -> list[str]:
    hang = "    " if text.startswith(" ") else ""
    # What stands in file and column names must not end the comment.
    text = "".join(ch if ch.isprintable() else " " for ch in text)
    return textwrap.wrap(
        text, WIDTH, initial_indent="# ", subsequent_indent="# " + hang, break_long_words=False, break_on_hyphens=False
    )


def _by_site(plan: Plan, guess: Guess) -> list[str]:
    """Return R18's lines for holding out one site, as comments, where a site tells the class."""
    decision = next(one for one in plan.decisions if one.id == "R18")
    if not decision.is_loud:
        return []
    column = plan.fingerprint.associations
    sites = next(one.attribute for one in column if f"{one.attribute} TELLS" in decision.what)
    if plan.study["data"].get("source") != "table":
        return _comment(
            f"R18: {sites} tells the class. This kind of source cannot split by it: list the images in a table with a "
            f"column {sites}, and run raremix recommend on that."
        )
    table: Table = {"split": sites, "split_values": {"one of its values": "test", "every other": "train"}}
    lines = _comment(f"R18: to hold out one {sites}, fill in its values and take the # away (and [study] folds out):")
    return lines + [f"# {key} = {_inline(value)}" for key, value in table.items()]
