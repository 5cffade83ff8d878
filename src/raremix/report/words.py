"""What the study showed, in plain words: never more than the interval supports.

A difference is called one only where its interval excludes zero, the Holm-corrected p is below .05, at least three
seeds were trained (for a claim about a recipe) and the test set holds at least ten positive patients. Everything else
"could not be shown", and is told together with the difference that this test set could have decided.
"""

from dataclasses import dataclass
from typing import Literal

from raremix.report.notation import (
    capitalised,
    decimal,
    enumerate_names,
    is_lower_better,
    metric_name,
    p_value,
    points,
    points_between,
)
from raremix.report.record import Comparison, Record

ALPHA = 0.05
# Half-width of the region of practical equivalence: one point of a metric that runs from 0 to 1.
EQUAL_WITHIN = 0.01
# Below three seeds a two-level bootstrap has no seed variance worth the name.
FEWEST_SEEDS = 3
# Below ten positive patients no common 95 % interval keeps its word (67 to 75 % at five positives, AUROC .95).
FEWEST_POSITIVES = 10

Kind = Literal["better", "worse", "equal", "open", "few_positives", "few_seeds", "unfinished", "not_compared"]

LABELS: dict[Kind, str] = {
    "better": "better",
    "worse": "worse",
    "equal": "practically equal",
    "open": "no difference shown",
    "few_positives": "too few positives",
    "few_seeds": "too few seeds",
    "unfinished": "not complete",
    "not_compared": "not compared",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one comparison allows to be said.

    Args:
        arm: the arm that was compared.
        kind: the claim; "better" and "worse" already respect the direction of the metric.
        sentence: the same in words, with effect and interval.
    """

    arm: str
    kind: Kind
    sentence: str


def conclude(record: Record) -> list[str]:
    """Say in plain words what a study showed, the most important sentence first.

    Args:
        record: the study's record.

    Returns:
        At least one text. What is missing comes first, then the whole in a few words, then each arm, then what limits
        it.

    Example:
        >>> from raremix.report import conclude, read_record   # doctest: +SKIP
        >>> conclude(read_record(Path("runs/ham10000-rare/record.json")))[0]   # doctest: +SKIP
        'No difference from baseline in balanced accuracy could be shown for mixup and cutmix.'
    """
    verdicts = judge_all(record)
    said = [] if record.study.is_complete else [_what_is_missing(record)]
    said.append(_headline(record, verdicts))
    said += [verdict.sentence for verdict in verdicts]
    if sum(verdict.kind == "better" for verdict in verdicts) > 1:
        said.append("Each arm was compared with the reference only: which of the better arms is best was not tested.")
    return said + _exploratory(record) + _limits(record)


def judge_all(record: Record) -> list[Verdict]:
    """Judge every arm but the reference, in the record's order."""
    return [_judge_arm(record, arm.name) for arm in record.arms if arm.name != record.study.reference]


def judge(comparison: Comparison, record: Record) -> Kind:
    """Decide what one comparison allows to be claimed.

    Args:
        comparison: an arm's paired difference.
        record: the study it belongs to, for the claim, the seeds that were planned and whether all of it is there.

    Returns:
        The claim. What forbids one is looked for before what was found, so that no finding escapes it.
    """
    return _obstacle(comparison, record) or _finding(comparison)


def decides(record: Record) -> str:
    """Say which difference this test set can decide, as the end of a sentence; empty where it is not recorded."""
    decidable = record.decidable
    if decidable is None or decidable.difference is None:
        return ""
    if decidable.metric not in (None, record.study.primary_metric):
        return ""
    return f"this test set can decide differences of about {points(decidable.difference, sign=False)} points"


def _obstacle(comparison: Comparison, record: Record) -> Kind | None:
    study = record.study
    if comparison.effect is None:
        return "not_compared"
    if not study.is_complete:
        return "unfinished"
    if comparison.positives is None or comparison.positives < FEWEST_POSITIVES:
        return "few_positives"
    if study.claim == "recipe" and (comparison.seeds is None or comparison.seeds < FEWEST_SEEDS):
        return "few_seeds"
    # A record that calls itself complete is not believed where seeds are missing.
    if comparison.seeds is not None and comparison.seeds < len(study.seeds):
        return "unfinished"
    return "not_compared" if comparison.low is None or comparison.high is None else None


def _finding(comparison: Comparison) -> Kind:
    low, high, p = comparison.low or 0.0, comparison.high or 0.0, comparison.p_holm
    if low >= -EQUAL_WITHIN and high <= EQUAL_WITHIN:
        return "equal"
    if p is None or p >= ALPHA or low <= 0 <= high:
        return "open"
    is_above = low > 0
    return "worse" if is_above == is_lower_better(comparison.metric) else "better"


def control_sentences(record: Record) -> tuple[str, ...]:
    """Say of every arm with generated images whether it was better than as many repeated real ones."""
    return tuple(_judged(record, one, arm=one.arm, reference=one.reference).sentence for one in record.controls)


def sampling_sentences(record: Record) -> tuple[str, ...]:
    """Say of every arm with generated images whether it was better than balanced sampling of the real ones."""
    return tuple(_judged(record, one, arm=one.arm, reference=one.reference).sentence for one in record.samplings)


def _judge_arm(record: Record, arm: str) -> Verdict:
    return _judged(record, record.primary_comparison(arm), arm=arm, reference=record.study.reference)


def _judged(record: Record, comparison: Comparison | None, *, arm: str, reference: str) -> Verdict:
    kind = "not_compared" if comparison is None else judge(comparison, record)
    if comparison is None or kind == "not_compared":
        why = f" ({comparison.note})" if comparison is not None and comparison.note else ""
        sentence = f"{arm}: not compared with {reference}{why}; there is no result to judge."
        return Verdict(arm=arm, kind="not_compared", sentence=sentence)
    finding = f"{points(comparison.effect or 0.0)} points"
    if kind not in ("few_positives", "few_seeds") and comparison.low is not None and comparison.high is not None:
        finding += f", 95 % interval {points_between(comparison.low, comparison.high)}"
    tellers = {"few_positives": _few_positives, "few_seeds": _few_seeds, "unfinished": _unfinished, "open": _open}
    return Verdict(arm=arm, kind=kind, sentence=f"{arm}: {tellers.get(kind, _shown)(record, comparison, finding)}")


def _shown(record: Record, comparison: Comparison, finding: str) -> str:
    to_what = f"{comparison.reference} in {metric_name(comparison.metric)}"
    kind = judge(comparison, record)
    if kind == "equal":
        within = points(EQUAL_WITHIN, sign=False)
        return f"practically equal to {to_what} ({finding}): the whole interval lies within {within} point of zero."
    p = p_value(comparison.p_holm)
    return f"{kind} than {to_what} ({finding}; Holm-corrected p {p if '<' in p else '= ' + p})."


def _open(record: Record, comparison: Comparison, finding: str) -> str:
    said = f"no difference from {comparison.reference} in {metric_name(comparison.metric)} could be shown ({finding})."
    low, high, p = comparison.low or 0.0, comparison.high or 0.0, comparison.p_holm
    if low <= 0 <= high:
        return said
    corrected = "is not recorded" if p is None else f"is {p_value(p)}"
    side = "above" if low > 0 else "below"
    return f"{said} The interval alone lies {side} zero, but p, corrected for the number of comparisons, {corrected}."


def _few_positives(record: Record, comparison: Comparison, finding: str) -> str:
    held = "an unknown number of" if comparison.positives is None else f"only {comparison.positives}"
    return (
        f"not ranked, because the test set holds {held} {record.data.rare_cases} and {FEWEST_POSITIVES} are needed; "
        f"the difference measured in {metric_name(comparison.metric)} is {finding}."
    )


def _few_seeds(record: Record, comparison: Comparison, finding: str) -> str:
    count = comparison.seeds
    held = "an unknown number of seeds" if count is None else f"only {count} seed{'s' if count != 1 else ''}"
    return (
        f"no claim about the recipe, because {held} {'was' if count == 1 else 'were'} trained and {FEWEST_SEEDS} are "
        f"needed; the difference measured in {metric_name(comparison.metric)} is {finding}."
    )


def _unfinished(record: Record, comparison: Comparison, finding: str) -> str:
    over = "" if comparison.seeds is None else f" over {comparison.seeds} of {len(record.study.seeds)} seeds"
    return f"so far {finding} in {metric_name(comparison.metric)}{over}; no conclusion before the study is complete."


def _headline(record: Record, verdicts: list[Verdict]) -> str:
    study = record.study
    metric, reference = metric_name(study.primary_metric), study.reference
    if not verdicts:
        return f"Only {reference} was trained, so nothing was compared{_own_value(record)}."
    if not study.is_complete:
        return f"What is there so far allows no conclusion about {metric}."
    arms: dict[Kind, list[str]] = {}
    for verdict in verdicts:
        arms.setdefault(verdict.kind, []).append(verdict.arm)
    said = []
    if shown := [
        f"{verb} with {_with_effects(record, arms[kind])}"
        for kind, verb in (("better", "improved"), ("worse", "worsened"))
        if kind in arms
    ]:
        said.append(f"Against {reference}, {metric} {', and '.join(shown)}.")
    if found := arms.get("equal"):
        of_what = "it was practically equal" if shown else f"{metric} was practically equal to that of {reference}"
        said.append(f"With {enumerate_names(found)}, {of_what}.")
    if found := arms.get("open"):
        from_what = "" if said else f" from {reference} in {metric}"
        said.append(f"No difference{from_what} could be shown for {enumerate_names(found)}{_decided(record, found)}.")
    rest: tuple[tuple[Kind, str], ...] = (
        ("few_positives", f"The test set holds too few {record.data.rare_cases} to rank"),
        ("few_seeds", "Too few seeds were trained for a claim about"),
        ("unfinished", "Nothing is concluded, because seeds are missing, about"),
        ("not_compared", "No comparison was recorded for"),
    )
    for kind, text in rest:
        if found := arms.get(kind):
            said.append(f"{text} {enumerate_names(found)}.")
    return " ".join(said)


def _decided(record: Record, arms: list[str]) -> str:
    """Say what could have been decided: what was planned, or what the intervals came to where they are much wider."""
    if not decides(record):
        return ""
    planned = (record.decidable.difference if record.decidable else None) or 0.0
    widths = [
        (found.high - found.low) / 2
        for arm in arms
        if (found := record.primary_comparison(arm)) and found.low is not None and found.high is not None
    ]
    widest = max(widths, default=0.0)
    # The plan knows the cases but not how much one training differs from the next; a quarter more is within its error.
    if widest <= 1.25 * planned:
        return f"; {decides(record)}"
    return (
        f"; as it came out, this study can decide differences of about {points(widest, sign=False)} points "
        f"({points(planned, sign=False)} were expected from the size of the test set)"
    )


def _with_effects(record: Record, arms: list[str]) -> str:
    parts = []
    for arm in arms:
        found = record.primary_comparison(arm)
        if found is not None and found.effect is not None and found.low is not None and found.high is not None:
            nearest, farthest = (points(v, sign=False) for v in sorted((abs(found.low), abs(found.high))))
            by = points(abs(found.effect), sign=False)
            parts.append(f"{arm} by {by} points (95 % interval {nearest} to {farthest})")
    return enumerate_names(parts)


def _own_value(record: Record) -> str:
    found = record.overall(record.study.reference, record.study.primary_metric)
    if found is None or found.value is None:
        return ""
    said = f"; its {metric_name(record.study.primary_metric)} is {decimal(found.value)}"
    if found.low is None or found.high is None:
        return said
    return f"{said} (95 % interval {decimal(found.low)} to {decimal(found.high)})"


def _what_is_missing(record: Record) -> str:
    missing = list(record.study.missing)
    if not missing:
        return "This study is incomplete; the record does not say what is missing."
    # Eight fit into the title block; a study that lacks more has hardly begun.
    shown = missing if len(missing) <= 8 else [*missing[:8], f"{len(missing) - 8} more"]
    return f"This study is incomplete. Missing: {enumerate_names(shown)}."


def _exploratory(record: Record) -> list[str]:
    """Tell findings in other metrics, which were not decided on beforehand; harm first."""
    said = []
    for kind in ("worse", "better"):
        found = [c for c in record.comparisons if not c.primary and judge(c, record) == kind]
        for reference in dict.fromkeys(c.reference for c in found):
            listed = [_told(c) for c in found if c.reference == reference]
            verb = "was" if len(listed) == 1 else "were"
            said.append(
                f"Exploratory, not decided on beforehand: {kind} than {reference} {verb} {enumerate_names(listed)}."
            )
    return said


def _told(comparison: Comparison) -> str:
    between = points_between(comparison.low or 0.0, comparison.high or 0.0)
    effect = points(comparison.effect or 0.0)
    return f"{comparison.arm} in {metric_name(comparison.metric)} ({effect} points, 95 % interval {between})"


def _limits(record: Record) -> list[str]:
    study, data = record.study, record.data
    said = []
    if study.claim == "weights" and len(record.arms) > 1:
        said.append(
            "This is about the trained weights, not about the recipes: training again with another seed may give "
            "another result."
        )
    if not data.grouped:
        said.append(
            f"No {data.group_name} is known for any image: images of one {data.group_name} may lie in both training "
            "and test, and the intervals may be too narrow."
        )
    if study.test_openings is not None and study.test_openings > 1:
        said.append(
            f"The test rows were opened {study.test_openings} times: whatever was chosen in between makes the "
            "intervals too narrow."
        )
    return [capitalised(text) for text in said]
