"""The run record as the report reads it: checked once, at the door.

A study leaves `record.json` (what was compared, how, and every number) and `images.json` (example pictures) in its
folder. Both are read here into frozen models. Unknown keys are ignored, so that an older report opens a newer record;
what is there must fit, and what does not is named by its place in the file.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raremix.core.errors import UsageError
from raremix.report.fields import Count, Label, Name, Share, Text, read_checked
from raremix.report.parts import (
    Added,
    FittedOn,
    Lesions,
    Origins,
    Part,
    Quarantine,
    Rarity,
    SamplerCoverage,
    Translator,
)

Band = Literal["head", "medium", "tail"]


class StudyPart(Part):
    """What was asked: name, reference arm, primary metric, seeds, and whether everything that was asked is there."""

    name: Name
    title: Text | None = None
    created: Text | None = None
    reference: Name
    primary_metric: Name
    seeds: tuple[int, ...] = ()
    folds: int | None = None
    claim: Literal["recipe", "weights"] = "recipe"
    test_openings: Count | None = None
    status: Literal["complete", "incomplete"] = "complete"
    missing: tuple[Text, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether the record says so and names nothing that is missing."""
        return self.status == "complete" and not self.missing


class DataPart(Part):
    """The data set: card, counts per class and split, bands from head to tail."""

    name: Name
    task: Literal["binary", "multiclass", "multilabel"]
    classes: tuple[Name, ...] = Field(min_length=1)
    modality: Text | None = None
    licence: Text | None = None
    source: Text | None = None
    citation: Text | None = None
    images: Count | None = None
    groups: Count | None = None
    grouped: bool = False
    group_name: Name = "patient"
    counts: dict[Name, dict[Name, Count]] = Field(default_factory=dict)
    group_counts: dict[Name, Count] = Field(default_factory=dict)
    imbalance_ratio: float | None = None
    bands: dict[Name, Band] = Field(default_factory=dict)
    manifest_hash: Text | None = None
    thinned: Text | None = None
    rarity: Rarity | None = None
    quarantine: Quarantine | None = None

    @property
    def unit(self) -> str:
        """What a count of independent cases counts, in the plural: patients, or images where no patient is known."""
        return f"{self.group_name}s" if self.grouped else "images"

    @property
    def rare_cases(self) -> str:
        """What the positives of a comparison are, in the plural: where there are several classes, the rarest one's."""
        return f"positive {self.unit}" if self.task == "binary" else f"{self.unit} of the rarest class"

    def ordered(self) -> tuple[str, ...]:
        """Return the classes from head to tail: most training images first, ties in the card's order."""
        train = self.counts.get("train", {})
        return tuple(sorted(self.classes, key=lambda name: -train.get(name, 0)))


class Arm(Part):
    """One training recipe."""

    name: Name
    settings: dict[Text, Any] = Field(default_factory=dict)
    steps: Count | None = None
    learning_rate: float | None = None
    seconds: float | None = None
    images_per_second: float | None = None
    best_step: dict[Text, int | None] = Field(default_factory=dict)
    rarity: Rarity | None = None
    added: Added | None = None


class Metric(Part):
    """One measured value of one arm, for all test rows, a class, a band or a subgroup."""

    arm: Name
    metric: Name
    scope: Literal["overall", "class", "band", "subgroup"] = "overall"
    label: Label = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: Count | None = None
    groups: Count | None = None
    positives: Count | None = None
    note: Text | None = None
    method: Text | None = None

    @model_validator(mode="after")
    def _ordered(self) -> "Metric":
        _check_interval(self.low, self.high)
        return self


class Comparison(Part):
    """The paired difference of one arm to another: `effect` is arm minus reference."""

    arm: Name
    reference: Name
    metric: Name
    primary: bool = False
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    p: Share | None = None
    p_holm: Share | None = None
    probability_better: Share | None = None
    n: Count | None = None
    groups: Count | None = None
    positives: Count | None = None
    seeds: Count | None = None
    note: Text | None = None

    @model_validator(mode="after")
    def _believable(self) -> "Comparison":
        _check_interval(self.low, self.high)
        if self.arm == self.reference:
            raise ValueError(f"compares {self.arm!r} with itself")
        if self.p is not None and self.p_holm is not None and self.p_holm < self.p - 1e-9:
            raise ValueError(f"p_holm {self.p_holm} is below p {self.p}: a correction never makes p smaller")
        effect, low, high = (0.0 if v is None else v for v in (self.effect, self.low, self.high))
        if low > 0 > effect or high < 0 < effect:
            raise ValueError(f"the effect {effect} and its interval {low} to {high} lie on different sides of zero")
        return self


class Decisions(Part):
    """About how many patients of a class only one of two arms is right, and McNemar's mid-p of it."""

    arm: Name
    reference: Name
    label: Name
    patients: Count
    only_arm: Count
    only_reference: Count
    p: Share
    p_holm: Share

    @model_validator(mode="after")
    def _believable(self) -> "Decisions":
        if self.only_arm + self.only_reference > self.patients:
            raise ValueError(f"{self.only_arm} and {self.only_reference} patients of {self.patients} differ")
        return self


class Decidable(Part):
    """The smallest difference that this test set can decide."""

    metric: Name | None = None
    difference: Annotated[float, Field(ge=0)] | None = None
    text: Text | None = None


