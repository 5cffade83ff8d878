"""A study file, read and checked: data, model, budget, arms, seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from timm.optim import list_optimizers  # pyright: ignore[reportPrivateImportUsage]

from raremix.config import Table, build, build_named, override, read_toml, write_toml
from raremix.core.errors import ConfigError, UnknownNameError
from raremix.core.protocols import Loss, Source
from raremix.core.registry import look_up
from raremix.core.types import Task
from raremix.data.augment import AUGMENTATIONS
from raremix.data.samplers import SAMPLERS
from raremix.data.sources import SOURCES
from raremix.evaluate.compare import check_ranks
from raremix.evaluate.metrics import METRICS
from raremix.losses import LOSS_COMBINATIONS, LOSSES
from raremix.models import ClassifierSpec, usual_learning_rate
from raremix.study.arm_table import PARTS, ArmSpec, absolute, read_arms
from raremix.study.data_tables import DataSpec, EvaluateSpec, SplitSpec, read_data_table
from raremix.study.generators.asks import check_generators
from raremix.study.generators.table import GeneratorTable, placed, read_generators
from raremix.study.generators.use import located
from raremix.study.mixers import check_mixer, make_mixer, stand_in
from raremix.study.train_table import check_train
from raremix.train import TrainSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySpec:
    """A whole study.

    Attributes:
        name: names the run folder.
        title: heading of the report.
        seeds: one run per arm and seed; at least 3 for a claim about recipes.
        reference: the arm that the others are compared with.
        metric: primary metric, named before the run; by default AUROC for binary, balanced accuracy for multiclass, and
            macro AUROC for multilabel.
        folds: grouped folds for sets too small for a hold-out; None uses the split.
        resamples: bootstrap resamples of every interval.
        threshold: how decision thresholds are chosen on validation images.
        source: where the images come from.
        source_table: the source as it stands in the file.
        data, split, model, train, evaluate: see their classes.
        arms: the recipes.
        generators: what the study fits on its training images, for the arms that ask for it.
    """

    name: str
    title: str
    seeds: tuple[int, ...]
    reference: str
    metric: str
    folds: int | None
    resamples: int
    threshold: Literal["youden", "f1", "half"]
    source: Source
    source_table: Table
    data: DataSpec
    split: SplitSpec
    model: ClassifierSpec
    train: TrainSpec
    arms: tuple[ArmSpec, ...]
    evaluate: EvaluateSpec = field(default_factory=EvaluateSpec)
    generators: tuple[GeneratorTable, ...] = ()

    def arm(self, name: str) -> ArmSpec:
        """Return an arm by name.

        Raises:
            UnknownNameError: if there is none of that name.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise UnknownNameError("arm", name, [arm.name for arm in self.arms])

    def primary_metric(self, task: Task) -> str:
        """Return the metric that decides, for a task."""
        if self.metric != "auto":
            return self.metric
        return "balanced_accuracy" if task == "multiclass" else "auroc"

    def model_of(self, arm: ArmSpec) -> ClassifierSpec:
        """Return the [model] table with an arm's changes."""
        return build(ClassifierSpec, {**asdict(self.model), **arm.model}, where=f"arm.{arm.name}.model")

    def train_of(self, arm: ArmSpec) -> TrainSpec:
        """Return the [train] table with an arm's changes, and the usual learning rate of its network if none is set."""
        train = build(TrainSpec, {**asdict(self.train), **arm.train}, where=f"arm.{arm.name}.train")
        if train.learning_rate is not None:
            return train
        model = self.model_of(arm)
        return replace(
            train, learning_rate=usual_learning_rate(model.name, fine_tuned=model.loads_weights, frozen=model.frozen)
        )

    def to_toml(self) -> str:
        """Return the resolved study: every setting, defaults included."""
        return write_toml(
            {
                "study": {
                    "name": self.name,
                    "title": self.title,
                    "seeds": list(self.seeds),
                    "reference": self.reference,
                    "metric": self.metric,
                    "folds": self.folds,
                    "resamples": self.resamples,
                    "threshold": self.threshold,
                },
                "data": {**self.source_table, **asdict(self.data)},
                "split": asdict(self.split),
                "model": asdict(self.model),
                "train": asdict(self.train),
                "evaluate": asdict(self.evaluate),
                **({"generator": [table.to_table() for table in self.generators]} if self.generators else {}),
                "arm": [asdict(arm) for arm in self.arms],
            }
        )


