"""Time every loss, forward and backward by the logits, beside a training step of a ResNet-18.

    python benchmarks/losses.py [--json FILE]

Logits of 64 images and 7 classes, beside one step of a ResNet-18 on 64 x 3 x 224 x 224 (channels last; bfloat16 where
the device computes in it). What a loss adds is its time less that of cross-entropy, as a share of the step. GPaCo
compares 128 numbers per image with a queue of 8,192; its projection, and the features that enter the queue, are timed
with it. Losses of prototypes are given logits; their head is part of the network. Contestants take turns, so that
whatever else the machine does hits all alike; on a CPU the medians of processor time over all threads are compared,
which a neighbour disturbs less than the clock on the wall.
"""

import argparse
import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from guided import precision, resnet_step
from peer_environment import NUMBERS, machine
from torch import Tensor
from turns import clock, take_turns

from raremix.core.protocols import FeatureLoss, Loss
from raremix.core.types import Batch
from raremix.losses import LOSSES
from raremix.train.contrast import Projection

ROWS, CLASSES, SIZE = 64, 7, 224
COUNTS = (4323.0, 583.0, 491.0, 264.0, 183.0, 80.0, 60.0)
KNOWN = (5984.0,) * CLASSES


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=NUMBERS / "losses.json", help="where the numbers are written")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch")
    parser.add_argument("--turns", type=int, default=30, help="turns of each loss")
    parser.add_argument("--steps", type=int, default=5, help="training steps that are timed")
    parser.add_argument("--device", default="cpu", help="where it is computed: cpu, cuda")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    now = clock(device, processor_time=True)
    generator = torch.Generator().manual_seed(0)
    targets = torch.eye(CLASSES)[torch.arange(ROWS) % CLASSES].to(device)
    images = torch.rand(ROWS, 3, SIZE, SIZE, generator=generator).to(device)
    whole = {"step": resnet_step(Batch(images=images, targets=targets))}
    step = median(take_turns(whole, turns=options.steps, now=now)["step"])
    calls = {name: timed(make(kind), targets) for name, kind in LOSSES.items()}
    found = take_turns(calls, turns=options.turns, now=now)
    seconds = {name: median(turns) for name, turns in found.items()}
    result = {
        "machine": machine(threads=options.threads)
        | {"device": str(device), "turns": options.turns, "precision": precision(device), "load": os.getloadavg()},
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "timm")},
        "step_ms": 1e3 * step,
        "losses": [
            {"name": name, "ms": 1e3 * value, "added": (value - seconds["cross_entropy"]) / step}
            for name, value in seconds.items()
        ],
    }
    report(result, options.json)


def make(kind: type[Loss]) -> Loss:
    """Build a loss with the counts of the training images where it asks for them."""
    fields = getattr(kind, "__dataclass_fields__", {})
    known = {"class_counts": COUNTS, "labelled_counts": KNOWN}
    return kind(**{name: value for name, value in known.items() if name in fields})


def timed(loss: Loss, targets: Tensor) -> Callable[[], object]:
    """Return a call that computes a loss and its gradient by the logits, or by the features too."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(ROWS, CLASSES, generator=generator).to(targets.device)
    if not isinstance(loss, FeatureLoss):

        def plain() -> None:
            torch.autograd.grad(loss(logits.requires_grad_(), targets), logits)

        return plain
    features = torch.randn(ROWS, 512, generator=generator).to(targets.device)
    projection = Projection(512, loss.width).to(targets.device)
    queue = torch.nn.functional.normalize(torch.randn(loss.queue, loss.width, generator=generator), dim=1)
    queue, shown = (
        queue.to(targets.device),
        torch.eye(CLASSES, device=targets.device)[torch.arange(loss.queue) % CLASSES],
    )
    place = torch.arange(ROWS, device=targets.device)

    def compare() -> None:
        logits.requires_grad_(), features.requires_grad_()
        drawn = projection(features)
        value = loss.with_features(logits, targets, features=drawn, keys=queue, key_targets=shown)
        torch.autograd.grad(value, [logits, features, *projection.parameters()])
        if loss.queue:
            queue[place] = drawn.detach()

    return compare


def report(result: dict, path: Path) -> None:
    """Print a table, and write the same as JSON."""
    from rich.console import Console
    from rich.table import Table

    from raremix.core.files import write_json

    table = Table(title=f"{ROWS} images, {CLASSES} classes; a ResNet-18 step takes {result['step_ms']:.4g} ms")
    for column in ("loss", "ms", "over cross-entropy, share of a step"):
        table.add_column(column, justify="left" if column == "loss" else "right")
    for row in result["losses"]:
        table.add_row(row["name"], f"{row['ms']:.3g}", f"{100 * row['added']:.2f} %")
    console = Console(width=max(120, Console().width))
    console.print(table)
    console.print(str(result["machine"]))
    write_json(path.resolve(), result)


if __name__ == "__main__":
    main()
