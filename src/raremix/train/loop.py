"""The one training loop. It reads top to bottom.

Budgets are in optimiser steps. The batch, the mixing, dropout and the learning rate of a step are functions of its
number, so a run that is killed at any moment and resumed ends with the same bits on a CPU (same threads, precision,
versions).
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from raremix.core import files
from raremix.core.errors import RunError, StoppedError
from raremix.core.protocols import Trainable
from raremix.core.random import torch_seed
from raremix.core.ranks import Ranks
from raremix.core.types import Batch, Progress
from raremix.train import checkpoint
from raremix.train.average import start_averages, update_averages
from raremix.train.feed import Feed
from raremix.train.log import Log
from raremix.train.ranked import average_gradients, average_statistics, is_shared, mean_losses, placed
from raremix.train.schedule import rate_factor
from raremix.train.spec import TrainSpec, resolve_precision

REMEDY = "lower [train] learning_rate, or set precision = '32'"
"""What helps a classifier whose loss is no longer finite."""

Broken = Callable[[str, int], RunError]
"""What is no longer finite, after which step -> the error that says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """How a run ended.

    Attributes:
        best_step: step after which the validation metric was best.
        best_value: its value there.
        weights: the kept state of every module, by name.
        exact: False if the run was resumed in another environment than it began in.
        seconds: time in the training steps of this process.
        steps_done: steps done by this process.
        notes: what a reader of the result should know.
    """

    best_step: int
    best_value: float | None
    weights: dict[str, dict[str, Tensor]]
    exact: bool
    seconds: float
    steps_done: int
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Best:
    step: int = 0
    value: float | None = None
    weights: dict[str, dict[str, Tensor]] = field(default_factory=dict)


