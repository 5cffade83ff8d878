"""Pretrained weights that are already on this machine."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import timm

from raremix.core.errors import ReadError


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A file of pretrained weights.

    Attributes:
        path: the file.
        name: timm's name of its network.
        parameters: how many numbers it holds.
        mean, std: normalisation, where the file says so; else timm's own.
        options: of timm's constructor, where the file says so.
    """

    path: Path
    name: str
    parameters: int
    mean: float | None = None
    std: float | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def table(self, *, channels: int) -> dict[str, Any]:
        """Return the [model] table that loads them."""
        table: dict[str, Any] = {"name": self.name, "weights": str(self.path)}
        for key, value in (("mean", self.mean), ("std", self.std)):
            if value is not None:
                table[key] = [value] * channels
        return {**table, "options": dict(self.options)} if self.options else table


def find_weights(places: Sequence[Path]) -> tuple[Weights, ...]:
    """Look for .safetensors files in folders called "weights" beside or above places, and in the hub's cache.

    Args:
        places: where the data and the user are; three levels up are looked at.

    Returns:
        Those whose network timm knows, in the order in which they were found.
    """
    found: dict[Path, Weights] = {}
    for place in places:
        here = place.resolve()
        for folder in [here, *here.parents][:4]:
            if (folder / "weights").is_dir():
                for path in sorted((folder / "weights").glob("*.safetensors")):
                    _add(found, path, path.stem)
    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "hub")
    for path in sorted(hub.expanduser().glob("models--timm--*/snapshots/*/model.safetensors")):
        _add(found, path, path.parents[2].name.removeprefix("models--timm--").partition(".")[0])
    return tuple(found.values())


def read_weights(path: Path) -> Weights:
    """Describe one file of weights.

    Raises:
        ReadError: if it is no such file, or its network cannot be told.
    """
    found: dict[Path, Weights] = {}
    _add(found, path, path.stem)
    if not found:
        raise ReadError(
            path.name,
            "expected a whole .safetensors file whose name begins with timm's name of the network, "
            "such as resnet18_imagenet.safetensors",
        )
    return next(iter(found.values()))


def _add(found: dict[Path, Weights], path: Path, stem: str) -> None:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            said = (file.metadata() or {}).get("timm", "")
            parameters = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    except (OSError, safetensors.SafetensorError):
        return
    name, *rest = [part.strip() for part in said.split(",")] if said else [stem]
    parts = name.split("_")
    name = next((n for n in ("_".join(parts[:k]) for k in range(len(parts), 0, -1)) if timm.is_model(n)), "")
    if not name:
        return
    numbers: dict[str, float] = {}
    options: dict[str, Any] = {}
    for part in rest:
        *keys, value = [word.strip() for word in part.split("=")]
        for key in keys:
            if key in {"mean", "std"}:
                numbers[key] = float(value)
            else:
                options[key] = value
    found[path.resolve()] = Weights(
        path=path.resolve(),
        name=name,
        parameters=parameters,
        mean=numbers.get("mean"),
        std=numbers.get("std"),
        options=options,
    )