def read_study(path: Path, *, settings: Sequence[str] = ()) -> StudySpec:
    """Read a study file.

    Args:
        path: the TOML file; relative paths in it start from its folder. `extends = "other.toml"` lays it over another.
        settings: overrides as `key.of.table=value`.

    Raises:
        ConfigError: naming the key that does not fit.
        UnknownNameError: for a table, key, arm or method that does not exist.
    """
    table = override(_with_base(path), settings)
    table.setdefault("study", {}).setdefault("name", path.stem)
    return parse_study(table, base=path.parent)


def _with_base(path: Path, *, depth: int = 0) -> Table:
    """Read a file, laid over the one that it extends; a list such as [[arm]] replaces the base's."""
    table = read_toml(path)
    base = table.pop("extends", None)
    if base is None:
        return table
    if not isinstance(base, str) or depth > 8:
        raise ConfigError(f"{path}: extends must name one other study file, without circles")
    return _laid_over(_with_base(path.parent / base, depth=depth + 1), table)


def _laid_over(base: Table, top: Table) -> Table:
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        merged[key] = _laid_over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def parse_study(table: Table, *, base: Path) -> StudySpec:
    """Turn a study's tables into objects; everything that can be wrong in a file is found here, before any work.

    Args:
        table: as read from TOML.
        base: folder that relative paths start from.
    """
    known = {"study", "data", "split", "model", "train", "evaluate", "generator", "arm", *PARTS}
    for key in table:
        if key not in known:
            raise UnknownNameError("table of the study file", key, known)
    study = build(_StudyTable, table.get("study", {}), where="study")
    data, source_table = read_data_table(table.get("data", {}))
    source_table = absolute(source_table, base)
    rest = dict(source_table)
    make = look_up(SOURCES, rest.pop("source", "phantom"), kind="data source")
    columns = tuple("age" if name == "age_band" else name for name in data.subgroups)
    source = build(make, rest, where="data", size=data.size, attributes=columns)
    model = build(ClassifierSpec, absolute(table.get("model", {}), base), where="model")
    train = build(TrainSpec, table.get("train", {}), where="train")
    generators = read_generators([placed(entry, base) for entry in table.get("generator", [])])
    arms = read_arms(located(table, base, own=[one.name for one in generators]), base)
    reference = study.reference or arms[0].name
    spec = StudySpec(
        name=study.name,
        title=study.title or study.name,
        seeds=study.seeds,
        reference=reference,
        metric=study.metric,
        folds=study.folds,
        resamples=study.resamples,
        threshold=study.threshold,
        source=source,
        source_table=source_table,
        data=data,
        split=build(SplitSpec, table.get("split", {}), where="split"),
        model=model,
        train=train,
        arms=arms,
        evaluate=build(EvaluateSpec, table.get("evaluate", {}), where="evaluate"),
        generators=generators,
    )
    _check(spec)
    return spec


def augmentation_of(arm: ArmSpec, *, modality: str) -> Any:
    """Build an arm's augmentation for a modality."""
    return build_named(
        AUGMENTATIONS, arm.augment, kind="augmentation", where=f"arm.{arm.name}.augment", modality=modality
    )


