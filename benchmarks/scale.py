"""What a manifest of ten million rows costs: reading, guards, splitting by group; and balanced orders of an epoch.

The table is made up: patients with one to six images, seven classes with a long tail, a SHA-256 in every row; it is
written as Parquet. Only the table is meant: no image exists, so the look for missing files is left out, and hashing
files has nothing to do. Each part runs in a fresh process, which reports seconds of the clock and of the processor, and
its own peak of memory; the sampler's peak is given above what its process held before (its targets).

    python benchmarks/scale.py --rows 10000000
    python benchmarks/scale.py --parts sampler labels
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from raremix.core import files
from raremix.core.random import rng
from raremix.data import Balanced, LabelBalanced, Manifest, apply_split, check

CLASSES = ("nv", "bkl", "mel", "bcc", "akiec", "vasc", "df")
SHARES = np.array([0.672, 0.11, 0.111, 0.051, 0.033, 0.014, 0.009])
LABEL_SHARES = np.geomspace(0.18, 0.002, 14)
"""Share of the rows with each of as many labels as ChestX-ray14 has, from about its commonest to its rarest."""

FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}


def made_up(rows: int) -> pl.DataFrame:
    """Return a table of this many rows: one to six images per patient, who has one diagnosis mostly."""
    stream = rng(0, "split", 99)
    sizes = stream.integers(1, 7, rows)
    patient = np.repeat(np.arange(rows), sizes)[:rows]
    label = stream.choice(len(CLASSES), size=rows, p=SHARES / SHARES.sum())[patient]
    label = np.where(stream.random(rows) < 0.1, stream.integers(0, len(CLASSES), rows), label)
    # Sixty-four digits that do not compress, as those of a hash.
    digits = [pl.Series(stream.integers(0, 10**16, rows)).cast(pl.Utf8).str.zfill(16) for _ in range(4)]
    number = pl.Series(np.arange(rows)).cast(pl.Utf8)
    return pl.DataFrame(
        {
            "id": np.arange(rows),
            "path": "images/" + number.str.zfill(9) + ".png",
            "group": "patient-" + pl.Series(patient).cast(pl.Utf8),
            **{f"target:{name}": (label == k).astype(np.float64) for k, name in enumerate(CLASSES)},
            "sha256": digits[0] + digits[1] + digits[2] + digits[3],
        }
    )


def write(path: Path, rows: int) -> float:
    """Write the table and its card, and return its size in MiB."""
    files.write_parquet(path, made_up(rows))
    card = {"name": "made up", "task": "multiclass", "classes": list(CLASSES)}
    files.write_json(path.parent / "card.json", card)
    return path.stat().st_size / 2**20


class Watch:
    """Times parts of a process."""

    def __init__(self) -> None:
        self.parts: dict[str, dict[str, float]] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what is done within."""
        clock, processor = time.perf_counter(), time.process_time()
        yield
        self.parts[name] = {"seconds": time.perf_counter() - clock, "processor": time.process_time() - processor}


def manifest_parts(path: Path) -> dict[str, Any]:
    """Read a manifest, check it, split it by group, check it again."""
    watch = Watch()
    with watch.part("read"):
        manifest = Manifest.read(path)
    with watch.part("guards, before"):
        check(manifest, check_files=False)
    with watch.part("split by group"):
        split = apply_split(manifest, fractions=FRACTIONS, seed=0)
    with watch.part("guards, after"):
        check(split, check_files=False)
    counts = {name: split.class_counts(name).tolist() for name in ("train", "validation", "test")}
    return {"parts": watch.parts, "peak_mebibytes": own_peak(), "counts": counts}


def sampler_parts(rows: int) -> dict[str, Any]:
    """Order a class-balanced epoch."""
    # Made by numpy, which gives memory back at once: what the sampler takes is then seen.
    targets = np.zeros((rows, len(CLASSES)))
    targets[np.arange(rows), rng(0, "split", 98).choice(len(CLASSES), size=rows, p=SHARES / SHARES.sum())] = 1
    return order_parts(Balanced, targets)


