"""The README of a chosen classifier: how to use it, why this arm, and what it is worth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raremix.core.markdown import literal
from raremix.evaluate.metrics import METRICS
from raremix.study.best.choice import Choice
from raremix.study.spec import StudySpec

_CHANCE = {"auroc": lambda classes: 0.5, "balanced_accuracy": lambda classes: 1 / classes}


def choice_table(choice: Choice) -> list[tuple[str, ...]]:
    """Return the rows of the table that the choice was made from: arm, ingredients, value, error, and what it is."""
    rows = []
    for one in choice.candidates:
        words = ["chosen"] if one.arm == choice.arm else []
        words += ["best"] if one.arm == choice.best else ["within one standard error"] if one.is_within else []
        rows.append((one.arm, str(one.ingredients), f"{one.value:.3f}", f"{one.error:.3f}", ", ".join(words)))
    return rows


def choice_words(choice: Choice) -> str:
    """Say in one sentence why the arm was chosen."""
    title = METRICS[choice.metric].title
    where = f"{title} on {choice.rows} images"
    if len(choice.candidates) == 1:
        return f"{choice.arm} was chosen: there was no other arm. Its {where} is {choice.chosen.value:.3f}."
    if choice.arm == choice.best:
        return f"{choice.arm} was chosen: the best by {where}, and nothing simpler is within one standard error of it."
    return (
        f"{choice.arm} was chosen: the simplest arm within one standard error of {choice.best}, the best by {where} "
        f"({choice.chosen.value:.3f}; at least {choice.limit:.3f} was needed)."
    )


def chance_note(choice: Choice, *, classes: int) -> list[str]:
    """Return a warning where the chosen arm, on the rows that it was chosen by, is not better than guessing.

    Args:
        choice: the choice.
        classes: how many a guess is among; 2 for several labels.
    """
    if choice.metric not in _CHANCE:
        return []
    chance = _CHANCE[choice.metric](classes)
    if choice.chosen.value - 2 * choice.chosen.error > chance:
        return []
    return [
        f"{METRICS[choice.metric].title} of the chosen arm cannot be told from guessing ({choice.chosen.value:.3f}, "
        f"guessing {chance:.3f}): it has learnt nothing yet. Train longer ([train] steps), or from pretrained weights."
    ]


def readme_of(
    spec: StudySpec,
    choice: Choice,
    record: Mapping[str, Any],
    *,
    notes: Sequence[str],
    thresholds: Sequence[float],
    why: str,
    folder: Path,
) -> str:
    """Write the README.

    Args:
        spec: the study.
        choice: which arm, and from what.
        record: of the chosen arm.
        notes: what to know about the choice.
        thresholds: of the classifier, by class.
        why: which of the runs it is, and why that.
        folder: where it will lie.
    """
    rows = "\n".join(f"| {' | '.join(map(literal, row))} |" for row in choice_table(choice))
    said = "".join(f"\n* {literal(text)}" for text in [*notes, *record["warnings"]])
    heading, note = _worth(spec, choice, record)
    return f"""# {literal(spec.name)}: {literal(choice.arm)}

{literal(choice_words(choice))}
{said}

## How to use it

```bash
raremix predict {folder / "classifier"} NEW_IMAGES/ -o scores.csv
raremix evaluate {folder / "classifier"} OTHER_HOSPITAL.csv --split all
```

The classifier is one network, {why}. The scores are calibrated on validation images, for the mix of classes found
there: where a disease is rarer or more frequent, state its share ([evaluate] prevalence in the study). It is a research
model: it is no medical device, and it must not decide about patients.

{_decisions(record, thresholds)}

## Why this arm

| arm | ingredients | {METRICS[choice.metric].title}, {choice.rows} | standard error | |
| --- | --- | --- | --- | --- |
{rows}

The fewer ingredients, the simpler: mixing, augmentation, another loss, another network, an importance map count one
each, another learning rate or sampler none.

## {heading}

{note}

{_classes(record)}

{_figures(record, choice.metric)}

Everything else: report.html beside this file, and study.toml in the folder above.
"""


def _worth(spec: StudySpec, choice: Choice, record: Mapping[str, Any]) -> tuple[str, str]:
    if spec.folds is None:
        opened = record["study"]["test_openings"]
        note = f"Test images of this study were opened {opened} time{'s' if opened != 1 else ''}. "
        several = f"Mean over {len(spec.seeds)} seeds; the interval is over patients and seeds."
        one = "One seed: the interval is over patients only, and another seed may differ more."
        return "What it is worth: test images, opened for this arm only", note + (
            several if len(spec.seeds) > 1 else one
        )
    note = "These are the figures that the choice was made from"
    if choice.corrected is not None:
        title = METRICS[choice.metric].title
        note += f"; corrected for having chosen, {title} is {choice.corrected:.3f} (bootstrap bias correction)"
    return "What it is worth: out-of-fold predictions", f"{note}."


def _decisions(record: Mapping[str, Any], thresholds: Sequence[float]) -> str:
    if record["data"]["task"] == "multiclass":
        return "Its decision is the class with the largest score."
    lines = ["| class | threshold, chosen on validation images |", "| --- | --- |"]
    lines += [
        f"| {literal(name)} | {limit:.4f} |" for name, limit in zip(record["data"]["classes"], thresholds, strict=True)
    ]
    return "\n".join(lines)


def _classes(record: Mapping[str, Any]) -> str:
    """Return the sensitivity of each class, the rarest first: the mean hides those."""
    found = [m for m in record["metrics"] if m["scope"] == "class" and m["metric"] == "sensitivity"]
    if not found:
        return ""
    unit = "patients" if record["data"]["grouped"] else "images"
    lines = [f"| class, the rarest first | {unit} with it | sensitivity | 95 % interval |", "| --- | --- | --- | --- |"]
    for one in sorted(found, key=lambda m: m["positives"]):
        lines.append(f"| {literal(one['label'])} | {one['positives']} | {_number(one['value'])} | {_between(one)} |")
    return "\n".join(lines)


def _figures(record: Mapping[str, Any], metric: str) -> str:
    """Return all figures over all classes, that which decided first."""
    unit = "patients" if record["data"]["grouped"] else "images"
    overall = [m for m in record["metrics"] if m["scope"] == "overall"]
    lines = [f"| metric | value | 95 % interval | {unit} |", "| --- | --- | --- | --- |"]
    for one in sorted(overall, key=lambda m: m["metric"] != metric):
        title = METRICS[one["metric"]].title
        title = f"**{title}**, which decided" if one["metric"] == metric else title
        count = one["groups"] if record["data"]["grouped"] else one["n"]
        lines.append(f"| {title} | {_number(one['value'])} | {_between(one)} | {count} |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _between(metric: Mapping[str, Any]) -> str:
    return "–" if metric["low"] is None else f"{metric['low']:.3f} to {metric['high']:.3f}"
