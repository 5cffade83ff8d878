"""What a manifest of ten million rows costs: reading, guards, splitting by group; and a balanced order of an epoch.

The table is made up: patients with one to six images, seven classes with a long tail, a SHA-256 in every row; it is
written as Parquet. Only the table is meant: no image exists, so the look for missing files is left out, and hashing
files has nothing to do. Each part runs in a fresh process, which reports seconds of the clock and of the processor, and
its own peak of memory; the sampler's peak is given above what its process held before (its targets).

    python benchmarks/scale.py --rows 10000000
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
from raremix.data import Balanced, Manifest, apply_split, check

CLASSES = ("nv", "bkl", "mel", "bcc", "akiec", "vasc", "df")
SHARES = np.array([0.672, 0.11, 0.111, 0.051, 0.033, 0.014, 0.009])
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


def sampler_parts(path: Path) -> dict[str, Any]:
    """Order a class-balanced epoch."""
    rows = pl.scan_parquet(path).select(pl.len()).collect().item()
    # Made by numpy, which gives memory back at once: what the sampler takes is then seen.
    targets = np.zeros((rows, len(CLASSES)))
    targets[np.arange(rows), rng(0, "split", 98).choice(len(CLASSES), size=rows, p=SHARES / SHARES.sum())] = 1
    watch = Watch()
    # The peak so far is forgotten.
    Path("/proc/self/clear_refs").write_text("5")
    before = own_size()
    with watch.part("make the sampler"):
        sampler = Balanced(targets=targets, seed=0)
    with watch.part("order of an epoch, in batches of 4,096"):
        # What is kept of an epoch is a batch at a time, as training asks for it.
        seen = np.zeros(len(CLASSES), dtype=np.int64)
        for start in range(0, sampler.epoch, 4096):
            rows = sampler.row(np.arange(start, min(start + 4096, sampler.epoch)))
            seen += np.bincount(targets[rows[:64]].argmax(axis=1), minlength=len(CLASSES))
    with watch.part("order of an epoch, at once"):
        rows = sampler.row(np.arange(sampler.epoch))
    peak = own_peak()
    shown = np.bincount(targets[rows].argmax(axis=1), minlength=len(CLASSES)) / len(rows)
    return {"parts": watch.parts, "extra_mebibytes": peak - before, "largest_share": float(shown.max())}


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {"manifest": manifest_parts, "sampler": sampler_parts}


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
    parser.add_argument("--measure", choices=tuple(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--table", type=Path, help="a table that was made before; made anew by default")
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(PARTS[options.measure](options.table)))
        return
    console = Console()
    result: dict[str, Any] = {"rows": options.rows, "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        path = options.table or Path(folder) / "manifest.parquet"
        if options.table is None:
            result["table_mebibytes"] = write(path, options.rows)
        for name in PARTS:
            command = [sys.executable, __file__, "--measure", name, "--table", str(path)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            result[name] = json.loads(done.stdout)
    table = Table(title=f"{options.rows:,} rows, load {result['load']:.1f}")
    for heading in ("part", "seconds", "of the processor"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for name in PARTS:
        for part, times in result[name]["parts"].items():
            table.add_row(part, f"{times['seconds']:.2f}", f"{times['processor']:.2f}")
    console.print(table)
    console.print(f"peak of the manifest's process: {result['manifest']['peak_mebibytes']:,.0f} MiB")
    console.print(f"the sampler's memory beside its targets: {result['sampler']['extra_mebibytes']:,.0f} MiB")
    files.write_json(options.json, result)
    console.print(f"written to {options.json}")


if __name__ == "__main__":
    main()
