"""What a raremix training step costs beside the same network's bare PyTorch step.

Ours has everything that a real run has: images from the cache, classical augmentation, MixUp, weight average, gradient
clipping, logging. The bare step has forward, loss, backward and the same optimiser on one batch that never changes.
Both run in turn, in the same process, with the same precision, layout and threads; the ratio of a round is that of the
medians of its steps.

    python benchmarks/train_step.py --sizes 28 64 224 --rounds 5

With --mix, steps of several mixers are timed in turn instead, each over those of MixUp: what guidance costs.

    python benchmarks/train_step.py --sizes 224 --mix saliencymix spmix puzzlemix
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from raremix.config import override
from raremix.core import files
from raremix.study.arm_table import ArmSpec
from raremix.study.defaults import compose
from raremix.study.feeds import make_feed, make_guide
from raremix.study.prepare import Prepared, prepare
from raremix.study.spec import StudySpec, loss_of, parse_study
from raremix.study.tasks import make_task
from raremix.study.training import build_model
from raremix.train import fit
from raremix.train.optimizer import make_optimizer
from raremix.train.spec import make_fabric, resolve_precision

BATCH = {28: 128, 64: 64, 224: 16}


GUIDED = {
    "saliencymix": {"name": "fine_grained", "grid": 16},
    "guidedmixup": {"name": "fine_grained", "grid": 16},
    "spmix": {"name": "fine_grained", "grid": 16},
    "puzzlemix": {"name": "input_gradient", "grid": 16},
}
"""How guided methods are guided: by maps that are kept."""


def study(size: int, model: str, steps: int, *, mixers: Sequence[str] = ("mixup",)) -> StudySpec:
    """Compose a study of an arm per mixer that has everything."""
    settings = [
        f"data.size={size}",
        "data.images=400",
        f"model.name={model}",
        f"train.steps={steps}",
        f"train.batch_size={BATCH.get(size, 32)}",
        "train.validations=0",
        "train.checkpoints=0",
    ]
    arms = []
    for name in mixers:
        mix = {"name": name, **({"importance": GUIDED[name]} if name in GUIDED else {})}
        arms.append({"name": name, "augment": {"name": "classical"}, "mix": mix})
    return parse_study(override(compose("phantom", arm=arms), settings), base=Path.cwd())


def our_steps(spec: StudySpec, prepared: Prepared, folder: Path, *, arm: ArmSpec) -> list[float]:
    """Return seconds per step of the real loop, the first two left out."""
    fabric = make_fabric(spec.train)
    feed = make_feed(spec, prepared, arm, seed=0)
    counts = (1.0,) * len(prepared.manifest.card.classes)
    task = make_task(
        arm,
        build_model(spec, prepared, arm, seed=0),
        train=spec.train,
        criterion=loss_of(arm, task="multiclass", class_counts=counts),
        class_counts=counts,
        feed=feed,
        guide=make_guide(arm, prepared, feed, cache=folder.parent),
    )
    moments: list[float] = []
    fit(
        task,
        feed,
        spec=spec.train,
        fabric=fabric,
        folder=folder,
        identity="benchmark",
        progress=lambda what, done, total: moments.append(time.perf_counter()),
    )
    return [b - a for a, b in pairwise(moments[1:])]


def bare_steps(spec: StudySpec, prepared: Prepared) -> list[float]:
    """Return seconds per step of forward, loss, backward and optimiser on one batch, the first two left out."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(spec, prepared, spec.arms[0], seed=0).to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(model, spec.train)
    batch = make_feed(spec, prepared, spec.arms[0], seed=0).batch(0)
    images = batch.images.to(device, memory_format=torch.channels_last)
    targets = batch.targets.to(device)
    bf16 = resolve_precision(spec.train) == "bf16"
    seconds = []
    for _ in range(spec.train.steps):
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = torch.nn.functional.cross_entropy(model(images).float(), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return seconds[2:]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[28, 64, 224])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="steps per turn, of which two warm up")
    parser.add_argument("--mix", nargs="+", default=[], help="mixers to time over MixUp, instead of ours over bare")
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/train_step.json"))
    options = parser.parse_args()
    if options.mix:
        compare_mixers(options)
        return
    table = Table("side", "batch", "bare, ms", "raremix, ms", "ratio (median of rounds)", "smallest", "largest")
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for size in options.sizes:
            spec = study(size, options.model, options.steps)
            prepared = prepare(spec, cache=Path(place) / "cache")
            ours, bare, ratios = [], [], []
            for turn in range(options.rounds):
                one = statistics.median(bare_steps(spec, prepared))
                other = statistics.median(our_steps(spec, prepared, Path(place) / f"{size}-{turn}", arm=spec.arms[0]))
                bare.append(one)
                ours.append(other)
                ratios.append(other / one)
            row = {
                "size": size,
                "batch": spec.train.batch_size,
                "bare_ms": 1000 * statistics.median(bare),
                "raremix_ms": 1000 * statistics.median(ours),
                "ratio": statistics.median(ratios),
                "smallest": min(ratios),
                "largest": max(ratios),
            }
            rows.append(row)
            table.add_row(*(f"{v:.3f}" if isinstance(v, float) and v < 10 else f"{v:.0f}" for v in row.values()))
    Console().print(table)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    files.write_json(options.json, {"device": device, "torch": torch.__version__, "model": options.model, "rows": rows})
    Console().print(f"{device}, torch {torch.__version__}; written to {options.json}")


def compare_mixers(options: argparse.Namespace) -> None:
    """Time steps of several mixers in turn, over those of MixUp."""
    names = ["mixup", *(name for name in options.mix if name != "mixup")]
    table = Table("side", "batch", "mixer", "step, ms", "over MixUp's (median of rounds)", "smallest", "largest")
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for size in options.sizes:
            spec = study(size, options.model, options.steps, mixers=names)
            prepared = prepare(spec, cache=Path(place) / "cache")
            seconds: dict[str, list[float]] = {name: [] for name in names}
            for turn in range(options.rounds):
                for arm in spec.arms:
                    folder = Path(place) / f"{size}-{turn}-{arm.name}"
                    seconds[arm.name].append(statistics.median(our_steps(spec, prepared, folder, arm=arm)))
            for name in names:
                ratios = [one / base for one, base in zip(seconds[name], seconds["mixup"], strict=True)]
                row = {
                    "size": size,
                    "batch": spec.train.batch_size,
                    "mixer": name,
                    "step_ms": 1000 * statistics.median(seconds[name]),
                    "ratio": statistics.median(ratios),
                    "smallest": min(ratios),
                    "largest": max(ratios),
                }
                rows.append(row)
                cells = row.values()
                table.add_row(*(f"{v:.{3 if v < 10 else 0}f}" if isinstance(v, float) else f"{v}" for v in cells))
    Console().print(table)
    target = options.json.with_name("train_step_mixers.json")
    files.write_json(target, {"torch": torch.__version__, "model": options.model, "rows": rows})
    Console().print(f"written to {target}")


if __name__ == "__main__":
    main()