def fit(  # noqa: PLR0912, PLR0915 - the loop is read in one piece
    task: Trainable,
    feed: Feed,
    *,
    spec: TrainSpec,
    fabric: Fabric,
    folder: Path,
    identity: str,
    validate: Callable[[Mapping[str, nn.Module]], Mapping[str, float]] | None = None,
    metric: str | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    remedy: str = REMEDY,
) -> FitResult:
    """Train for `spec.steps` steps, resuming from the newest checkpoint in `folder` if there is one.

    Args:
        task: what to train.
        feed: makes the batch of any step.
        spec: budget, schedule, validation.
        fabric: device, precision and ranks.
        folder: holds `log.jsonl` and `checkpoints/`.
        identity: hash of data and configuration; a checkpoint of another one is refused.
        validate: scores modules (the averaged ones where an average is kept) on validation images.
        metric: the entry of `validate`'s result whose maximum is kept; the last step is kept without it.
        progress: called after every step.
        should_stop: asked after every step; if it says yes, a checkpoint is written and `StoppedError` raised.
        remedy: what helps where a loss or a weight is no longer finite.

    Raises:
        ResumeError: if the checkpoints are of another run.
        RunError: if the loss is no longer finite.
        StoppedError: if it was asked to stop.
        ConfigError: if a trainable that several ranks share was built for another rank.
    """
    optimizers, ranks = dict(task.optimizers), Ranks(rank=fabric.global_rank, count=fabric.world_size)
    shared = is_shared(task, ranks)
    for name, module in task.modules.items():
        if spec.channels_last:
            module = module.to(memory_format=torch.channels_last)  # noqa: PLW2901
        if spec.sync_batchnorm and fabric.world_size > 1:
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # noqa: PLW2901
        task.modules[name] = placed(module, fabric) if shared else fabric.setup_module(module)
    movers = {name: fabric.setup_optimizers(optimizer) for name, optimizer in optimizers.items()}
    spec = replace(spec, clip=spec.clip or None, average=spec.average or None)  # a study file knows no None
    averages = start_averages(task, decay=spec.average)
    base_rates = {name: [group["lr"] for group in optimizer.param_groups] for name, optimizer in optimizers.items()}
    environment = checkpoint.environment(
        device=fabric.device,
        precision=resolve_precision(spec),
        channels_last=spec.channels_last,
        ranks=fabric.world_size,
    )
    best, first, exact, notes = _Best(), 0, True, []

    broken = partial(_broken, folder, remedy)
    log = Log(folder, enabled=fabric.is_global_zero, tensorboard=spec.tensorboard)
    if fabric.is_global_zero:
        files.sweep(folder / "checkpoints", recursive=True)
    snapshot = checkpoint.latest(folder / "checkpoints")
    if snapshot is not None:
        checkpoint.check_identity(snapshot, identity)
        first = snapshot.step
        best = _restore(snapshot, task, averages, optimizers)
        fabric.strategy.precision.load_state_dict(snapshot.state["precision"])
        changed = checkpoint.differences(snapshot, environment)
        exact, notes = bool(snapshot.state["exact"]) and not changed, list(snapshot.state["notes"])
        if changed:
            notes.append(f"resumed-inexact at step {first}: {'; '.join(changed)}")
            warnings.warn(f"resumed under other conditions, so not bit for bit: {'; '.join(changed)}", stacklevel=2)
    fabric.barrier()
    log.rewind(first)

    def save(step: int, losses: Mapping[str, Tensor]) -> None:
        # What is not finite would be the newest checkpoint, and the last good one lost with the next.
        _finite(mean_losses(losses, ranks, fabric.device), step, broken)
        _finite_weights(task, step, broken)
        if fabric.is_global_zero:
            log.sync()
            snapshot = _snapshot(step, task, averages, optimizers, best)
            snapshot.state.update(identity=identity, environment=environment, exact=exact, notes=notes)
            snapshot.state.update(precision=fabric.strategy.precision.state_dict())
            checkpoint.save(folder / "checkpoints", snapshot)
        fabric.barrier()

    validate_at = _moments(spec.steps, spec.validations)
    save_at = _moments(spec.steps, spec.checkpoints)
    log_every = max(1, spec.steps // 200)
    warmup = round(spec.warmup * spec.steps)
    seconds, done = 0.0, 0

    with (
        torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else []),
        _determinism(spec.deterministic),
    ):
        for step, cpu_batch in enumerate(
            feed.batches(first, spec.steps, workers=spec.workers, prefetch=2), start=first
        ):
            started = time.perf_counter()
            _seed_torch(torch_seed(feed.seed, "dropout", step, feed.rank), fabric.device)
            factor = rate_factor(step, steps=spec.steps, warmup=warmup, schedule=spec.schedule)
            batch = _to_device(cpu_batch, fabric, channels_last=spec.channels_last)
            sharing = ranks if shared else None
            losses = _step(task, batch, movers, base_rates, fabric, sharing, step=step, factor=factor, clip=spec.clip)
            update_averages(task, averages, decay=spec.average, step=step)
            task.after_step(step, {name: averages.get(name, module) for name, module in task.modules.items()})
            seconds, done = seconds + time.perf_counter() - started, done + 1

            if (step + 1) % log_every == 0 or step + 1 == spec.steps:
                means = mean_losses(losses, ranks, fabric.device)
                log.add(step + 1, _finite(means, step + 1, broken) | {"rate": factor})
            if step + 1 in validate_at and validate is not None:
                _validate(task, averages, best, step + 1, validate, metric, fabric, log, broken)
            stopping = fabric.broadcast(should_stop()) if fabric.world_size > 1 else should_stop()
            if (step + 1 in save_at and step + 1 < spec.steps) or stopping:
                save(step + 1, losses)
            if progress is not None:
                progress("training", step + 1, spec.steps)
            if stopping:
                log.close()
                raise StoppedError(f"stopped after step {step + 1} of {spec.steps}: run the same command to go on")

    log.close()
    if not best.weights:
        _finite_weights(task, spec.steps, broken)
        best = _Best(step=spec.steps, value=best.value, weights=_kept(task, averages))
    return FitResult(
        best_step=best.step,
        best_value=best.value,
        weights=best.weights,
        exact=exact,
        seconds=seconds,
        steps_done=done,
        notes=tuple(notes),
    )


def _step(
    task: Trainable,
    batch: Batch,
    movers: Mapping[str, Any],
    base_rates: Mapping[str, list[float]],
    fabric: Fabric,
    sharing: Ranks | None,
    *,
    step: int,
    factor: float,
    clip: float | None,
) -> dict[str, Tensor]:
    losses: dict[str, Tensor] = {}
    for phase, mover in movers.items():
        for group, rate in zip(mover.param_groups, base_rates[phase], strict=True):
            group["lr"] = rate * factor
        mover.zero_grad(set_to_none=True)
        found = task.loss(phase, batch, step=step)
        fabric.backward(found["loss"])
        if sharing is not None:
            average_gradients(_parameters(mover), sharing)
        if clip is not None:
            _clip(mover, fabric, clip)
        mover.step()
        losses |= {name if len(movers) == 1 else f"{phase}/{name}": value.detach() for name, value in found.items()}
    if sharing is not None:
        average_statistics(task.modules, sharing)
    return losses


def _parameters(mover: Any) -> list[nn.Parameter]:
    return [p for group in mover.param_groups for p in group["params"]]


def _clip(mover: Any, fabric: Fabric, clip: float) -> None:
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    if scaler is not None:
        scaler.unscale_(mover.optimizer)
    nn.utils.clip_grad_norm_(_parameters(mover), clip, foreach=True)


