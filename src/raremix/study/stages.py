"""From an arm's recipe to a classifier: one stage of training or two, and what is changed afterwards."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from raremix.core import files
from raremix.core.features import features_seen, head_of
from raremix.core.random import torch_seed
from raremix.evaluate.decide import ValidationRows
from raremix.models import Classifier
from raremix.study.arm_table import PARTS
from raremix.study.recipes import PostHoc, Trained, TwoStage, make_recipe
from raremix.study.tasks import label_counts
from raremix.study.training import Run, logits_of, selection_metric, train_stage
from raremix.train import FitResult, TrainSpec, checkpoint
from raremix.train.frozen import Frozen
from raremix.train.spec import resolve_precision

FIRST = "first"
"""Folder of a job that holds the log of the first of two stages, and, while it is trained, its checkpoints."""

KEPT = "kept"
"""Folder within `FIRST` of what the first stage hands to the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedArm:
    """What training an arm left.

    Attributes:
        model: the classifier of the moment that was kept, after what the recipe changes.
        fitted: how the training ended, all stages together.
        rows: manifest ids of all images that it was trained on.
        chosen: what the recipe says of itself (stages, tau ...), for the result.
    """

    model: Classifier
    fitted: FitResult
    rows: Int[np.ndarray, " n"]
    chosen: dict[str, Any]


def train_arm(run: Run, *, folder: Path) -> TrainedArm:
    """Train an arm on this rank; run again, it goes on where it was.

    Args:
        run: what is trained.
        folder: the job's folder.
    """
    recipe = make_recipe(run.arm.recipe, where=f"arm.{run.arm.name}.recipe")
    train = run.spec.train_of(run.arm)
    if isinstance(recipe, TwoStage):
        return _two_stages(run, recipe, train, folder=folder)
    model, kept = run.model(), run.model()
    if run.spec.model_of(run.arm).frozen:
        head_of(model).load_state_dict(first_values(head_of(model)))
        model, owner = Frozen(model), Frozen(kept)
    else:
        owner = kept
    fitted, rows = train_stage(run, run.arm, model, train, folder=folder, identity=run.key, seed=run.seed)
    owner.load_state_dict(fitted.weights["classifier"])
    trained = TrainedArm(model=_placed(kept, run, train), fitted=fitted, rows=rows, chosen={})
    return _finished(run, recipe, trained, train) if isinstance(recipe, PostHoc) else trained


def forget_stages(folder: Path) -> None:
    """Remove the checkpoints of a job that has a result; the logs stay."""
    for path in (folder / "checkpoints", folder / FIRST / "checkpoints", folder / FIRST / KEPT):
        files.remove_folder(path)


def first_values(head: nn.Module) -> dict[str, Tensor]:
    """Return what a new last layer on frozen features begins with: a linear one with zeros, another as it is.

    The loss is then convex in the layer, and whatever it began with is only to be unlearnt.
    """
    values = {name: value.clone() for name, value in head.state_dict().items()}
    return {name: torch.zeros_like(value) for name, value in values.items()} if isinstance(head, nn.Linear) else values


def _two_stages(run: Run, recipe: TwoStage, train: TrainSpec, *, folder: Path) -> TrainedArm:
    """Train the whole network, then a new last layer with everything else frozen, within the arm's own steps.

    What the first stage hands over is on the disk before the second begins: a run that is killed in the second goes on
    from there, and ends with the same bits.
    """
    first, second = recipe.stages(train.steps)
    ended = _first_stage(run, _part(train, first), folder=folder / FIRST)
    model = run.model()
    fresh = first_values(head_of(model))
    model.load_state_dict(ended.weights["classifier"])
    head_of(model).load_state_dict(fresh)
    tables = recipe.second(
        {part: getattr(run.arm, part) for part in PARTS if part != "recipe"}, task=run.prepared.manifest.card.task
    )
    fitted, rows = train_stage(
        run,
        replace(run.arm, **tables),
        Frozen(model),
        replace(_part(train, second), learning_rate=recipe.rate * train.rate),
        folder=folder,
        identity=f"{run.key}:second",
        seed=torch_seed(run.seed, "init", 3),
        before=first,
    )
    kept = run.model()
    Frozen(kept).load_state_dict(fitted.weights["classifier"])
    both = replace(
        fitted,
        best_step=first + fitted.best_step,
        exact=ended.exact and fitted.exact,
        seconds=ended.seconds + fitted.seconds,
        steps_done=ended.steps_done + fitted.steps_done,
        notes=(*ended.notes, *fitted.notes),
    )
    # Whatever the first stage drew from is of train; a mixer with a pool may have drawn from more rows than the second.
    seen = np.union1d(rows, run.prepared.manifest.rows("train"))
    return TrainedArm(model=_placed(kept, run, train), fitted=both, rows=seen, chosen={"stages": [first, second]})