def label_parts(rows: int) -> dict[str, Any]:
    """Order an epoch of rows with up to fourteen labels, balanced by label."""
    targets, stream = np.zeros((rows, len(LABEL_SHARES))), rng(0, "split", 97)
    for k, share in enumerate(LABEL_SHARES):
        targets[:, k] = stream.random(rows, dtype=np.float32) < share
    return order_parts(LabelBalanced, targets)


def order_parts(kind: type[Balanced] | type[LabelBalanced], targets: np.ndarray) -> dict[str, Any]:
    """Make a sampler and ask for an epoch: a batch at a time, as training does, and at once."""
    watch, seen = Watch(), 0
    # The peak so far is forgotten.
    Path("/proc/self/clear_refs").write_text("5")
    before = own_size()
    with watch.part("make the sampler"):
        sampler = kind(targets=targets, seed=0)
    with watch.part("order of an epoch, in batches of 4,096"):
        for start in range(0, sampler.epoch, 4096):
            seen += len(sampler.row(np.arange(start, min(start + 4096, sampler.epoch))))
    with watch.part("order of the next epoch, at once"):
        rows = sampler.row(np.arange(sampler.epoch, 2 * sampler.epoch))
    peak = own_peak()
    shown = np.sum([targets[some].sum(axis=0) for some in np.array_split(rows, 100)], axis=0) / len(rows)
    return {"parts": watch.parts, "extra_mebibytes": peak - before, "ordered": seen, "shares": shown.tolist()}


SAMPLERS: dict[str, Callable[[int], dict[str, Any]]] = {"sampler": sampler_parts, "labels": label_parts}
TITLES = {
    "manifest": "a manifest",
    "sampler": f"one of {len(CLASSES)} classes per row, `balanced`",
    "labels": f"up to {len(LABEL_SHARES)} labels per row, `label_balanced`",
}


def own_peak() -> float:
    """Return this process's peak memory in MiB."""
    return _status("VmHWM:")


def own_size() -> float:
    """Return this process's memory in MiB."""
    return _status("VmRSS:")


def _status(key: str) -> float:
    return int(Path("/proc/self/status").read_text().split(key)[1].split()[0]) / 2**10


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/scale.json"))
    parser.add_argument("--parts", nargs="+", choices=tuple(TITLES), default=list(TITLES))
    parser.add_argument("--measure", choices=tuple(TITLES), help=argparse.SUPPRESS)
    parser.add_argument("--table", type=Path, help="a table that was made before; made anew by default")
    options = parser.parse_args()
    if options.measure == "manifest":
        print(json.dumps(manifest_parts(options.table)))
        return
    if options.measure is not None:
        print(json.dumps(SAMPLERS[options.measure](options.rows)))
        return
    console = Console()
    result: dict[str, Any] = {"rows": options.rows, "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        path = options.table or Path(folder) / "manifest.parquet"
        if options.table is None and "manifest" in options.parts:
            result["table_mebibytes"] = write(path, options.rows)
        for name in options.parts:
            command = [sys.executable, __file__, "--measure", name, "--table", str(path), "--rows", str(options.rows)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            result[name] = json.loads(done.stdout)
    table = Table(title=f"{options.rows:,} rows, load {result['load']:.1f}")
    for heading in ("of", "part", "seconds", "of the processor"):
        table.add_column(heading, justify="left" if heading in ("of", "part") else "right")
    for name in options.parts:
        for part, times in result[name]["parts"].items():
            table.add_row(TITLES[name], part, f"{times['seconds']:.2f}", f"{times['processor']:.2f}")
    console.print(table)
    if "manifest" in options.parts:
        console.print(f"peak of the manifest's process: {result['manifest']['peak_mebibytes']:,.0f} MiB")
    for name in set(options.parts) & set(SAMPLERS):
        console.print(f"{TITLES[name]}: {result[name]['extra_mebibytes']:,.0f} MiB beside the targets")
    files.write_json(options.json, result)
    console.print(f"written to {options.json}")


if __name__ == "__main__":
    main()
