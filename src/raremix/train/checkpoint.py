"""Checkpoints that are whole or not there.

A checkpoint is a folder of safetensors and JSON files that appears by one rename; its `manifest.json` names each of
them with its SHA-256. "Latest" is the newest folder whose manifest verifies; a damaged one is named and passed over.
Two are kept.
"""

import platform
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from lightning_fabric.wrappers import _FabricModule
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raremix.core import files
from raremix.core.errors import CorruptError, ResumeError

Tensors = dict[str, Tensor]
KEEP = 2
GROUP = "group-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a checkpoint holds.

    Attributes:
        step: optimiser steps done.
        tensors: named groups of tensors ("modules/classifier", "average/classifier", "optimizers/classifier", ...);
            a group without any is not kept.
        state: everything else: step, best so far, settings of the optimisers, environment, identity.
    """

    step: int
    tensors: dict[str, Tensors]
    state: dict[str, Any]


def save(folder: Path, snapshot: Snapshot) -> Path:
    """Write a checkpoint and drop all but the newest ones.

    Raises:
        StorageError: if it cannot be written; earlier checkpoints stay as they are.
    """
    target = folder / f"step-{snapshot.step:08d}"
    # What has this step already is damaged: it was passed over when the run was resumed.
    files.remove_folder(target)
    with files.atomic_folder(target) as draft:
        names = []
        for group, tensors in snapshot.tensors.items():
            if not tensors:
                continue
            names.append(group.replace("/", ".") + ".safetensors")
            files.write_tensors(draft / names[-1], tensors)
        files.write_json(draft / "state.json", {**snapshot.state, "step": snapshot.step})
        files.seal(draft, [*names, "state.json"])
    older = [path for path in checkpoints(folder) if path.name < target.name]
    for path in checkpoints(folder):
        # Later ones were passed over too; left there, they would crowd out whole ones.
        if path not in {target, *older[1 - KEEP :]}:
            files.remove_folder(path)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """Return the folders of checkpoints, oldest first."""
    return sorted(folder.glob("step-*"))


def latest(folder: Path) -> Snapshot | None:
    """Return the newest checkpoint that verifies, or None.

    Damaged checkpoints are passed over with a warning that names the file.
    """
    for path in reversed(checkpoints(folder)):
        try:
            return load(path)
        except CorruptError as error:
            warnings.warn(f"checkpoint passed over: {error}", stacklevel=2)
    return None


def load(path: Path) -> Snapshot:
    """Read a checkpoint after checking every file against the manifest.

    Raises:
        CorruptError: naming the file that is missing or damaged.
    """
    names = files.verify(path, advice="an older checkpoint is used if there is one")
    tensors = {
        name.removesuffix(".safetensors").replace(".", "/", 1): safetensors.torch.load_file(path / name)
        for name in names
        if name.endswith(".safetensors")
    }
    state = files.read_json(path / "state.json")
    return Snapshot(step=state.pop("step"), tensors=tensors, state=state)


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[Tensors, dict[str, Any]]:
    """Split an optimiser's state into tensors and JSON.

    Of its groups only numbers and tensors are kept, which may change while it runs; the rest is how it was built.
    """
    state = optimizer.state_dict()
    tensors: Tensors = {}
    scalars: dict[str, dict[str, Any]] = {}
    groups: list[dict[str, Any]] = []
    for index, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{index}/{key}"] = value
            else:
                scalars.setdefault(str(index), {})[key] = value
    for number, group in enumerate(state["param_groups"]):
        tensors |= {f"{GROUP}{number}/{key}": value for key, value in group.items() if isinstance(value, Tensor)}
        groups.append({key: value for key, value in group.items() if isinstance(value, int | float)})
    return tensors, {"scalars": scalars, "groups": groups}


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors, settings: Mapping[str, Any]) -> None:
    """Load what `pack_optimizer` split into an optimiser that was built in the same way."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    groups = [
        {**now, **then} for now, then in zip(optimizer.state_dict()["param_groups"], settings["groups"], strict=True)
    ]
    for name, tensor in tensors.items():
        index, key = name.split("/", 1)
        if index.startswith(GROUP):
            groups[int(index.removeprefix(GROUP))][key] = tensor
        else:
            state.setdefault(int(index), {})[key] = _laid_out_like(parameters[int(index)], tensor)
    for index, values in settings["scalars"].items():
        state.setdefault(int(index), {}).update(values)
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    # Torch casts what it loads to the weight's own type; some optimisers keep moments in fewer bits.
    for number, values in state.items():
        held = optimizer.state.get(parameters[number], {})
        for key, value in values.items():
            if isinstance(value, Tensor) and key in held and value.dtype != held[key].dtype:
                held[key] = value.to(held[key].device)


def _laid_out_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    # Files hold rows first. Fused optimisers walk through memory without looking at strides: moments of a channels-last
    # weight must be channels-last too, or each weight is moved by another one's moments.
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def environment(*, device: torch.device, precision: str, channels_last: bool, ranks: int) -> dict[str, Any]:
    """Describe what the bits of a run depend on beside its inputs."""
    capability = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    )
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": device.type,
        "capability": capability,
        "threads": torch.get_num_threads(),
        "precision": precision,
        "channels_last": channels_last,
        "ranks": ranks,
    }


def check_identity(snapshot: Snapshot, identity: str) -> None:
    """Refuse a checkpoint of another run.

    Raises:
        ResumeError: if data or configuration differ.
    """
    if snapshot.state["identity"] != identity:
        raise ResumeError(
            "the checkpoint was written with other data or another configuration: "
            "choose another output folder, or delete the checkpoints to begin anew"
        )


def differences(snapshot: Snapshot, now: Mapping[str, Any]) -> list[str]:
    """Name what differs between the environment of a checkpoint and this one."""
    then = snapshot.state["environment"]
    return [f"{key}: {then.get(key)} -> {value}" for key, value in now.items() if then.get(key) != value]


def unwrap(module: nn.Module) -> nn.Module:
    """Return a module without the wrappers that devices and ranks put around it."""
    return unwrap(module.module) if isinstance(module, _FabricModule | DistributedDataParallel) else module


def plain_state(module: nn.Module) -> Tensors:
    """Return the state of an unwrapped module, detached."""
    return {name: tensor.detach() for name, tensor in unwrap(module).state_dict().items()}
