"""What this machine is and how fast it trains."""

import os
import platform
import shutil
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from raremix.models import ClassifierSpec
from raremix.study.record.gather import PACKAGES
from raremix.train.spec import TrainSpec, resolve_precision


def examine(*, cache: Path) -> dict[str, dict[str, Any]]:
    """Gather versions, device, step times and the cache; reaches no network.

    Args:
        cache: the cache folder.
    """
    precision = resolve_precision(TrainSpec())
    place = next(path for path in [cache, *cache.parents] if path.exists())
    offline = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name)]
    return {
        "versions": {**{name: version(name) for name in PACKAGES}, "python": platform.python_version()},
        "device": {
            "name": torch.cuda.get_device_name(0) if torch.cuda.is_available() else platform.processor() or "CPU",
            "kind": "cuda" if torch.cuda.is_available() else "cpu",
            "threads": torch.get_num_threads(),
            "precision": f"{precision} (chosen by precision = 'auto')",
        },
        "training images per second (ResNet-18)": {f"{size} px": round(images_per_second(size)) for size in (28, 64)},
        "cache": {
            "folder": str(cache),
            "used": f"{_size(cache) / 2**20:,.0f} MiB",
            "free": f"{shutil.disk_usage(place).free / 2**30:,.1f} GiB",
        },
        "network": {
            "used": "only by pretrained = true and by download = true",
            "hub": f"offline by {', '.join(offline)}" if offline else "allowed where a study asks for it",
        },
    }


def images_per_second(
    size: int, *, batch_size: int = 32, steps: int = 2, model: ClassifierSpec | None = None, channels: int = 3
) -> float:
    """Measure training steps on random images.

    Args:
        size: side of the images in pixels.
        batch_size: images per step.
        steps: timed steps, after one that warms up.
        model: the network; a ResNet-18 by default.
        channels: of the images.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec = model or ClassifierSpec()
    network = spec.build(num_classes=7, channels=channels, size=size, seed=0).to(device)
    network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    images = torch.rand(batch_size, channels, size, size, device=device).contiguous(memory_format=torch.channels_last)
    targets = torch.zeros(batch_size, dtype=torch.long, device=device)
    bf16 = resolve_precision(TrainSpec()) == "bf16"
    started = 0.0
    for step in range(steps + 1):
        if step == 1:
            _wait(device)
            started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = torch.nn.functional.cross_entropy(network(images).float(), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    _wait(device)
    return batch_size * steps / (time.perf_counter() - started)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0
