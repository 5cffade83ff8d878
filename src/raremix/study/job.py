"""A classifier to train, named by the hash of everything that it depends on."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from raremix.core import files
from raremix.models import ClassifierSpec, HeadSpec
from raremix.study.arm_images import images_facts
from raremix.study.arm_table import PARTS, ArmSpec
from raremix.study.fitted import check_weights
from raremix.study.generators.guard import admitted_translators
from raremix.study.prepare import Prepared, of_arm
from raremix.study.spec import StudySpec
from raremix.study.training import selection_metric

CODE_VERSION = 4
"""Raised when a change makes the same settings train another classifier; results of older versions are then redone."""

METHOD_VERSIONS = {"crt": 2, "deferred": 2, "deferred_reweighting": 2, "ldam": 2}
"""The same for one loss, sampler, mixer or recipe, by its name: other arms keep their results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One classifier to train: an arm, a seed, perhaps a fold.

    Attributes:
        arm: the recipe's name.
        seed: of initialisation, order, augmentation and mixing.
        fold: which fold is held out, or None.
        key: hash of everything that the result depends on.
    """

    arm: str
    seed: int
    fold: int | None
    key: str

    @property
    def folder_name(self) -> str:
        """Name of the job's folder within the study's `jobs/`."""
        fold = "" if self.fold is None else f"-fold{self.fold}"
        return f"{self.arm}-seed{self.seed}{fold}-{self.key[:8]}"


def make_job(
    spec: StudySpec, prepared: Prepared, *, arm: ArmSpec, seed: int, fold: int | None, keys: Mapping[str, str]
) -> Job:
    """Name a job by the hash of its resolved inputs and of this code's version.

    Args:
        spec: the study.
        prepared: its data, of the fold.
        arm: the recipe.
        seed: of the run.
        fold: which one is held out, or None.
        keys: of the study's generators, as `raremix.study.generators.own.generator_keys` returns them for the fold.

    Raises:
        HeldOutError: if the arm's weights were fitted on rows that this study holds out.
    """
    prepared = of_arm(prepared, arm)
    check_weights(spec, arm, prepared.manifest)
    model, train = spec.model_of(arm), asdict(spec.train_of(arm))
    # What changes how fast a run is, or what is written beside it, but not the classifier.
    for name in ("workers", "checkpoints", "tensorboard"):
        train.pop(name)
    generators = admitted_translators(
        arm.mix, prepared.manifest, size=spec.data.size, channels=prepared.channels, own=keys
    )
    inputs = {
        "code": CODE_VERSION,
        "arm": {part: getattr(arm, part) for part in ("mix", "augment", "sampler", "loss")}
        | ({"recipe": arm.recipe} if arm.recipe else {}),
        "model": _model_inputs(model),
        "train": train,
        "threshold": spec.threshold,
        "metric": selection_metric(spec, prepared.manifest.card.task),
        "data": prepared.manifest.hash(),
        # Which images may be flipped depends on it.
        "modality": prepared.manifest.card.modality,
        "images": [spec.data.size, prepared.channels, spec.data.bits, spec.data.resize],
        **({"reading": spec.data.reading.key()} if spec.data.reading.key() else {}),
        **({"generators": generators} if generators else {}),
        **({"methods": methods} if (methods := _method_versions(arm)) else {}),
        **images_facts(arm, keys),
        "seed": seed,
        "fold": fold,
    }
    return Job(arm=arm.name, seed=seed, fold=fold, key=files.hash_value(inputs))


def _method_versions(arm: ArmSpec) -> dict[str, int]:
    """Return the versions of the methods that an arm names, where they have changed since the first."""

    def named(value: Any) -> set[str]:
        if isinstance(value, Mapping):
            return set().union(*map(named, value.values()))
        if isinstance(value, list | tuple):
            return set().union(*map(named, value))
        return {value} if isinstance(value, str) else set()

    names = named({part: getattr(arm, part) for part in PARTS})
    return {name: METHOD_VERSIONS[name] for name in sorted(names & METHOD_VERSIONS.keys())}


def _model_inputs(model: ClassifierSpec) -> dict[str, Any]:
    """Return what of a [model] table the classifier depends on: the content of files, and not where they are."""
    inputs = {**asdict(model), "weights": _hash(model.weights) if model.weights else None}
    if model.head == HeadSpec():
        return {key: value for key, value in inputs.items() if key != "head"}
    vectors = model.head.vectors
    head = {**asdict(model.head), "vectors": _hash(vectors) if vectors else None}
    return {**inputs, "head": head if model.head.zeros else {key: head[key] for key in head if key != "zeros"}}


def _hash(path: Path) -> str:
    """Return a file's hash, which is computed once for all jobs of a study while the file does not change."""
    if not path.is_file():
        return files.hash_file(path)  # which says what is wrong
    facts = path.stat()
    return _hash_of(path.resolve(), facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=32)
def _hash_of(path: Path, size: int, time: int) -> str:
    return files.hash_file(path)
