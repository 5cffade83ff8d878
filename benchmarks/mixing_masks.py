"""Time FMix, GridMix, ResizeMix and SmoothMix beside OpenMixup's, in one process, taking turns.

    python benchmarks/mixing_masks.py [--json FILE] [--device cuda]

OpenMixup 0.2.9 comes from the package registry, into a virtual environment of its own, which the first run makes in
--cache on top of the packages that are installed here. The package as a whole needs mmcv-full 1.x, which was built for
older versions of torch; its functions for mixing do not, so the four files are loaded by themselves. They move their
masks to a GPU by `.cuda()` wherever the images lie: on a CPU that call is made to return the tensor as it is. With
--device cuda it is left as it is, batches lie on the GPU, and the clock is read when it has done its work.

Every contestant is called in turn, and again, so that whatever else the machine does hits all alike; the best and the
median of its turns are reported, also over OpenMixup's. Targets are one-hot rows. OpenMixup draws one mask (or scale
and place) for the batch and returns both batches of targets with one weight, unmixed; raremix draws one for each image,
and mixes the targets. OpenMixup's ResizeMix writes into the batch that it is given, and samples the nearest pixel; ours
averages. Its GridMix is another method of that name, a regular pattern of holes, with the settings of its own
configurations.
"""

import argparse
import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path
from statistics import median

from openmixup_files import openmixup
from peer_environment import CACHE, NUMBERS, go_on_in, machine
from turns import clock, device_name, take_turns, taken

PEERS = ["openmixup==0.2.9"]
SHAPES = [(64, 3, 224, 224), (128, 3, 28, 28)]
METHODS = ("fmix", "gridmix", "resizemix", "smoothmix")
CLASSES = 10
TURN_SECONDS = 0.02  # a turn calls a contestant as often as takes about this long


def main() -> None:
    """Make the peers' environment where it is missing, and measure in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--json", type=Path, default=NUMBERS / "mixing_masks.json", help="where the numbers are written"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch")
    parser.add_argument("--turns", type=int, default=30, help="turns of each contestant")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the peers live")
    parser.add_argument("--device", default="cpu", help="where it is mixed: cpu, cuda")
    options = parser.parse_args()
    go_on_in(options.cache / "openmixup", peers=(), alone=PEERS)
    report(measure(threads=options.threads, turns=options.turns, device=options.device), options.json)


def contestants(shape: tuple[int, int, int, int], *, device: str) -> dict[str, dict[str, Callable[[], object]]]:
    """Return what is timed: by method, by name, a call on one batch with one-hot rows as targets."""
    import torch

    from raremix.core.random import rng
    from raremix.mix import MIXERS

    generator = torch.Generator().manual_seed(0)
    images = torch.rand(shape, generator=generator).to(device)
    theirs = images.clone()
    classes = torch.randint(CLASSES, (shape[0],), generator=generator)
    targets = torch.nn.functional.one_hot(classes, CLASSES).float().to(device)
    settings: dict[str, dict[str, object]] = {
        "fmix": {"size": shape[2:]},
        "gridmix": {
            "n_holes": (2, 6),
            "hole_aspect_ratio": 1.0,
            "cut_area_ratio": (0.5, 1),
            "cut_aspect_ratio": (0.5, 2),
        },
    }

    def ours(name: str) -> Callable[[], object]:
        mixer, stream = MIXERS[name](), rng(0, "mix")
        return lambda: mixer(images, targets, rng=stream)

    def openmixups(name: str) -> Callable[[], object]:
        mix, chosen = openmixup(name, is_patched=device == "cpu"), settings.get(name, {})
        return lambda: mix(theirs, targets, **chosen)

    return {name: {"raremix": ours(name), "OpenMixup": openmixups(name)} for name in METHODS}


def measure(*, threads: int, turns: int, device: str) -> dict[str, object]:
    """Time all contestants on all shapes, and note what they ran on."""
    import torch

    torch.set_num_threads(threads)
    rows, now = [], clock(device)
    for shape in SHAPES:
        for method, calls in contestants(shape, device=device).items():
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
                    "best_over_openmixup": best[name] / best["OpenMixup"],
                    "median_over_openmixup": median(seconds[name]) / median(seconds["OpenMixup"]),
                }
                for name in calls
            ]
    versions = {name: importlib.metadata.version(name) for name in ("torch", "openmixup", "numpy", "scipy")}
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

    table = Table(title=f"Mixing a float32 batch by masks, milliseconds; {result['machine']}")
    for column in ("batch", "method", "who", "best", "median", "best / OpenMixup's", "median / OpenMixup's"):
        table.add_column(column, justify="left" if column in {"batch", "method", "who"} else "right")
    for row in result["rows"]:
        table.add_row(
            row["shape"],
            row["method"],
            row["name"],
            f"{row['best_ms']:.3g}",
            f"{row['median_ms']:.3g}",
            f"{row['best_over_openmixup']:.2f}",
            f"{row['median_over_openmixup']:.2f}",
            end_section=row["name"] == "OpenMixup",
        )
    Console(width=max(120, Console().width)).print(table)
    write_json(path.resolve(), result)


if __name__ == "__main__":
    main()