def loss_of(
    arm: ArmSpec,
    *,
    task: Task,
    class_counts: tuple[float, ...],
    labelled_counts: tuple[float, ...] | None = None,
    head: str = "linear",
) -> Loss:
    """Build an arm's loss; `name = "auto"` is binary cross-entropy for multilabel tasks, else cross-entropy.

    Args:
        arm: the recipe.
        task: what the columns mean.
        class_counts: training images per class.
        labelled_counts: training images in which each class is known; all of them by default.
        head: kind of the classifier's last layer.
    """
    known = {**LOSSES, "auto": LOSSES["binary_cross_entropy" if task == "multilabel" else "cross_entropy"]}
    return build_named(
        {**known, **LOSS_COMBINATIONS},
        {"name": "auto", **arm.loss},
        kind="loss",
        where=f"arm.{arm.name}.loss",
        registries={Loss: known},
        class_counts=class_counts,
        labelled_counts=labelled_counts or (sum(class_counts),) * len(class_counts),
        is_cosine=head == "cosine",
    )


def sampler_of(arm: ArmSpec, *, targets: Any, seed: int) -> Any:
    """Build an arm's sampler."""
    return build_named(
        SAMPLERS, arm.sampler, kind="sampler", where=f"arm.{arm.name}.sampler", targets=targets, seed=seed
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _StudyTable:
    name: str
    title: str = ""
    seeds: tuple[int, ...] = (0, 1, 2)
    reference: str = ""
    metric: str = "auto"
    folds: int | None = None
    resamples: int = 10_000
    threshold: Literal["youden", "f1", "half"] = "youden"


def _uncounted(table: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out counts of training images, which are compared once these are known."""
    kept = {key: value for key, value in table.items() if key not in ("class_counts", "labelled_counts")}
    return {key: _uncounted(value) if isinstance(value, dict) else value for key, value in kept.items()}


def _check(spec: StudySpec) -> None:
    """Build every part once, so that a wrong key in the last arm is found before the first is trained."""
    spec.arm(spec.reference)
    check_generators(spec.arms, spec.generators, spec.data)
    own_generators = [table.name for table in spec.generators]
    for arm in spec.arms:
        plain = stand_in(arm.mix, own_generators)
        check_mixer(plain, where=f"arm.{arm.name}.mix")
        augmentation_of(arm, modality="other")
        loss_of(replace(arm, loss=_uncounted(arm.loss)), task="multiclass", class_counts=(1.0, 1.0))
        sampler_table = dict(arm.sampler)
        if sampler_table.get("name") not in SAMPLERS:
            raise UnknownNameError("sampler", str(sampler_table.get("name")), SAMPLERS)
        sampler_of(arm, targets=np.eye(2), seed=0)
        streams = make_mixer(plain, where=f"arm.{arm.name}.mix").streams
        own = streams.own.sampling
        if own is not None and arm.sampler not in ({"name": "natural"}, {"name": own}):
            raise ConfigError(
                f"arm.{arm.name}.sampler = {arm.sampler['name']!r}: {arm.mix['name']} samples its own images {own}; "
                "leave the sampler out"
            )
        check_train(spec.train_of(arm), where=f"arm.{arm.name}.train" if arm.train else "train")
        spec.model_of(arm).check(size=spec.data.size)
        optimizer, known = spec.train_of(arm).optimizer, [str(name) for name in list_optimizers()]
        if optimizer.removeprefix("lookahead_") not in known:
            raise UnknownNameError("optimizer", optimizer, known)
    for metric in {spec.metric, spec.train.metric} - {"auto"}:
        look_up(METRICS, metric, kind="metric")
        check_ranks(metric)
    if not spec.seeds or len(set(spec.seeds)) != len(spec.seeds):
        raise ConfigError(f"study.seeds = {list(spec.seeds)}: expected different whole numbers")
    if spec.train.steps < 1 or spec.train.batch_size < 1:
        raise ConfigError("train.steps and train.batch_size must be at least 1")
    if spec.train.batch_size % spec.train.devices:
        raise ConfigError(
            f"train.batch_size = {spec.train.batch_size} must be divisible by devices = {spec.train.devices}"
        )
    if spec.folds is not None and spec.folds < 2:
        raise ConfigError(f"study.folds = {spec.folds}: expected at least 2, or leave it out")
    if not 8 <= spec.data.size <= 4096:
        raise ConfigError(f"data.size = {spec.data.size}: expected 8 to 4096 pixels")
