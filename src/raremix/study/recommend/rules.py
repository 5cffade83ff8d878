"""The table of rules: what a fingerprint leads to, with thresholds, reasons, strength and sources."""

from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Literal

from raremix.config import Table, build, read_toml
from raremix.core.errors import UnknownNameError
from raremix.core.registry import look_up

Kind = Literal["fixed", "rule", "empirical"]
"""The same for all data, following from the fingerprint, or decided by arms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule.

    Attributes:
        id: such as "R1".
        name: in a word or two.
        kind: see `Kind`.
        says: what the fingerprint says for it to hold.
        does: what the plan then does.
        reason: why, in one sentence.
        evidence: what was found.
        strength: "A" several medical data sets or a consensus, "B" one medical study or natural images, "C" convention.
        sources: keys of the table's sources.
        thresholds: by name.
    """

    id: str
    name: str
    kind: Kind
    says: str
    does: str
    reason: str
    evidence: str
    strength: str
    sources: tuple[str, ...]
    thresholds: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        """Return a threshold.

        Raises:
            UnknownNameError: if the rule has none of that name.
        """
        return look_up(self.thresholds, name, kind=f"threshold of {self.id}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRule:
    """An arm that a plan may have, and when.

    Attributes:
        name: of the arm.
        rule: the rule that asks for it.
        words: what it does.
        sources: keys of the table's sources.
        table: its keys in a study file.
        needs: what must be registered, as "registry:name".
        until: an arm that it stands in for.
        ratio_from: threshold ("R8.mild") from which imbalance ratio on.
        repeats_above: threshold on how often a rare image repeats under balanced sampling.
        images_above: threshold on the number of images.
        with_weights: only where pretrained weights are at hand.
        tasks: for which tasks; empty means all.
        every_class: only where every class has an image.
        rarest_from: threshold on the training images of the rarest class.
        is_offered: written into the study file as a comment, and not run unless somebody takes the # away.
        generator: the [[generator]] table that it needs, where it needs one.
    """

    name: str
    rule: str
    words: str
    sources: tuple[str, ...]
    table: Table = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    until: str | None = None
    ratio_from: str | None = None
    repeats_above: str | None = None
    images_above: str | None = None
    with_weights: bool = False
    tasks: tuple[str, ...] = ()
    every_class: bool = False
    rarest_from: str | None = None
    is_offered: bool = False
    generator: Table = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CutRule:
    """Something that a plan gives up where time is short.

    Attributes:
        id: what it gives up.
        cost: what that costs the evidence.
    """

    id: str
    cost: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The whole table.

    Attributes:
        rules: by id.
        arms: in the order in which they are kept.
        cuts: in the order in which they are made.
        sources: by key, as text with an address where there is one.
    """

    rules: dict[str, Rule]
    arms: tuple[ArmRule, ...]
    cuts: tuple[CutRule, ...]
    sources: dict[str, str]

    def __getitem__(self, rule: str) -> Rule:
        """Return a rule by its id.

        Raises:
            UnknownNameError: if there is none.
        """
        return look_up(self.rules, rule, kind="rule")

    def arm(self, name: str) -> ArmRule:
        """Return an arm by name.

        Raises:
            UnknownNameError: if there is none.
        """
        return look_up({arm.name: arm for arm in self.arms}, name, kind="arm of the rules")

    def threshold(self, place: str | None, otherwise: float) -> float:
        """Return the threshold that "R8.mild" names, or another number where nothing is named."""
        if place is None:
            return otherwise
        rule, _, name = place.partition(".")
        return float(self[rule][name])

    def cite(self, keys: tuple[str, ...]) -> str:
        """Return sources as text.

        Raises:
            UnknownNameError: for a key that the table does not have.
        """
        return "; ".join(look_up(self.sources, key, kind="source") for key in keys)


@cache
def read_rules() -> Rules:
    """Read the table that comes with the package.

    Raises:
        UnknownNameError: if the table refers to a rule, threshold or source that it does not have.

    Example:
        >>> read_rules()["R1"]["one_split"]
        100
    """
    with resources.as_file(resources.files("raremix.study.recommend") / "rules.toml") as path:
        table = read_toml(path)
    found = Rules(
        rules={entry["id"]: build(Rule, entry, where=f"rule {entry['id']}") for entry in table["rule"]},
        arms=tuple(build(ArmRule, entry, where=f"arm {entry['name']}") for entry in table["arm"]),
        cuts=tuple(build(CutRule, entry, where=f"cut {entry['id']}") for entry in table["cut"]),
        sources=dict(table["sources"]),
    )
    names = [arm.name for arm in found.arms]
    for rule in found.rules.values():
        found.cite(rule.sources)
    for arm in found.arms:
        found.cite((*found[arm.rule].sources, *arm.sources))
        for place in (arm.ratio_from, arm.repeats_above, arm.images_above, arm.rarest_from):
            found.threshold(place, 0.0)
        if arm.until is not None and arm.until not in names:
            raise UnknownNameError("arm", arm.until, names)
    return found


def rules_as_markdown() -> str:
    """Return the rules as a Markdown table, for the documentation."""
    rules = read_rules()
    lines = ["| rule | fingerprint says | the plan does | why | evidence | strength | sources |", "|" + " --- |" * 7]
    for rule in rules.rules.values():
        sources = "; ".join(_linked(rules.sources[key]) for key in rule.sources)
        cells = (f"{rule.id} {rule.name} ({rule.kind})", rule.says, rule.does, rule.reason, rule.evidence)
        lines.append("| " + " | ".join((*cells, rule.strength, sources)) + " |")
    return "\n".join(lines)


def arms_as_markdown() -> str:
    """Return the arms as a Markdown table, in the order in which they are kept."""
    rules = read_rules()
    lines = ["| arm | rule | when | what it does | needs | source |", "|" + " --- |" * 6]
    for arm in rules.arms:
        source = "; ".join(_linked(rules.sources[key]) for key in arm.sources)
        needs = ", ".join(arm.needs) or "nothing more"
        run = "offered, " if arm.is_offered else ""
        lines.append(f"| `{arm.name}` | {arm.rule} | {run}{_when(arm, rules)} | {arm.words} | {needs} | {source} |")
    return "\n".join(lines)


def cuts_as_markdown() -> str:
    """Return what a time limit costs as a Markdown table, in the order of the cuts."""
    rows = [f"| {number} | {cut.id} | {cut.cost} |" for number, cut in enumerate(read_rules().cuts, start=1)]
    return "\n".join(["| order | cut | what it costs the evidence |", "| --- | --- | --- |", *rows])


def _when(arm: ArmRule, rules: Rules) -> str:
    """Say in words when an arm is in a plan."""
    words = [
        text.format(f"{rules.threshold(place, 0.0):g}")
        for place, text in (
            (arm.ratio_from, "imbalance from {}"),
            (arm.images_above, "more than {} images"),
            (arm.rarest_from, "rarest class from {} training images"),
            (arm.repeats_above, "a rare image repeats more than {} times"),
        )
        if place is not None
    ]
    words += [f"no {arm.until}"] if arm.until is not None else []
    words += [" and ".join(arm.tasks)] if arm.tasks else []
    words += ["pretrained weights"] if arm.with_weights else []
    return ", ".join(words) or "always"


def _linked(source: str) -> str:
    text, _, address = source.rpartition(", https://")
    return f"[{text}](https://{address})" if text else source