class Curve(Part):
    """A ROC or precision-recall curve with its band."""

    arm: Name
    label: Name
    kind: Literal["roc", "pr"]
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _no_band(cls, raw: Any) -> Any:
        return {k: v for k, v in raw.items() if v is not None} if isinstance(raw, dict) else raw

    @model_validator(mode="after")
    def _same_length(self) -> "Curve":
        if len(self.x) != len(self.y):
            raise ValueError(f"x has {len(self.x)} points, y has {len(self.y)}")
        for name, side in (("low", self.low), ("high", self.high)):
            if side and len(side) != len(self.x):
                raise ValueError(f"x has {len(self.x)} points, {name} has {len(side)}")
        return self


class ReliabilityBin(Part):
    """How often it was true (frequency) where the model was about so sure (confidence)."""

    confidence: float
    frequency: float
    low: float | None = None
    high: float | None = None
    n: Count = 0


class Reliability(Part):
    """One arm's calibration."""

    arm: Name
    bins: tuple[ReliabilityBin, ...] = ()
    ece: float | None = None
    temperature: float | None = None
    offsets: dict[Name, float] = Field(default_factory=dict)


class Confusion(Part):
    """One arm's confusion matrix: rows are true classes, columns predicted ones; averaged over seeds."""

    arm: Name
    counts: tuple[tuple[Annotated[float, Field(ge=0)], ...], ...]


class History(Part):
    """One training run: the loss, and the metric on the validation rows."""

    arm: Name
    seed: int
    steps: tuple[float, ...] = ()
    loss: tuple[float | None, ...] = ()
    metric_steps: tuple[float, ...] = ()
    metric: tuple[float | None, ...] = ()
    metric_name: Text | None = None

    @model_validator(mode="after")
    def _same_length(self) -> "History":
        for x, y, name in ((self.steps, self.loss, "loss"), (self.metric_steps, self.metric, "metric")):
            if len(x) != len(y):
                raise ValueError(f"{len(x)} steps but {len(y)} values of the {name}")
        return self


class Record(Part):
    """Everything a study knows about itself, as `record.json` holds it."""

    study: StudyPart
    data: DataPart
    arms: tuple[Arm, ...] = Field(min_length=1)
    metrics: tuple[Metric, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    controls: tuple[Comparison, ...] = ()
    samplings: tuple[Comparison, ...] = ()
    decisions: tuple[Decisions, ...] = ()
    decidable: Decidable | None = None
    curves: tuple[Curve, ...] = ()
    reliability: tuple[Reliability, ...] = ()
    confusion: tuple[Confusion, ...] = ()
    coverage: tuple[SamplerCoverage, ...] = ()
    translators: tuple[Translator, ...] = ()
    origins: Origins | None = None
    lesions: Lesions | None = None
    history: tuple[History, ...] = ()
    fitted_on: tuple[FittedOn, ...] = ()
    warnings: tuple[Text, ...] = ()
    spec: Text | None = None
    versions: dict[Text, Text | None] = Field(default_factory=dict)
    environment: dict[Text, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_empty(cls, raw: Any) -> Any:
        return {k: v for k, v in raw.items() if v is not None} if isinstance(raw, dict) else raw

    @model_validator(mode="after")
    def _consistent(self) -> "Record":
        names = [arm.name for arm in self.arms]
        _check_unique(names, "arms")
        _check_unique(self.data.classes, "classes")
        if self.study.reference not in names:
            raise ValueError(f"the reference arm {self.study.reference!r} is not one of the arms {names}")
        for part in (
            "metrics",
            "comparisons",
            "controls",
            "samplings",
            "decisions",
            "curves",
            "reliability",
            "confusion",
            "coverage",
            "history",
        ):
            unknown = sorted({entry.arm for entry in getattr(self, part)} - set(names))
            if unknown:
                raise ValueError(f"{part} name arms that the study does not have: {unknown}")
        for entry in self.confusion:
            K = len(self.data.classes)
            if len(entry.counts) != K or any(len(row) != K for row in entry.counts):
                raise ValueError(f"the confusion matrix of {entry.arm!r} should be {K} x {K}, one row per class")
        primary = [entry for entry in self.comparisons if entry.primary]
        _check_unique([entry.arm for entry in primary], "arms with a primary comparison")
        for entry in primary:
            if (entry.metric, entry.reference) != (self.study.primary_metric, self.study.reference):
                raise ValueError(
                    f"the primary comparison of {entry.arm!r} should be in {self.study.primary_metric!r} to "
                    f"{self.study.reference!r}, but is in {entry.metric!r} to {entry.reference!r}"
                )
        return self

    def primary_comparison(self, arm: str) -> Comparison | None:
        """Return the comparison that was decided on beforehand for this arm, or None."""
        return next((entry for entry in self.comparisons if entry.primary and entry.arm == arm), None)

    def overall(self, arm: str, metric: str) -> Metric | None:
        """Return an arm's value of a metric over all test rows, or None."""
        return next((m for m in self.metrics if m.arm == arm and m.metric == metric and m.scope == "overall"), None)


def read_record(path: Path) -> Record:
    """Read and check a study's `record.json`.

    Args:
        path: the file.

    Raises:
        UsageError: if there is no such file.
        CorruptError: if it does not hold a record, naming each place that does not fit.
    """
    if not path.is_file():
        raise UsageError(
            f"expected a study's folder with {path.name}, but {path} does not exist: name a folder that "
            "`raremix study` has filled, or run `raremix study FILE` first"
        )
    return read_checked(Record, path)


def _check_interval(low: float | None, high: float | None) -> None:
    if low is not None and high is not None and low > high:
        raise ValueError(f"the interval's low end {low} is above its high end {high}")


def _check_unique(names: Iterable[str], what: str) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ValueError(f"{what} named more than once: {twice}")
