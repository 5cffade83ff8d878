"""A generator as a table: its method's hyper-parameters, and the budget that it is fitted with."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from raremix.config import Table, build, build_named, check
from raremix.core.errors import ConfigError, UnknownNameError
from raremix.generate import GENERATORS, GeneratorMethod
from raremix.study.arm_table import absolute
from raremix.study.train_table import check_train
from raremix.train import TrainSpec

OWN = ("optimizer", "learning_rate", "weight_decay", "metric")
"""Keys of [train] that a generator has of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorTable:
    """One [[generator]] of a study, fitted on its training images before the arms that ask for it are trained.

    Attributes:
        name: what arms call it; a folder bears it too.
        kind: name of the method.
        method: its hyper-parameters. Its `weights` may name an earlier [[generator]].
        train: budget and device; the optimisers are the method's.
        seed: of weights, order and noise.
        classifier: folder of an auxiliary classifier, where the method asks for one.
        without: classes whose images are left out.
        force: classes that are fitted although they have too few images for the method.
    """

    name: str
    kind: str
    method: GeneratorMethod
    train: TrainSpec
    seed: int = 0
    classifier: Path | None = None
    without: tuple[str, ...] = ()
    force: tuple[str, ...] = ()

    def to_table(self) -> Table:
        """Return the table with every setting, defaults included."""
        settings: Any = self.method
        return {
            "name": self.name,
            "method": {"name": self.kind, **asdict(settings)},
            "train": {key: value for key, value in asdict(self.train).items() if key not in OWN},
            "seed": self.seed,
            "classifier": self.classifier,
            "without": list(self.without),
            "force": list(self.force),
        }


def read_method(table: Table, train: Table, *, where: str = "") -> tuple[str, GeneratorMethod, TrainSpec]:
    """Build a generator's method, and the budget that it has where the file is silent.

    Args:
        table: the method's table with a name.
        train: its [train] table.
        where: what comes before "generator" and "train" in messages.

    Returns:
        The method's name, the method, and the budget.

    Raises:
        ConfigError: for a value that does not fit.
        UnknownNameError: for a method or key that there is not.
    """
    method = build_named(GENERATORS, table, kind="generator", where=f"{where}generator")
    assert isinstance(method, GeneratorMethod)
    budget = method.budget
    defaults: Table = {
        "steps": budget.steps,
        "batch_size": budget.batch_size,
        "average": budget.average,
        "schedule": "constant",
        "warmup": budget.warmup,
        "clip": budget.clip,
        "precision": budget.precision,
        "validations": 16,
        "checkpoints": 8,
    }
    for key in OWN:
        if key in train:
            raise ConfigError(
                f"{where}train.{key}: a generator has its own; set {where}generator.{key}, if it has such a key"
            )
    spec = build(TrainSpec, {**defaults, **train}, where=f"{where}train")
    if "average" not in train:
        spec = replace(spec, average=budget.decay(spec.batch_size))
    check_train(spec, where=f"{where}train")
    if spec.batch_size % spec.devices:
        raise ConfigError(
            f"{where}train.batch_size = {spec.batch_size} must be divisible by devices = {spec.devices}: every one "
            "gets as many images of a step"
        )
    if spec.precision == "16":
        raise ConfigError(
            f'{where}train.precision = "16": generators train in "bf16", which scales no losses and penalties, '
            'or in "32"'
        )
    if spec.steps < 1 or spec.batch_size < 1:
        raise ConfigError(f"{where}train.steps and train.batch_size must be at least 1")
    return str(table["name"]), method, spec


def read_generators(entries: Any) -> tuple[GeneratorTable, ...]:
    """Read the [[generator]] tables of a study.

    Raises:
        ConfigError: for a value that does not fit, or two generators of one name.
        UnknownNameError: for a method or key that there is not.
    """
    if not isinstance(entries, list):
        raise ConfigError("expected [[generator]] tables with a name, in double brackets")
    known = ("name", "method", "train", "seed", "classifier", "without", "force")
    found: list[GeneratorTable] = []
    for entry in entries:
        name = entry.get("name")
        if not isinstance(name, str) or not name or not all(ch.isalnum() or ch in "-_" for ch in name):
            raise ConfigError(f"[[generator]] {name!r}: a name is made of letters, digits and - _, for arms to call it")
        if any(other.name == name for other in found):
            raise ConfigError(f"two generators are called {name!r}: give each a name of its own")
        for key in entry:
            if key not in known:
                raise UnknownNameError(f"key of generator {name}", key, known)
        where = f"generator.{name}"
        method = entry.get("method", name)
        table = {"name": method} if isinstance(method, str) else check(method, Table, where=f"{where}.method")
        kind, made, train = read_method(
            table, check(entry.get("train", {}), Table, where=f"{where}.train"), where=f"{where}: "
        )
        rest = {key: entry[key] for key in ("seed", "classifier", "without", "force") if key in entry}
        found.append(build(GeneratorTable, {"name": name, **rest}, where=where, kind=kind, method=made, train=train))
    return tuple(found)


def called_weights(table: GeneratorTable, names: Sequence[str] | Mapping[str, Any]) -> str | None:
    """Return the generator of the study that a method begins with the weights of, if it does."""
    weights = getattr(table.method, "weights", "")
    return weights if weights and weights in names and weights != table.name else None


def placed(entry: Any, base: Path) -> Any:
    """Return a [[generator]] table whose paths are absolute."""
    if not isinstance(entry, dict):
        raise ConfigError("expected [[generator]] tables with a name, in double brackets")
    found = dict(entry)
    if isinstance(found.get("method"), dict):
        weights = found["method"].get("weights")
        is_there = isinstance(weights, str) and bool(weights) and (base / weights).exists()
        found["method"] = absolute(found["method"], base) if is_there else found["method"]
    if isinstance(found.get("classifier"), str):
        found["classifier"] = str((base / found["classifier"]).resolve())
    return found