def _first_stage(run: Run, train: TrainSpec, *, folder: Path) -> FitResult:
    """Train the first stage, or read what it left."""
    environment = checkpoint.environment(
        device=run.fabric.device,
        precision=resolve_precision(train),
        channels_last=train.channels_last,
        ranks=run.fabric.world_size,
    )
    identity = f"{run.key}:first"
    left = checkpoint.latest(folder / KEPT)
    if left is None:
        fitted, _ = train_stage(run, run.arm, run.model(), train, folder=folder, identity=identity, seed=run.seed)
        if run.fabric.is_global_zero:
            state = {"identity": identity, "environment": environment, "exact": fitted.exact, "notes": fitted.notes}
            state |= {"best": {"step": fitted.best_step, "value": fitted.best_value}}
            tensors = {"kept/classifier": fitted.weights["classifier"]}
            checkpoint.save(folder / KEPT, checkpoint.Snapshot(step=train.steps, tensors=tensors, state=state))
        run.fabric.barrier()
        return fitted
    checkpoint.check_identity(left, identity)
    changed = checkpoint.differences(left, environment)
    notes = list(left.state["notes"])
    if changed:
        notes.append(f"resumed-inexact at step {left.step}: {'; '.join(changed)}")
        warnings.warn(f"resumed under other conditions, so not bit for bit: {'; '.join(changed)}", stacklevel=2)
    return FitResult(
        best_step=left.state["best"]["step"],
        best_value=left.state["best"]["value"],
        weights={"classifier": left.tensors["kept/classifier"]},
        exact=bool(left.state["exact"]) and not changed,
        seconds=0.0,
        steps_done=0,
        notes=tuple(notes),
    )


def _part(train: TrainSpec, steps: int) -> TrainSpec:
    """Return a [train] table for a part of its steps, with as many validations and checkpoints as are its share."""
    share = steps / train.steps
    return replace(
        train,
        steps=steps,
        validations=max(1, round(share * train.validations)) if train.validations else 0,
        checkpoints=max(1, round(share * train.checkpoints)) if train.checkpoints else 0,
    )


def _finished(run: Run, recipe: PostHoc, trained: TrainedArm, train: TrainSpec) -> TrainedArm:
    """Let a recipe change the last layer, by what validation images say."""
    manifest = run.prepared.manifest
    ids = manifest.rows("validation")
    with features_seen(trained.model) as seen:
        logits = logits_of(trained.model, run.prepared, "validation", run.fabric, train)
    counts, known = label_counts(manifest)
    model, chosen = recipe.finish(
        Trained(
            model=trained.model,
            features=torch.cat(seen).float(),
            rows=ValidationRows(targets=manifest.targets(ids), outputs=logits, split=manifest.splits(ids)),
            class_counts=counts,
            labelled_counts=known,
            task=manifest.card.task,
            metric=selection_metric(run.spec, manifest.card.task),
        )
    )
    assert isinstance(model, Classifier)
    return replace(trained, model=model, chosen=chosen)


def _placed(model: Classifier, run: Run, train: TrainSpec) -> Classifier:
    """Bring a classifier to the device and memory format that it is run in."""
    model = model.requires_grad_(True).to(run.fabric.device)
    return model.to(memory_format=torch.channels_last) if train.channels_last else model  # pyright: ignore[reportCallIssue]