def _seed_torch(seed: int, device: torch.device) -> None:
    # torch.manual_seed does the same for every kind of device there may be, which costs a small network a few percent.
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(seed)


def _to_device(batch: Batch, fabric: Fabric, *, channels_last: bool) -> Batch:
    return batch.to(fabric.device, memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _finite(losses: Mapping[str, Tensor | float], step: int, broken: Broken) -> dict[str, float]:
    values = {name: float(value) for name, value in losses.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise broken(f"{name} is {value}", step)
    return values


def _finite_weights(task: Trainable, step: int, broken: Broken) -> None:
    for name, module in task.modules.items():
        for key, value in checkpoint.plain_state(module).items():
            if not bool(torch.isfinite(value).all()):
                raise broken(f"the weight {key} of the {name} is not finite", step)


def _broken(folder: Path, remedy: str, what: str, step: int) -> RunError:
    kept = [path.name for path in checkpoint.checkpoints(folder / "checkpoints")]
    good = (
        f"; the last good checkpoint is {folder / 'checkpoints' / kept[-1]}: the same settings go on from it, on a "
        "processor to the same end, and others begin anew"
        if kept
        else ""
    )
    return RunError(f"{what} at step {step}: {remedy}{good}")


def _moments(steps: int, count: int) -> frozenset[int]:
    """Return the steps of so many moments, evenly spaced, the last step among them; no more than there are steps."""
    count = min(count, steps)
    return frozenset(round(steps * (i + 1) / count) for i in range(count))


def _validate(
    task: Trainable,
    averages: Mapping[str, nn.Module],
    best: _Best,
    step: int,
    validate: Callable[[Mapping[str, nn.Module]], Mapping[str, float]],
    metric: str | None,
    fabric: Fabric,
    log: Log,
    broken: Broken,
) -> None:
    # DistributedDataParallel would send its buffers, and the other ranks do not listen.
    alone = {name: checkpoint.unwrap(m) if fabric.world_size > 1 else m for name, m in task.modules.items()}
    scored = {**alone, **averages}
    training = {name: module.training for name, module in scored.items()}
    for module in scored.values():
        module.eval()
    with torch.inference_mode():
        values = dict(validate(scored)) if fabric.is_global_zero else {}
    for name, module in scored.items():
        module.train(training[name])
    values = fabric.broadcast(values)
    log.add(step, _finite({f"validation/{name}": value for name, value in values.items()}, step, broken))
    if metric is None:
        return
    value = values[metric]
    # On a tie the later moment is kept: it has seen more of the schedule.
    if best.value is None or value >= best.value:
        best.step, best.value, best.weights = step, value, _kept(task, averages)


def _kept(task: Trainable, averages: Mapping[str, nn.Module]) -> dict[str, dict[str, Tensor]]:
    return {
        name: {
            k: v.detach().to("cpu", copy=True) for k, v in checkpoint.plain_state(averages.get(name, module)).items()
        }
        for name, module in task.modules.items()
    }


def _snapshot(
    step: int,
    task: Trainable,
    averages: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    best: _Best,
) -> checkpoint.Snapshot:
    tensors = {f"modules/{name}": checkpoint.plain_state(module) for name, module in task.modules.items()}
    tensors |= {f"average/{name}": checkpoint.plain_state(module) for name, module in averages.items()}
    tensors |= {f"best/{name}": weights for name, weights in best.weights.items()}
    tensors["memory"] = task.memory
    settings = {}
    for name, optimizer in optimizers.items():
        tensors[f"optimizers/{name}"], settings[name] = checkpoint.pack_optimizer(optimizer)
    state = {"optimizers": settings, "best": {"step": best.step, "value": best.value}}
    return checkpoint.Snapshot(step=step, tensors=tensors, state=state)


def _restore(
    snapshot: checkpoint.Snapshot,
    task: Trainable,
    averages: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> _Best:
    for name, module in task.modules.items():
        checkpoint.unwrap(module).load_state_dict(snapshot.tensors.get(f"modules/{name}", {}))
    for name, average in averages.items():
        average.load_state_dict(snapshot.tensors.get(f"average/{name}", {}))
    for name, kept in task.memory.items():
        kept.copy_(snapshot.tensors["memory"][name])
    for name, optimizer in optimizers.items():
        tensors = snapshot.tensors.get(f"optimizers/{name}", {})
        checkpoint.unpack_optimizer(optimizer, tensors, snapshot.state["optimizers"][name])
    weights = {
        group.removeprefix("best/"): tensors for group, tensors in snapshot.tensors.items() if group.startswith("best/")
    }
    return _Best(step=snapshot.state["best"]["step"], value=snapshot.state["best"]["value"], weights=weights)


@contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
