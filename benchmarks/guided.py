"""Time guided mixing with kept maps beside MixUp and a training step, and GuidedMixup's pairing beside OpenMixup's.

    python benchmarks/guided.py [--json FILE]

Every guided mixer plans and mixes a batch that brings a 16 x 16 map per image, as a study keeps them; MixUp does the
same without a map. What each takes is also given as a share of one step of a ResNet-18 on that batch (channels last;
bfloat16 where the device computes in it). Contestants take turns, so that whatever else the machine does hits all
alike; the best and the median of their turns are reported.

OpenMixup's pairing is stated again after its code (guidedmix.py of 37e1372): the distance between all pairs of maps at
full resolution as the norm over one B x B x HW tensor of differences, then a greedy cycle from the most distant pair.
It runs here on maps that are there already, without the blur; ours on those at 16 x 16.
"""

import argparse
import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from peer_environment import NUMBERS, machine
from torch import Tensor
from turns import clock, device_name, take_turns

from raremix.core.random import rng
from raremix.core.types import Batch
from raremix.mix import MIXERS, Method
from raremix.mix.pairing import pair_most_dissimilar
from raremix.train.spec import TrainSpec, resolve_precision

SHAPE = (64, 3, 224, 224)
GRID = 16
CLASSES = 7


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=NUMBERS / "guided.json", help="where the numbers are written")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch")
    parser.add_argument("--turns", type=int, default=20, help="turns of each mixer")
    parser.add_argument("--device", default="cpu", help="where it is mixed and trained: cpu, cuda")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    batch = make_batch(device)
    now, few = clock(device), max(3, options.turns // 5)
    mixing = summed_up(take_turns(mixers(batch), turns=options.turns, now=now))
    step = summed_up(take_turns({"step": resnet_step(batch)}, turns=few, now=now))["step"]
    pairing = summed_up(take_turns(pairings(batch), turns=few, now=now))
    ran_on = machine(threads=options.threads) | {
        "device": device_name(device),
        "turns": options.turns,
        "precision": precision(device),
    }
    versions = {name: importlib.metadata.version(name) for name in ("torch", "timm", "numpy")}
    base = {which: mixing["mixup"][which] for which in ("best", "median")}
    result = {
        "shape": "x".join(map(str, SHAPE)),
        "maps": f"{GRID}x{GRID}",
        "machine": ran_on,
        "versions": versions,
        "step_ms": scaled(step),
        "mixing": [
            {
                "name": name,
                **{f"{which}_ms": value for which, value in scaled(seconds).items()},
                "median_over_mixup": seconds["median"] / base["median"],
                "best_over_mixup": seconds["best"] / base["best"],
                "share_of_step": seconds["median"] / step["median"],
            }
            for name, seconds in mixing.items()
        ],
        "pairing": {
            **{name: scaled(seconds) for name, seconds in pairing.items()},
            "median_ratio": pairing["openmixup"]["median"] / pairing["raremix"]["median"],
            "best_ratio": pairing["openmixup"]["best"] / pairing["raremix"]["best"],
        },
    }
    report(result, options.json)


def make_batch(device: torch.device) -> Batch:
    """Return random images, each with a map of 16 x 16 that is bright around a place of its own."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(SHAPE, generator=generator)
    centre = torch.rand(SHAPE[0], 2, 1, 1, generator=generator) * GRID
    y, x = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
    maps = torch.exp(-((y - centre[:, :1]) ** 2 + (x - centre[:, 1:]) ** 2) / 18)
    targets = torch.eye(CLASSES)[torch.arange(SHAPE[0]) % CLASSES]
    return Batch(images=images, targets=targets, importance=maps).to(device)


def mixers(batch: Batch) -> dict[str, Callable[[], object]]:
    """Return what is timed: for MixUp and each guided mixer, a call that plans and mixes."""

    def mix(mixer: Method) -> Callable[[], object]:
        stream = rng(0, "mix")
        return lambda: mixer.plan(batch, batch, rng=stream).apply(batch)

    names = ["mixup", *(name for name, kind in MIXERS.items() if getattr(kind, "is_guided", False))]
    return {name: mix(MIXERS[name]()) for name in names}


def resnet_step(batch: Batch) -> Callable[[], object]:
    """Return one training step of a ResNet-18 on the batch."""
    import timm

    model = timm.create_model("resnet18", num_classes=CLASSES).to(
        batch.images.device, memory_format=torch.channels_last
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images = batch.images.contiguous(memory_format=torch.channels_last)
    is_half = precision(images.device) == "bf16"

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=is_half):
            loss = torch.nn.functional.cross_entropy(model(images), batch.targets)
        loss.backward()
        optimizer.step()

    return step


def precision(device: torch.device) -> str:
    """Return what raremix trains in on a device."""
    accelerator = "cuda" if device.type == "cuda" else "cpu"
    return resolve_precision(TrainSpec(accelerator=accelerator))


def pairings(batch: Batch) -> dict[str, Callable[[], object]]:
    """Return both ways to pair rows whose importance lies in different places."""
    assert batch.importance is not None
    full = torch.nn.functional.interpolate(batch.importance, size=SHAPE[-2:], mode="bilinear")[:, 0]
    full = full / full.sum(dim=(1, 2), keepdim=True)
    stream = rng(0, "mix")
    return {
        "raremix": lambda: pair_most_dissimilar(batch, batch, rng=stream),
        "openmixup": lambda: cycle_of_distant(full),
    }


def cycle_of_distant(maps: Tensor) -> np.ndarray:
    """Pair as OpenMixup's GuidedMixup does: all distances at full resolution, then one greedy cycle."""
    rows = maps.flatten(1)
    distance = (rows[:, None] - rows[None, :]).norm(dim=-1).cpu().numpy()
    np.fill_diagonal(distance, -np.inf)
    partner = np.zeros(len(distance), dtype=np.int64)
    first, row = divmod(int(distance.argmax()), len(distance))
    partner[first] = row
    distance[:, first] = -np.inf
    for _ in range(len(distance) - 2):
        partner[row] = int(distance[row].argmax())
        distance[:, row] = -np.inf
        row = partner[row]
    partner[row] = first
    return partner


def summed_up(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return the best and the median seconds of each."""
    return {name: {"best": min(turns), "median": median(turns)} for name, turns in seconds.items()}


def scaled(seconds: dict[str, float]) -> dict[str, float]:
    """Return milliseconds."""
    return {name: 1e3 * value for name, value in seconds.items()}


def report(result: dict, path: Path) -> None:
    """Print a table, and write the same as JSON."""
    from rich.console import Console
    from rich.table import Table

    from raremix.core.files import write_json

    table = Table(title=f"Mixing {result['shape']} with maps of {result['maps']}, milliseconds; {result['machine']}")
    for column in ("mixer", "best", "median", "best / MixUp's", "median / MixUp's", "share of a ResNet-18 step"):
        table.add_column(column, justify="left" if column == "mixer" else "right")
    for row in result["mixing"]:
        table.add_row(
            row["name"],
            f"{row['best_ms']:.3g}",
            f"{row['median_ms']:.3g}",
            f"{row['best_over_mixup']:.2f}",
            f"{row['median_over_mixup']:.2f}",
            f"{100 * row['share_of_step']:.1f} %",
        )
    console = Console(width=max(120, Console().width))
    console.print(table)
    step, pairing = result["step_ms"], result["pairing"]
    console.print(f"ResNet-18 step: best {step['best']:.4g}, median {step['median']:.4g} ms")
    for name in ("raremix", "openmixup"):
        console.print(f"pairing, {name}: best {pairing[name]['best']:.3g}, median {pairing[name]['median']:.3g} ms")
    console.print(f"pairing, ratio: best {pairing['best_ratio']:.0f}, median {pairing['median_ratio']:.0f}")
    write_json(path.resolve(), result)


if __name__ == "__main__":
    main()
