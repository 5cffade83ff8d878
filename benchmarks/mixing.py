"""Time MixUp and CutMix beside torchvision, timm, kornia and MONAI, in one process, taking turns.

    python benchmarks/mixing.py [--json FILE] [--device cuda]

The peers that raremix does not depend on live in a virtual environment of their own, which the first run makes in
--cache on top of the packages that are installed here. Every contestant is called in turn, and again, so that whatever
else the machine does hits all alike; the best and the median of its turns are reported, also over torchvision's.

Targets are class numbers (MONAI: one-hot rows; its MixUp takes none). timm mixes into the batch that it is given; the
others leave it alone. raremix, kornia and timm's "elem" draw a weight per image, the others one per batch.

With --device cuda all are given batches that lie on the GPU, and the clock is read when it has done its work. A peer
that cannot mix there is left out, and named.
"""

import argparse
import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path
from statistics import median

from peer_environment import CACHE, NUMBERS, go_on_in, machine
from turns import clock, device_name, take_turns, taken

PEERS = ["kornia==0.9.0", "monai==1.6.1"]
SHAPES = [(64, 3, 224, 224), (128, 3, 28, 28)]
CLASSES = 10
TURN_SECONDS = 0.02  # a turn calls a contestant as often as takes about this long


def main() -> None:
    """Make the peers' environment where it is missing, and measure in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=NUMBERS / "mixing.json", help="where the numbers are written")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch")
    parser.add_argument("--turns", type=int, default=40, help="turns of each contestant")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the peers live")
    parser.add_argument("--device", default="cpu", help="where it is mixed: cpu, cuda")
    options = parser.parse_args()
    go_on_in(options.cache / "mixing", peers=PEERS)
    report(measure(threads=options.threads, turns=options.turns, device=options.device), options.json)


def contestants(shape: tuple[int, int, int, int], *, device: str) -> dict[str, dict[str, Callable[[], object]]]:
    """Return what is timed: by method, by name, a call on one batch with class numbers as targets."""
    import kornia.augmentation
    import monai.transforms
    import timm.data
    import torch
    from torchvision.transforms import v2

    from raremix.core.random import rng
    from raremix.mix import CutMix, MixUp

    generator = torch.Generator().manual_seed(0)
    images, others = (torch.rand(shape, generator=generator).to(device) for _ in range(2))
    into, timms, kornias = torch.empty_like(images), images.clone(), images.clone()
    rows = shape[0]
    targets = torch.randint(CLASSES, (rows,), generator=generator).to(device)
    one_hot = torch.nn.functional.one_hot(targets, CLASSES).float()

    def timm_mixer(mode: str, **alphas: float) -> Callable[[], object]:
        mixer = timm.data.Mixup(**alphas, mode=mode, num_classes=CLASSES, label_smoothing=0.0)
        return lambda: mixer(timms, targets)

    def kornia_mixer(name: str) -> Callable[[], object]:
        mixer = getattr(kornia.augmentation, name)(p=1.0, data_keys=["input", "class"])
        return lambda: mixer(kornias, targets)

    def batch_mixer(mixer: Callable[..., object], *extra: torch.Tensor) -> Callable[[], object]:
        return lambda: mixer(images, *extra)

    def ours(mixer: MixUp | CutMix) -> Callable[[], object]:
        stream = rng(0, "mix")
        return lambda: mixer(images, targets, rng=stream)

    return {
        "mixup": {
            "one fused pass into given memory": lambda: torch.lerp(images, others, 0.3, out=into),
            "raremix": ours(MixUp(alpha=1.0, num_classes=CLASSES)),
            "torchvision": batch_mixer(v2.MixUp(num_classes=CLASSES), targets),
            "timm, batch": timm_mixer("batch", mixup_alpha=1.0, cutmix_alpha=0.0),
            "timm, elem": timm_mixer("elem", mixup_alpha=1.0, cutmix_alpha=0.0),
            "kornia": kornia_mixer("RandomMixUpV2"),
            "MONAI": batch_mixer(monai.transforms.MixUp(rows)),
        },
        "cutmix": {
            "clone": images.clone,
            "raremix": ours(CutMix(num_classes=CLASSES)),
            "torchvision": batch_mixer(v2.CutMix(num_classes=CLASSES), targets),
            "timm, batch": timm_mixer("batch", mixup_alpha=0.0, cutmix_alpha=1.0),
            "timm, elem": timm_mixer("elem", mixup_alpha=0.0, cutmix_alpha=1.0),
            "kornia": kornia_mixer("RandomCutMixV2"),
            "MONAI": batch_mixer(monai.transforms.CutMix(rows), one_hot),
        },
    }


def able(calls: dict[str, Callable[[], object]], *, device: str) -> dict[str, Callable[[], object]]:
    """Return the calls that run on a device."""
    found = {}
    for name, call in calls.items():
        try:
            taken(call, now=clock(device))
        except (RuntimeError, TypeError) as error:
            if device == "cpu":
                raise
            print(f"{name} does not run on {device}: {error}")
        else:
            found[name] = call
    return found


def measure(*, threads: int, turns: int, device: str) -> dict[str, object]:
    """Time all contestants on all shapes, and note what they ran on."""
    import torch

    torch.set_num_threads(threads)
    rows, now = [], clock(device)
    for shape in SHAPES:
        for method, given in contestants(shape, device=device).items():
            calls = able(given, device=device)
            times = {name: max(1, int(TURN_SECONDS / taken(call, 3, now=now))) for name, call in calls.items()}
            seconds = take_turns(calls, turns=turns, now=now, times=times)
            best = {name: min(turn) for name, turn in seconds.items()}
            rows += [
                {
                    "shape": "x".join(map(str, shape)),
                    "method": method,
                    "name": name,
                    "best_ms": 1e3 * best[name],
                    "median_ms": 1e3 * median(seconds[name]),
                    "best_over_torchvision": best[name] / best["torchvision"],
                    "median_over_torchvision": median(seconds[name]) / median(seconds["torchvision"]),
                }
                for name in calls
            ]
    versions = {
        name: importlib.metadata.version(name) for name in ("torch", "torchvision", "timm", "kornia", "monai", "numpy")
    }
    return {
        "rows": rows,
        "machine": machine(threads=threads) | {"device": device_name(device)},
        "versions": versions,
        "turns": turns,
    }


def report(result: dict[str, object], path: Path) -> None:
    """Print a table, and write the same as JSON."""
    from rich.console import Console
    from rich.table import Table

    from raremix.core.files import write_json

    table = Table(title=f"Mixing a float32 batch, milliseconds; {result['machine']}")
    for column in ("batch", "method", "who", "best", "median", "best / torchvision's", "median / torchvision's"):
        table.add_column(column, justify="left" if column in {"batch", "method", "who"} else "right")
    for row in result["rows"]:
        table.add_row(
            row["shape"],
            row["method"],
            row["name"],
            f"{row['best_ms']:.3g}",
            f"{row['median_ms']:.3g}",
            f"{row['best_over_torchvision']:.2f}",
            f"{row['median_over_torchvision']:.2f}",
            end_section=row["name"] == "MONAI",
        )
    Console(width=max(120, Console().width)).print(table)
    write_json(path.resolve(), result)


if __name__ == "__main__":
    main()
