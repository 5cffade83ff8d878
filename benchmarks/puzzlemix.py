"""Time PuzzleMix beside OpenMixup's, and compare the masks of both with the optimum of the paper's objective.

    python benchmarks/puzzlemix.py [--json FILE]

OpenMixup's function cuts one graph per image with gco. It lives, with gco, in a virtual environment of its own, which
the first run makes in --cache on top of the packages that are installed here; its package cannot be imported without
mmcv-full 1.x, so the function is loaded from its file, and `.cuda()`, which it hard-codes, made to do nothing.

Speed: one mixed batch from given saliency (finding the saliency is not timed), both in turn, for each number of blocks
along a side that the paper draws from; with --threads 1 processor time, else wall time. Objective: on saliency of drawn
skin lesions and on random maps, the cost of our masks, and of gco's alpha-beta swap on the same costs, over the
optimum, which one minimum cut finds exactly.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any

from openmixup_files import openmixup
from peer_environment import CACHE, NUMBERS, go_on_in, machine
from turns import clock, device_name, take_turns

PEERS = ["gco-wrapper==3.0.9"]
PEERS_ALONE = ["openmixup==0.2.9"]  # without what it depends on: mmcv-full has no build for this torch
SHAPE = (64, 3, 224, 224)
GRIDS = (2, 4, 8, 16)
IMAGES = 64  # for the objective


def main() -> None:
    """Make the peers' environment where it is missing, and measure in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=NUMBERS / "puzzlemix.json", help="where the numbers are written")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch")
    parser.add_argument("--turns", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--device", default="cpu", help="where ours runs; OpenMixup's runs on the CPU")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the peers live")
    options = parser.parse_args()
    go_on_in(options.cache / "puzzlemix", peers=PEERS, alone=PEERS_ALONE)
    report(measure(threads=options.threads, turns=options.turns, device=options.device), options.json)


def measure(*, threads: int, turns: int, device: str) -> dict[str, Any]:
    """Time both, and compare both with the optimum."""
    import torch

    torch.set_num_threads(threads)
    speed = [entry for n in GRIDS for entry in time_grid(n, turns=turns, device=device)]
    with tempfile.TemporaryDirectory() as folder:
        objective = [entry for name, maps in saliency(Path(folder)).items() for entry in compare(name, *maps)]
    versions = {name: importlib.metadata.version(name) for name in ("torch", "openmixup", "gco-wrapper", "numpy")}
    ran_on = machine(threads=threads) | {"device": device_name(device)}
    return {"speed": speed, "objective": objective, "machine": ran_on, "versions": versions, "turns": turns}


def time_grid(n: int, *, turns: int, device: str) -> list[dict[str, Any]]:
    """Time one number of blocks, with and without transport."""
    import numpy as np
    import torch

    from raremix.core.random import rng
    from raremix.core.types import Batch
    from raremix.mix import PuzzleMix

    generator = torch.Generator().manual_seed(0)
    images = torch.rand(SHAPE, generator=generator)
    maps = torch.nn.functional.interpolate(
        torch.rand(SHAPE[0], 1, 20, 20, generator=generator) ** 4, size=SHAPE[2:], mode="bilinear"
    ).contiguous()
    classes = torch.randint(10, SHAPE[:1], generator=generator)
    batch = Batch(images=images, targets=torch.eye(10)[classes], importance=maps).to(torch.device(device))
    theirs, power = openmixup("puzzlemix"), n.bit_length() - 1

    def their(moves: bool) -> Callable[[], object]:
        settings = {"block_num": (power, power + 1), "neigh_size": 2, "n_labels": 3, "t_eps": 0.8, "t_size": -1}

        def call() -> object:
            np.random.seed(0)  # noqa: NPY002 it draws from it
            return theirs(images, classes, alpha=1.0, features=maps[:, 0], transport=moves, **settings)

        return call

    def our(moves: bool) -> Callable[[], object]:
        mixer, stream = PuzzleMix(grids=(n,), transport=moves), rng(0, "mix")

        return lambda: mixer.plan(batch, batch, rng=stream).apply(batch)

    # One thread's own time does not count what else the machine does.
    now = clock(device, processor_time=torch.get_num_threads() == 1)
    rows = []
    for moves in (False, True):
        calls = {"raremix": our(moves), "openmixup": their(moves)}
        seconds = take_turns(calls, turns=turns, now=now)
        rows.append(
            {"blocks": n, "transport": moves}
            | {f"{name}_ms": 1e3 * median(values) for name, values in seconds.items()}
            | {f"{name}_best_ms": 1e3 * min(values) for name, values in seconds.items()}
        )
    return rows


def saliency(folder: Path) -> dict[str, tuple[Any, Any]]:
    """Return images and maps by name: drawn skin lesions with their saliency, and random spots."""
    import numpy as np
    import torch

    from raremix.data.readers import read_image
    from raremix.data.sources.phantom import Phantom
    from raremix.explain import FineGrained

    manifest = Phantom(images=IMAGES, size=224, imbalance_ratio=2.0).load(cache=folder)
    pixels = np.stack([read_image(manifest.root / path) for path in manifest.frame["path"]])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    generator = torch.Generator().manual_seed(0)
    spots = torch.rand(IMAGES, 1, 5, 5, generator=generator) ** 6
    spots = torch.nn.functional.interpolate(spots, size=(224, 224), mode="bicubic").clamp(min=0.01)
    return {
        "fine-grained saliency of lesions": (images, FineGrained()(images, torch.zeros(IMAGES, 1))),
        "random spots": (images, spots),
    }


def compare(name: str, images: Any, maps: Any) -> list[dict[str, Any]]:
    """Compare the cost of masks with the optimum, over grids."""
    import gco
    import numpy as np
    import torch

    from raremix.core.random import rng
    from raremix.mix import PuzzleMix
    from raremix.mix.labelling import cost, quadratic, solve
    from raremix.mix.puzzlemix import block_importance

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.mix.exact_labelling import optimum

    rows, stream = [], rng(0, "mix")
    for n in GRIDS:
        blocks, partner = block_importance(maps, n=n), torch.from_numpy(stream.permutation(IMAGES))
        problem = PuzzleMix().problem(images, images, blocks, blocks, partner=partner, share=stream.random(IMAGES))
        unary, down, right = (part.double().numpy() for part in (problem.unary, problem.down, problem.right))

        def cut(i: int, *, unary: Any = unary, down: Any = down, right: Any = right, n: int = n) -> Any:
            scale = 1000 * n * n  # the authors' rounding
            costs = np.ascontiguousarray((scale * unary[:, i].transpose(1, 2, 0)).astype(np.int32))
            edges = [(scale * part[i]).astype(np.int32) for part in (down, right)]
            labels = gco.cut_grid_graph(costs, quadratic(3).astype(np.float32), *edges, algorithm="swap")
            return labels.reshape(n, n)

        costs = {
            "optimum": cost(
                problem, torch.from_numpy(np.stack([optimum(unary[:, i], down[i], right[i]) for i in range(IMAGES)]))
            ),
            "raremix": cost(problem, solve(problem)),
            "gco": cost(problem, torch.from_numpy(np.stack([cut(i) for i in range(IMAGES)])).long()),
            "one image alone": problem.unary.sum(dim=(2, 3)).amin(dim=0),
        }
        best = costs.pop("optimum")
        gains = {
            who: float((costs["one image alone"] - value).sum() / (costs["one image alone"] - best).sum())
            for who, value in costs.items()
        }
        rows.append(
            {"maps": name, "blocks": n, "optimum": float(best.mean())}
            | {f"{who}_over_optimum": float((value / best).mean()) for who, value in costs.items()}
            | {f"{who}_share_of_gain": gains[who] for who in ("raremix", "gco")}
            | {f"{who}_exact": float((value <= best + 1e-5).float().mean()) for who, value in costs.items()}
        )
    return rows


def report(result: dict[str, Any], path: Path) -> None:
    """Print the tables, and write the same as JSON."""
    from rich.console import Console
    from rich.table import Table

    from raremix.core.files import write_json

    console = Console(width=max(140, Console().width))
    table = Table(title=f"PuzzleMix, {'x'.join(map(str, SHAPE))}, median milliseconds; {result['machine']}")
    for column in ("blocks", "transport", "raremix", "openmixup", "ratio", "raremix, best", "openmixup, best"):
        table.add_column(column, justify="right")
    for moves in (False, True):
        rows = [row for row in result["speed"] if row["transport"] == moves]
        average = {key: mean(row[key] for row in rows) for key in rows[0] if key.endswith("_ms")}
        for row in [*rows, {"blocks": "mean", "transport": moves} | average]:
            table.add_row(
                str(row["blocks"]),
                "yes" if moves else "no",
                f"{row['raremix_ms']:.1f}",
                f"{row['openmixup_ms']:.1f}",
                f"{row['openmixup_ms'] / row['raremix_ms']:.1f}",
                f"{row['raremix_best_ms']:.1f}",
                f"{row['openmixup_best_ms']:.1f}",
                end_section=row["blocks"] == "mean",
            )
    console.print(table)
    table = Table(
        title="Cost of masks over the optimum's (mean of 64 images), share of the gain over one image alone, exact"
    )
    columns = (
        "maps",
        "blocks",
        "raremix",
        "gco",
        "one image alone",
        "gain, raremix",
        "gain, gco",
        "exact, raremix",
        "gco",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "maps" else "right")
    for row in result["objective"]:
        table.add_row(
            row["maps"],
            str(row["blocks"]),
            *(f"{row[f'{who}_over_optimum']:.4f}" for who in ("raremix", "gco", "one image alone")),
            *(f"{row[f'{who}_share_of_gain']:.3f}" for who in ("raremix", "gco")),
            *(f"{100 * row[f'{who}_exact']:.0f} %" for who in ("raremix", "gco")),
        )
    console.print(table)
    write_json(path.resolve(), result)


if __name__ == "__main__":
    main()
